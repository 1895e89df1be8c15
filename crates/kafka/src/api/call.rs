//! What a handler is given.

use std::sync::{Arc, Mutex};

use floe_log::Writer;
use floe_meta::Envelope;
use floe_wire::Reader;
use tokio::time::Instant;

use crate::broker::Inner;
use crate::budget::{Held, Permit};
use crate::conn::connection::Peer;
use crate::limits;

/// Without authentication everybody is the one whom Kafka calls by this name.
pub(crate) const PRINCIPAL: &str = "User:ANONYMOUS";

/// A request whose header is read and whose body is not.
pub(crate) struct Call {
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: String,
    pub(crate) body: Reader,
    pub(crate) arrived: Instant,
    /// The memory that is set aside for it.
    pub(crate) permit: Option<Permit>,
    /// An ApiVersions request of a version that is not known; see `metadata.rs`.
    pub(crate) unsupported: bool,
}

/// Who asks, and whom.
pub(crate) struct Context<'a> {
    pub(crate) broker: &'a Arc<Inner>,
    pub(crate) peer: &'a Peer,
    pub(crate) version: i16,
    pub(crate) client_id: &'a str,
    held: Mutex<Option<Held>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        broker: &'a Arc<Inner>,
        peer: &'a Peer,
        version: i16,
        client_id: &'a str,
    ) -> Context<'a> {
        Context { broker, peer, version, client_id, held: Mutex::default() }
    }

    /// Waits until there is memory for an answer of about so many bytes, and holds it until that is written.
    pub(crate) async fn reserve(&self, bytes: usize) {
        if bytes > limits::ANSWER_BYTES_UNRESERVED {
            let held = self.broker.answers.take(bytes).await;
            self.hold(Some(held));
        }
    }

    /// Holds memory until the answer is written.
    pub(crate) fn hold(&self, held: Option<Held>) {
        *self.held.lock().expect("nothing panics under this lock") = held;
    }

    /// What the answer holds.
    pub(crate) fn held(&self) -> Option<Held> {
        self.held.lock().expect("nothing panics under this lock").take()
    }

    /// The identity that is recorded with what this request writes.
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

/// The part of a client id that is kept.
pub(crate) fn truncated(client_id: &str) -> &str {
    let end = client_id.floor_char_boundary(limits::CLIENT_ID_BYTES_MAX);
    &client_id[..end]
}
