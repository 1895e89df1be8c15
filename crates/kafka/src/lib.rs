//! The Kafka protocol front: connections, one file per API group, classic groups.
