//! SaslHandshake: refused, because there is no authentication.

use floe_wire::ErrorCode;
use floe_wire::sasl::{SaslHandshakeRequest, SaslHandshakeResponse};

use crate::api::call::{Context, truncated};

/// Refuses with `ILLEGAL_SASL_STATE`, as Kafka does on a listener without authentication. Clients then give up and say
/// why. A closed connection would look like a network failure, and they would connect again for ever.
pub(crate) async fn sasl_handshake(
    context: &Context<'_>,
    request: SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    let (peer, mechanism) = (&*context.peer.name, truncated(&request.mechanism));
    tracing::warn!(peer, mechanism, "a client wants to authenticate, which is not there yet: use PLAINTEXT");
    SaslHandshakeResponse { error_code: ErrorCode::IllegalSaslState.number(), mechanisms: Vec::new() }
}
