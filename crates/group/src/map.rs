//! The records in the metadata map: committed offsets, and the generation of their last commit.
//!
//! ```text
//! key 30 Group        group id                               -> protocol type, generation, since when it is empty
//! key 31 GroupOffset  group id | topic id | partition index  -> offset, leader epoch, metadata, time
//! ```
//! Offsets belong to the topic's id, not to its name: a topic that is deleted and created again has none. The sweep
//! deletes those of deleted topics, and expired ones (`sweep.rs`). Three counters say how much there is (`stored.rs`).

use floe_log::{PartitionId, TopicId};
use floe_meta::key::{self, Key, KeyReader};
use floe_meta::{DecodeError, MapRecord, Snapshot, postcard_record};
use floe_meta::{put_postcard, take_postcard};
use serde::{Deserialize, Serialize};

/// A group that committed offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupRecord {
    /// `consumer`, …; empty if only clients without membership committed.
    pub protocol_type: String,
    /// The newest generation that committed. A coordinator continues from it after a restart; commits of older
    /// generations are fenced.
    pub generation: i32,
    /// Since when it has no members, in milliseconds since the epoch; `None` if it has some, or if nobody has looked
    /// since the broker started.
    pub empty_since: Option<i64>,
}

impl MapRecord for GroupRecord {
    const KIND: u8 = 30;
    const VERSION: u8 = 2;
    type Key = String;
    fn encode(&self, out: &mut Vec<u8>) {
        put_postcard(&(&self.protocol_type, self.generation, self.empty_since), out);
    }
    fn decode(version: u8, body: &[u8]) -> Result<GroupRecord, DecodeError> {
        let (protocol_type, generation, empty_since) = match version {
            1 => {
                let (protocol_type, generation) = take_postcard(body)?;
                (protocol_type, generation, None)
            }
            _ => take_postcard(body)?,
        };
        Ok(GroupRecord { protocol_type, generation, empty_since })
    }
}

/// The committed offset of a group for one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRecord {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch that the client gave, -1 for none.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: String,
    /// When it was committed, in milliseconds since the epoch.
    pub committed: i64,
}
postcard_record!(OffsetRecord, 31, 1, OffsetKey);

/// The key of an [`OffsetRecord`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetKey {
    /// The group's name.
    pub group: String,
    /// The partition.
    pub partition: PartitionId,
}

impl Key for OffsetKey {
    fn encode(&self, out: &mut Vec<u8>) {
        key::put_str(out, &self.group);
        key::put_u64(out, self.partition.topic.0);
        key::put_u32(out, self.partition.index);
    }

    fn decode(bytes: &[u8]) -> Result<OffsetKey, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let group = reader.string()?;
        let topic = TopicId(reader.u64()?);
        let index = reader.u32()?;
        reader.finish()?;
        Ok(OffsetKey { group, partition: PartitionId { topic, index } })
    }
}

impl OffsetKey {
    /// All keys of one group.
    pub fn of_group(group: &str) -> std::ops::RangeInclusive<OffsetKey> {
        let key = |topic, index| OffsetKey {
            group: group.to_owned(),
            partition: PartitionId { topic: TopicId(topic), index },
        };
        key(0, 0)..=key(u64::MAX, u32::MAX)
    }
}

/// The committed offset of one partition.
///
/// # Errors
/// The map cannot be read.
pub fn committed_offset(
    snapshot: &Snapshot,
    group: &str,
    partition: PartitionId,
) -> Result<Option<OffsetRecord>, DecodeError> {
    snapshot.get::<OffsetRecord>(&OffsetKey { group: group.to_owned(), partition })
}

/// All committed offsets of a group, by topic and partition.
///
/// # Errors
/// The map cannot be read.
pub fn committed_offsets(
    snapshot: &Snapshot,
    group: &str,
) -> Result<Vec<(PartitionId, OffsetRecord)>, DecodeError> {
    let entries = snapshot.range::<OffsetRecord>(OffsetKey::of_group(group));
    entries.map(|entry| entry.map(|(key, record)| (key.partition, record))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hex texts are what is on disk: they never change.
    #[test]
    fn golden() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let group =
            |empty_since| GroupRecord { protocol_type: "consumer".into(), generation: 7, empty_since };
        let first = b"\x08consumer\x0e";
        assert_eq!(GroupRecord::decode(1, first), Ok(group(None)));
        for (record, expected) in
            [(group(None), "08636f6e73756d65720e00"), (group(Some(300)), "08636f6e73756d65720e01d804")]
        {
            let mut out = Vec::new();
            record.encode(&mut out);
            assert_eq!(hex(&out), expected);
            assert_eq!(GroupRecord::decode(2, &out), Ok(record));
        }
        let mut out = Vec::new();
        OffsetRecord { offset: 300, leader_epoch: -1, metadata: "m".into(), committed: 1 }.encode(&mut out);
        assert_eq!(hex(&out), "d80401016d02");
        let mut out = Vec::new();
        let key = OffsetKey { group: "g".into(), partition: PartitionId { topic: TopicId(2), index: 3 } };
        key.encode(&mut out);
        assert_eq!(hex(&out), "670001000000000000000200000003");
        assert_eq!(OffsetKey::decode(&out), Ok(key));
    }
}
