//! Commits of offsets and deletions of groups, as commands of the metadata map.

use floe_log::PartitionId;
use floe_meta::{CommitError, Committed, DecodeError, Tx};

use crate::classic::Refusal;
use crate::map::{GroupRecord, OffsetKey, OffsetRecord};
use crate::sweep::KnownTopics;

/// Why a commit or a deletion did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The group refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was not written, and may be tried again.
    #[error("the metadata journal is not available: {0}")]
    Unavailable(String),
    /// It may have been written.
    #[error("it is not known whether the commit was written: {0}")]
    Unknown(String),
    /// A record in the map cannot be decoded.
    #[error("a group's metadata cannot be read: {0}")]
    Corrupt(DecodeError),
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Failure {
        Failure::Corrupt(error)
    }
}

/// One offset of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOffset {
    /// The partition. It existed when the request was checked.
    pub partition: PartitionId,
    /// The next offset to read.
    pub offset: i64,
    /// -1 for none.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: String,
}

pub(crate) fn write_offsets(
    tx: &mut Tx<'_>,
    group: &str,
    record: &GroupRecord,
    offsets: &[NewOffset],
) -> Result<(), Failure> {
    let name = group.to_owned();
    let known = tx.get::<GroupRecord>(&name)?;
    let newest = known.as_ref().map_or(0, |known| known.generation);
    // Generation 0 comes from consumers without membership. The group has allowed their commits.
    if record.generation > 0 && record.generation < newest {
        return Err(Refusal::IllegalGeneration.into());
    }
    // Topics may have been deleted since the commit was checked. Their offsets would outlive the sweep.
    let mut topics = KnownTopics::default();
    let mut left = Vec::with_capacity(offsets.len());
    for new in offsets {
        if topics.exists(tx, new.partition.topic)? {
            left.push(new);
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let mut record = GroupRecord { generation: record.generation.max(newest), ..record.clone() };
    if let Some(known) = known.as_ref().filter(|_| record.protocol_type.is_empty()) {
        record.protocol_type.clone_from(&known.protocol_type);
    }
    if known.as_ref() != Some(&record) {
        tx.put(&name, &record);
    }
    for new in left {
        let key = OffsetKey { group: name.clone(), partition: new.partition };
        let value = OffsetRecord {
            offset: new.offset,
            leader_epoch: new.leader_epoch,
            metadata: new.metadata.clone(),
            committed: tx.now().0,
        };
        tx.put(&key, &value);
    }
    Ok(())
}

pub(crate) fn delete_group(tx: &mut Tx<'_>, group: &str, held: bool) -> Result<(), Failure> {
    let name = group.to_owned();
    let known = tx.get::<GroupRecord>(&name)?.is_some();
    if !known && !held {
        return Err(Refusal::NotFound.into());
    }
    if known {
        tx.delete::<GroupRecord>(&name);
    }
    let keys: Result<Vec<OffsetKey>, DecodeError> =
        tx.range::<OffsetRecord>(OffsetKey::of_group(group)).map(|entry| entry.map(|(key, _)| key)).collect();
    for key in keys? {
        tx.delete::<OffsetRecord>(&key);
    }
    Ok(())
}

pub(crate) fn settled<T>(outcome: Result<Committed<T>, CommitError<Failure>>) -> Result<T, Failure> {
    match outcome {
        Ok(committed) => Ok(committed.reply),
        Err(CommitError::Refused(failure)) => Err(failure),
        Err(CommitError::NotApplied(reason)) => Err(Failure::Unavailable(reason)),
        Err(CommitError::Unknown(reason)) => Err(Failure::Unknown(reason)),
        Err(CommitError::Closed) => Err(Failure::Unknown("the broker is shutting down".to_owned())),
    }
}
