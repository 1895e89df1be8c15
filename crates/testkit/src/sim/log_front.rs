//! A client that calls the log in the broker's process, as views do. It sees outcomes with their three values.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_log::topic;
use floe_log::{Append, Log, Writer, sequencer::AppendError};
use floe_log::{Offset, PartitionId, TopicId};
use futures::future::join_all;
use tokio::time::timeout;
use uuid::Uuid;

use super::cluster::{Cluster, Running};
use crate::client::values;
use crate::client::{Fetched, Front, Harness, Place, Sent};
use crate::dice::Dice;

/// Most bytes of one read. The limit is small, so that reads end in the middle of an object.
const READ_BYTES_MAX: usize = 2_000;
/// Most bytes of a batch's records after decompression.
const RECORDS_BYTES_MAX: usize = 1 << 20;

/// A way to the log of one broker.
pub(crate) struct LogFront {
    running: Arc<Running>,
    dice: Dice,
    cuts: bool,
    process: u32,
}

impl LogFront {
    /// A way for this client.
    pub(crate) fn new(cluster: &Cluster, running: Arc<Running>, process: u32) -> LogFront {
        LogFront { running, dice: cluster.dice(), cuts: cluster.plan().cuts && !cluster.healed(), process }
    }

    fn writer(&self) -> Writer {
        Writer { principal: "anonymous".into(), client_id: format!("client-{}", self.process).into() }
    }

    /// How long this client waits for an answer: for ever, or for a time that is sometimes too short.
    fn patience(&self) -> Duration {
        if self.cuts && self.dice.chance(100) {
            self.dice.wait(Duration::from_secs(1))
        } else {
            Duration::MAX
        }
    }
}

fn partition(log: &Log, place: Place) -> Option<PartitionId> {
    if let Some(uuid) = place.incarnation {
        let (_, id) = Uuid::from_u128(uuid).as_u64_pair();
        return Some(PartitionId::new(TopicId(id), place.index));
    }
    let topic = topic::by_name(&log.meta().snapshot(), place.topic).ok()??;
    Some(PartitionId::new(topic.id, place.index))
}

#[async_trait]
impl Front for LogFront {
    fn broker(&self) -> u32 {
        self.running.number
    }

    async fn incarnation(&mut self, topic: &str) -> Option<Option<u128>> {
        let found = topic::by_name(&self.running.log.meta().snapshot(), topic).ok()?;
        Some(found.map(|topic| topic.uuid().as_u128()))
    }

    async fn producer_id(&mut self) -> Option<(i64, i16)> {
        let (log, writer) = (self.running.log.clone(), self.writer());
        self.running.run(async move { log.producer_id(&writer).await.ok() }).await?
    }

    async fn produce(&mut self, sends: Vec<(Place, Bytes)>) -> Vec<Sent> {
        let (log, writer, count) = (self.running.log.clone(), self.writer(), sends.len());
        let work = async move {
            let tickets = sends.into_iter().map(|(place, batch)| {
                let partition = partition(&log, place);
                let request = |id| Append { writer: writer.clone(), batches: vec![(id, batch)] };
                let ticket = partition.map(|id| log.append(request(id)));
                async move {
                    match ticket {
                        Some(ticket) => sent(place, ticket.await.pop()),
                        None => Sent::NotApplied("no such topic".to_owned()),
                    }
                }
            });
            // The log takes in every append before the client awaits the first.
            join_all(tickets.collect::<Vec<_>>()).await
        };
        let answers = timeout(self.patience(), self.running.run(work)).await;
        let lost = || vec![Sent::Unknown("the broker died or the client left".to_owned()); count];
        answers.ok().flatten().unwrap_or_else(lost)
    }

    async fn fetch(&mut self, place: Place, from: i64) -> Option<Fetched> {
        let log = self.running.log.clone();
        self.running.run(async move { fetch(&log, place, from).await }).await?
    }

    async fn latest(&mut self, place: Place) -> Option<i64> {
        let log = self.running.log.clone();
        let latest = async move {
            let partition = partition(&log, place)?;
            Log::bounds(&log.meta().snapshot(), partition).map(|bounds| bounds.high_watermark.0)
        };
        self.running.run(latest).await?
    }

    async fn earliest(&mut self, place: Place) -> Option<i64> {
        let log = self.running.log.clone();
        self.running.run(async move { earliest(&log, place) }).await?
    }
}

fn sent(place: Place, answer: Option<Result<floe_log::sequencer::Appended, AppendError>>) -> Sent {
    match answer.expect("one batch, one answer") {
        Ok(appended) => Sent::Appended(appended.base_offset.0),
        Err(AppendError::OutOfOrderSequence) => Sent::OutOfOrder,
        Err(AppendError::InvalidProducerEpoch) => Sent::Fenced,
        Err(AppendError::Unknown(reason)) => Sent::Unknown(reason),
        Err(AppendError::UnknownPartition) if place.incarnation.is_some() => Sent::Gone,
        Err(
            refused @ (AppendError::Unavailable(_)
            | AppendError::TooManyBatches
            | AppendError::TooManyProducers { .. }
            | AppendError::UnknownPartition),
        ) => Sent::NotApplied(refused.to_string()),
        Err(refused) => Sent::Final(refused.to_string()),
    }
}

/// The first offset that is kept.
pub(crate) fn earliest(log: &Log, place: Place) -> Option<i64> {
    let partition = partition(log, place)?;
    Log::bounds(&log.meta().snapshot(), partition).map(|bounds| bounds.log_start.0)
}

/// Reads once, waiting a moment at the end of the log.
pub(crate) async fn fetch(log: &Log, place: Place, from: i64) -> Option<Fetched> {
    let partition = partition(log, place)?;
    let _ = timeout(Duration::from_millis(500), log.wait(&[(partition, Offset(from))])).await;
    let read = log.read(&log.pin(), partition, Offset(from), READ_BYTES_MAX).await.ok()?;
    let mut records = Vec::new();
    for batch in &read.batches {
        let seen = values::seen(batch, RECORDS_BYTES_MAX).ok()?;
        records.extend(seen.into_iter().filter(|(offset, _)| *offset >= from));
    }
    let next = read.batches.last().map_or(from, |batch| batch.next_offset().0);
    let (high_watermark, log_start) = (read.high_watermark.0, read.log_start.0);
    Some(Fetched { records, next, high_watermark, log_start })
}
