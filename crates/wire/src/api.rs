//! The APIs of the protocol: their numbers and their messages.

use crate::message::Message;
use crate::messages::{admin, fetch, group_offsets, groups, metadata, offsets, produce, producer, sasl};
use crate::versions::Versions;

/// A request, which knows its API and its response.
pub trait Request: Message {
    /// The API that the request calls.
    const API: ApiKey;
    /// The broker's answer, in the same version.
    type Response: Message;
}

/// One table of all APIs. Some have a number only, and no messages here.
macro_rules! apis {
    ($($api:ident = $number:literal $(: $module:ident :: $request:ident -> $response:ident)?;)*) => {
        /// The number of an API. Kafka 4 has dropped some APIs; their numbers stay taken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $(
                #[doc = concat!("API ", stringify!($number), ".")]
                $api = $number,
            )*
        }

        impl ApiKey {
            /// Every API, in the order of the numbers.
            pub const ALL: &'static [ApiKey] = &[$(ApiKey::$api),*];

            /// The API with this number, if there is one.
            pub const fn from_number(number: i16) -> Option<ApiKey> {
                match number {
                    $($number => Some(ApiKey::$api),)*
                    _ => None,
                }
            }

            /// The name in the protocol guide.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ApiKey::$api => stringify!($api),)*
                }
            }

            /// The versions that this crate decodes and encodes; `None` without messages for the API.
            pub const fn versions(self) -> Option<Versions> {
                match self {
                    $($(ApiKey::$api => Some(<$module::$request as Message>::VERSIONS),)?)*
                    _ => None,
                }
            }

            /// The flexible versions among those that this crate knows.
            pub const fn flexible(self) -> Option<Versions> {
                match self {
                    $($(ApiKey::$api => Some(<$module::$request as Message>::FLEXIBLE),)?)*
                    _ => None,
                }
            }
        }

        $($(
            impl Request for $module::$request {
                const API: ApiKey = ApiKey::$api;
                type Response = $module::$response;
            }
        )?)*

        /// Calls a macro with every API that has messages: `Api: module::Request -> Response;`.
        #[allow(unused_macros, reason = "for the proofs and the fuzz targets")]
        macro_rules! each_api {
            ($callback:ident) => {
                $callback! { $($($api: $module::$request -> $response;)?)* }
            };
        }
        pub(crate) use each_api;
    };
}

apis! {
    Produce = 0: produce::ProduceRequest -> ProduceResponse;
    Fetch = 1: fetch::FetchRequest -> FetchResponse;
    ListOffsets = 2: offsets::ListOffsetsRequest -> ListOffsetsResponse;
    Metadata = 3: metadata::MetadataRequest -> MetadataResponse;
    LeaderAndIsr = 4;
    StopReplica = 5;
    UpdateMetadata = 6;
    ControlledShutdown = 7;
    OffsetCommit = 8: group_offsets::OffsetCommitRequest -> OffsetCommitResponse;
    OffsetFetch = 9: group_offsets::OffsetFetchRequest -> OffsetFetchResponse;
    FindCoordinator = 10: groups::FindCoordinatorRequest -> FindCoordinatorResponse;
    JoinGroup = 11: groups::JoinGroupRequest -> JoinGroupResponse;
    Heartbeat = 12: groups::HeartbeatRequest -> HeartbeatResponse;
    LeaveGroup = 13: groups::LeaveGroupRequest -> LeaveGroupResponse;
    SyncGroup = 14: groups::SyncGroupRequest -> SyncGroupResponse;
    DescribeGroups = 15: groups::DescribeGroupsRequest -> DescribeGroupsResponse;
    ListGroups = 16: groups::ListGroupsRequest -> ListGroupsResponse;
    SaslHandshake = 17: sasl::SaslHandshakeRequest -> SaslHandshakeResponse;
    ApiVersions = 18: metadata::ApiVersionsRequest -> ApiVersionsResponse;
    CreateTopics = 19: admin::CreateTopicsRequest -> CreateTopicsResponse;
    DeleteTopics = 20: admin::DeleteTopicsRequest -> DeleteTopicsResponse;
    DeleteRecords = 21: offsets::DeleteRecordsRequest -> DeleteRecordsResponse;
    InitProducerId = 22: producer::InitProducerIdRequest -> InitProducerIdResponse;
    OffsetForLeaderEpoch = 23: offsets::OffsetForLeaderEpochRequest -> OffsetForLeaderEpochResponse;
    AddPartitionsToTxn = 24;
    AddOffsetsToTxn = 25;
    EndTxn = 26;
    WriteTxnMarkers = 27;
    TxnOffsetCommit = 28;
    DescribeAcls = 29;
    CreateAcls = 30;
    DeleteAcls = 31;
    DescribeConfigs = 32: admin::DescribeConfigsRequest -> DescribeConfigsResponse;
    AlterConfigs = 33;
    AlterReplicaLogDirs = 34;
    DescribeLogDirs = 35;
    SaslAuthenticate = 36;
    CreatePartitions = 37: admin::CreatePartitionsRequest -> CreatePartitionsResponse;
    CreateDelegationToken = 38;
    RenewDelegationToken = 39;
    ExpireDelegationToken = 40;
    DescribeDelegationToken = 41;
    DeleteGroups = 42: groups::DeleteGroupsRequest -> DeleteGroupsResponse;
    ElectLeaders = 43;
    IncrementalAlterConfigs = 44: admin::IncrementalAlterConfigsRequest -> IncrementalAlterConfigsResponse;
    AlterPartitionReassignments = 45;
    ListPartitionReassignments = 46;
    OffsetDelete = 47;
    DescribeClientQuotas = 48;
    AlterClientQuotas = 49;
    DescribeUserScramCredentials = 50;
    AlterUserScramCredentials = 51;
    Vote = 52;
    BeginQuorumEpoch = 53;
    EndQuorumEpoch = 54;
    DescribeQuorum = 55;
    AlterPartition = 56;
    UpdateFeatures = 57;
    Envelope = 58;
    FetchSnapshot = 59;
    DescribeCluster = 60: metadata::DescribeClusterRequest -> DescribeClusterResponse;
    DescribeProducers = 61;
    BrokerRegistration = 62;
    BrokerHeartbeat = 63;
    UnregisterBroker = 64;
    DescribeTransactions = 65;
    ListTransactions = 66;
    AllocateProducerIds = 67;
    ConsumerGroupHeartbeat = 68;
    ConsumerGroupDescribe = 69;
    ControllerRegistration = 70;
    GetTelemetrySubscriptions = 71;
    PushTelemetry = 72;
    AssignReplicasToDirs = 73;
    ListConfigResources = 74;
    DescribeTopicPartitions = 75;
    ShareGroupHeartbeat = 76;
    ShareGroupDescribe = 77;
    ShareFetch = 78;
    ShareAcknowledge = 79;
    AddRaftVoter = 80;
    RemoveRaftVoter = 81;
    UpdateRaftVoter = 82;
    InitializeShareGroupState = 83;
    ReadShareGroupState = 84;
    WriteShareGroupState = 85;
    DeleteShareGroupState = 86;
    ReadShareGroupStateSummary = 87;
    StreamsGroupHeartbeat = 88;
    StreamsGroupDescribe = 89;
    DescribeShareGroupOffsets = 90;
    AlterShareGroupOffsets = 91;
    DeleteShareGroupOffsets = 92;
}

impl ApiKey {
    /// The number on the wire.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// Whether requests of this version have tagged fields in their header.
    pub fn request_header_flexible(self, version: i16) -> bool {
        self.flexible().is_some_and(|flexible| flexible.contains(version))
    }

    /// Whether responses of this version have tagged fields in their header. ApiVersions never has them: a client must
    /// decode its response before it knows the versions of the broker (KIP-511).
    pub fn response_header_flexible(self, version: i16) -> bool {
        self != ApiKey::ApiVersions && self.request_header_flexible(version)
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
