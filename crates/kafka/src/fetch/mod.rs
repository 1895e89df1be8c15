//! Fetch: plan (sessions), read, wait for more if too little came, answer with what is news.

use floe_log::ids::{Offset, PartitionId};
use floe_log::log::Log;
use floe_log::walk::{Read, ReadError};
use floe_meta::Snapshot;
use floe_wire::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use floe_wire::{ErrorCode, Rope};
use futures::StreamExt as _;
use tokio::time::{Duration, Instant};

use crate::errors;
use crate::limits;
use crate::request::Context;

pub mod session;

use session::{Ask, Key, Plan, Told, TopicRef, Want};

/// From this version on topics are named by id.
const BY_ID_FROM: i16 = 13;
/// The epoch of every leader: leadership does not move here.
const LEADER_EPOCH: i32 = 0;
/// A fetch that fails because the store does is not answered at once: clients would ask again at once.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(200);

/// One partition on its way through a fetch.
struct Part {
    key: Key,
    want: Want,
    target: Result<PartitionId, ErrorCode>,
    data: PartitionData,
    bytes: usize,
}

/// Answers a fetch.
pub(crate) async fn fetch(context: &Context<'_>, request: FetchRequest) -> FetchResponse {
    let deadline = context.broker.env.monotonic() + wait(request.max_wait_ms);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    let bytes_max =
        usize::try_from(request.max_bytes).unwrap_or(0).min(context.broker.config.fetch_bytes_max);
    let plan = {
        let mut sessions = context.broker.sessions.lock().expect("planning does not panic");
        let ask = ask(context.version, &request);
        let plan = sessions.plan(context.broker.env.now(), ask, context.broker.env.random_u64());
        metrics::gauge!("floe_kafka_fetch_sessions").set(sessions.len() as f64);
        plan
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(refusal) => {
            let error_code = errors::session(refusal).number();
            return FetchResponse { error_code, ..FetchResponse::default() };
        }
    };
    let wants = match &plan {
        Plan::Full { wants, .. } | Plan::Incremental { wants, .. } => wants.clone(),
    };
    let mut parts: Vec<Part> = wants.into_iter().map(|(key, want)| part(context, key, want)).collect();
    serve(context, &mut parts, bytes_min.min(bytes_max), bytes_max, deadline).await;
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
    let mut wants = Vec::new();
    for topic in &request.topics {
        let topic_name = name(&topic.topic, topic.topic_id);
        for partition in &topic.partitions {
            let key = Key { topic: topic_name.clone(), partition: partition.partition };
            let want = Want {
                offset: partition.fetch_offset,
                bytes_max: partition.partition_max_bytes,
                leader_epoch: partition.current_leader_epoch,
            };
            wants.push((key, want));
        }
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let topic_name = name(&topic.topic, topic.topic_id);
        let key = |partition: &i32| Key { topic: topic_name.clone(), partition: *partition };
        forgotten.extend(topic.partitions.iter().map(key));
    }
    Ask { id: request.session_id, epoch: request.session_epoch, by_id, wants, forgotten }
}

fn part(context: &Context<'_>, key: Key, want: Want) -> Part {
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

/// Reads until there is enough, something is wrong, or the time is over.
async fn serve(
    context: &Context<'_>,
    parts: &mut [Part],
    bytes_min: usize,
    bytes_max: usize,
    deadline: Instant,
) {
    let log = &context.broker.log;
    loop {
        let unavailable = read_all(context, parts, bytes_max).await;
        let bytes: usize = parts.iter().map(|part| part.bytes).sum();
        let failed = parts.iter().any(|part| part.data.error_code != ErrorCode::None.number());
        if unavailable && bytes == 0 {
            let pause = context.broker.env.monotonic() + UNAVAILABLE_PAUSE;
            tokio::time::sleep_until(pause.min(deadline)).await;
            return;
        }
        let over = context.broker.env.monotonic() >= deadline;
        if bytes >= bytes_min || failed || over || parts.is_empty() {
            return;
        }
        let ends = parts.iter().filter_map(|part| {
            let id = part.target.ok()?;
            Some((id, Offset(part.data.high_watermark)))
        });
        let ends: Vec<(PartitionId, Offset)> = ends.collect();
        tokio::select! {
            biased;
            () = log.wait(&ends) => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

/// Reads all partitions in their order within the budget; true when the store did not answer.
///
/// The first batch is granted once per request, whatever its size: the partition that is first in the order
/// always gets on, and who got something is last the next time.
async fn read_all(context: &Context<'_>, parts: &mut [Part], bytes_max: usize) -> bool {
    let log = &context.broker.log;
    let snapshot = log.meta().snapshot();
    for part in parts.iter_mut() {
        forget_read(part, &snapshot);
    }
    let reads = parts.iter().enumerate().filter_map(|(at, part)| Some((at, part.target.ok()?, part.want)));
    let reads: Vec<(usize, PartitionId, Want)> = reads.collect();
    let snapshot = &snapshot;
    let read = |(at, id, want): (usize, PartitionId, Want)| async move {
        let bytes = usize::try_from(want.bytes_max).unwrap_or(0).min(bytes_max);
        (at, log.read(snapshot, id, Offset(want.offset), bytes).await)
    };
    let mut results = futures::stream::iter(reads).map(read).buffered(limits::FETCH_READS_PARALLEL);
    let mut left = bytes_max;
    let mut granted = false;
    let mut unavailable = false;
    while left > 0
        && let Some((at, result)) = results.next().await
    {
        let part = &mut parts[at];
        match result {
            Ok(read) => {
                let part_max = usize::try_from(part.want.bytes_max).unwrap_or(0).min(left);
                let allowance = if granted { Some(part_max) } else { None };
                fill(part, read, allowance);
                granted |= part.bytes > 0;
                left = left.saturating_sub(part.bytes);
            }
            Err(error) => {
                unavailable |= matches!(error, ReadError::Unavailable(_));
                fail(part, &error);
            }
        }
    }
    unavailable
}

/// The state of a partition of which nothing is read: its bounds, if it still exists.
fn forget_read(part: &mut Part, snapshot: &Snapshot) {
    let Ok(id) = part.target else { return };
    part.bytes = 0;
    part.data.records = Some(Rope::default());
    if let Some(bounds) = Log::bounds(snapshot, id) {
        part.data.high_watermark = bounds.high_watermark.0;
        part.data.last_stable_offset = bounds.high_watermark.0;
        part.data.log_start_offset = bounds.log_start.0;
    }
}

/// Puts what was read into the answer, cut to whole batches within the allowance.
fn fill(part: &mut Part, read: Read, allowance: Option<usize>) {
    let mut pieces = Vec::with_capacity(2 * read.batches.len());
    part.bytes = 0;
    for batch in read.batches {
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
    if matches!(error, ReadError::Unavailable(_) | ReadError::Corrupt(_)) {
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

/// The answer: everything, or in a running session what is news.
fn respond(plan: &Plan, parts: Vec<Part>) -> FetchResponse {
    let (id, session, full) = match plan {
        Plan::Full { id, session, .. } => (*id, session.as_ref(), true),
        Plan::Incremental { id, session, .. } => (*id, Some(session), false),
    };
    let mut held = session.map(|session| session.lock().expect("a session's code does not panic"));
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
