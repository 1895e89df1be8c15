//! InitProducerId: an identity for idempotent producers.

use floe_wire::ErrorCode;
use floe_wire::producer::{InitProducerIdRequest, InitProducerIdResponse};

use crate::api::call::Context;

/// Gives out a new producer id. A producer that brings its old one (KIP-360) gets a new one, too, because its sequences
/// start again either way.
///
/// A transactional id is refused with `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`. On this code alone both the Java client
/// and librdkafka give up at once; on others librdkafka asks until it times out. The log names the real reason.
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
        return refused(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    match context.broker.log.producer_id(&context.writer()).await {
        Ok((producer_id, producer_epoch)) => {
            InitProducerIdResponse { producer_id, producer_epoch, ..InitProducerIdResponse::default() }
        }
        Err(error) => {
            tracing::warn!(%error, "no producer id can be given out");
            // The client asks again. An id that was given out meanwhile stays unused, which does no harm.
            refused(ErrorCode::CoordinatorNotAvailable)
        }
    }
}
