//! OffsetCommit and OffsetFetch: the offsets at which groups go on reading.

use std::collections::BTreeSet;

use floe_group::{NewOffset, OffsetRecord, Speaker};
use floe_log::topic;
use floe_meta::{DecodeError, Snapshot};
use floe_wire::ErrorCode;
use floe_wire::group_offsets::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic, OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use crate::api::answer_room::{AnswerRoom, distinct};
use crate::api::call::Context;
use crate::api::errors;
use crate::directory::{self, TopicRef};

/// From this version on OffsetFetch names several groups.
const GROUPS_FROM: i16 = 8;
/// From this version on OffsetFetch answers with leader epochs.
const EPOCH_FROM: i16 = 5;
/// No committed offset.
const NONE: i64 = -1;

/// Answers OffsetCommit. An offset of an unknown partition is refused alone; the others are one commit.
pub(crate) async fn offset_commit(
    context: &Context<'_>,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = TopicRef::Name(topic.name.as_str().into());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let code = match new_offset(context, &name, partition) {
                Ok(_) if offsets.len() >= floe_group::limits::OFFSETS_PER_COMMIT_MAX => {
                    ErrorCode::InvalidCommitOffsetSize
                }
                Ok(offset) => {
                    offsets.push(offset);
                    ErrorCode::None
                }
                Err(code) => code,
            };
            partitions
                .push(OffsetCommitResponsePartition { partition_index: index, error_code: code.number() });
        }
        topics.push(OffsetCommitResponseTopic { name: topic.name, partitions });
    }
    let speaker =
        Speaker { member_id: &request.member_id, instance_id: request.group_instance_id.as_deref() };
    let generation = request.generation_id_or_member_epoch;
    let envelope = context.envelope("offset commit");
    let committed =
        context.broker.groups.commit(envelope, &request.group_id, speaker, generation, offsets).await;
    if let Err(failure) = committed {
        tracing::debug!(group = request.group_id, member = request.member_id, %failure, "commit refused");
        let code = errors::group_commit(&failure).number();
        let partitions = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions
            .filter(|one| one.error_code == ErrorCode::None.number())
            .for_each(|one| one.error_code = code);
    }
    OffsetCommitResponse { topics, ..OffsetCommitResponse::default() }
}

fn new_offset(
    context: &Context<'_>,
    topic: &TopicRef,
    partition: OffsetCommitRequestPartition,
) -> Result<NewOffset, ErrorCode> {
    let id = context.broker.directory.partition(topic, partition.partition_index)?;
    let metadata = partition.committed_metadata.unwrap_or_default();
    if metadata.len() > floe_group::limits::OFFSET_METADATA_BYTES_MAX {
        return Err(ErrorCode::OffsetMetadataTooLarge);
    }
    Ok(NewOffset {
        partition: id,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata,
    })
}

/// Answers OffsetFetch. A partition without a committed offset is answered with -1 and no error, as in Kafka.
pub(crate) async fn offset_fetch(context: &Context<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let snapshot = context.broker.log.meta().snapshot();
    let version = context.version;
    if version >= GROUPS_FROM {
        let mut first = distinct();
        let mut room = AnswerRoom::new();
        let one = |group: OffsetFetchRequestGroup| {
            if room.spent() {
                let error_code = ErrorCode::CoordinatorLoadInProgress.number();
                return OffsetFetchResponseGroup { group_id: group.group_id, topics: Vec::new(), error_code };
            }
            let found = of_group(context, &snapshot, &group.group_id, group.topics);
            let (topics, error_code) = split(found);
            room.spend(bytes_of(&topics));
            OffsetFetchResponseGroup { group_id: group.group_id, topics, error_code }
        };
        let groups = request.groups.into_iter().filter(|group| first(&group.group_id)).map(one).collect();
        return OffsetFetchResponse { groups, ..OffsetFetchResponse::default() };
    }
    let asked = request.topics.map(|topics| {
        let topic = |topic: floe_wire::group_offsets::OffsetFetchRequestTopic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
        };
        topics.into_iter().map(topic).collect()
    });
    let (topics, error_code) = split(of_group(context, &snapshot, &request.group_id, asked));
    let partition = |one: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: one.partition_index,
        committed_offset: one.committed_offset,
        committed_leader_epoch: if version >= EPOCH_FROM { one.committed_leader_epoch } else { -1 },
        metadata: one.metadata,
        error_code: one.error_code,
    };
    let topic = |topic: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    };
    let topics = topics.into_iter().map(topic).collect();
    OffsetFetchResponse { topics, error_code, ..OffsetFetchResponse::default() }
}

type Topics = Vec<OffsetFetchResponseTopics>;

fn split(found: Result<Topics, DecodeError>) -> (Topics, i16) {
    match found {
        Ok(topics) => (topics, ErrorCode::None.number()),
        Err(error) => (Vec::new(), errors::metadata(&error).number()),
    }
}

fn bytes_of(topics: &Topics) -> usize {
    let partition = |one: &OffsetFetchResponsePartitions| {
        size_of::<OffsetFetchResponsePartitions>() + one.metadata.as_ref().map_or(0, String::len)
    };
    let topic = |topic: &OffsetFetchResponseTopics| {
        topic.name.len() + topic.partitions.iter().map(partition).sum::<usize>()
    };
    topics.iter().map(topic).sum()
}

/// The committed offsets of a group. Each partition is answered once: the client's text beside an offset may be a
/// thousand times as long as the name in the request.
fn of_group(
    context: &Context<'_>,
    snapshot: &Snapshot,
    group: &str,
    asked: Option<Vec<OffsetFetchRequestTopics>>,
) -> Result<Topics, DecodeError> {
    let Some(asked) = asked else { return all_of_group(snapshot, group) };
    let mut topics = Vec::with_capacity(asked.len());
    let mut answered = BTreeSet::new();
    for topic in asked {
        let found = context.broker.directory.topic(&TopicRef::Name(topic.name.as_str().into()));
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let id = found.as_ref().ok().and_then(|topic| directory::partition(topic, index).ok());
            if id.is_some_and(|id| !answered.insert(id)) {
                continue;
            }
            let record =
                id.map(|id| floe_group::committed_offset(snapshot, group, id)).transpose()?.flatten();
            partitions.push(shown(index, record));
        }
        topics.push(OffsetFetchResponseTopics { name: topic.name, partitions });
    }
    Ok(topics)
}

/// All committed offsets of a group. Deleted topics have no name, so their offsets are left out.
fn all_of_group(snapshot: &Snapshot, group: &str) -> Result<Topics, DecodeError> {
    let mut topics: Topics = Vec::new();
    let mut last = None;
    let mut exists = false;
    for (partition, record) in floe_group::committed_offsets(snapshot, group)? {
        if last != Some(partition.topic) {
            last = Some(partition.topic);
            let topic = topic::by_id(snapshot, partition.topic)?;
            exists = topic.is_some();
            if let Some(topic) = topic {
                topics.push(OffsetFetchResponseTopics { name: topic.name, partitions: Vec::new() });
            }
        }
        if exists {
            let index = i32::try_from(partition.index).expect("committed under an i32");
            let topic = topics.last_mut().expect("just pushed");
            topic.partitions.push(shown(index, Some(record)));
        }
    }
    Ok(topics)
}

fn shown(index: i32, record: Option<OffsetRecord>) -> OffsetFetchResponsePartitions {
    let (committed_offset, committed_leader_epoch, metadata) = match record {
        Some(record) => (record.offset, record.leader_epoch, record.metadata),
        None => (NONE, -1, String::new()),
    };
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset,
        committed_leader_epoch,
        metadata: Some(metadata),
        error_code: ErrorCode::None.number(),
    }
}
