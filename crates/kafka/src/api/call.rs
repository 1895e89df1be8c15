//! A request, the context of its handler, and its answer.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use floe_env::lock;
use floe_log::Writer;
use floe_meta::Envelope;
use floe_wire::metadata::ApiVersionsRequest;
use floe_wire::{ApiKey, Decoder, Message, Request, frame};
use tokio::time::Instant;

use crate::budget::Held;
use crate::conn::admission::RequestPermit;
use crate::conn::ending::Ending;
use crate::conn::peer::Peer;
use crate::limits;
use crate::shared::Shared;

/// A request whose header is decoded and whose body is not.
pub(crate) struct Call {
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: String,
    pub(crate) body: Decoder,
    pub(crate) arrived: Instant,
    /// The memory that is set aside for it.
    pub(crate) permit: Option<RequestPermit>,
    /// True for an ApiVersions request of an unknown version; see `table.rs`.
    pub(crate) unsupported: bool,
}

impl Call {
    /// An ApiVersions request of an unknown version. Its body cannot be decoded, and need not be.
    pub(crate) fn unsupported_api_versions(correlation_id: i32, arrived: Instant) -> Call {
        Call {
            version: ApiVersionsRequest::VERSION_MIN,
            correlation_id,
            client_id: String::new(),
            body: Decoder::new(Bytes::new()),
            arrived,
            permit: None,
            unsupported: true,
        }
    }
}

/// What a handler is given besides the request: who asks, and what the connections share.
pub(crate) struct Context<'a> {
    pub(crate) broker: &'a Arc<Shared>,
    pub(crate) peer: &'a Peer,
    pub(crate) version: i16,
    pub(crate) client_id: &'a str,
    held: Mutex<Option<Held>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        broker: &'a Arc<Shared>,
        peer: &'a Peer,
        version: i16,
        client_id: &'a str,
    ) -> Context<'a> {
        Context { broker, peer, version, client_id, held: Mutex::default() }
    }

    /// Waits for the memory of an answer of about `bytes`, and holds it until the answer is written.
    pub(crate) async fn reserve(&self, bytes: usize) {
        if bytes > limits::ANSWER_BYTES_UNRESERVED {
            let held = self.broker.answers.take(bytes).await;
            self.hold(Some(held));
        }
    }

    /// Holds memory until the answer is written.
    pub(crate) fn hold(&self, held: Option<Held>) {
        *lock(&self.held) = held;
    }

    /// The memory of the answer, which the answer takes along.
    pub(crate) fn held(&self) -> Option<Held> {
        lock(&self.held).take()
    }

    /// The identity that is recorded with the writes of this request.
    pub(crate) fn writer(&self) -> Writer {
        Writer { principal: self.broker.principal.clone(), client_id: truncated(self.client_id).into() }
    }

    /// The envelope of a commit that this request causes.
    pub(crate) fn envelope(&self, cause: &str) -> Envelope {
        let mut envelope = Envelope::client(self.broker.principal.clone(), truncated(self.client_id).into());
        envelope.cause = Some(cause.to_owned());
        envelope
    }
}

/// The frame of an answer, and the memory that is set aside until it is written.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) segments: Vec<Bytes>,
    pub(crate) held: Option<Held>,
}

/// Decodes the body. Bytes after it are ignored, as by Kafka. Then only slices in the request keep the frame alive.
pub(crate) fn decode<R: Request>(api: ApiKey, call: &mut Call) -> Result<R, Ending> {
    assert_eq!(R::API, api, "the table names the handler of another api");
    let mut body = std::mem::replace(&mut call.body, Decoder::new(Bytes::new()));
    R::decode(&mut body, call.version).map_err(|error| Ending::Malformed { api: api.name(), error })
}

/// The frame of an answer.
pub(crate) fn encode<M: Message>(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &M,
) -> Result<Vec<Bytes>, Ending> {
    let encoded = frame::encode_response(response, api, version, correlation_id);
    encoded.map_err(|error| Ending::Encode { api: api.name(), error })
}

/// The part of a client id that is kept.
pub(crate) fn truncated(client_id: &str) -> &str {
    let end = client_id.floor_char_boundary(limits::CLIENT_ID_BYTES_MAX);
    &client_id[..end]
}
