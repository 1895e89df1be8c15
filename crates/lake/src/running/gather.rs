//! How much of a topic's log has gathered behind its table: told by the extents of the map, without reading.

use std::collections::BTreeMap;

use floe_log::{Log, Offset, topic::Topic, walk};
use floe_meta::{DecodeError, Snapshot};

/// Bytes of the log that a table does not have yet, counted as they come: each extent is looked at once.
pub(crate) struct Gathered {
    /// By partition, up to where it is counted.
    counted: BTreeMap<u32, Offset>,
    bytes: u64,
}

impl Gathered {
    /// Nothing yet of what comes after `progress`.
    pub(crate) fn since(progress: BTreeMap<u32, Offset>) -> Gathered {
        Gathered { counted: progress, bytes: 0 }
    }

    /// Whether there are `enough` bytes, as stored, in the extents that `snapshot` has; the first of a partition may
    /// begin before the progress. SQL counts its tail so, too. Nothing is counted beyond that.
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
