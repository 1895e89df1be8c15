//! Deletes the records of partitions below an offset, as a client asks for it (KIP-107).
//!
//! The log start moves to the offset, in the commit that removes the extents below it. It may lie within an extent
//! then, which stays until all of it lies below the log start. More extents than one commit removes go in several
//! commits; after each, the log start is where the extents begin. Where the topic wants to keep what it loses, they
//! become a part of its removed records (`map/removed.rs`) in the same commit.

use floe_meta::{CommitError, DecodeError, Envelope, Meta, Tx};
use futures::future::join_all;

use crate::clean::retainer::note;
use crate::limits::{RETENTION_EXTENTS_PER_COMMIT, RETENTION_PARTITIONS_PER_COMMIT};
use crate::map::deleted;
use crate::map::freed;
use crate::map::ids::{Offset, PartitionId};
use crate::map::mark;
use crate::map::partition;
use crate::map::topic;
use crate::map::topic_config::TopicConfig;
use crate::read::walk;

/// Deletes the records below an offset of each partition. The answers are the first offsets that are left.
pub(crate) async fn delete(
    meta: &Meta,
    envelope: &Envelope,
    below: &[Below],
) -> Vec<Result<Offset, DeleteError>> {
    let mut results = Vec::with_capacity(below.len());
    for some in below.chunks(RETENTION_PARTITIONS_PER_COMMIT) {
        // They are queued together, so they share commits.
        results.extend(join_all(some.iter().map(|below| delete_of(meta, envelope, *below))).await);
    }
    results
}

async fn delete_of(meta: &Meta, envelope: &Envelope, below: Below) -> Result<Offset, DeleteError> {
    let mut below = below;
    loop {
        let command = move |tx: &mut Tx<'_>| cut(tx, below, RETENTION_EXTENTS_PER_COMMIT);
        let cut = meta.commit_deletion(envelope.clone(), command).await.map_err(failure)?.reply;
        note("client", cut.records, cut.bytes);
        if cut.log_start >= cut.target {
            return Ok(cut.log_start);
        }
        // Records that came since then stay.
        below.offset = Some(cut.target);
    }
}

fn failure(error: CommitError<DeleteError>) -> DeleteError {
    match error {
        CommitError::Refused(error) => error,
        CommitError::NotApplied(reason) => DeleteError::Unavailable(reason),
        CommitError::Unknown(reason) => DeleteError::Unknown(reason),
        CommitError::Closed => DeleteError::Unknown("the broker is shutting down".to_owned()),
    }
}

/// Why a client's records were not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// There is no such partition.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// The offset is beyond the high watermark.
    #[error("the offset is beyond the high watermark {high_watermark}")]
    OutOfRange {
        /// The offset after the last record.
        high_watermark: Offset,
    },
    /// The topic keeps its records.
    #[error("the topic's cleanup.policy is without delete")]
    Policy,
    /// Nothing more was deleted. The caller may try again.
    #[error("the records were not deleted, try again: {0}")]
    Unavailable(String),
    /// The outcome is not known. The caller may try again.
    #[error("it is not known whether the records were deleted, try again: {0}")]
    Unknown(String),
}

/// A command that meets an unreadable record changes nothing.
impl From<DecodeError> for DeleteError {
    fn from(error: DecodeError) -> DeleteError {
        DeleteError::Unavailable(error.to_string())
    }
}

/// A partition of which a client deletes the records below an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Below {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset that stays; none for all records that there are.
    pub offset: Option<Offset>,
}

/// What a command did for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The first offset that can be read.
    pub(crate) log_start: Offset,
    /// The first offset that is to stay. Above the log start if there were too many extents for one command.
    pub(crate) target: Offset,
    /// Records that can be read no more. Markers do not count.
    pub(crate) records: u64,
    /// Bytes of the extents.
    pub(crate) bytes: u64,
}

/// Command: deletes the records of a partition below an offset, and the extents that hold no others, `extents_max` of
/// them at most. These can come back where the topic wants it.
///
/// # Errors
/// See [`DeleteError`]; on an error nothing changes.
pub(crate) fn cut(tx: &mut Tx<'_>, below: Below, extents_max: usize) -> Result<Cut, DeleteError> {
    let Below { partition, offset } = below;
    let head = partition::head(tx, partition)?.ok_or(DeleteError::UnknownPartition)?;
    let topic = topic::by_id(tx, partition.topic)?.ok_or(DeleteError::UnknownPartition)?;
    let config = TopicConfig::of(&topic);
    if !config.deletes {
        return Err(DeleteError::Policy);
    }
    let target = offset.unwrap_or(head.next);
    if target < Offset::ZERO || target > head.next {
        return Err(DeleteError::OutOfRange { high_watermark: head.next });
    }
    let (mut left, mut gone) = (head, Vec::new());
    let mut is_whole = true;
    for pair in walk::extents(tx, partition, head.log_start)? {
        let (key, extent) = pair?;
        let next = extent.next_offset(key.base);
        if next > target {
            break;
        }
        if gone.len() == extents_max {
            is_whole = false;
            break;
        }
        left.log_start = next;
        left.bytes = left.bytes.saturating_sub(extent.bytes());
        gone.push((key, extent));
    }
    let others: u64 = gone.iter().map(|(_, extent)| extent.offsets() - extent.records()).sum();
    if is_whole {
        left.log_start = left.log_start.max(target);
    }
    tx.put(&partition, &left);
    mark::forget_covered(tx, partition, left.log_start)?;
    if deleted::keeps_removed(tx, &config)? {
        deleted::keep_removed(tx, &topic, partition.index, &gone)?;
        deleted::keep_within_bounds(tx)?;
    } else {
        freed::free(tx, &gone)?;
    }
    Ok(Cut {
        log_start: left.log_start,
        target: target.max(left.log_start),
        records: (left.log_start.0 - head.log_start.0).cast_unsigned().saturating_sub(others),
        bytes: head.bytes - left.bytes,
    })
}
