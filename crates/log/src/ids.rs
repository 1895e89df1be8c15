//! The small identifiers of the log: topic, partition, offset, object, writer.
