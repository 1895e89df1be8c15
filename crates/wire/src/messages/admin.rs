//! Topics and settings: create, change, describe, delete.

use uuid::Uuid;

use crate::table::messages;

messages! {
    /// Creates topics.
    struct CreateTopicsRequest, versions "2-7", flexible "5+" {
        topics: Vec<CreatableTopic>, "2+";
        timeout_ms: i32 = 60_000, "2+";
        validate_only: bool, "2+";
    }

    /// One entry of `topics` of [`CreateTopicsRequest`].
    struct CreatableTopic {
        name: String, "2+";
        num_partitions: i32, "2+";
        replication_factor: i16, "2+";
        assignments: Vec<CreatableReplicaAssignment>, "2+";
        configs: Vec<CreatableTopicConfig>, "2+";
    }

    /// One entry of `assignments` of [`CreatableTopic`].
    struct CreatableReplicaAssignment {
        partition_index: i32, "2+";
        broker_ids: Vec<i32>, "2+";
    }

    /// One entry of `configs` of [`CreatableTopic`].
    struct CreatableTopicConfig {
        name: String, "2+";
        value: Option<String>, "2+";
    }

    /// The result of each topic of a [`CreateTopicsRequest`].
    struct CreateTopicsResponse, versions "2-7", flexible "5+" {
        throttle_time_ms: i32, "2+", ignorable;
        topics: Vec<CreatableTopicResult>, "2+";
    }

    /// One entry of `topics` of [`CreateTopicsResponse`].
    struct CreatableTopicResult {
        name: String, "2+";
        topic_id: Uuid, "7+", ignorable;
        error_code: i16, "2+";
        error_message: Option<String>, "2+", ignorable;
        topic_config_error_code: i16, "5+", tag 0, ignorable;
        num_partitions: i32 = -1, "5+", ignorable;
        replication_factor: i16 = -1, "5+", ignorable;
        configs: Option<Vec<CreatableTopicConfigs>>, "5+", ignorable;
    }

    /// One entry of `configs` of [`CreatableTopicResult`].
    struct CreatableTopicConfigs {
        name: String, "5+";
        value: Option<String>, "5+";
        read_only: bool, "5+";
        config_source: i8 = -1, "5+", ignorable;
        is_sensitive: bool, "5+";
    }

    /// Deletes topics by name, from version 6 also by id.
    struct DeleteTopicsRequest, versions "1-6", flexible "4+" {
        topics: Vec<DeleteTopicState>, "6+";
        topic_names: Vec<String>, "1-5", ignorable;
        timeout_ms: i32, "1+";
    }

    /// One entry of `topics` of [`DeleteTopicsRequest`].
    struct DeleteTopicState {
        name: Option<String>, "6+";
        topic_id: Uuid, "6+";
    }

    /// The result of each topic of a [`DeleteTopicsRequest`].
    struct DeleteTopicsResponse, versions "1-6", flexible "4+" {
        throttle_time_ms: i32, "1+", ignorable;
        responses: Vec<DeletableTopicResult>, "1+";
    }

    /// One entry of `responses` of [`DeleteTopicsResponse`].
    struct DeletableTopicResult {
        name: Option<String>, "1+", nullable "6+";
        topic_id: Uuid, "6+", ignorable;
        error_code: i16, "1+";
        error_message: Option<String>, "5+", ignorable;
    }

    /// Raises the number of partitions of topics.
    struct CreatePartitionsRequest, versions "0-3", flexible "2+" {
        topics: Vec<CreatePartitionsTopic>, "0+";
        timeout_ms: i32, "0+";
        validate_only: bool, "0+";
    }

    /// One entry of `topics` of [`CreatePartitionsRequest`].
    struct CreatePartitionsTopic {
        name: String, "0+";
        count: i32, "0+";
        assignments: Option<Vec<CreatePartitionsAssignment>>, "0+";
    }

    /// One entry of `assignments` of [`CreatePartitionsTopic`].
    struct CreatePartitionsAssignment {
        broker_ids: Vec<i32>, "0+";
    }

    /// The result of each topic of a [`CreatePartitionsRequest`].
    struct CreatePartitionsResponse, versions "0-3", flexible "2+" {
        throttle_time_ms: i32, "0+";
        results: Vec<CreatePartitionsTopicResult>, "0+";
    }

    /// One entry of `results` of [`CreatePartitionsResponse`].
    struct CreatePartitionsTopicResult {
        name: String, "0+";
        error_code: i16, "0+";
        error_message: Option<String>, "0+";
    }

    /// Asks for the settings of topics or brokers; null keys means all of them.
    struct DescribeConfigsRequest, versions "1-4", flexible "4+" {
        resources: Vec<DescribeConfigsResource>, "1+";
        include_synonyms: bool, "1+";
        include_documentation: bool, "3+";
    }

    /// One entry of `resources` of [`DescribeConfigsRequest`].
    struct DescribeConfigsResource {
        resource_type: i8, "1+";
        resource_name: String, "1+";
        configuration_keys: Option<Vec<String>>, "1+";
    }

    /// The settings that a [`DescribeConfigsRequest`] asked for.
    struct DescribeConfigsResponse, versions "1-4", flexible "4+" {
        throttle_time_ms: i32, "1+";
        results: Vec<DescribeConfigsResult>, "1+";
    }

    /// One entry of `results` of [`DescribeConfigsResponse`].
    struct DescribeConfigsResult {
        error_code: i16, "1+";
        error_message: Option<String>, "1+";
        resource_type: i8, "1+";
        resource_name: String, "1+";
        configs: Vec<DescribeConfigsResourceResult>, "1+";
    }

    /// One entry of `configs` of [`DescribeConfigsResult`].
    struct DescribeConfigsResourceResult {
        name: String, "1+";
        value: Option<String>, "1+";
        read_only: bool, "1+";
        config_source: i8 = -1, "1+", ignorable;
        is_sensitive: bool, "1+";
        synonyms: Vec<DescribeConfigsSynonym>, "1+", ignorable;
        config_type: i8, "3+", ignorable;
        documentation: Option<String>, "3+", ignorable;
    }

    /// One entry of `synonyms` of [`DescribeConfigsResourceResult`].
    struct DescribeConfigsSynonym {
        name: String, "1+";
        value: Option<String>, "1+";
        source: i8, "1+";
    }

    /// Changes single settings of topics or brokers.
    struct IncrementalAlterConfigsRequest, versions "0-1", flexible "1+" {
        resources: Vec<AlterConfigsResource>, "0+";
        validate_only: bool, "0+";
    }

    /// One entry of `resources` of [`IncrementalAlterConfigsRequest`].
    struct AlterConfigsResource {
        resource_type: i8, "0+";
        resource_name: String, "0+";
        configs: Vec<AlterableConfig>, "0+";
    }

    /// One entry of `configs` of [`AlterConfigsResource`].
    struct AlterableConfig {
        name: String, "0+";
        config_operation: i8, "0+";
        value: Option<String>, "0+";
    }

    /// The result of each resource of an [`IncrementalAlterConfigsRequest`].
    struct IncrementalAlterConfigsResponse, versions "0-1", flexible "1+" {
        throttle_time_ms: i32, "0+";
        responses: Vec<AlterConfigsResourceResponse>, "0+";
    }

    /// One entry of `responses` of [`IncrementalAlterConfigsResponse`].
    struct AlterConfigsResourceResponse {
        error_code: i16, "0+";
        error_message: Option<String>, "0+";
        resource_type: i8, "0+";
        resource_name: String, "0+";
    }
}
