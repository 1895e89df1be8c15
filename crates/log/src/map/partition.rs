//! The head of a partition: next offset, log start, size.

use floe_meta::{DecodeError, Lookup, postcard_record};
use serde::{Deserialize, Serialize};

use crate::map::ids::{Offset, PartitionId};

/// The head of a partition. It exists from the creation of the topic to its deletion; a partition without a head
/// does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The offset that the next record gets, and the high watermark, because only durable batches are sequenced.
    /// Never goes back.
    pub next: Offset,
    /// The first offset that may be read. Never goes back.
    pub log_start: Offset,
    /// The largest timestamp of a record that was ever appended, in milliseconds since the epoch; -1 for none.
    pub max_timestamp: i64,
    /// Bytes of the live extents.
    pub bytes: u64,
}

postcard_record!(Head, 12, 1, PartitionId);

/// The head of a partition of removed records, which nobody reads (`removed.rs`, kind 29).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartHead(pub Head);

postcard_record!(PartHead, 29, 1, PartitionId);

/// What may be read of a partition: offsets from `log_start` up to, not including, `high_watermark`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that may be read.
    pub log_start: Offset,
    /// The offset after the last that may be read.
    pub high_watermark: Offset,
}

impl Default for Head {
    fn default() -> Head {
        Head { next: Offset::ZERO, log_start: Offset::ZERO, max_timestamp: -1, bytes: 0 }
    }
}

impl Head {
    /// The readable range of offsets.
    pub fn bounds(&self) -> Bounds {
        assert!(self.log_start <= self.next, "the log start never passes the next offset");
        Bounds { log_start: self.log_start, high_watermark: self.next }
    }
}

/// The head of a partition; `None` if the partition does not exist.
///
/// # Errors
/// The record cannot be read.
pub fn head(map: &impl Lookup, partition: PartitionId) -> Result<Option<Head>, DecodeError> {
    map.get::<Head>(&partition)
}
