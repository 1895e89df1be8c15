//! The small identifiers of the log: topic, partition, offset, object, writer.
//!
//! Each is a type of its own, so that an offset cannot be passed for an object id. All are `Copy`, sort like their
//! numbers, and print as plain numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use floe_meta::DecodeError;
use floe_meta::key::{Key, KeyReader};
use floe_meta::key::{put_u32, put_u64};

/// A topic, numbered from 1 in the order of creation. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub u64);

/// A partition of a topic. Kafka's partition numbers are `i32` and never negative; here they are `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic of the partition.
    pub topic: TopicId,
    /// The number of the partition within the topic, from 0.
    pub index: u32,
}

/// The position of a record in its partition. The first is 0, and assigned offsets are dense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offset(pub i64);

/// An immutable object in the store. Its number has three parts: its kind (`object.rs`), the writer number of the
/// process that put it ([`crate::writer_number`]), and a count of all objects from 1. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub u64);

/// A writer identity (principal and client id), interned in the metadata map (`identity.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriterId(pub u32);

impl PartitionId {
    /// The partition `index` of `topic`.
    pub const fn new(topic: TopicId, index: u32) -> PartitionId {
        PartitionId { topic, index }
    }
}

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// The offset `count` records further on.
    ///
    /// # Panics
    /// When the result does not fit 63 bits: a partition cannot hold that many records.
    #[must_use]
    pub fn plus(self, count: u32) -> Offset {
        Offset(self.0.checked_add(i64::from(count)).expect("a partition never holds 2^63 records"))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As in the object's key, without zeros in front: the writer number and a count.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Key for TopicId {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.0);
    }
    fn decode(bytes: &[u8]) -> Result<TopicId, DecodeError> {
        u64::decode(bytes).map(TopicId)
    }
}

impl PartitionId {
    /// Appends the key's fields; they also begin longer keys.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        put_u64(out, self.topic.0);
        put_u32(out, self.index);
    }

    pub(crate) fn take(reader: &mut KeyReader<'_>) -> Result<PartitionId, DecodeError> {
        Ok(PartitionId { topic: TopicId(reader.u64()?), index: reader.u32()? })
    }
}

impl Key for PartitionId {
    fn encode(&self, out: &mut Vec<u8>) {
        self.put(out);
    }
    fn decode(bytes: &[u8]) -> Result<PartitionId, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let partition = PartitionId::take(&mut reader)?;
        reader.finish().map(|()| partition)
    }
}

impl Key for ObjectId {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.0);
    }
    fn decode(bytes: &[u8]) -> Result<ObjectId, DecodeError> {
        u64::decode(bytes).map(ObjectId)
    }
}

impl Key for WriterId {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.0);
    }
    fn decode(bytes: &[u8]) -> Result<WriterId, DecodeError> {
        u32::decode(bytes).map(WriterId)
    }
}
