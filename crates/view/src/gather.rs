//! How much of a topic's log has gathered behind a view. The extents in the metadata map tell, nothing is read.

use std::collections::BTreeMap;

use floe_log::{Log, Offset, topic::Topic, walk};
use floe_meta::{DecodeError, Snapshot};

/// Bytes of the log that a view has not read, counted as they come: each extent is counted once.
pub(crate) struct Gathered {
    /// By partition, up to where it is counted.
    counted: BTreeMap<u32, Offset>,
    bytes: u64,
}

impl Gathered {
    /// Nothing is counted of what comes after `progress`.
    pub(crate) fn since(progress: BTreeMap<u32, Offset>) -> Gathered {
        Gathered { counted: progress, bytes: 0 }
    }

    /// Whether the extents of `snapshot` hold `enough` bytes, as stored. The first extent of a partition counts whole,
    /// even if it begins before the progress; SQL counts its tail the same way. Counting stops at `enough`.
    ///
    /// # Errors
    /// A record of the map cannot be read.
    pub(crate) fn reaches(
        &mut self,
        enough: u64,
        snapshot: &Snapshot,
        topic: &Topic,
    ) -> Result<bool, DecodeError> {
        for partition in topic.partition_ids() {
            let Some(bounds) = Log::bounds(snapshot, partition) else { continue };
            let counted = self.counted.entry(partition.index).or_insert(Offset::ZERO);
            let from = (*counted).max(bounds.log_start);
            if from >= bounds.high_watermark {
                continue;
            }
            for extent in walk::extents(snapshot, partition, from)? {
                let (key, extent) = extent?;
                if self.bytes >= enough {
                    return Ok(true);
                }
                self.bytes += extent.bytes;
                *counted = extent.next_offset(key.base);
            }
        }
        Ok(self.bytes >= enough)
    }
}
