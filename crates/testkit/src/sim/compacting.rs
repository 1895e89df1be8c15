//! The client of a compacted topic: it writes values and tombstones under a few keys, and reads the whole partition now
//! and then. Its records are no business of the checkers of other topics, where every record stays.

use std::time::Duration;

use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_log::sequencer::AppendError;
use floe_log::{Append, Log, Offset, PartitionId, Writer, topic};
use tokio::time::sleep;

use super::cluster::Cluster;
use super::plan::COMPACTED_TOPIC;
use crate::client::Harness;
use crate::dice::Dice;
use crate::history::{Event, Keyed, Phase};

/// The process number of this client.
const COMPACTER: u32 = 600;
/// Keys that it writes.
const KEYS: u64 = 6;
/// Most records of a batch.
const BATCH_MAX: u64 = 5;
/// Longest pause between two batches.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// Shares, in a thousand: of tombstones among the records, and of batches after which it reads.
const TOMBSTONES: u64 = 250;
const READS: u64 = 200;
/// Bytes of one read.
const READ_BYTES: usize = 2_000;
/// Bytes of a batch's records.
const RECORDS_BYTES_MAX: usize = 1 << 20;
/// Failed reads in a row without any fault after which the last read gives up.
const FAILURES_MAX: u32 = 40;

/// Writes and reads until the faults have ended.
pub(super) async fn run(cluster: Cluster) {
    let dice = cluster.dice();
    let mut number = 0u64;
    while !cluster.healed() {
        sleep(dice.wait(PAUSE_MAX)).await;
        write(&cluster, &dice, &mut number).await;
        if dice.chance(READS) {
            read(&cluster).await;
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
    Some(PartitionId::new(topic.id, 0))
}

/// Appends one batch.
async fn write(cluster: &Cluster, dice: &Dice, number: &mut u64) {
    let mut builder = Builder::new(*dice.pick(&[Compression::None, Compression::Zstd]));
    let mut records = Vec::new();
    for _ in 0..=dice.within(0..BATCH_MAX) {
        *number += 1;
        let key = format!("key {}", dice.within(0..KEYS));
        let value = (!dice.chance(TOMBSTONES)).then(|| format!("value {number}"));
        builder.push(cluster.env().now().0, Some(key.as_bytes()), value.as_deref().map(str::as_bytes), &[]);
        records.push((key, value));
    }
    let batch = builder.build();
    let running = cluster.broker().await;
    let event = |base| Event::Put { topic: COMPACTED_TOPIC.to_owned(), records: records.clone(), base };
    let begun = cluster.recorder().invoke(COMPACTER, running.number, event(None));
    let log = running.log.clone();
    let append = async move {
        let writer = Writer { principal: "anonymous".into(), client_id: "compacter".into() };
        let batches = vec![(partition(&log)?, batch)];
        log.append(Append { writer, batches }).await.pop()
    };
    let (phase, base) = match running.run(append).await.flatten() {
        Some(Ok(appended)) => (Phase::Ok, Some(appended.base_offset.0)),
        Some(Err(AppendError::Unknown(_))) | None => (Phase::Info, None),
        Some(Err(_)) => (Phase::Fail, None),
    };
    cluster.recorder().end(begun, phase, event(base));
}

/// Reads the whole partition. Returns whether that worked.
async fn read(cluster: &Cluster) -> bool {
    let running = cluster.broker().await;
    let event =
        |high_watermark, records| Event::Keys { topic: COMPACTED_TOPIC.to_owned(), high_watermark, records };
    let begun = cluster.recorder().invoke(COMPACTER, running.number, event(0, Vec::new()));
    let log = running.log.clone();
    let found = running.run(async move { read_all(&log).await }).await.flatten();
    let phase = if found.is_some() { Phase::Ok } else { Phase::Info };
    let is_read = found.is_some();
    let (high_watermark, records) = found.unwrap_or_default();
    cluster.recorder().end(begun, phase, event(high_watermark, records));
    is_read
}

async fn read_all(log: &Log) -> Option<(i64, Vec<Keyed>)> {
    let pinned = log.pin();
    let partition = partition(log)?;
    let bounds = Log::bounds(&pinned, partition)?;
    let (mut next, mut records) = (bounds.log_start, Vec::new());
    while next < bounds.high_watermark {
        let read = log.read(&pinned, partition, next, READ_BYTES).await.ok()?;
        for batch in &read.batches {
            let found = batch.records(RECORDS_BYTES_MAX).ok()?;
            let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
            records.extend(found.into_iter().filter(|record| record.offset >= next).map(|record| {
                (record.offset.0, record.key.map(text).unwrap_or_default(), record.value.map(text))
            }));
        }
        next = read.batches.last().map_or(Offset(i64::MAX), |batch| batch.next_offset());
    }
    Some((bounds.high_watermark.0, records))
}
