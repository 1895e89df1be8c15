//! The clients of a compacted topic. One writes values and tombstones under a few keys, ends transactions, and reads
//! the whole partition at one moment now and then. Another one follows the partition from its start to its end, again
//! and again, while it is compacted. Its records are no business of the checkers of other topics, where every record
//! stays.

use std::time::Duration;

use floe_log::batch::Batch;
use floe_log::codec::Compression;
use floe_log::extent::Outcome;
use floe_log::records::Builder;
use floe_log::sequencer::AppendError;
use floe_log::{Append, Below, DeleteError, Log, Offset, PartitionId, Writer, marker, topic};
use floe_meta::{CommitError, Envelope, Tx};
use tokio::time::sleep;

use super::cluster::Cluster;
use super::plan::{COMPACTED_TOPIC, Compacted};
use crate::bug::Bug;
use crate::client::{Harness, values};
use crate::dice::Dice;
use crate::history::{Event, Phase};
use crate::recorder::Begun;
use crate::rows::Keyed;
use crate::rows::marker as marker_key;

/// The process numbers of these clients.
const COMPACTER: u32 = 600;
const FOLLOWER: u32 = 601;
/// Keys that are written.
const KEYS: u64 = 6;
/// Most records of a batch.
const BATCH_MAX: u64 = 5;
/// Longest pauses: between two batches, between two reads of who follows, and before it begins anew.
const PAUSE_MAX: Duration = Duration::from_millis(400);
const STEP_PAUSE_MAX: Duration = Duration::from_millis(300);
const FOLLOW_PAUSE_MAX: Duration = Duration::from_millis(1_500);
/// Shares, in a thousand: of tombstones among the records; of batches after which it reads, ends a transaction, or
/// tries to delete records of a topic that keeps them.
const TOMBSTONES: u64 = 250;
const READS: u64 = 200;
const MARKERS: u64 = 120;
const TRIES: u64 = 50;
/// The first producer of a transaction. Each marker has one of its own.
const PRODUCERS_FROM: i64 = 1 << 41;
/// Bytes of one read, and of one read of who follows.
const READ_BYTES: usize = 2_000;
const STEP_BYTES: usize = 700;
/// Bytes of a batch's records.
const RECORDS_BYTES_MAX: usize = 1 << 20;
/// Failed reads in a row without any fault after which the last read gives up.
const FAILURES_MAX: u32 = 40;
/// Share of batches, in a thousand, that the planted bug leaves out.
const SKIPS: u64 = 200;

/// Writes and reads until the faults have ended.
pub(super) async fn run(cluster: Cluster) {
    let dice = cluster.dice();
    let mut number = 0u64;
    for producer in PRODUCERS_FROM.. {
        if cluster.healed() {
            return;
        }
        sleep(dice.wait(PAUSE_MAX)).await;
        write(&cluster, &dice, &mut number).await;
        if dice.chance(READS) {
            read(&cluster).await;
        }
        if cluster.plan().marks && dice.chance(MARKERS) {
            mark(&cluster, producer, if dice.chance(500) { Outcome::Commit } else { Outcome::Abort }).await;
        }
        if cluster.plan().compacted.is_some_and(|topic| !topic.forgets()) && dice.chance(TRIES) {
            try_to_delete(&cluster).await;
        }
    }
}

/// The read after the faults have ended.
pub(super) async fn read_at_last(cluster: &Cluster) {
    for _ in 0..FAILURES_MAX {
        if read(cluster).await {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
    cluster.recorder().stuck(format!("{COMPACTED_TOPIC} cannot be read"));
}

fn partition(log: &Log) -> Option<PartitionId> {
    let topic = topic::by_name(&log.meta().snapshot(), COMPACTED_TOPIC).ok()??;
    Some(PartitionId::new(topic.id, Compacted::PLACE.index))
}

/// The event of records that are put, or of a marker.
fn put(records: &[(String, Option<String>)], base: Option<i64>) -> Event {
    Event::Put { topic: COMPACTED_TOPIC.to_owned(), records: records.to_vec(), base }
}

/// Appends one batch.
async fn write(cluster: &Cluster, dice: &Dice, number: &mut u64) {
    let mut builder = Builder::new(*dice.pick(&[Compression::None, Compression::Zstd]));
    let mut records = Vec::new();
    for _ in 0..=dice.within(0..BATCH_MAX) {
        *number += 1;
        let key = format!("key {}", dice.within(0..KEYS));
        let value = (!dice.chance(TOMBSTONES)).then(|| format!(r#"{{"v":{number}}}"#));
        builder.push(cluster.env().now().0, Some(key.as_bytes()), value.as_deref().map(str::as_bytes), &[]);
        records.push((key, value));
    }
    let batch = builder.build();
    let running = cluster.broker().await;
    let begun = cluster.recorder().invoke(COMPACTER, running.number, put(&records, None));
    let log = running.log.clone();
    let append = async move {
        let batches = vec![(partition(&log)?, batch)];
        log.append(Append { writer: compacter(), batches }).await.pop()
    };
    let (phase, base) = match running.run(append).await.flatten() {
        Some(Ok(appended)) => (Phase::Ok, Some(appended.base_offset.0)),
        Some(Err(AppendError::Unknown(_))) | None => (Phase::Info, None),
        Some(Err(_)) => (Phase::Fail, None),
    };
    cluster.recorder().end(begun, phase, put(&records, base));
}

fn compacter() -> Writer {
    Writer { principal: "anonymous".into(), client_id: "compacter".into() }
}

/// Ends a transaction that nobody began.
async fn mark(cluster: &Cluster, producer: i64, outcome: Outcome) {
    let running = cluster.broker().await;
    let log = running.log.clone();
    let Some(partition) = partition(&log) else { return };
    let records = [(marker_key(producer, outcome), None)];
    let begun = cluster.recorder().invoke(COMPACTER, running.number, put(&records, None));
    let work = move |tx: &mut Tx<'_>| marker::mark(tx, &[partition], (producer, 0), outcome);
    let commit = async move { log.meta().commit(Envelope::broker("markers"), work).await };
    let (phase, base) = match running.run(commit).await {
        Some(Ok(committed)) => (Phase::Ok, committed.reply.first().map(|base| base.0)),
        Some(Err(CommitError::Refused(_) | CommitError::NotApplied(_))) => (Phase::Fail, None),
        Some(Err(CommitError::Unknown(_) | CommitError::Closed)) | None => (Phase::Info, None),
    };
    cluster.recorder().end(begun, phase, put(&records, base));
}

/// Deletes all records of a topic that is compacted and nothing else, which must be refused.
async fn try_to_delete(cluster: &Cluster) {
    let running = cluster.broker().await;
    let log = running.log.clone();
    let delete = async move {
        let below = [Below { partition: partition(&log)?, offset: None }];
        log.delete_records(&compacter(), &below).await.pop()
    };
    match running.run(delete).await.flatten() {
        Some(Ok(log_start)) => {
            cluster.recorder().stuck(format!("{COMPACTED_TOPIC} lost its records below {log_start}"));
        }
        Some(Err(DeleteError::Policy | DeleteError::Unavailable(_) | DeleteError::Unknown(_))) | None => {}
        Some(Err(error)) => cluster.recorder().stuck(format!("{COMPACTED_TOPIC}: {error}")),
    }
}

/// Reads the whole partition at one moment. Returns whether that worked.
async fn read(cluster: &Cluster) -> bool {
    let running = cluster.broker().await;
    let event = |(log_start, high_watermark, records)| Event::Keys {
        topic: COMPACTED_TOPIC.to_owned(),
        log_start,
        high_watermark,
        records,
    };
    let begun = cluster.recorder().invoke(COMPACTER, running.number, event((0, 0, Vec::new())));
    let log = running.log.clone();
    let found = running.run(async move { read_all(&log).await }).await.flatten();
    let phase = if found.is_some() { Phase::Ok } else { Phase::Info };
    let is_read = found.is_some();
    cluster.recorder().end(begun, phase, event(found.unwrap_or_default()));
    is_read
}

/// The log start, the high watermark, and every record between.
async fn read_all(log: &Log) -> Option<(i64, i64, Vec<Keyed>)> {
    let pinned = log.pin();
    let partition = partition(log)?;
    let bounds = Log::bounds(&pinned, partition)?;
    let (mut next, mut records) = (bounds.log_start, Vec::new());
    while next < bounds.high_watermark {
        let read = log.read(&pinned, partition, next, READ_BYTES).await.ok()?;
        for batch in &read.batches {
            records.extend(keyed(batch, next)?);
        }
        next = read.batches.last().map_or(bounds.high_watermark, |batch| batch.next_offset());
    }
    Some((bounds.log_start.0, bounds.high_watermark.0, records))
}

/// The records of a batch from an offset on, or the marker that it is; none if it cannot be read.
fn keyed(batch: &Batch, from: Offset) -> Option<Vec<Keyed>> {
    let mut found: Vec<Keyed> = if batch.header().is_control() {
        let markers = values::seen(batch, RECORDS_BYTES_MAX).ok()?;
        markers.into_iter().map(|(offset, marker)| (offset, marker, None)).collect()
    } else {
        let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let records = batch.records(RECORDS_BYTES_MAX).ok()?;
        let keyed =
            records.into_iter().map(|r| (r.offset.0, r.key.map(text).unwrap_or_default(), r.value.map(text)));
        keyed.collect()
    };
    found.retain(|(offset, _, _)| *offset >= from.0);
    Some(found)
}

/// What somebody knows who follows the partition.
#[derive(Default)]
struct Follower {
    /// Where it goes on; none at the start.
    next: Option<i64>,
    /// The largest high watermark and log start that it saw.
    high_watermark: i64,
    log_start: i64,
    records: Vec<Keyed>,
}

/// What one read has.
struct Step {
    next: i64,
    log_start: i64,
    high_watermark: i64,
    batches: Vec<Vec<Keyed>>,
}

/// Follows the partition again and again until the faults have ended, and once more.
pub(super) async fn follow(cluster: Cluster) {
    let dice = cluster.dice();
    loop {
        sleep(dice.wait(FOLLOW_PAUSE_MAX)).await;
        let healed = cluster.healed();
        let begun = cluster.recorder().invoke(FOLLOWER, 0, Follower::default().event());
        let is_done = follow_once(&cluster, &dice, begun).await;
        if healed {
            if !is_done {
                cluster.recorder().stuck(format!("nobody can follow {COMPACTED_TOPIC}"));
            }
            return;
        }
    }
}

/// Follows the partition to its end. Returns whether it came there.
async fn follow_once(cluster: &Cluster, dice: &Dice, begun: Begun) -> bool {
    let (mut follower, mut failures) = (Follower::default(), 0);
    while failures < FAILURES_MAX {
        // Each read may be answered by another broker.
        let running = cluster.broker().await;
        let (log, from) = (running.log.clone(), follower.next);
        match running.run(async move { step(&log, from).await }).await.flatten() {
            Some(mut step) => {
                failures = 0;
                if cluster.bug() == Some(Bug::ReaderSkipsBatch) {
                    step.batches.retain(|_| !dice.chance(SKIPS));
                }
                if follower.take(step) {
                    cluster.recorder().end(begun, Phase::Ok, follower.event());
                    return true;
                }
            }
            None => failures += 1,
        }
        sleep(dice.wait(STEP_PAUSE_MAX) + Duration::from_millis(1)).await;
    }
    cluster.recorder().end(begun, Phase::Info, Follower::default().event());
    false
}

/// Reads once. Where records are gone, the partition begins later.
async fn step(log: &Log, from: Option<i64>) -> Option<Step> {
    let pinned = log.pin();
    let partition = partition(log)?;
    let bounds = Log::bounds(&pinned, partition)?;
    let from = Offset(from.unwrap_or(0)).max(bounds.log_start);
    let (log_start, high_watermark) = (bounds.log_start.0, bounds.high_watermark.0);
    if from >= bounds.high_watermark {
        return Some(Step { next: from.0, log_start, high_watermark, batches: Vec::new() });
    }
    let read = log.read(&pinned, partition, from, STEP_BYTES).await.ok()?;
    let batches: Option<Vec<_>> = read.batches.iter().map(|batch| keyed(batch, from)).collect();
    let next = read.batches.last().map_or(bounds.high_watermark, |batch| batch.next_offset());
    Some(Step { next: next.0, log_start, high_watermark, batches: batches? })
}

impl Follower {
    /// Goes on with what a read has. Returns whether that is the end. A broker that lags behind has an earlier one.
    fn take(&mut self, step: Step) -> bool {
        self.log_start = self.log_start.max(step.log_start);
        self.high_watermark = self.high_watermark.max(step.high_watermark);
        self.next = Some(step.next);
        self.records.extend(step.batches.into_iter().flatten());
        step.next >= self.high_watermark
    }

    fn event(self) -> Event {
        let Follower { high_watermark, log_start, records, .. } = self;
        Event::Followed { topic: COMPACTED_TOPIC.to_owned(), log_start, high_watermark, records }
    }
}
