//! Fetch.

use uuid::Uuid;

use crate::rope::Rope;
use crate::table::messages;

messages! {
    /// Reads from partitions, waiting up to `max_wait_ms` for `min_bytes`.
    struct FetchRequest, versions "4-18", flexible "12+" {
        cluster_id: Option<String>, "12+", tag 0, ignorable;
        replica_id: i32 = -1, "4-14";
        replica_state: ReplicaState, "15+", tag 1;
        max_wait_ms: i32, "4+";
        min_bytes: i32, "4+";
        max_bytes: i32 = i32::MAX, "4+", ignorable;
        isolation_level: i8, "4+", ignorable;
        session_id: i32, "7+", ignorable;
        session_epoch: i32 = -1, "7+", ignorable;
        topics: Vec<FetchTopic>, "4+";
        forgotten_topics_data: Vec<ForgottenTopic>, "7+";
        rack_id: String, "11+", ignorable;
    }

    /// The value of `replica_state` of [`FetchRequest`].
    struct ReplicaState {
        replica_id: i32 = -1, "15+";
        replica_epoch: i64 = -1, "15+";
    }

    /// One entry of `topics` of [`FetchRequest`].
    struct FetchTopic {
        topic: String, "4-12", ignorable;
        topic_id: Uuid, "13+", ignorable;
        partitions: Vec<FetchPartition>, "4+";
    }

    /// One entry of `forgotten_topics_data` of [`FetchRequest`].
    struct ForgottenTopic {
        topic: String, "7-12", ignorable;
        topic_id: Uuid, "13+", ignorable;
        partitions: Vec<i32>, "7+";
    }

    /// One entry of `partitions` of [`FetchTopic`].
    struct FetchPartition {
        partition: i32, "4+";
        current_leader_epoch: i32 = -1, "9+", ignorable;
        fetch_offset: i64, "4+";
        last_fetched_epoch: i32 = -1, "12+";
        log_start_offset: i64 = -1, "5+", ignorable;
        partition_max_bytes: i32, "4+";
        replica_directory_id: Uuid, "17+", tag 0, ignorable;
        high_watermark: i64 = i64::MAX, "18+", tag 1, ignorable;
    }

    /// The batches for a [`FetchRequest`]; the first may start before the offset asked for.
    struct FetchResponse, versions "4-18", flexible "12+" {
        throttle_time_ms: i32, "4+", ignorable;
        error_code: i16, "7+", ignorable;
        session_id: i32, "7+";
        responses: Vec<FetchableTopicResponse>, "4+";
        node_endpoints: Vec<NodeEndpoint>, "16+", tag 0;
    }

    /// One entry of `responses` of [`FetchResponse`].
    struct FetchableTopicResponse {
        topic: String, "4-12", ignorable;
        topic_id: Uuid, "13+", ignorable;
        partitions: Vec<PartitionData>, "4+";
    }

    /// One entry of `node_endpoints` of [`FetchResponse`].
    struct NodeEndpoint {
        node_id: i32, "16+";
        host: String, "16+";
        port: i32, "16+";
        rack: Option<String>, "16+";
    }

    /// One entry of `partitions` of [`FetchableTopicResponse`].
    struct PartitionData {
        partition_index: i32, "4+";
        error_code: i16, "4+";
        high_watermark: i64, "4+";
        last_stable_offset: i64 = -1, "4+", ignorable;
        log_start_offset: i64 = -1, "5+", ignorable;
        diverging_epoch: EpochEndOffset, "12+", tag 0;
        current_leader: LeaderIdAndEpoch, "12+", tag 1;
        snapshot_id: SnapshotId, "12+", tag 2;
        aborted_transactions: Option<Vec<AbortedTransaction>>, "4+", ignorable;
        preferred_read_replica: i32 = -1, "11+";
        records: Option<Rope> = Some(Rope::default()), "4+";
    }

    /// The value of `diverging_epoch` of [`PartitionData`].
    struct EpochEndOffset {
        epoch: i32 = -1, "12+";
        end_offset: i64 = -1, "12+";
    }

    /// The value of `current_leader` of [`PartitionData`].
    struct LeaderIdAndEpoch {
        leader_id: i32 = -1, "12+";
        leader_epoch: i32 = -1, "12+";
    }

    /// The value of `snapshot_id` of [`PartitionData`].
    struct SnapshotId {
        end_offset: i64 = -1, "4+";
        epoch: i32 = -1, "4+";
    }

    /// One entry of `aborted_transactions` of [`PartitionData`].
    struct AbortedTransaction {
        producer_id: i64, "4+";
        first_offset: i64, "4+";
    }
}
