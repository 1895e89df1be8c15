//! Consumer groups of the classic protocol: coordinator, membership, listing.

use bytes::Bytes;

use crate::table::messages;

messages! {
    /// Asks which broker coordinates a group or a transactional id.
    struct FindCoordinatorRequest, versions "0-6", flexible "3+" {
        key: String, "0-3";
        key_type: i8, "1+";
        coordinator_keys: Vec<String>, "4+";
    }

    /// The coordinators that a [`FindCoordinatorRequest`] asked for.
    struct FindCoordinatorResponse, versions "0-6", flexible "3+" {
        throttle_time_ms: i32, "1+", ignorable;
        error_code: i16, "0-3";
        error_message: Option<String>, "1-3", ignorable;
        node_id: i32, "0-3";
        host: String, "0-3";
        port: i32, "0-3";
        coordinators: Vec<Coordinator>, "4+";
    }

    /// One entry of `coordinators` of [`FindCoordinatorResponse`].
    struct Coordinator {
        key: String, "4+";
        node_id: i32, "4+";
        host: String, "4+";
        port: i32, "4+";
        error_code: i16, "4+";
        error_message: Option<String>, "4+", ignorable;
    }

    /// Joins a group, or rejoins it for the next generation.
    struct JoinGroupRequest, versions "0-9", flexible "6+" {
        group_id: String, "0+";
        session_timeout_ms: i32, "0+";
        rebalance_timeout_ms: i32 = -1, "1+", ignorable;
        member_id: String, "0+";
        group_instance_id: Option<String>, "5+";
        protocol_type: String, "0+";
        protocols: Vec<JoinGroupRequestProtocol>, "0+";
        reason: Option<String>, "8+", ignorable;
    }

    /// One entry of `protocols` of [`JoinGroupRequest`].
    struct JoinGroupRequestProtocol {
        name: String, "0+";
        metadata: Bytes, "0+";
    }

    /// The generation that a member joined; only the leader sees the members.
    struct JoinGroupResponse, versions "0-9", flexible "6+" {
        throttle_time_ms: i32, "2+", ignorable;
        error_code: i16, "0+";
        generation_id: i32 = -1, "0+";
        protocol_type: Option<String>, "7+", ignorable;
        protocol_name: Option<String> = Some(String::new()), "0+", nullable "7+";
        leader: String, "0+";
        skip_assignment: bool, "9+";
        member_id: String, "0+";
        members: Vec<JoinGroupResponseMember>, "0+";
    }

    /// One entry of `members` of [`JoinGroupResponse`].
    struct JoinGroupResponseMember {
        member_id: String, "0+";
        group_instance_id: Option<String>, "5+", ignorable;
        metadata: Bytes, "0+";
    }

    /// Asks for the member's assignment. The leader also brings the assignments of all members.
    struct SyncGroupRequest, versions "0-5", flexible "4+" {
        group_id: String, "0+";
        generation_id: i32, "0+";
        member_id: String, "0+";
        group_instance_id: Option<String>, "3+";
        protocol_type: Option<String>, "5+", ignorable;
        protocol_name: Option<String>, "5+", ignorable;
        assignments: Vec<SyncGroupRequestAssignment>, "0+";
    }

    /// One entry of `assignments` of [`SyncGroupRequest`].
    struct SyncGroupRequestAssignment {
        member_id: String, "0+";
        assignment: Bytes, "0+";
    }

    /// The assignment of one member.
    struct SyncGroupResponse, versions "0-5", flexible "4+" {
        throttle_time_ms: i32, "1+", ignorable;
        error_code: i16, "0+";
        protocol_type: Option<String>, "5+", ignorable;
        protocol_name: Option<String>, "5+", ignorable;
        assignment: Bytes, "0+";
    }

    /// Keeps a member's session alive.
    struct HeartbeatRequest, versions "0-4", flexible "4+" {
        group_id: String, "0+";
        generation_id: i32, "0+";
        member_id: String, "0+";
        group_instance_id: Option<String>, "3+";
    }

    /// Whether the member's generation is still current.
    struct HeartbeatResponse, versions "0-4", flexible "4+" {
        throttle_time_ms: i32, "1+", ignorable;
        error_code: i16, "0+";
    }

    /// Removes members from a group.
    struct LeaveGroupRequest, versions "0-5", flexible "4+" {
        group_id: String, "0+";
        member_id: String, "0-2";
        members: Vec<MemberIdentity>, "3+";
    }

    /// One entry of `members` of [`LeaveGroupRequest`].
    struct MemberIdentity {
        member_id: String, "3+";
        group_instance_id: Option<String>, "3+";
        reason: Option<String>, "5+", ignorable;
    }

    /// The result of each member that a [`LeaveGroupRequest`] named.
    struct LeaveGroupResponse, versions "0-5", flexible "4+" {
        throttle_time_ms: i32, "1+", ignorable;
        error_code: i16, "0+";
        members: Vec<MemberResponse>, "3+";
    }

    /// One entry of `members` of [`LeaveGroupResponse`].
    struct MemberResponse {
        member_id: String, "3+";
        group_instance_id: Option<String>, "3+";
        error_code: i16, "3+";
    }

    /// Asks for the groups that the broker coordinates.
    struct ListGroupsRequest, versions "0-5", flexible "3+" {
        states_filter: Vec<String>, "4+";
        types_filter: Vec<String>, "5+";
    }

    /// The groups that the broker coordinates.
    struct ListGroupsResponse, versions "0-5", flexible "3+" {
        throttle_time_ms: i32, "1+", ignorable;
        error_code: i16, "0+";
        groups: Vec<ListedGroup>, "0+";
    }

    /// One entry of `groups` of [`ListGroupsResponse`].
    struct ListedGroup {
        group_id: String, "0+";
        protocol_type: String, "0+";
        group_state: String, "4+", ignorable;
        group_type: String, "5+", ignorable;
    }

    /// Asks for state and members of groups.
    struct DescribeGroupsRequest, versions "0-6", flexible "5+" {
        groups: Vec<String>, "0+";
        include_authorized_operations: bool, "3+";
    }

    /// State and members of groups.
    struct DescribeGroupsResponse, versions "0-6", flexible "5+" {
        throttle_time_ms: i32, "1+", ignorable;
        groups: Vec<DescribedGroup>, "0+";
    }

    /// One entry of `groups` of [`DescribeGroupsResponse`].
    struct DescribedGroup {
        error_code: i16, "0+";
        error_message: Option<String>, "6+";
        group_id: String, "0+";
        group_state: String, "0+";
        protocol_type: String, "0+";
        protocol_data: String, "0+";
        members: Vec<DescribedGroupMember>, "0+";
        authorized_operations: i32 = i32::MIN, "3+";
    }

    /// One entry of `members` of [`DescribedGroup`].
    struct DescribedGroupMember {
        member_id: String, "0+";
        group_instance_id: Option<String>, "4+", ignorable;
        client_id: String, "0+";
        client_host: String, "0+";
        member_metadata: Bytes, "0+";
        member_assignment: Bytes, "0+";
    }

    /// Deletes groups that have no members.
    struct DeleteGroupsRequest, versions "0-2", flexible "2+" {
        groups_names: Vec<String>, "0+";
    }

    /// The result of each group that a [`DeleteGroupsRequest`] named.
    struct DeleteGroupsResponse, versions "0-2", flexible "2+" {
        throttle_time_ms: i32, "0+";
        results: Vec<DeletableGroupResult>, "0+";
    }

    /// One entry of `results` of [`DeleteGroupsResponse`].
    struct DeletableGroupResult {
        group_id: String, "0+";
        error_code: i16, "0+";
    }
}
