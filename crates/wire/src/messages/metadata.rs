//! ApiVersions, Metadata and DescribeCluster: the first requests of a client.

use uuid::Uuid;

use crate::table::messages;

messages! {
    /// Asks which versions of which APIs the broker speaks.
    struct ApiVersionsRequest, versions "0-4", flexible "3+" {
        client_software_name: String, "3+", ignorable;
        client_software_version: String, "3+", ignorable;
    }

    /// The versions that the broker speaks. Its response header never has tagged fields.
    struct ApiVersionsResponse, versions "0-4", flexible "3+" {
        error_code: i16, "0+";
        api_keys: Vec<ApiVersion>, "0+";
        throttle_time_ms: i32, "1+", ignorable;
        supported_features: Vec<SupportedFeatureKey>, "3+", tag 0, ignorable;
        finalized_features_epoch: i64 = -1, "3+", tag 1, ignorable;
        finalized_features: Vec<FinalizedFeatureKey>, "3+", tag 2, ignorable;
        zk_migration_ready: bool, "3+", tag 3, ignorable;
    }

    /// One entry of `api_keys` of [`ApiVersionsResponse`].
    struct ApiVersion {
        api_key: i16, "0+";
        min_version: i16, "0+";
        max_version: i16, "0+";
    }

    /// One entry of `supported_features` of [`ApiVersionsResponse`].
    struct SupportedFeatureKey {
        name: String, "3+";
        min_version: i16, "3+";
        max_version: i16, "3+";
    }

    /// One entry of `finalized_features` of [`ApiVersionsResponse`].
    struct FinalizedFeatureKey {
        name: String, "3+";
        max_version_level: i16, "3+";
        min_version_level: i16, "3+";
    }

    /// Asks for brokers and topics; null topics means all of them (in version 0 an empty array does).
    struct MetadataRequest, versions "0-13", flexible "9+" {
        topics: Option<Vec<MetadataRequestTopic>>, "0+", nullable "1+";
        allow_auto_topic_creation: bool = true, "4+";
        include_cluster_authorized_operations: bool, "8-10";
        include_topic_authorized_operations: bool, "8+";
    }

    /// One entry of `topics` of [`MetadataRequest`].
    struct MetadataRequestTopic {
        topic_id: Uuid, "10+", ignorable;
        name: Option<String>, "0+", nullable "10+";
    }

    /// Brokers, topics and partitions.
    struct MetadataResponse, versions "0-13", flexible "9+" {
        throttle_time_ms: i32, "3+", ignorable;
        brokers: Vec<MetadataResponseBroker>, "0+";
        cluster_id: Option<String>, "2+", ignorable;
        controller_id: i32 = -1, "1+", ignorable;
        topics: Vec<MetadataResponseTopic>, "0+";
        cluster_authorized_operations: i32 = i32::MIN, "8-10";
        error_code: i16, "13+", ignorable;
    }

    /// One entry of `brokers` of [`MetadataResponse`].
    struct MetadataResponseBroker {
        node_id: i32, "0+";
        host: String, "0+";
        port: i32, "0+";
        rack: Option<String>, "1+", ignorable;
    }

    /// One entry of `topics` of [`MetadataResponse`].
    struct MetadataResponseTopic {
        error_code: i16, "0+";
        name: Option<String>, "0+", nullable "12+";
        topic_id: Uuid, "10+", ignorable;
        is_internal: bool, "1+", ignorable;
        partitions: Vec<MetadataResponsePartition>, "0+";
        topic_authorized_operations: i32 = i32::MIN, "8+";
    }

    /// One entry of `partitions` of [`MetadataResponseTopic`].
    struct MetadataResponsePartition {
        error_code: i16, "0+";
        partition_index: i32, "0+";
        leader_id: i32, "0+";
        leader_epoch: i32 = -1, "7+", ignorable;
        replica_nodes: Vec<i32>, "0+";
        isr_nodes: Vec<i32>, "0+";
        offline_replicas: Vec<i32>, "5+", ignorable;
    }

    /// Asks for the brokers or controllers of the cluster.
    struct DescribeClusterRequest, versions "0-2", flexible "0+" {
        include_cluster_authorized_operations: bool, "0+";
        endpoint_type: i8 = 1, "1+";
        include_fenced_brokers: bool, "2+";
    }

    /// The brokers or controllers of the cluster.
    struct DescribeClusterResponse, versions "0-2", flexible "0+" {
        throttle_time_ms: i32, "0+";
        error_code: i16, "0+";
        error_message: Option<String>, "0+";
        endpoint_type: i8 = 1, "1+";
        cluster_id: String, "0+";
        controller_id: i32 = -1, "0+";
        brokers: Vec<DescribeClusterBroker>, "0+";
        cluster_authorized_operations: i32 = i32::MIN, "0+";
    }

    /// One entry of `brokers` of [`DescribeClusterResponse`].
    struct DescribeClusterBroker {
        broker_id: i32, "0+";
        host: String, "0+";
        port: i32, "0+";
        rack: Option<String>, "0+";
        is_fenced: bool, "2+";
    }
}
