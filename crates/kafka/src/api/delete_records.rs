//! DeleteRecords: the records of partitions below an offset (KIP-107).

use floe_log::{Below, DeleteError, Offset};
use floe_wire::ErrorCode;
use floe_wire::offsets::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};

use crate::api::call::Context;
use crate::api::errors;
use crate::directory::TopicRef;
use crate::limits;

/// Stands for all records that there are.
const HIGH_WATERMARK: i64 = -1;
/// The low watermark of a partition whose records were not deleted.
const NONE: i64 = -1;

/// Answers DeleteRecords, partition by partition.
pub(crate) async fn delete_records(
    context: &Context<'_>,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut below = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = TopicRef::Name(topic.name.as_str().into());
        let judged = topic.partitions.iter().map(|asked| {
            let asked = match below.len() >= limits::PARTITIONS_CUT_PER_REQUEST_MAX {
                true => Err(ErrorCode::PolicyViolation),
                false => wanted(context, &name, asked),
            };
            asked.map(|one| below.push(one))
        });
        let judged: Vec<Result<(), ErrorCode>> = judged.collect();
        topics.push((topic, judged));
    }
    let mut deleted = context.broker.log.delete_records(&context.writer(), &below).await.into_iter();
    let mut answers = Vec::with_capacity(topics.len());
    for (topic, judged) in topics {
        let mut partitions = Vec::with_capacity(judged.len());
        for (asked, judged) in topic.partitions.iter().zip(judged) {
            let outcome = match judged {
                Ok(()) => told(&topic.name, asked, deleted.next().expect("one answer for each")),
                Err(code) => Err(code),
            };
            partitions.push(answer(asked.partition_index, outcome));
        }
        answers.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    DeleteRecordsResponse { topics: answers, ..DeleteRecordsResponse::default() }
}

fn wanted(
    context: &Context<'_>,
    name: &TopicRef,
    asked: &DeleteRecordsPartition,
) -> Result<Below, ErrorCode> {
    let partition = context.broker.directory.partition(name, asked.partition_index)?;
    let offset = (asked.offset != HIGH_WATERMARK).then_some(Offset(asked.offset));
    Ok(Below { partition, offset })
}

/// The answer of the log in the protocol's words. What clients cannot see is logged.
fn told(
    topic: &str,
    asked: &DeleteRecordsPartition,
    deleted: Result<Offset, DeleteError>,
) -> Result<Offset, ErrorCode> {
    deleted.map_err(|error| {
        if matches!(error, DeleteError::Unavailable(_) | DeleteError::Unknown(_)) {
            tracing::warn!(topic, partition = asked.partition_index, %error, "records were not deleted");
        }
        errors::deletion(&error)
    })
}

fn answer(partition_index: i32, outcome: Result<Offset, ErrorCode>) -> DeleteRecordsPartitionResult {
    let (low_watermark, code) = match outcome {
        Ok(log_start) => (log_start.0, ErrorCode::None),
        Err(code) => (NONE, code),
    };
    DeleteRecordsPartitionResult { partition_index, low_watermark, error_code: code.number() }
}
