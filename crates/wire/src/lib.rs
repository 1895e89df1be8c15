//! Kafka messages as tables: a bounded, zero-copy codec, and a small client.
