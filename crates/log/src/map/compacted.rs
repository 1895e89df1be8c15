//! How far a partition is compacted.
//!
//! Below the offset, each key has one record at most, the last of those below it. Records from there on are dirty.
//! A pass moves the offset when all of its extents are swapped, so a pass that died did nothing that counts: the next
//! one begins at the same offset. The record stays when the topic is compacted no more, because what it says stays
//! true.

use floe_env::Timestamp;
use floe_meta::postcard_record;
use serde::{Deserialize, Serialize};

use crate::map::ids::{Offset, PartitionId};

/// The last pass of compaction over a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    /// The first dirty offset.
    pub next: Offset,
    /// When the pass ended: the time of its last commit.
    pub time: Timestamp,
}

postcard_record!(Compacted, 27, 1, PartitionId);

#[cfg(test)]
mod tests {
    use floe_meta::MapRecord as _;

    use super::*;

    // Users' journals hold these bytes, so they never change.
    #[test]
    fn what_is_compacted_is_as_it_was() {
        let (compacted, mut body) = (Compacted { next: Offset(2), time: Timestamp(300) }, Vec::new());
        compacted.encode(&mut body);
        assert_eq!((Compacted::KIND, Compacted::VERSION, &*body), (27, 1, &[0x04, 0xd8, 0x04][..]));
        assert_eq!(Compacted::decode(1, &body), Ok(compacted));
    }
}
