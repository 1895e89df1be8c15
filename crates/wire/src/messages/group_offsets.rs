//! Committed offsets of groups: OffsetCommit and OffsetFetch.

use crate::table::messages;

messages! {
    /// Commits offsets of a group.
    struct OffsetCommitRequest, versions "2-9", flexible "8+" {
        group_id: String, "2+";
        generation_id_or_member_epoch: i32 = -1, "2+", ignorable;
        member_id: String, "2+", ignorable;
        group_instance_id: Option<String>, "7+";
        retention_time_ms: i64 = -1, "2-4", ignorable;
        topics: Vec<OffsetCommitRequestTopic>, "2+";
    }

    /// One entry of `topics` of [`OffsetCommitRequest`].
    struct OffsetCommitRequestTopic {
        name: String, "2+", ignorable;
        partitions: Vec<OffsetCommitRequestPartition>, "2+";
    }

    /// One entry of `partitions` of [`OffsetCommitRequestTopic`].
    struct OffsetCommitRequestPartition {
        partition_index: i32, "2+";
        committed_offset: i64, "2+";
        committed_leader_epoch: i32 = -1, "6+", ignorable;
        committed_metadata: Option<String>, "2+";
    }

    /// The result of each offset of an [`OffsetCommitRequest`].
    struct OffsetCommitResponse, versions "2-9", flexible "8+" {
        throttle_time_ms: i32, "3+", ignorable;
        topics: Vec<OffsetCommitResponseTopic>, "2+";
    }

    /// One entry of `topics` of [`OffsetCommitResponse`].
    struct OffsetCommitResponseTopic {
        name: String, "2+", ignorable;
        partitions: Vec<OffsetCommitResponsePartition>, "2+";
    }

    /// One entry of `partitions` of [`OffsetCommitResponseTopic`].
    struct OffsetCommitResponsePartition {
        partition_index: i32, "2+";
        error_code: i16, "2+";
    }

    /// Asks for the committed offsets of groups; null topics means all topics.
    struct OffsetFetchRequest, versions "1-9", flexible "6+" {
        group_id: String, "1-7";
        topics: Option<Vec<OffsetFetchRequestTopic>>, "1-7", nullable "2-7";
        groups: Vec<OffsetFetchRequestGroup>, "8+";
        require_stable: bool, "7+";
    }

    /// One entry of `topics` of [`OffsetFetchRequest`].
    struct OffsetFetchRequestTopic {
        name: String, "1-7";
        partition_indexes: Vec<i32>, "1-7";
    }

    /// One entry of `groups` of [`OffsetFetchRequest`].
    struct OffsetFetchRequestGroup {
        group_id: String, "8+";
        member_id: Option<String>, "9+", ignorable;
        member_epoch: i32 = -1, "9+", ignorable;
        topics: Option<Vec<OffsetFetchRequestTopics>>, "8+";
    }

    /// One entry of `topics` of [`OffsetFetchRequestGroup`].
    struct OffsetFetchRequestTopics {
        name: String, "8+", ignorable;
        partition_indexes: Vec<i32>, "8+";
    }

    /// The committed offsets of groups; offset -1 means that there is none.
    struct OffsetFetchResponse, versions "1-9", flexible "6+" {
        throttle_time_ms: i32, "3+", ignorable;
        topics: Vec<OffsetFetchResponseTopic>, "1-7";
        error_code: i16, "2-7", ignorable;
        groups: Vec<OffsetFetchResponseGroup>, "8+";
    }

    /// One entry of `topics` of [`OffsetFetchResponse`].
    struct OffsetFetchResponseTopic {
        name: String, "1-7";
        partitions: Vec<OffsetFetchResponsePartition>, "1-7";
    }

    /// One entry of `groups` of [`OffsetFetchResponse`].
    struct OffsetFetchResponseGroup {
        group_id: String, "8+";
        topics: Vec<OffsetFetchResponseTopics>, "8+";
        error_code: i16, "8+";
    }

    /// One entry of `partitions` of [`OffsetFetchResponseTopic`].
    struct OffsetFetchResponsePartition {
        partition_index: i32, "1-7";
        committed_offset: i64, "1-7";
        committed_leader_epoch: i32 = -1, "5-7", ignorable;
        metadata: Option<String>, "1-7";
        error_code: i16, "1-7";
    }

    /// One entry of `topics` of [`OffsetFetchResponseGroup`].
    struct OffsetFetchResponseTopics {
        name: String, "8+", ignorable;
        partitions: Vec<OffsetFetchResponsePartitions>, "8+";
    }

    /// One entry of `partitions` of [`OffsetFetchResponseTopics`].
    struct OffsetFetchResponsePartitions {
        partition_index: i32, "8+";
        committed_offset: i64, "8+";
        committed_leader_epoch: i32 = -1, "8+", ignorable;
        metadata: Option<String>, "8+";
        error_code: i16, "8+";
    }
}
