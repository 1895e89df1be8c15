//! InitProducerId.

use crate::table::messages;

messages! {
    /// Asks for a producer id and epoch, which an idempotent producer needs.
    struct InitProducerIdRequest, versions "0-5", flexible "2+" {
        transactional_id: Option<String>, "0+";
        transaction_timeout_ms: i32, "0+";
        producer_id: i64 = -1, "3+";
        producer_epoch: i16 = -1, "3+";
    }

    /// A producer id and its epoch.
    struct InitProducerIdResponse, versions "0-5", flexible "2+" {
        throttle_time_ms: i32, "0+", ignorable;
        error_code: i16, "0+";
        producer_id: i64 = -1, "0+";
        producer_epoch: i16, "0+";
    }
}
