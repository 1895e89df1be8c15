//! The one table of what this broker answers: number, versions, handler, and what the asker must be allowed to do.
//! Dispatch, ApiVersions, the documentation and the tests read it; an API that is not here does not exist.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use floe_wire::{ApiKey, Message, Reader, Request, frame};

use crate::api::call::{Call, Context};
use crate::api::{
    committed_offsets, configs, consumer_groups, fetch, list_offsets, metadata, producer_id, sasl, topics,
};
use crate::broker::Inner;
use crate::budget::Held;
use crate::conn::connection::{Ending, Peer, Progress};

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
    /// The function that answers it.
    pub handler_name: &'static str,
    /// What the asker must be allowed to do. Nothing checks it yet: there is no authentication.
    pub operation: Operation,
    pub(crate) handler: Handler,
}

/// What an API does to which kind of resource; the words are those of Kafka's access control lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Anybody may.
    Open,
    /// Write to topics.
    WriteTopic,
    /// Read topics.
    ReadTopic,
    /// See topics.
    DescribeTopic,
    /// Create topics.
    CreateTopic,
    /// Delete topics.
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

/// The frame of an answer, and the memory that is set aside for it until it is written.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) segments: Vec<Bytes>,
    pub(crate) held: Option<Held>,
}

type Segments<'a> = Pin<Box<dyn Future<Output = Result<Vec<Bytes>, Ending>> + Send + 'a>>;

/// How an API is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handler {
    /// Taken in by the reader of the connection, see `produce.rs`.
    Produce,
    /// Also answers versions that it does not know.
    ApiVersions,
    /// Answered by the writer of the connection, one at a time.
    Call(Run),
    /// The same, and may wait long for records or for other members: such a request holds no memory that others need.
    Wait(Run),
}

type Run = for<'a> fn(&'a Context<'a>, &'static Api, Call) -> Segments<'a>;

macro_rules! run {
    ($function:path) => {
        |context, api, mut call| {
            Box::pin(async move {
                let request = decode(api, &mut call)?;
                let response = $function(context, request).await;
                encode(api, &call, &response)
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
const API_VERSIONS: (Handler, &str) = (Handler::ApiVersions, "metadata::api_versions");

const fn api(
    key: ApiKey,
    (min, max): (i16, i16),
    operation: Operation,
    (handler, handler_name): (Handler, &'static str),
) -> Api {
    Api { key, name: key.name(), min, max, handler_name, operation, handler }
}

/// Everything that is answered, in the order of the numbers.
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
    api(ApiKey::InitProducerId, (0, 5), Operation::IdempotentWrite, call!(producer_id::init_producer_id)),
    api(ApiKey::DescribeConfigs, (1, 4), Operation::DescribeConfigs, call!(configs::describe_configs)),
    api(ApiKey::DeleteGroups, (0, 2), Operation::DeleteGroup, call!(consumer_groups::delete_groups)),
    api(ApiKey::DescribeCluster, (0, 2), Operation::DescribeCluster, call!(metadata::describe_cluster)),
];

/// The API with this number, if it is answered.
pub(crate) fn find(number: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key.number() == number)
}

/// Answers one request that is not a produce. One that may wait is not answered when the client has gone.
pub(crate) async fn answer(
    broker: &Arc<Inner>,
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
        Handler::ApiVersions => metadata::api_versions(api, &mut call),
        Handler::Call(run) => run(&context, api, call).await,
        Handler::Wait(run) => tokio::select! {
            biased;
            answer = run(&context, api, call) => answer,
            () = progress.left() => Ok(Vec::new()),
        },
    };
    let took = broker.env.monotonic().saturating_duration_since(arrived);
    metrics::histogram!("floe_kafka_request_seconds", "api" => api.name).record(took.as_secs_f64());
    Ok(Answer { segments: segments?, held: context.held() })
}

/// Reads the body. Bytes after it are ignored, as Kafka does. The frame is not kept beyond what the request needs of
/// it, and its memory is given back at once if the request may wait.
pub(crate) fn decode<R: Request>(api: &'static Api, call: &mut Call) -> Result<R, Ending> {
    assert_eq!(R::API, api.key, "the table names the handler of another api");
    let mut body = std::mem::replace(&mut call.body, Reader::new(Bytes::new()));
    if matches!(api.handler, Handler::Wait(_)) {
        call.permit = None;
    }
    R::decode(&mut body, call.version).map_err(|error| Ending::Malformed { api: api.name, error })
}

/// The frame of an answer.
pub(crate) fn encode<M: Message>(api: &'static Api, call: &Call, response: &M) -> Result<Vec<Bytes>, Ending> {
    let encoded = frame::encode_response(response, api.key, call.version, call.correlation_id);
    encoded.map_err(|error| Ending::Encode { api: api.name, error })
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
