//! Extents: a contiguous run of offsets of one partition inside one object.
//!
//! The extents of a partition do not overlap, and leave no gap from the log start to the next offset. Batches lie
//! back to back inside an extent, so the offset of each follows from those before it. One extent therefore costs
//! the map about 40 bytes, however many batches it holds.

use floe_meta::key::put_i64;
use floe_meta::key::{Key, KeyReader};
use floe_meta::{DecodeError, postcard_record};
use serde::{Deserialize, Serialize};

use crate::map::ids::{ObjectId, Offset, PartitionId, WriterId};

/// The key of an extent: its partition and its first offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentKey {
    /// The partition of the extent's records.
    pub partition: PartitionId,
    /// The offset of the first record.
    pub base: Offset,
}

/// A contiguous run of offsets of one partition inside one object, written by one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The object that holds the batches.
    pub object: ObjectId,
    /// The first byte of the first batch in the object.
    pub position: u64,
    /// Bytes of all batches together.
    pub bytes: u64,
    /// How many offsets the extent covers; at least 1.
    pub offsets: u32,
    /// The largest timestamp in milliseconds since the epoch; -1 for none.
    pub max_timestamp: i64,
    /// The writer of all batches.
    pub writer: WriterId,
}

postcard_record!(Extent, 13, 1, ExtentKey);

impl Extent {
    /// The offset after the last, when the first is `base`.
    pub fn next_offset(&self, base: Offset) -> Offset {
        base.plus(self.offsets)
    }

    /// The byte after the last in the object.
    pub fn end(&self) -> u64 {
        self.position + self.bytes
    }
}

impl ExtentKey {
    /// The extent of `partition` that begins at `base`.
    pub const fn new(partition: PartitionId, base: Offset) -> ExtentKey {
        ExtentKey { partition, base }
    }
}

impl Key for ExtentKey {
    fn encode(&self, out: &mut Vec<u8>) {
        self.partition.put(out);
        put_i64(out, self.base.0);
    }
    fn decode(bytes: &[u8]) -> Result<ExtentKey, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let key = ExtentKey { partition: PartitionId::take(&mut reader)?, base: Offset(reader.i64()?) };
        reader.finish().map(|()| key)
    }
}
