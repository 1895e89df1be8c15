//! The one table of APIs: number, versions, handler, and the right that a client needs. Dispatch, ApiVersions, the
//! documentation and the tests read it. An API that is not in it is not served.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use floe_wire::metadata::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use floe_wire::{ApiKey, ErrorCode};

use crate::api::call::{Answer, Call, Context, decode, encode};
use crate::api::{
    committed_offsets, configs, consumer_groups, delete_records, fetch, list_offsets, metadata, producer_id,
    sasl, topics,
};
use crate::conn::ending::Ending;
use crate::conn::peer::Peer;
use crate::conn::progress::Progress;
use crate::shared::Shared;

/// One API.
#[derive(Debug)]
pub struct Api {
    /// Its number.
    pub key: ApiKey,
    /// Its name in the protocol guide.
    pub name: &'static str,
    /// The first version that is answered.
    pub min: i16,
    /// The last version that is answered.
    pub max: i16,
    /// The function that answers it, for the documentation.
    pub handler_name: &'static str,
    /// The right that a client needs. Nothing checks it yet, because there is no authentication.
    pub operation: Operation,
    pub(crate) handler: Handler,
}

/// What an API does to which kind of resource, in the words of Kafka's access control lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Every client may.
    Open,
    /// Write to topics.
    WriteTopic,
    /// Read topics.
    ReadTopic,
    /// See topics.
    DescribeTopic,
    /// Create topics.
    CreateTopic,
    /// Delete topics, or records of them.
    DeleteTopic,
    /// See the settings of topics and brokers.
    DescribeConfigs,
    /// Be a member of groups and commit offsets.
    ReadGroup,
    /// See groups.
    DescribeGroup,
    /// Delete groups.
    DeleteGroup,
    /// See the cluster.
    DescribeCluster,
    /// Write idempotently.
    IdempotentWrite,
}

type Segments<'a> = Pin<Box<dyn Future<Output = Result<Vec<Bytes>, Ending>> + Send + 'a>>;

/// How an API is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handler {
    /// Started by the reader of the connection, see `produce.rs`.
    Produce,
    /// Answers unknown versions, too.
    ApiVersions,
    /// Answered by the writer of the connection, one at a time.
    Call(Run),
    /// The same, but it may wait long for records or for other members. So it gives its memory back first.
    Wait(Run),
}

type Run = for<'a> fn(&'a Context<'a>, &'static Api, Call) -> Segments<'a>;

macro_rules! run {
    ($function:path) => {
        |context, api, mut call| {
            Box::pin(async move {
                let request = decode(api.key, &mut call)?;
                let response = $function(context, request).await;
                encode(api.key, call.version, call.correlation_id, &response)
            })
        }
    };
}

macro_rules! call {
    ($function:path) => {
        (Handler::Call(run!($function)), stringify!($function))
    };
}

macro_rules! wait {
    ($function:path) => {
        (Handler::Wait(run!($function)), stringify!($function))
    };
}

const PRODUCE: (Handler, &str) = (Handler::Produce, "produce::start");
const API_VERSIONS: (Handler, &str) = (Handler::ApiVersions, "table::api_versions");

const fn api(
    key: ApiKey,
    (min, max): (i16, i16),
    operation: Operation,
    (handler, handler_name): (Handler, &'static str),
) -> Api {
    Api { key, name: key.name(), min, max, handler_name, operation, handler }
}

/// All APIs that are answered, in the order of their numbers.
pub static APIS: &[Api] = &[
    api(ApiKey::Produce, (3, 13), Operation::WriteTopic, PRODUCE),
    api(ApiKey::Fetch, (4, 18), Operation::ReadTopic, wait!(fetch::fetch)),
    api(ApiKey::ListOffsets, (1, 10), Operation::DescribeTopic, call!(list_offsets::list_offsets)),
    api(ApiKey::Metadata, (0, 13), Operation::DescribeTopic, call!(metadata::metadata)),
    api(ApiKey::OffsetCommit, (2, 9), Operation::ReadGroup, call!(committed_offsets::offset_commit)),
    api(ApiKey::OffsetFetch, (1, 9), Operation::DescribeGroup, call!(committed_offsets::offset_fetch)),
    api(ApiKey::FindCoordinator, (0, 6), Operation::DescribeGroup, call!(consumer_groups::find_coordinator)),
    api(ApiKey::JoinGroup, (0, 9), Operation::ReadGroup, wait!(consumer_groups::join_group)),
    api(ApiKey::Heartbeat, (0, 4), Operation::ReadGroup, call!(consumer_groups::heartbeat)),
    api(ApiKey::LeaveGroup, (0, 5), Operation::ReadGroup, call!(consumer_groups::leave_group)),
    api(ApiKey::SyncGroup, (0, 5), Operation::ReadGroup, wait!(consumer_groups::sync_group)),
    api(ApiKey::DescribeGroups, (0, 6), Operation::DescribeGroup, call!(consumer_groups::describe_groups)),
    api(ApiKey::ListGroups, (0, 5), Operation::DescribeGroup, call!(consumer_groups::list_groups)),
    api(ApiKey::SaslHandshake, (0, 1), Operation::Open, call!(sasl::sasl_handshake)),
    api(ApiKey::ApiVersions, (0, 4), Operation::Open, API_VERSIONS),
    api(ApiKey::CreateTopics, (2, 7), Operation::CreateTopic, call!(topics::create_topics)),
    api(ApiKey::DeleteTopics, (1, 6), Operation::DeleteTopic, call!(topics::delete_topics)),
    api(ApiKey::DeleteRecords, (0, 2), Operation::DeleteTopic, call!(delete_records::delete_records)),
    api(ApiKey::InitProducerId, (0, 5), Operation::IdempotentWrite, call!(producer_id::init_producer_id)),
    api(ApiKey::DescribeConfigs, (1, 4), Operation::DescribeConfigs, call!(configs::describe_configs)),
    api(ApiKey::DeleteGroups, (0, 2), Operation::DeleteGroup, call!(consumer_groups::delete_groups)),
    api(ApiKey::DescribeCluster, (0, 2), Operation::DescribeCluster, call!(metadata::describe_cluster)),
];

/// The API with this number, if it is answered.
pub(crate) fn find(number: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key.number() == number)
}

/// Answers one request that is not a produce. A request that may wait is dropped when the client has gone.
pub(crate) async fn answer(
    broker: &Arc<Shared>,
    peer: &Peer,
    api: &'static Api,
    mut call: Call,
    progress: &Progress,
) -> Result<Answer, Ending> {
    let client_id = std::mem::take(&mut call.client_id);
    let arrived = call.arrived;
    let context = Context::new(broker, peer, call.version, &client_id);
    let segments = match api.handler {
        Handler::Produce => unreachable!("a produce is taken in by the reader"),
        Handler::ApiVersions => api_versions(&mut call),
        Handler::Call(run) => run(&context, api, call).await,
        Handler::Wait(run) => {
            // Other requests must not wait for the memory of one that waits itself.
            call.permit = None;
            tokio::select! {
                biased;
                answer = run(&context, api, call) => answer,
                () = progress.left() => Ok(Vec::new()),
            }
        }
    };
    let took = broker.env.monotonic().saturating_duration_since(arrived);
    metrics::histogram!("floe_kafka_request_seconds", "api" => api.name).record(took.as_secs_f64());
    Ok(Answer { segments: segments?, held: context.held() })
}

/// Answers ApiVersions from the table. An unknown version is answered in version 0 with `UNSUPPORTED_VERSION` and the
/// table, so that the client can ask again (KIP-511).
fn api_versions(call: &mut Call) -> Result<Vec<Bytes>, Ending> {
    let answer = |call: &Call, response: &ApiVersionsResponse| {
        encode(ApiKey::ApiVersions, call.version, call.correlation_id, response)
    };
    let api_keys = APIS.iter().map(offered).collect();
    let mut response = ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() };
    if call.unsupported {
        response.error_code = ErrorCode::UnsupportedVersion.number();
        return answer(call, &response);
    }
    let request: ApiVersionsRequest = decode(ApiKey::ApiVersions, call)?;
    let nameless = |text: &str| text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic());
    if call.version >= 3
        && (nameless(&request.client_software_name) || nameless(&request.client_software_version))
    {
        response =
            ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.number(), ..Default::default() };
    }
    answer(call, &response)
}

/// An API as ApiVersions offers it. Produce is offered from version 0 on, although versions below 3 are not answered.
/// Kafka 4 does the same (KAFKA-18659): to librdkafka up to 2.11 a broker without version 0 knows no gzip, snappy or
/// lz4, and it sends without compression.
fn offered(api: &Api) -> ApiVersion {
    let min_version = if api.key == ApiKey::Produce { 0 } else { api.min };
    ApiVersion { api_key: api.key.number(), min_version, max_version: api.max }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ordered_and_within_what_the_codec_speaks() {
        assert!(APIS.is_sorted_by_key(|api| api.key.number()), "in the order of the numbers");
        for api in APIS {
            let known = api.key.versions().expect("the codec has messages for it");
            assert!(known.contains(api.min) && known.contains(api.max), "{} {known}", api.name);
            assert!(api.min <= api.max, "{}", api.name);
        }
    }
}
