//! The operations that a client is told it may do, as bits (KIP-430).
//!
//! There are no rights yet: everybody may do everything that a resource knows. As in Apache Kafka, a client that does
//! not ask gets [`NOT_ASKED`].

/// The answer to a client that did not ask.
pub(crate) const NOT_ASKED: i32 = i32::MIN;

// The numbers of Kafka's AclOperation.
const READ: u8 = 3;
const WRITE: u8 = 4;
const CREATE: u8 = 5;
const DELETE: u8 = 6;
const ALTER: u8 = 7;
const DESCRIBE: u8 = 8;
const CLUSTER_ACTION: u8 = 9;
const DESCRIBE_CONFIGS: u8 = 10;
const ALTER_CONFIGS: u8 = 11;
const IDEMPOTENT_WRITE: u8 = 12;

/// What there is to do with a topic.
pub(crate) const ON_TOPIC: i32 =
    bits(&[READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS]);
/// What there is to do with a group.
pub(crate) const ON_GROUP: i32 = bits(&[READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS]);
/// What there is to do with the cluster.
pub(crate) const ON_CLUSTER: i32 =
    bits(&[CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE]);

/// `all` for a client that asked.
pub(crate) fn answer(asked: bool, all: i32) -> i32 {
    if asked { all } else { NOT_ASKED }
}

const fn bits(operations: &[u8]) -> i32 {
    let (mut all, mut at) = (0, 0);
    while at < operations.len() {
        all |= 1 << operations[at];
        at += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Apache Kafka 4.4.0 without an authorizer answers.
    #[test]
    fn the_bits_are_those_of_kafka() {
        assert_eq!((ON_TOPIC, ON_GROUP, ON_CLUSTER), (0x0df8, 0x0d48, 0x1fa0));
    }
}
