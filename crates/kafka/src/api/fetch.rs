//! Fetch: plan the partitions, read, wait while there is too little, answer.

use std::collections::BTreeMap;

use floe_env::lock;
use floe_log::Log;
use floe_log::batch::Batch;
use floe_log::walk::{Read, ReadError};
use floe_log::{Offset, PartitionId};
use floe_meta::Snapshot;
use floe_wire::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use floe_wire::{ErrorCode, Rope};
use futures::future::join_all;
use tokio::time::{Duration, Instant};

use crate::api::call::Context;
use crate::api::errors;
use crate::budget::Held;
use crate::limits;

use crate::directory::{PartitionRef, TopicRef};
use crate::fetch::session::{Ask, Plan, Told, Want};

/// From this version on topics are named by id.
const BY_ID_FROM: i16 = 13;
/// The epoch of every leader. Leadership does not move here.
const LEADER_EPOCH: i32 = 0;
/// Delay of the answer when the store is unavailable. Clients ask again at once.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(200);

/// One partition of a fetch under way.
struct Part {
    key: PartitionRef,
    want: Want,
    target: Result<PartitionId, ErrorCode>,
    data: PartitionData,
    bytes: usize,
}

/// Answers a fetch.
pub(crate) async fn fetch(context: &Context<'_>, request: FetchRequest) -> FetchResponse {
    let deadline = context.broker.env.monotonic() + wait(request.max_wait_ms);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    // A client that asks for no bytes still gets a first batch, as from Kafka. Otherwise it would never get on.
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
    let bytes_max = bytes_max.min(context.broker.config.fetch_bytes_max).max(1);
    let env = &context.broker.env;
    let plan = context.broker.sessions.plan(env.now(), ask(context.version, &request), env.random_u64());
    // The fetch may wait, and the request may be large.
    drop(request);
    let mut plan = match plan {
        Ok(plan) => plan,
        Err(refusal) => {
            let error_code = refusal.code().number();
            return FetchResponse { error_code, ..FetchResponse::default() };
        }
    };
    let wants = match &mut plan {
        Plan::Full { wants, .. } | Plan::Incremental { wants, .. } => std::mem::take(wants),
    };
    let mut parts: Vec<Part> = wants.into_iter().map(|(key, want)| part(context, key, want)).collect();
    let held = serve(context, &mut parts, bytes_min.min(bytes_max), bytes_max, deadline).await;
    context.hold(held);
    let sent: usize = parts.iter().map(|part| part.bytes).sum();
    metrics::counter!("floe_kafka_fetched_bytes_total").increment(sent as u64);
    respond(&plan, parts)
}

fn wait(max_wait_ms: i32) -> Duration {
    let asked = Duration::from_millis(u64::try_from(max_wait_ms).unwrap_or(0));
    asked.min(limits::FETCH_WAIT_MAX)
}

fn ask(version: i16, request: &FetchRequest) -> Ask {
    let by_id = version >= BY_ID_FROM;
    let name = |name: &str, id: uuid::Uuid| {
        if by_id { TopicRef::Id(id.as_u128()) } else { TopicRef::Name(name.into()) }
    };
    // If a partition is named twice, the last one counts, as in Kafka.
    let mut wants: Vec<(PartitionRef, Want)> = Vec::new();
    let mut positions: BTreeMap<PartitionRef, usize> = BTreeMap::new();
    for topic in &request.topics {
        let topic_name = name(&topic.topic, topic.topic_id);
        for partition in &topic.partitions {
            let key = PartitionRef { topic: topic_name.clone(), partition: partition.partition };
            let want = Want {
                offset: partition.fetch_offset,
                bytes_max: partition.partition_max_bytes,
                leader_epoch: partition.current_leader_epoch,
            };
            match positions.get(&key) {
                Some(&position) => wants[position].1 = want,
                None => {
                    positions.insert(key.clone(), wants.len());
                    wants.push((key, want));
                }
            }
        }
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let topic_name = name(&topic.topic, topic.topic_id);
        let key = |partition: &i32| PartitionRef { topic: topic_name.clone(), partition: *partition };
        forgotten.extend(topic.partitions.iter().map(key));
    }
    Ask { id: request.session_id, epoch: request.session_epoch, by_id, wants, forgotten }
}

fn part(context: &Context<'_>, key: PartitionRef, want: Want) -> Part {
    let target = match context.broker.directory.partition(&key.topic, key.partition) {
        Ok(_) if want.leader_epoch > LEADER_EPOCH => Err(ErrorCode::UnknownLeaderEpoch),
        target => target,
    };
    let data = PartitionData {
        partition_index: key.partition,
        error_code: target.err().unwrap_or(ErrorCode::None).number(),
        high_watermark: -1,
        ..PartitionData::default()
    };
    Part { key, want, target, data, bytes: 0 }
}

impl Part {
    /// The most that may be read of it when `left` bytes remain.
    fn most(&self, left: usize) -> usize {
        usize::try_from(self.want.bytes_max).unwrap_or(0).min(left).max(1)
    }

    /// Where to read: `None` at the end of the partition, or if it was not found.
    fn next_read(&self) -> Option<(PartitionId, Offset)> {
        let at_the_end = self.want.offset >= 0 && self.want.offset == self.data.high_watermark;
        let id = self.target.ok().filter(|_| !at_the_end)?;
        Some((id, Offset(self.want.offset)))
    }

    fn drop_records(&mut self) {
        self.data.records = Some(Rope::default());
        self.bytes = 0;
    }
}

/// Reads until there is enough, something is wrong, or the time is over. Returns the memory of the batches that were
/// read. It holds none while it waits.
async fn serve(
    context: &Context<'_>,
    parts: &mut [Part],
    bytes_min: usize,
    bytes_max: usize,
    deadline: Instant,
) -> Option<Held> {
    let log = &context.broker.log;
    let mut planned_again = 0;
    loop {
        let snapshot = log.pin();
        parts.iter_mut().for_each(|part| forget_read(part, &snapshot));
        let mut held = set_aside(context, parts, bytes_max).await;
        let bytes_max = held.as_ref().map_or(1, Held::bytes);
        let Unread { unavailable, gone } = read_all(context, &snapshot, parts, bytes_max).await;
        drop(snapshot);
        if gone && planned_again < limits::FETCH_PLANS_AGAIN_MAX {
            // Nothing was sent yet, so a newer snapshot may tell where the records are now.
            planned_again += 1;
            parts.iter_mut().for_each(Part::drop_records);
            continue;
        }
        let bytes: usize = parts.iter().map(|part| part.bytes).sum();
        if let Some(held) = &mut held {
            held.shrink(bytes);
        }
        let failed = parts.iter().any(|part| part.data.error_code != ErrorCode::None.number());
        if unavailable && bytes == 0 {
            let pause = context.broker.env.monotonic() + UNAVAILABLE_PAUSE;
            tokio::time::sleep_until(pause.min(deadline)).await;
            return None;
        }
        let over = context.broker.env.monotonic() >= deadline;
        // A full allotment of memory is enough, too.
        if bytes >= bytes_min.min(bytes_max) || failed || over || parts.is_empty() {
            return held.filter(|_| bytes > 0);
        }
        let ends = parts.iter().filter_map(|part| {
            let id = part.target.ok()?;
            Some((id, Offset(part.data.high_watermark)))
        });
        let ends: Vec<(PartitionId, Offset)> = ends.collect();
        // A waiting fetch holds no records. They are read again.
        parts.iter_mut().for_each(Part::drop_records);
        drop(held);
        tokio::select! {
            biased;
            () = log.wait(&ends) => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

/// Sets memory aside for the batches to be read; `None` if there are none.
async fn set_aside(context: &Context<'_>, parts: &[Part], bytes_max: usize) -> Option<Held> {
    let within = |part: &&Part| part.next_read().is_some() && part.want.offset < part.data.high_watermark;
    let wanted =
        parts.iter().filter(within).fold(0usize, |sum, part| sum.saturating_add(part.most(bytes_max)));
    let most = wanted.min(bytes_max);
    if most == 0 {
        return None;
    }
    let answers = &context.broker.answers;
    if most <= limits::ANSWER_BYTES_UNRESERVED
        && let Some(held) = answers.try_take(most)
    {
        return Some(held);
    }
    Some(answers.share(limits::FETCH_BYTES_LEAST, most).await)
}

/// What kept some partitions from being read.
#[derive(Clone, Copy, Default)]
struct Unread {
    /// The store did not answer.
    unavailable: bool,
    /// Records were moved or removed after the snapshot was taken.
    gone: bool,
}

/// Reads all partitions in their order, `bytes_max` at most.
///
/// One batch per request is granted whatever its size, so the first partition in the order always gets on. A partition
/// that got records moves to the end of the order.
async fn read_all(
    context: &Context<'_>,
    snapshot: &Snapshot,
    parts: &mut [Part],
    bytes_max: usize,
) -> Unread {
    let log = &context.broker.log;
    let mut left = bytes_max;
    let mut granted = false;
    let mut unread = Unread::default();
    let mut rest = parts;
    while left > 0 && !rest.is_empty() {
        let (now, later) = rest.split_at_mut(side_by_side(rest, left));
        rest = later;
        let reads = now.iter().filter_map(|part| {
            let (id, from) = part.next_read()?;
            Some(log.read(snapshot, id, from, part.most(left)))
        });
        let results = join_all(reads).await;
        let read = now.iter_mut().filter(|part| part.next_read().is_some());
        for (part, result) in read.zip(results) {
            match result {
                Ok(read) => {
                    let allowance = granted.then(|| part.most(left).min(left));
                    fill(part, read, allowance);
                    granted |= part.bytes > 0;
                    left = left.saturating_sub(part.bytes);
                }
                Err(error) => {
                    unread.unavailable |= matches!(error, ReadError::Unavailable(_));
                    unread.gone |= matches!(error, ReadError::Gone { .. });
                    fail(part, &error);
                }
            }
        }
    }
    unread
}

/// How many of the next partitions are read in parallel: as many as can get all that they want of the bytes left. So
/// together they read no more than one after the other.
fn side_by_side(parts: &[Part], left: usize) -> usize {
    let mut reads = 0;
    let mut planned = 0;
    for (at, part) in parts.iter().enumerate() {
        if part.next_read().is_none() {
            continue;
        }
        let most = part.most(left);
        if reads > 0 && (planned + most > left || reads == limits::FETCH_READS_PARALLEL) {
            return at;
        }
        reads += 1;
        planned += most;
    }
    parts.len()
}

/// Resets a partition to nothing read: only its bounds, if it still exists.
fn forget_read(part: &mut Part, snapshot: &Snapshot) {
    let Ok(id) = part.target else { return };
    part.bytes = 0;
    part.data.records = Some(Rope::default());
    match Log::bounds(snapshot, id) {
        Some(bounds) => {
            part.data.high_watermark = bounds.high_watermark.0;
            part.data.last_stable_offset = bounds.high_watermark.0;
            part.data.log_start_offset = bounds.log_start.0;
        }
        // It was deleted while the fetch waited, or it is damaged. With this high watermark it is read, and the read
        // says what is wrong. Waiting for it would end at once, again and again.
        None => part.data.high_watermark = -1,
    }
}

/// Puts the batches that were read into the answer, as many whole ones as the allowance has room for. Clients pass over
/// offsets without records by themselves; where there is nothing else, an empty batch tells them so.
fn fill(part: &mut Part, read: Read, allowance: Option<usize>) {
    let mut pieces = Vec::with_capacity(2 * read.batches.len());
    part.bytes = 0;
    let empty = |batch: &Batch| batch.header().count == 0;
    let only_empty = read.batches.iter().all(empty);
    for batch in read.batches.into_iter().filter(|batch| only_empty || !empty(batch)) {
        let bytes = batch.bytes.len();
        if allowance.is_some_and(|allowance| part.bytes + bytes > allowance) {
            break;
        }
        part.bytes += bytes;
        let prefix = batch.stamped_prefix();
        pieces.push(bytes::Bytes::copy_from_slice(&prefix));
        pieces.push(batch.bytes.slice(prefix.len()..));
    }
    part.data.error_code = ErrorCode::None.number();
    part.data.high_watermark = read.high_watermark.0;
    part.data.last_stable_offset = read.high_watermark.0;
    part.data.log_start_offset = read.log_start.0;
    part.data.records = Some(Rope(pieces));
}

fn fail(part: &mut Part, error: &ReadError) {
    let code = errors::read(error);
    metrics::counter!("floe_kafka_fetch_errors_total", "error" => code.name()).increment(1);
    if matches!(error, ReadError::Unavailable(_) | ReadError::Gone { .. } | ReadError::Corrupt(_)) {
        tracing::warn!(topic = ?part.key.topic, partition = part.key.partition, %error, "fetch failed");
    }
    part.bytes = 0;
    part.data.error_code = code.number();
    part.data.records = Some(Rope::default());
    if let ReadError::OutOfRange { log_start, high_watermark } = error {
        part.data.high_watermark = high_watermark.0;
        part.data.last_stable_offset = high_watermark.0;
        part.data.log_start_offset = log_start.0;
    }
}

/// The answer: all partitions, or in a running session those with news.
fn respond(plan: &Plan, parts: Vec<Part>) -> FetchResponse {
    let (id, session, full) = match plan {
        Plan::Full { id, session, .. } => (*id, session.as_ref(), true),
        Plan::Incremental { id, session, .. } => (*id, Some(session), false),
    };
    let mut held = session.map(|session| lock(session));
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut last: Option<TopicRef> = None;
    for part in parts {
        let told = Told {
            high_watermark: part.data.high_watermark,
            log_start: part.data.log_start_offset,
            failed: part.data.error_code != ErrorCode::None.number(),
        };
        let news = held.as_mut().is_none_or(|session| session.tell(&part.key, told, part.bytes > 0));
        if !full && !news {
            continue;
        }
        if last.as_ref() != Some(&part.key.topic) {
            let mut topic = FetchableTopicResponse::default();
            match &part.key.topic {
                TopicRef::Name(name) => topic.topic = name.to_string(),
                TopicRef::Id(id) => topic.topic_id = uuid::Uuid::from_u128(*id),
            }
            responses.push(topic);
            last = Some(part.key.topic);
        }
        responses.last_mut().expect("just pushed").partitions.push(part.data);
    }
    FetchResponse { session_id: id, responses, ..FetchResponse::default() }
}

#[cfg(test)]
mod tests {
    use floe_log::TopicId;

    use super::*;

    /// A partition with a high watermark of 10, wanted from `offset` on.
    fn part(offset: i64, bytes_max: i32) -> Part {
        Part {
            key: PartitionRef { topic: TopicRef::Id(1), partition: 0 },
            want: Want { offset, bytes_max, leader_epoch: -1 },
            target: Ok(PartitionId { topic: TopicId(1), index: 0 }),
            data: PartitionData { high_watermark: 10, ..PartitionData::default() },
            bytes: 0,
        }
    }

    #[test]
    fn reads_side_by_side_want_no_more_than_there_is() {
        let check = |parts: &[(i64, i32)], left: usize, together: usize| {
            let parts: Vec<Part> = parts.iter().map(|&(offset, max)| part(offset, max)).collect();
            assert_eq!(side_by_side(&parts, left), together);
        };
        check(&[(0, 50), (0, 50), (0, 1)], 100, 2);
        check(&[(0, 50), (0, 50), (10, 50), (10, 1), (0, 1)], 100, 4);
        check(&[(0, 1_000), (0, 1)], 100, 1);
        check(&[(0, 50), (0, 1_000), (0, 1)], 100, 1);
        check(&[(0, 0), (0, -1), (0, 98), (0, 1)], 100, 3);
        check(&[(10, 50), (10, 50)], 1, 2);
        check(&[(0, 1); 2 * limits::FETCH_READS_PARALLEL], 100, limits::FETCH_READS_PARALLEL);
    }
}
