//! Produce.

use bytes::Bytes;
use uuid::Uuid;

use crate::table::messages;

messages! {
    /// Appends record batches to partitions. With `acks` 0 there is no answer at all.
    struct ProduceRequest, versions "3-13", flexible "9+" {
        transactional_id: Option<String>, "3+";
        acks: i16, "3+";
        timeout_ms: i32, "3+";
        topic_data: Vec<TopicProduceData>, "3+";
    }

    /// One entry of `topic_data` of [`ProduceRequest`].
    struct TopicProduceData {
        name: String, "3-12", ignorable;
        topic_id: Uuid, "13+", ignorable;
        partition_data: Vec<PartitionProduceData>, "3+";
    }

    /// One entry of `partition_data` of [`TopicProduceData`].
    struct PartitionProduceData {
        index: i32, "3+";
        records: Option<Bytes>, "3+";
    }

    /// The offset or the error of each batch of a [`ProduceRequest`].
    struct ProduceResponse, versions "3-13", flexible "9+" {
        responses: Vec<TopicProduceResponse>, "3+";
        throttle_time_ms: i32, "3+", ignorable;
        node_endpoints: Vec<NodeEndpoint>, "10+", tag 0;
    }

    /// One entry of `responses` of [`ProduceResponse`].
    struct TopicProduceResponse {
        name: String, "3-12", ignorable;
        topic_id: Uuid, "13+", ignorable;
        partition_responses: Vec<PartitionProduceResponse>, "3+";
    }

    /// One entry of `node_endpoints` of [`ProduceResponse`].
    struct NodeEndpoint {
        node_id: i32, "10+";
        host: String, "10+";
        port: i32, "10+";
        rack: Option<String>, "10+";
    }

    /// One entry of `partition_responses` of [`TopicProduceResponse`].
    struct PartitionProduceResponse {
        index: i32, "3+";
        error_code: i16, "3+";
        base_offset: i64, "3+";
        log_append_time_ms: i64 = -1, "3+", ignorable;
        log_start_offset: i64 = -1, "5+", ignorable;
        record_errors: Vec<BatchIndexAndErrorMessage>, "8+", ignorable;
        error_message: Option<String>, "8+", ignorable;
        current_leader: LeaderIdAndEpoch, "10+", tag 0;
    }

    /// One entry of `record_errors` of [`PartitionProduceResponse`].
    struct BatchIndexAndErrorMessage {
        batch_index: i32, "8+";
        batch_index_error_message: Option<String>, "8+";
    }

    /// The value of `current_leader` of [`PartitionProduceResponse`].
    struct LeaderIdAndEpoch {
        leader_id: i32 = -1, "10+";
        leader_epoch: i32 = -1, "10+";
    }
}
