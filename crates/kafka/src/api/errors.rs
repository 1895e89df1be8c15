//! The protocol's code for each failure. Only this file chooses codes for failures of the layers below; a handler
//! chooses a code itself only for faults of its request.
//!
//! A write that was certainly not applied and may succeed later gets a code on which clients try again and keep the
//! partition. A write that may have been applied gets `REQUEST_TIMED_OUT`: clients try again on that, too, and the log
//! then finds the batch of an idempotent producer to be a duplicate.

use floe_group::{Failure, Refusal};
use floe_log::DeleteError;
use floe_log::sequencer::AppendError;
use floe_log::topic::TopicError;
use floe_log::walk::ReadError;
use floe_meta::DecodeError;
use floe_wire::ErrorCode;

/// The code of a failed append.
pub(crate) fn append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        AppendError::Corrupt(_) => ErrorCode::CorruptMessage,
        AppendError::Invalid(_) => ErrorCode::InvalidRecord,
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        AppendError::Undecodable(_) => ErrorCode::UnknownServerError,
        AppendError::Timestamp(_) => ErrorCode::InvalidTimestamp,
        // Every client tries again on this code, and none looks for another leader.
        AppendError::Unavailable(_) | AppendError::TooManyBatches | AppendError::TooManyProducers { .. } => {
            ErrorCode::NotEnoughReplicas
        }
        AppendError::Unknown(_) => ErrorCode::RequestTimedOut,
    }
}

/// The code of a failed read.
pub(crate) fn read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Unavailable(_) | ReadError::Gone { .. } => ErrorCode::KafkaStorageError,
        ReadError::Corrupt(_) => ErrorCode::CorruptMessage,
    }
}

/// The code of a failed creation or deletion of a topic.
pub(crate) fn topic(error: &TopicError) -> ErrorCode {
    match error {
        TopicError::InvalidName { .. } => ErrorCode::InvalidTopicException,
        TopicError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        TopicError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        TopicError::TooMany | TopicError::TooManyPartitions(_) => ErrorCode::PolicyViolation,
        TopicError::Exists(_) | TopicError::NameTaken(_) => ErrorCode::TopicAlreadyExists,
        TopicError::NotFound | TopicError::NothingDeleted(_) => ErrorCode::UnknownTopicOrPartition,
        // Kafka's protocol brings nothing back.
        TopicError::NeedsName(_) | TopicError::Several(_) => ErrorCode::InvalidRequest,
        // Admin clients try again on this code. They look the controller up first: it is this broker.
        TopicError::Unavailable(_) => ErrorCode::NotController,
        TopicError::Unknown(_) => ErrorCode::RequestTimedOut,
    }
}

/// The code of records that were not deleted.
pub(crate) fn deletion(error: &DeleteError) -> ErrorCode {
    match error {
        DeleteError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        DeleteError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        DeleteError::Policy => ErrorCode::PolicyViolation,
        // Admin clients try again on both.
        DeleteError::Unavailable(_) => ErrorCode::KafkaStorageError,
        DeleteError::Unknown(_) => ErrorCode::RequestTimedOut,
    }
}

/// The code of a refusal by a group.
pub(crate) fn group(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::InvalidGroupId => ErrorCode::InvalidGroupId,
        Refusal::UnknownMember => ErrorCode::UnknownMemberId,
        Refusal::MemberIdRequired(_) => ErrorCode::MemberIdRequired,
        Refusal::IllegalGeneration => ErrorCode::IllegalGeneration,
        Refusal::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        Refusal::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        Refusal::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        Refusal::FencedInstance => ErrorCode::FencedInstanceId,
        Refusal::GroupFull => ErrorCode::GroupMaxSizeReached,
        Refusal::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        Refusal::TooLarge => ErrorCode::InvalidRequest,
        Refusal::NotEmpty => ErrorCode::NonEmptyGroup,
        Refusal::NotFound => ErrorCode::GroupIdNotFound,
    }
}

/// The code of a failed commit of offsets or deletion of a group.
pub(crate) fn group_commit(failure: &Failure) -> ErrorCode {
    match failure {
        Failure::Refused(refusal) => group(refusal),
        // Clients try again on this code.
        Failure::Unavailable(_) | Failure::Full { .. } => ErrorCode::CoordinatorNotAvailable,
        Failure::Unknown(_) => ErrorCode::RequestTimedOut,
        Failure::Corrupt(error) => metadata(error),
    }
}

/// The code for metadata that cannot be read. The reason is logged here, because no answer has room for it.
pub(crate) fn metadata(error: &DecodeError) -> ErrorCode {
    tracing::error!(%error, "the metadata map cannot be read");
    ErrorCode::UnknownServerError
}
