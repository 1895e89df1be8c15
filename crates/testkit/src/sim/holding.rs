//! The reader that takes its time: it pins a snapshot, and reads it when everything else is over and the cleaners have
//! had their rounds. Retention, deletions and merges go on under it.

use std::sync::Arc;
use std::time::Duration;

use floe_log::{Log, Offset, PartitionId, Pinned, topic};
use tokio::time::sleep;

use super::cluster::{Cluster, Running};
use super::plan::{PARTITIONS, PLAIN_TOPIC};
use crate::client::{Harness, Place, values};
use crate::history::{Event, Seen};

/// How often this client looks whether its broker lives.
const LOOK: Duration = Duration::from_millis(200);
/// Share of these looks, in a thousand, at which it takes another snapshot instead.
const ANOTHER: u64 = 100;
/// Bytes of one read.
const READ_BYTES: usize = 4_000;
/// Bytes of a batch's records.
const RECORDS_BYTES_MAX: usize = 1 << 20;
/// Reads of one partition that the store may leave unanswered.
const FAILURES_MAX: u32 = 20;

/// Holds a snapshot of some broker until the faults have ended, and then for longer than any grace, and reads it.
pub(super) async fn run(cluster: Cluster) {
    let dice = cluster.dice();
    let mut held = hold(&cluster).await;
    while !cluster.healed() {
        sleep(LOOK).await;
        if cluster.is_gone(&held.0) || dice.chance(ANOTHER) {
            held = hold(&cluster).await;
        }
    }
    let times = cluster.plan().log.times;
    sleep(times.trash_grace + 4 * times.cleaner_pause).await;
    let (running, pinned) = held;
    for index in 0..PARTITIONS {
        let place = Place { topic: PLAIN_TOPIC, table: false, index, incarnation: None };
        let (log, pinned) = (running.log.clone(), pinned.clone());
        let read = running.run(async move { read_all(&log, &pinned, place).await }).await;
        // A broker that died took its snapshot with it.
        if let Some(Some(event)) = read {
            cluster.recorder().note(running.number, event);
        }
    }
}

async fn hold(cluster: &Cluster) -> (Arc<Running>, Pinned) {
    let running = cluster.broker().await;
    let pinned = running.log.pin();
    (running, pinned)
}

/// Everything that the snapshot has of a partition; none if it has no such topic.
async fn read_all(log: &Log, pinned: &Pinned, place: Place) -> Option<Event> {
    let topic = topic::by_name(&**pinned, place.topic).ok()??;
    let Whole { from, to, records, error, .. } =
        read_whole(log, pinned, PartitionId::new(topic.id, place.index)).await?;
    Some(Event::Held { partition: place.name(), from, to, records, error })
}

/// What was read of a partition.
pub(super) struct Whole {
    /// The first offset.
    pub(super) from: i64,
    /// The offset after the last.
    pub(super) to: i64,
    pub(super) records: Vec<Seen>,
    /// Why no more were found.
    pub(super) error: Option<String>,
    /// Whether the store answered.
    pub(super) is_answered: bool,
}

/// Reads a whole partition of a snapshot; none if the snapshot does not have it.
pub(super) async fn read_whole(log: &Log, pinned: &Pinned, partition: PartitionId) -> Option<Whole> {
    let bounds = Log::bounds(pinned, partition)?;
    let (from, to) = (bounds.log_start.0, bounds.high_watermark.0);
    let (mut at, mut records, mut failures) = (bounds.log_start, Vec::<Seen>::new(), 0);
    let (mut error, mut is_answered) = (None, true);
    while at < bounds.high_watermark && error.is_none() {
        match log.read(pinned, partition, at, READ_BYTES).await {
            Ok(read) => {
                for batch in &read.batches {
                    let seen = values::seen(batch, RECORDS_BYTES_MAX).expect("clients write whole batches");
                    records.extend(seen.into_iter().filter(|(offset, _)| Offset(*offset) >= at));
                    at = batch.next_offset();
                }
            }
            Err(floe_log::walk::ReadError::Unavailable(_)) if failures < FAILURES_MAX => {
                failures += 1;
                sleep(LOOK).await;
            }
            Err(failure) => {
                is_answered = !matches!(failure, floe_log::walk::ReadError::Unavailable(_));
                error = Some(failure.to_string());
            }
        }
    }
    Some(Whole { from, to, records, error, is_answered })
}
