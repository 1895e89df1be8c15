//! The identity of the cluster: one record, written when the cluster is first opened and never changed.

use floe_env::Timestamp;
use floe_meta::{DecodeError, Lookup, Tx, postcard_record};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The alphabet of RFC 4648, section 5, which Kafka uses for its uuids.
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The identity of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The high 64 bits are never zero: topic ids start with them (`topic.rs`), and Kafka reserves the ids that
    /// start with zeros.
    uuid: u128,
    /// When the cluster was first opened.
    pub created: Timestamp,
}

postcard_record!(Cluster, 1, 1, ());

impl Cluster {
    /// A cluster named after 128 random bits.
    pub fn new(random: u128, created: Timestamp) -> Cluster {
        let high = match (random >> 64) as u64 {
            0 => 1,
            // In base64 the first character would be '-', which would make the id look like a command-line flag.
            high if high >> 58 == 62 => high & (u64::MAX >> 6),
            high => high,
        };
        Cluster { uuid: (u128::from(high.max(1)) << 64) | u128::from(random as u64), created }
    }

    /// The identity as 128 bits.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_u128(self.uuid)
    }

    /// The id as Kafka clients see it.
    pub fn id(&self) -> String {
        kafka_uuid(self.uuid())
    }

    /// The high 64 bits, which begin the uuids of this cluster's topics.
    pub(crate) fn uuid_high(&self) -> u64 {
        (self.uuid >> 64) as u64
    }
}

/// The cluster of a map; `None` before its first opening.
///
/// # Errors
/// The record cannot be read.
pub fn get(map: &impl Lookup) -> Result<Option<Cluster>, DecodeError> {
    map.get::<Cluster>(&())
}

/// Command: creates the cluster's identity unless it exists, and returns it.
///
/// # Errors
/// The record cannot be read.
pub fn open(tx: &mut Tx<'_>, random: u128) -> Result<Cluster, DecodeError> {
    if let Some(cluster) = get(tx)? {
        return Ok(cluster);
    }
    let cluster = Cluster::new(random, tx.now());
    tx.put(&(), &cluster);
    Ok(cluster)
}

/// A uuid as Kafka writes it: its 16 bytes in base64 for URLs, without padding; 22 characters.
pub fn kafka_uuid(uuid: Uuid) -> String {
    let mut bits = uuid.as_u128();
    let mut out = [0u8; 22];
    // 22 characters hold 132 bits, so the last one carries 2 bits and 4 zeros.
    out[21] = BASE64URL[(bits as usize & 0b11) << 4];
    bits >>= 2;
    for place in out[..21].iter_mut().rev() {
        *place = BASE64URL[bits as usize & 0b11_1111];
        bits >>= 6;
    }
    String::from_utf8(out.to_vec()).expect("base64 is ascii")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_kafka_writes_them() {
        // From the documentation of org.apache.kafka.common.Uuid: zero, and the id of the metadata topic.
        assert_eq!(kafka_uuid(Uuid::from_u128(0)), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(kafka_uuid(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(kafka_uuid(Uuid::from_u128(u128::MAX)), "_____________________w");
    }

    #[test]
    fn high_bits_are_never_zero_and_ids_never_look_like_flags() {
        for random in [0, 1, u128::MAX, 62 << 122, (62 << 122) | 7, 1 << 64] {
            let cluster = Cluster::new(random, Timestamp(0));
            assert_ne!(cluster.uuid_high(), 0, "{random:x}");
            assert!(!cluster.id().starts_with('-'), "{random:x}");
        }
    }
}
