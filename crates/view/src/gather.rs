//! How long records gather behind a view, and how much of a topic's log has gathered. The extents in the metadata map
//! tell, nothing is read.

use std::{collections::BTreeMap, time::Duration};

use floe_log::{Log, Offset, topic::Topic, walk};
use floe_meta::{DecodeError, Snapshot};

use crate::limits;

/// How long records may gather so that they are committed before they are `freshness` old, when a commit takes about
/// `step`. Every commit writes files, so it is as long as possible.
pub(crate) fn time(freshness: Duration, step: Duration) -> Duration {
    let reserve = (step * 2).max(freshness / limits::GATHER_RESERVE);
    freshness - reserve.min(freshness / 2)
}

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
                self.bytes += extent.bytes();
                *counted = extent.next_offset(key.base);
            }
        }
        Ok(self.bytes >= enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_gather_as_long_as_their_freshness_and_the_commit_allow() {
        let check = |freshness: u64, step: u64, expected: u64| {
            let found = time(Duration::from_millis(freshness), Duration::from_millis(step));
            assert_eq!(found, Duration::from_millis(expected), "{freshness} ms, commits of {step} ms");
        };
        check(10_000, 0, 9_000);
        check(10_000, 200, 9_000);
        check(10_000, 2_000, 6_000);
        // At most half of the time is set aside, however slow commits are.
        check(10_000, 60_000, 5_000);
        check(100, 1, 90);
        check(86_400_000, 10_000, 77_760_000);
    }
}
