//! Commits of offsets and deletions of groups, as commands of the metadata map.

use floe_log::PartitionId;
use floe_meta::{CommitError, Committed, DecodeError, Tx};

use crate::classic::Refusal;
use crate::map::{GroupRecord, OffsetKey, OffsetRecord};
use crate::stored::Stored;
use crate::topics::KnownTopics;

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
    /// There is no room for a new group or a new offset. It may be tried again when others have expired.
    #[error("{limit} {what} are kept, which is the limit: delete groups, or lower offsets.retention.minutes")]
    Full {
        /// The limit.
        limit: u64,
        /// What it counts.
        what: &'static str,
    },
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
    let (name, generation) = (group.to_owned(), record.generation);
    let known = tx.get::<GroupRecord>(&name)?;
    let newest = known.as_ref().map_or(0, |known| known.generation);
    // Generation 0 comes from consumers without membership. The group has allowed their commits.
    if generation > 0 && generation < newest {
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
    let before = Stored::of(tx)?;
    let mut stored = before;
    let mut record = GroupRecord { generation: record.generation.max(newest), ..record.clone() };
    match &known {
        None => stored.add_group(group),
        Some(known) => {
            if record.protocol_type.is_empty() {
                record.protocol_type.clone_from(&known.protocol_type);
            }
            // A commit without membership does not tell whether there are members.
            record.empty_since = known.empty_since.filter(|_| generation == 0);
        }
    }
    if known.as_ref() != Some(&record) {
        tx.put(&name, &record);
    }
    for new in left {
        let key = OffsetKey { group: name.clone(), partition: new.partition };
        if let Some(old) = tx.get::<OffsetRecord>(&key)? {
            stored.remove_offset(&key, &old);
        }
        stored.add_offset(&key, &new.metadata);
        let value = OffsetRecord {
            offset: new.offset,
            leader_epoch: new.leader_epoch,
            metadata: new.metadata.clone(),
            committed: tx.now().0,
        };
        tx.put(&key, &value);
    }
    if let Some((limit, what)) = stored.exceeded(&before) {
        return Err(Failure::Full { limit, what });
    }
    stored.put(tx);
    Ok(())
}

pub(crate) fn delete_group(tx: &mut Tx<'_>, group: &str, held: bool) -> Result<(), Failure> {
    let name = group.to_owned();
    let known = tx.get::<GroupRecord>(&name)?.is_some();
    if !known && !held {
        return Err(Refusal::NotFound.into());
    }
    let mut stored = Stored::of(tx)?;
    if known {
        tx.delete::<GroupRecord>(&name);
        stored.remove_group(group);
    }
    let offsets: Result<Vec<_>, DecodeError> = tx.range::<OffsetRecord>(OffsetKey::of_group(group)).collect();
    for (key, record) in offsets? {
        stored.remove_offset(&key, &record);
        tx.delete::<OffsetRecord>(&key);
    }
    stored.put(tx);
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
