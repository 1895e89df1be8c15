//! Produce: batches go to the log as soon as their request is read; answers follow in order.

use std::sync::Arc;

use bytes::Bytes;
use floe_log::PartitionId;
use floe_log::sequencer::{AppendError, Appended};
use floe_log::{Append, AppendTicket};
use floe_wire::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use floe_wire::{ApiKey, ErrorCode, Message as _, WireError};
use tokio::time::Instant;

use crate::api::call::{Answer, Call, Context, encode};
use crate::api::errors;
use crate::conn::admission::RequestPermit;
use crate::conn::ending::Ending;
use crate::directory::TopicRef;
use crate::limits;
use crate::shared::Shared;

const API: &str = ApiKey::Produce.name();
/// From this version on topics are named by id.
const BY_ID_FROM: i16 = 13;

/// A produce request that the log has not answered yet.
pub(crate) struct Produced {
    version: i16,
    correlation_id: i32,
    acks: i16,
    arrived: Instant,
    topics: Vec<TopicPart>,
    ticket: AppendTicket,
    /// Dropped when the request is answered.
    _permit: Option<RequestPermit>,
}

struct TopicPart {
    name: String,
    id: uuid::Uuid,
    partitions: Vec<(i32, BatchState)>,
}

/// One partition's batch: refused, or sent to the log.
enum BatchState {
    Refused(ErrorCode, &'static str),
    /// Its result is the ticket's next.
    Sent,
}

/// Decodes a request, which keeps `buffer` bytes in memory, and hands its batches to the log. The log keeps the order
/// of these calls.
pub(crate) fn start(context: &Context<'_>, call: Call, buffer: usize) -> Result<Produced, WireError> {
    let Call { body, correlation_id, arrived, permit, .. } = call;
    let mut body = body.with_budget(limits::PRODUCE_DECODED_BYTES_MAX);
    let request = ProduceRequest::decode(&mut body, context.version)?;
    let refusal = refusal(&request);
    let mut batches = Vec::new();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        topics.push(take_topic(context, topic, refusal, &mut batches));
    }
    let bytes: usize = batches.iter().map(|(_, bytes): &(_, Bytes)| bytes.len()).sum();
    metrics::counter!("floe_kafka_produced_bytes_total").increment(bytes as u64);
    let ticket = context.broker.log.append_of(Append { writer: context.writer(), batches }, buffer);
    Ok(Produced {
        version: context.version,
        correlation_id,
        acks: request.acks,
        arrived,
        topics,
        ticket,
        _permit: permit,
    })
}

/// Why the request as a whole is refused.
fn refusal(request: &ProduceRequest) -> Option<(ErrorCode, &'static str)> {
    if !(-1..=1).contains(&request.acks) {
        return Some((ErrorCode::InvalidRequiredAcks, "acks must be -1 (all), 0 or 1"));
    }
    if request.transactional_id.is_some() {
        return Some((ErrorCode::TransactionalIdAuthorizationFailed, "transactions are not supported"));
    }
    None
}

fn take_topic(
    context: &Context<'_>,
    topic: TopicProduceData,
    refusal: Option<(ErrorCode, &'static str)>,
    batches: &mut Vec<(PartitionId, Bytes)>,
) -> TopicPart {
    let name = if context.version >= BY_ID_FROM {
        TopicRef::Id(topic.topic_id.as_u128())
    } else {
        TopicRef::Name(topic.name.as_str().into())
    };
    let mut partitions = Vec::with_capacity(topic.partition_data.len());
    for partition in topic.partition_data {
        let batch = match (refusal, partition.records) {
            (Some((code, message)), _) => BatchState::Refused(code, message),
            (None, None) => BatchState::Refused(ErrorCode::InvalidRecord, "a partition without a batch"),
            (None, Some(records)) => match context.broker.directory.partition(&name, partition.index) {
                Err(code) => BatchState::Refused(code, "no such topic or partition"),
                Ok(id) => {
                    batches.push((id, records));
                    BatchState::Sent
                }
            },
        };
        partitions.push((partition.index, batch));
    }
    TopicPart { name: topic.name, id: topic.topic_id, partitions }
}

impl Produced {
    /// Waits for the log, then encodes the answer. With `acks=0` there is none, and a failure ends the connection: only
    /// so does the client learn that its records are lost. Kafka does the same.
    pub(crate) async fn finish(self, broker: &Arc<Shared>) -> Result<Answer, Ending> {
        let mut results = self.ticket.await.into_iter();
        let mut failed = None;
        let mut responses = Vec::with_capacity(self.topics.len());
        for topic in self.topics {
            let mut partition_responses = Vec::with_capacity(topic.partitions.len());
            for (index, batch) in topic.partitions {
                let response = match batch {
                    BatchState::Refused(code, message) => refused(index, code, message.to_owned()),
                    BatchState::Sent => {
                        let result = results.next().expect("the log answers every batch");
                        answered(index, result)
                    }
                };
                if response.error_code != ErrorCode::None.number() {
                    failed = Some(ErrorCode::from_number(response.error_code));
                }
                partition_responses.push(response);
            }
            responses.push(TopicProduceResponse {
                name: topic.name,
                topic_id: topic.id,
                partition_responses,
            });
        }
        assert!(results.next().is_none(), "the log answers every batch once");
        let took = broker.env.monotonic().saturating_duration_since(self.arrived);
        metrics::histogram!("floe_kafka_request_seconds", "api" => API).record(took.as_secs_f64());
        if self.acks == 0 {
            return failed.map_or(Ok(Answer::default()), |code| Err(Ending::Unacknowledged(code)));
        }
        let response = ProduceResponse { responses, ..ProduceResponse::default() };
        let segments = encode(ApiKey::Produce, self.version, self.correlation_id, &response)?;
        Ok(Answer { segments, held: None })
    }
}

fn answered(index: i32, result: Result<Appended, AppendError>) -> PartitionProduceResponse {
    match result {
        Ok(appended) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset.0,
            log_append_time_ms: appended.append_time.map_or(-1, |time| time.0),
            log_start_offset: appended.log_start.0,
            ..PartitionProduceResponse::default()
        },
        Err(error) => {
            let code = errors::append(&error);
            metrics::counter!("floe_kafka_produce_errors_total", "error" => code.name()).increment(1);
            refused(index, code, error.to_string())
        }
    }
}

fn refused(index: i32, code: ErrorCode, message: String) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: code.number(),
        base_offset: -1,
        error_message: Some(message),
        ..PartitionProduceResponse::default()
    }
}
