//! ListOffsets: the earliest offset, the latest, the one of the greatest timestamp, or the one of a given time.

use std::collections::BTreeSet;

use floe_env::Timestamp;
use floe_log::Log;
use floe_log::PartitionId;
use floe_log::walk::At;
use floe_meta::Snapshot;
use floe_wire::ErrorCode;
use floe_wire::offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};

use crate::api::call::Context;
use crate::api::errors;
use crate::directory::TopicRef;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// There is no tiered storage: all records count as local.
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// No offset, or no timestamp.
const NONE: i64 = -1;
const LEADER_EPOCH: i32 = 0;
/// From this version on an answer carries the leader's epoch.
const EPOCH_FROM: i16 = 4;

/// Answers ListOffsets. The isolation level makes no difference, because there are no transactions.
pub(crate) async fn list_offsets(context: &Context<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let snapshot = context.broker.log.pin();
    let mut seen = BTreeSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = TopicRef::Name(topic.name.as_str().into());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let found = if seen.insert((topic.name.clone(), asked.partition_index)) {
                one(context, &snapshot, &name, asked).await
            } else {
                Err(ErrorCode::InvalidRequest)
            };
            partitions.push(answer(context.version, asked.partition_index, found));
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
}

fn answer(version: i16, index: i32, found: Result<(i64, i64), ErrorCode>) -> ListOffsetsPartitionResponse {
    let mut response =
        ListOffsetsPartitionResponse { partition_index: index, ..ListOffsetsPartitionResponse::default() };
    match found {
        Ok((offset, timestamp)) => {
            response.offset = offset;
            response.timestamp = timestamp;
            if version >= EPOCH_FROM && offset != NONE {
                response.leader_epoch = LEADER_EPOCH;
            }
        }
        Err(code) => response.error_code = code.number(),
    }
    response
}

async fn one(
    context: &Context<'_>,
    snapshot: &Snapshot,
    name: &TopicRef,
    asked: &ListOffsetsPartition,
) -> Result<(i64, i64), ErrorCode> {
    let id = context.broker.directory.partition(name, asked.partition_index)?;
    if asked.current_leader_epoch > LEADER_EPOCH {
        return Err(ErrorCode::UnknownLeaderEpoch);
    }
    let bounds = Log::bounds(snapshot, id).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    match asked.timestamp {
        LATEST => Ok((bounds.high_watermark.0, NONE)),
        EARLIEST | EARLIEST_LOCAL => Ok((bounds.log_start.0, NONE)),
        LATEST_TIERED => Ok((NONE, NONE)),
        MAX_TIMESTAMP => at(context, snapshot, id, At::MaxTimestamp).await,
        time if time >= 0 => at(context, snapshot, id, At::Timestamp(Timestamp(time))).await,
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

async fn at(
    context: &Context<'_>,
    snapshot: &Snapshot,
    id: PartitionId,
    at: At,
) -> Result<(i64, i64), ErrorCode> {
    match context.broker.log.offset_at(snapshot, id, at).await {
        Ok(Some((offset, timestamp))) => Ok((offset.0, timestamp.0)),
        Ok(None) => Ok((NONE, NONE)),
        Err(error) => {
            tracing::warn!(partition = %id, %error, "an offset cannot be found");
            Err(errors::read(&error))
        }
    }
}
