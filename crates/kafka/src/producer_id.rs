//! InitProducerId: an identity for idempotent producers.

use floe_wire::ErrorCode;
use floe_wire::producer::{InitProducerIdRequest, InitProducerIdResponse};

use crate::request::Context;

/// Gives out a new producer id. A producer that brings its old one (KIP-360) gets a new one, too: sequences begin
/// anew either way.
///
/// A transactional id is refused with `INVALID_REQUEST`: it ends the producer at once, where a retriable code would
/// let it ask until its own time-out, and one of authorisation would send its owner to the wrong place.
pub(crate) async fn init_producer_id(
    context: &Context<'_>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.number(),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if let Some(id) = &request.transactional_id {
        let peer = &*context.peer.name;
        tracing::warn!(
            peer,
            transactional_id = id,
            "a transactional producer was refused: there are no transactions"
        );
        return refused(ErrorCode::InvalidRequest);
    }
    match context.broker.log.producer_id(&context.writer()).await {
        Ok((producer_id, producer_epoch)) => {
            InitProducerIdResponse { producer_id, producer_epoch, ..InitProducerIdResponse::default() }
        }
        Err(error) => {
            tracing::warn!(%error, "no producer id can be given out");
            // Whether a number was used up or not does not matter: the client asks again.
            refused(ErrorCode::CoordinatorNotAvailable)
        }
    }
}
