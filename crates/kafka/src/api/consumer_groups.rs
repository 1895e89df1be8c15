//! The APIs of consumer groups: messages to commands of [`floe_group`] and back.

use floe_group::{Described, GroupState, Join, Joined, Listed, Protocol, Refusal, Speaker, Stored, Sync};
use floe_meta::{DecodeError, Snapshot};
use floe_wire::ErrorCode;
use floe_wire::groups::{
    Coordinator, DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember, FindCoordinatorRequest,
    FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    JoinGroupResponseMember, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
    ListedGroup, MemberIdentity, MemberResponse, SyncGroupRequest, SyncGroupResponse,
};

use crate::api::answer_room::{AnswerRoom, distinct};
use crate::api::call::{Context, truncated};
use crate::api::errors;
use crate::api::operations;
use crate::limits;

/// Key types of FindCoordinator. Groups are served; transactional ids and share groups (2) are not.
const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;
/// From this version on a request has several keys.
const KEYS_FROM: i16 = 4;
/// KIP-394: from this version on a member must join with an id.
const KNOWN_ID_FROM: i16 = 4;
/// KIP-559: from this version on answers name the protocol type.
const PROTOCOL_TYPE_FROM: i16 = 7;
/// KIP-559: from this version on SyncGroup names the protocol, so that a member of another one is found out.
const PROTOCOL_NAMES_FROM: i16 = 5;
/// KIP-814: from this version on a leader may be told not to assign.
const SKIP_FROM: i16 = 9;
/// KIP-345: from this version on a request names several members.
const LEAVE_MANY_FROM: i16 = 3;
/// KIP-1043: from this version on an unknown group is an error.
const NOT_FOUND_FROM: i16 = 6;
/// The group type in ListGroups (KIP-848 has others).
const CLASSIC: &str = "classic";

/// Answers FindCoordinator. A transactional id gets `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`, on which all clients give
/// up at once (see `producer_id.rs`). On `COORDINATOR_NOT_AVAILABLE` they would ask again for ever.
pub(crate) async fn find_coordinator(
    context: &Context<'_>,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let config = &context.broker.config;
    let one = |key: String| {
        if request.key_type != KEY_GROUP {
            let code = match request.key_type {
                KEY_TRANSACTION => ErrorCode::TransactionalIdAuthorizationFailed,
                _ => ErrorCode::InvalidRequest,
            };
            return Coordinator {
                key,
                node_id: -1,
                host: String::new(),
                port: -1,
                error_code: code.number(),
                error_message: Some(
                    "this broker coordinates consumer groups only, no transactions".to_owned(),
                ),
            };
        }
        Coordinator {
            key,
            node_id: config.node_id,
            host: config.advertised_host.clone(),
            port: i32::from(config.advertised_port),
            error_code: ErrorCode::None.number(),
            error_message: None,
        }
    };
    if context.version >= KEYS_FROM {
        let mut first = distinct();
        let keys = request.coordinator_keys.into_iter().filter(|key| first(key));
        let coordinators = keys.map(one).collect();
        return FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() };
    }
    let found = one(request.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

fn check_name(group: &str) -> Result<(), Refusal> {
    let fits = (1..=floe_group::limits::GROUP_NAME_BYTES_MAX).contains(&group.len());
    if fits { Ok(()) } else { Err(Refusal::InvalidGroupId) }
}

/// Answers JoinGroup when the rebalance is over.
pub(crate) async fn join_group(context: &Context<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let asked = request.member_id.clone();
    let group = request.group_id.clone();
    let joined = match check_name(&group) {
        Ok(()) => context.broker.groups.join(&group, join(context, request)).await,
        Err(refusal) => Err(refusal),
    };
    match joined {
        Ok(joined) => {
            tracing::debug!(
                group,
                member = joined.member_id,
                generation = joined.generation,
                "member joined"
            );
            join_response(context.version, joined)
        }
        Err(refusal) => {
            let mut response = JoinGroupResponse {
                error_code: errors::group(&refusal).number(),
                ..JoinGroupResponse::default()
            };
            response.member_id = match refusal {
                Refusal::MemberIdRequired(id) => id,
                refusal => {
                    tracing::debug!(group, member = asked, %refusal, "join refused");
                    asked
                }
            };
            response
        }
    }
}

fn join(context: &Context<'_>, request: JoinGroupRequest) -> Join {
    let random = uuid::Builder::from_random_bytes(context.broker.env.random_u128().to_be_bytes()).into_uuid();
    let named = truncated(request.group_instance_id.as_deref().unwrap_or(context.client_id));
    // Version 0 has one timeout for both.
    let rebalance = request.rebalance_timeout_ms;
    let rebalance_timeout_ms = if rebalance < 0 { request.session_timeout_ms } else { rebalance };
    // A copy: a slice would keep the whole frame alive as long as the member.
    let copied = |offer: floe_wire::groups::JoinGroupRequestProtocol| Protocol {
        name: offer.name,
        metadata: bytes::Bytes::copy_from_slice(&offer.metadata),
    };
    Join {
        member_id: request.member_id,
        fresh_id: format!("{named}-{random}"),
        instance_id: request.group_instance_id,
        client_id: truncated(context.client_id).to_owned(),
        client_host: context.peer.ip.map_or_else(|| "/".to_owned(), |ip| format!("/{ip}")),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type,
        protocols: request.protocols.into_iter().map(copied).collect(),
        require_known_id: context.version >= KNOWN_ID_FROM,
        can_skip_assignment: context.version >= SKIP_FROM,
    }
}

fn join_response(version: i16, joined: Joined) -> JoinGroupResponse {
    let member = |member: floe_group::JoinedMember| JoinGroupResponseMember {
        member_id: member.member_id,
        group_instance_id: member.instance_id,
        metadata: member.metadata,
    };
    JoinGroupResponse {
        generation_id: joined.generation,
        protocol_type: (version >= PROTOCOL_TYPE_FROM).then_some(joined.protocol_type),
        protocol_name: Some(joined.protocol),
        leader: joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id,
        members: joined.members.into_iter().map(member).collect(),
        ..JoinGroupResponse::default()
    }
}

/// Answers SyncGroup when the leader has assigned.
pub(crate) async fn sync_group(context: &Context<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let sync = Sync {
        generation: request.generation_id,
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        assignments: request.assignments.into_iter().map(|one| (one.member_id, one.assignment)).collect(),
    };
    let named = sync.protocol_type.is_some() && sync.protocol.is_some();
    let checked = match context.version >= PROTOCOL_NAMES_FROM && !named {
        true => Err(Refusal::InconsistentProtocol),
        false => check_name(&request.group_id),
    };
    let synced = match checked {
        Ok(()) => context.broker.groups.sync(&request.group_id, sync).await,
        Err(refusal) => Err(refusal),
    };
    match synced {
        Ok(synced) => SyncGroupResponse {
            protocol_type: Some(synced.protocol_type),
            protocol_name: Some(synced.protocol),
            assignment: synced.assignment,
            ..SyncGroupResponse::default()
        },
        Err(refusal) => {
            SyncGroupResponse { error_code: errors::group(&refusal).number(), ..SyncGroupResponse::default() }
        }
    }
}

/// Answers Heartbeat.
pub(crate) async fn heartbeat(context: &Context<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let speaker =
        Speaker { member_id: &request.member_id, instance_id: request.group_instance_id.as_deref() };
    let heard = check_name(&request.group_id);
    let heard = heard
        .and_then(|()| context.broker.groups.heartbeat(&request.group_id, speaker, request.generation_id));
    HeartbeatResponse { error_code: number(heard), ..HeartbeatResponse::default() }
}

fn number(outcome: Result<(), Refusal>) -> i16 {
    outcome.map_or_else(|refusal| errors::group(&refusal).number(), |()| ErrorCode::None.number())
}

/// Answers LeaveGroup, member by member.
pub(crate) async fn leave_group(context: &Context<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let named = check_name(&request.group_id);
    let leave = |member_id: &str, instance_id: Option<&str>| {
        context.broker.groups.leave(&request.group_id, Speaker { member_id, instance_id })
    };
    if context.version < LEAVE_MANY_FROM {
        let left = named.and_then(|()| leave(&request.member_id, None));
        return LeaveGroupResponse { error_code: number(left), ..LeaveGroupResponse::default() };
    }
    if let Err(refusal) = named {
        return LeaveGroupResponse { error_code: number(Err(refusal)), ..LeaveGroupResponse::default() };
    }
    let member = |member: MemberIdentity| {
        let left = leave(&member.member_id, member.group_instance_id.as_deref());
        let reason = member.reason.as_deref().unwrap_or_default();
        tracing::debug!(group = request.group_id, member = member.member_id, reason, "member leaves");
        MemberResponse {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            error_code: number(left),
        }
    };
    let members = request.members.into_iter().map(member).collect();
    LeaveGroupResponse { members, ..LeaveGroupResponse::default() }
}

/// Answers ListGroups.
pub(crate) async fn list_groups(context: &Context<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let listed = match all_groups(context).await {
        Ok(listed) => listed,
        Err(error) => {
            let error_code = errors::metadata(&error).number();
            return ListGroupsResponse { error_code, ..ListGroupsResponse::default() };
        }
    };
    let among = |words: &[String], word: &str| {
        words.is_empty() || words.iter().any(|wanted| wanted.eq_ignore_ascii_case(word))
    };
    if !among(&request.types_filter, CLASSIC) {
        return ListGroupsResponse::default();
    }
    let wanted = listed.into_iter().filter(|group| among(&request.states_filter, group.state.name()));
    let shown = wanted.map(|group| ListedGroup {
        group_id: group.group,
        protocol_type: group.protocol_type,
        group_state: group.state.name().to_owned(),
        group_type: CLASSIC.to_owned(),
    });
    ListGroupsResponse { groups: shown.collect(), ..ListGroupsResponse::default() }
}

/// Lists all groups beside the tasks, because there may be hundreds of thousands. The memory of the list is set aside
/// before.
async fn all_groups(context: &Context<'_>) -> Result<Vec<Listed>, DecodeError> {
    let snapshot = context.broker.log.meta().snapshot();
    let stored = Stored::of(&snapshot)?;
    let bytes = stored.bytes.min(stored.groups.saturating_mul(limits::LISTED_GROUP_BYTES_MAX));
    context.reserve(usize::try_from(bytes).unwrap_or(usize::MAX)).await;
    let groups = context.broker.groups.clone();
    context.broker.env.blocking(move || groups.list(&snapshot)).await
}

/// Answers DescribeGroups: each group once, while the answer has room.
pub(crate) async fn describe_groups(
    context: &Context<'_>,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let snapshot = context.broker.log.meta().snapshot();
    let mut first = distinct();
    let mut room = AnswerRoom::new();
    let operations = operations::answer(request.include_authorized_operations, operations::ON_GROUP);
    let one = |group_id: String| {
        if room.spent() {
            let error_code = ErrorCode::CoordinatorLoadInProgress.number();
            return DescribedGroup { error_code, group_id, ..DescribedGroup::default() };
        }
        let mut shown = describe(context, &snapshot, group_id);
        shown.authorized_operations = operations;
        room.spend(bytes_of(&shown));
        shown
    };
    let groups = request.groups.into_iter().filter(|group| first(group)).map(one).collect();
    DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() }
}

fn describe(context: &Context<'_>, snapshot: &Snapshot, group_id: String) -> DescribedGroup {
    match context.broker.groups.describe(snapshot, &group_id) {
        Ok(Some(group)) => described(group_id, group),
        Ok(None) => {
            let mut missing = DescribedGroup {
                group_id,
                group_state: GroupState::Dead.name().to_owned(),
                ..DescribedGroup::default()
            };
            if context.version >= NOT_FOUND_FROM {
                missing.error_code = ErrorCode::GroupIdNotFound.number();
                missing.error_message = Some(Refusal::NotFound.to_string());
            }
            missing
        }
        Err(error) => DescribedGroup {
            error_code: errors::metadata(&error).number(),
            group_id,
            ..DescribedGroup::default()
        },
    }
}

fn bytes_of(group: &DescribedGroup) -> usize {
    let member = |member: &DescribedGroupMember| {
        let instance = member.group_instance_id.as_ref().map_or(0, String::len);
        let names = member.member_id.len() + instance + member.client_id.len() + member.client_host.len();
        names + member.member_metadata.len() + member.member_assignment.len()
    };
    group.group_id.len() + group.members.iter().map(member).sum::<usize>()
}

fn described(group_id: String, group: Described) -> DescribedGroup {
    // Between generations metadata and assignments mean nothing.
    let stable = group.state == GroupState::Stable;
    let member = |member: floe_group::Member| DescribedGroupMember {
        member_metadata: if stable { member.metadata(&group.protocol) } else { bytes::Bytes::new() },
        member_assignment: if stable { member.assignment } else { bytes::Bytes::new() },
        member_id: member.id,
        group_instance_id: member.instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
    };
    DescribedGroup {
        group_id,
        group_state: group.state.name().to_owned(),
        protocol_type: group.protocol_type,
        protocol_data: if stable { group.protocol.clone() } else { String::new() },
        members: group.members.into_iter().map(member).collect(),
        ..DescribedGroup::default()
    }
}

/// Answers DeleteGroups, group by group.
pub(crate) async fn delete_groups(
    context: &Context<'_>,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let deleted = context.broker.groups.delete(context.envelope("delete group"), &group_id).await;
        let code = deleted.map_or_else(|failure| errors::group_commit(&failure), |()| ErrorCode::None);
        results.push(DeletableGroupResult { group_id, error_code: code.number() });
    }
    DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() }
}
