//! Offsets of partitions: ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use crate::table::messages;

messages! {
    /// Finds offsets by time. Timestamp -1 means the latest offset, -2 the earliest, -3 that of the greatest timestamp.
    struct ListOffsetsRequest, versions "1-10", flexible "6+" {
        replica_id: i32, "1+";
        isolation_level: i8, "2+";
        topics: Vec<ListOffsetsTopic>, "1+";
        timeout_ms: i32, "10+", ignorable;
    }

    /// One entry of `topics` of [`ListOffsetsRequest`].
    struct ListOffsetsTopic {
        name: String, "1+";
        partitions: Vec<ListOffsetsPartition>, "1+";
    }

    /// One entry of `partitions` of [`ListOffsetsTopic`].
    struct ListOffsetsPartition {
        partition_index: i32, "1+";
        current_leader_epoch: i32 = -1, "4+", ignorable;
        timestamp: i64, "1+";
    }

    /// The offsets that a [`ListOffsetsRequest`] asked for.
    struct ListOffsetsResponse, versions "1-10", flexible "6+" {
        throttle_time_ms: i32, "2+", ignorable;
        topics: Vec<ListOffsetsTopicResponse>, "1+";
    }

    /// One entry of `topics` of [`ListOffsetsResponse`].
    struct ListOffsetsTopicResponse {
        name: String, "1+";
        partitions: Vec<ListOffsetsPartitionResponse>, "1+";
    }

    /// One entry of `partitions` of [`ListOffsetsTopicResponse`].
    struct ListOffsetsPartitionResponse {
        partition_index: i32, "1+";
        error_code: i16, "1+";
        timestamp: i64 = -1, "1+";
        offset: i64 = -1, "1+";
        leader_epoch: i32 = -1, "4+";
    }

    /// Asks where each leader epoch ended.
    struct OffsetForLeaderEpochRequest, versions "2-4", flexible "4+" {
        replica_id: i32 = -2, "3+", ignorable;
        topics: Vec<OffsetForLeaderTopic>, "2+";
    }

    /// One entry of `topics` of [`OffsetForLeaderEpochRequest`].
    struct OffsetForLeaderTopic {
        topic: String, "2+";
        partitions: Vec<OffsetForLeaderPartition>, "2+";
    }

    /// One entry of `partitions` of [`OffsetForLeaderTopic`].
    struct OffsetForLeaderPartition {
        partition: i32, "2+";
        current_leader_epoch: i32 = -1, "2+", ignorable;
        leader_epoch: i32, "2+";
    }

    /// The end offset of each epoch that an [`OffsetForLeaderEpochRequest`] named.
    struct OffsetForLeaderEpochResponse, versions "2-4", flexible "4+" {
        throttle_time_ms: i32, "2+", ignorable;
        topics: Vec<OffsetForLeaderTopicResult>, "2+";
    }

    /// One entry of `topics` of [`OffsetForLeaderEpochResponse`].
    struct OffsetForLeaderTopicResult {
        topic: String, "2+";
        partitions: Vec<EpochEndOffset>, "2+";
    }

    /// One entry of `partitions` of [`OffsetForLeaderTopicResult`].
    struct EpochEndOffset {
        error_code: i16, "2+";
        partition: i32, "2+";
        leader_epoch: i32 = -1, "2+", ignorable;
        end_offset: i64 = -1, "2+";
    }

    /// Deletes the records before an offset; -1 is the high watermark.
    struct DeleteRecordsRequest, versions "0-2", flexible "2+" {
        topics: Vec<DeleteRecordsTopic>, "0+";
        timeout_ms: i32, "0+";
    }

    /// One entry of `topics` of [`DeleteRecordsRequest`].
    struct DeleteRecordsTopic {
        name: String, "0+";
        partitions: Vec<DeleteRecordsPartition>, "0+";
    }

    /// One entry of `partitions` of [`DeleteRecordsTopic`].
    struct DeleteRecordsPartition {
        partition_index: i32, "0+";
        offset: i64, "0+";
    }

    /// The log start offsets after a [`DeleteRecordsRequest`].
    struct DeleteRecordsResponse, versions "0-2", flexible "2+" {
        throttle_time_ms: i32, "0+";
        topics: Vec<DeleteRecordsTopicResult>, "0+";
    }

    /// One entry of `topics` of [`DeleteRecordsResponse`].
    struct DeleteRecordsTopicResult {
        name: String, "0+";
        partitions: Vec<DeleteRecordsPartitionResult>, "0+";
    }

    /// One entry of `partitions` of [`DeleteRecordsTopicResult`].
    struct DeleteRecordsPartitionResult {
        partition_index: i32, "0+";
        low_watermark: i64, "0+";
        error_code: i16, "0+";
    }
}
