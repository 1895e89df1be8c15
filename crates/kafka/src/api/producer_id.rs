//! InitProducerId: an identity for idempotent producers.

use floe_wire::ErrorCode;
use floe_wire::producer::{InitProducerIdRequest, InitProducerIdResponse};

use crate::api::call::Context;

/// Gives out a new producer id. A producer that brings its old one (KIP-360) gets a new one, too: sequences begin
/// anew either way.
///
/// A transactional id is refused with `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`: it is the only code on which the Java
/// client and librdkafka both give up at once; on others librdkafka asks until its own time-out. The log says what is
/// really the matter.
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
            // Whether a number was used up or not does not matter: the client asks again.
            refused(ErrorCode::CoordinatorNotAvailable)
        }
    }
}
