//! A merge by a test command, until brokers merge by themselves: some adjacent extents of one partition become one
//! extent of a segment, with stamped offsets, and markers become control batches.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use floe_log::extent::{Data, Extent, Spacing};
use floe_log::merged::{MergeError, Merged, Swap, merge};
use floe_log::object::{ObjectKind, object_key};
use floe_log::segment::{Origin, SegmentBuilder};
use floe_log::{Log, ObjectId, Offset, PartitionId, Pinned, leases, topic, walk};
use floe_meta::{DecodeError, Envelope, Tx};
use tokio::time::sleep;

use super::cluster::Cluster;
use super::plan::{PARTITIONS, PLAIN_TOPIC, TABLE_TOPIC};
use crate::bug::Bug;
use crate::client::Harness;

/// Longest pause between two merges.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Extents that one merge replaces.
const EXTENTS: Range<u64> = 2..9;
/// Bytes of one read.
const READ_BYTES: usize = 4_000;

/// Merges until the faults have ended.
pub(super) async fn run(cluster: Cluster) {
    let dice = cluster.dice();
    while !cluster.healed() {
        sleep(dice.wait(PAUSE_MAX)).await;
        let topic = if dice.chance(500) { TABLE_TOPIC } else { PLAIN_TOPIC };
        let index = u32::try_from(dice.within(0..u64::from(PARTITIONS))).expect("a small index");
        let count = usize::try_from(dice.within(EXTENTS)).expect("a few");
        let owner = u128::from(cluster.env().random_u64());
        let bug = cluster.bug();
        let running = cluster.broker().await;
        let log = running.log.clone();
        // A merge that fails, for whatever reason, leaves a leased id behind, and the cleaner its object.
        running.run(async move { one(&log, topic, index, count, owner, bug).await }).await;
    }
}

async fn one(log: &Log, topic: &str, index: u32, count: usize, owner: u128, bug: Option<Bug>) -> Option<()> {
    let snapshot = log.pin();
    let topic = topic::by_name(&*snapshot, topic).ok()??;
    let partition = PartitionId::new(topic.id, index);
    let old = candidates(&snapshot, partition, count)?;
    let from = old.first()?.0;
    let counts = bug == Some(Bug::MergeCountsOffsets);
    let number = log.writer_number();
    let lease = move |tx: &mut Tx<'_>| {
        leases::lease_ids(tx, ObjectKind::Segment, number, owner, 1, Duration::from_secs(60))
    };
    let envelope = || Envelope::broker("merge");
    let object = log.meta().commit(envelope(), lease).await.ok()?.reply;
    let (pieces, size, mut data) = segment(log, &snapshot, partition, object, &old, !counts).await?;
    log.store().put(&object_key(object), pieces).await.ok()?;
    if counts {
        data.spacing = Spacing::Counted;
    }
    let swaps = vec![Swap { partition, old, new: vec![(from, Extent::Data(data))] }];
    let merged = Merged { object, owner, size, swaps };
    let swap = move |tx: &mut Tx<'_>| -> Result<(), MergeError> {
        merge(tx, &merged)?;
        Ok(leases::end_ids(tx, owner, object, ObjectId(object.0 + 1))?)
    };
    log.meta().commit(envelope(), swap).await.ok().map(drop)
}

/// The first extents that lie above the log start. The newest stays as it is.
fn candidates(snapshot: &Pinned, partition: PartitionId, count: usize) -> Option<Vec<(Offset, Extent)>> {
    let start = Log::bounds(snapshot, partition)?.log_start;
    let all: Result<Vec<_>, DecodeError> = walk::extents(&**snapshot, partition, start).ok()?.collect();
    let mut all: Vec<_> = all.ok()?.into_iter().map(|(key, extent)| (key.base, extent)).collect();
    all.pop();
    all.retain(|(base, _)| *base >= start);
    all.truncate(count);
    (all.len() > 1).then_some(all)
}

/// A segment of these offsets. With the bug, one without markers.
async fn segment(
    log: &Log,
    snapshot: &Pinned,
    partition: PartitionId,
    object: ObjectId,
    old: &[(Offset, Extent)],
    markers: bool,
) -> Option<(Vec<Bytes>, u64, Data)> {
    let (mut at, to) = (old.first()?.0, old.last().map(|(base, extent)| extent.next_offset(*base))?);
    let mut builder = SegmentBuilder::new(object);
    builder.begin(partition, at);
    let lsn = old.iter().filter_map(|(_, extent)| extent.data()).map(|data| data.lsn).max()?;
    while at < to {
        let read = log.read(snapshot, partition, at, READ_BYTES).await.ok()?;
        for batch in read.batches.iter().filter(|batch| batch.base_offset < to) {
            if markers || batch.has_records() {
                builder.push(batch, Origin { writer: None, lsn });
            }
            at = batch.next_offset();
        }
    }
    let time = old.iter().filter_map(|(_, extent)| extent.data()).map(|data| data.max_timestamp).max()?;
    let section = builder.end(to, time)?;
    let (pieces, size) = builder.finish();
    Some((pieces, size, section.data))
}
