//! How far a view is behind its topic.

use std::collections::BTreeMap;

use floe_log::{Log, Offset, topic::Topic};
use floe_meta::Snapshot;

/// Records of the topic, as of `snapshot`, that come after the progress. Those that were deleted are no lag.
pub(crate) fn records(snapshot: &Snapshot, topic: &Topic, progress: &BTreeMap<u32, Offset>) -> u64 {
    let behind = |partition| {
        let Some(bounds) = Log::bounds(snapshot, partition) else { return 0 };
        let next = progress.get(&partition.index).copied().unwrap_or(Offset::ZERO).max(bounds.log_start);
        (bounds.high_watermark.0 - next.0).max(0).cast_unsigned()
    };
    topic.partition_ids().map(behind).sum()
}
