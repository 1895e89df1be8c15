//! The map as a journal has it: at a start, and when the journal has let go of what a broker has not seen.

use bytes::Bytes;

use crate::journal::{Change, Entry, Journal, JournalError, Loaded, Lsn};
use crate::snapshot::Snapshot;
use floe_env::Timestamp;

/// Why the metadata cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal cannot be read.
    #[error("cannot load the metadata: {0}")]
    Load(#[from] JournalError),
    /// The journal has a gap or is out of order.
    #[error("the journal is corrupt: entry {found} where {expected} was due")]
    Gap {
        /// The LSN that should come next.
        expected: Lsn,
        /// The LSN in its place.
        found: Lsn,
    },
}

/// The map with everything that was committed, and the time of the last commit.
pub(crate) async fn load(journal: &dyn Journal) -> Result<(Snapshot, Timestamp), OpenError> {
    let (map, entries) = fold(journal.load().await?)?;
    let time = last_time(journal, map.lsn(), &entries).await?;
    Ok((map, time))
}

/// The map of what a journal has, and the entries behind its image.
pub(crate) fn fold(loaded: Loaded) -> Result<(Snapshot, Vec<Entry>), OpenError> {
    let Loaded { image, image_lsn, entries } = loaded;
    let mut map = Snapshot::of_image(image, image_lsn);
    for entry in &entries {
        let expected = map.lsn().next();
        if entry.lsn != expected {
            return Err(OpenError::Gap { expected, found: entry.lsn });
        }
        map.apply(entry.lsn, &entry.changes);
    }
    Ok((map, entries))
}

/// The time of the last commit. It may be folded into the image, and the journal keeps the entry of the last commit.
async fn last_time(journal: &dyn Journal, last: Lsn, entries: &[Entry]) -> Result<Timestamp, JournalError> {
    if let Some(entry) = entries.last() {
        return Ok(entry.envelope.time);
    }
    let before = Lsn(last.0.saturating_sub(1));
    let entries = if last == Lsn(0) { Vec::new() } else { journal.history(before, 1).await? };
    Ok(entries.first().map_or(Timestamp(i64::MIN), |entry| entry.envelope.time))
}

/// What makes one map of another, in key order.
pub(crate) fn difference(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let gone = |key: &Bytes| Change { key: key.clone(), value: None };
    let mut changes = Vec::new();
    let mut before = old.pairs().peekable();
    for (key, value) in new.pairs() {
        while let Some((former, _)) = before.next_if(|(former, _)| *former < key) {
            changes.push(gone(former));
        }
        let same = before.next_if(|(former, _)| *former == key).is_some_and(|(_, former)| former == value);
        if !same {
            changes.push(Change { key: key.clone(), value: Some(value.clone()) });
        }
    }
    changes.extend(before.map(|(former, _)| gone(former)));
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &BTreeMap<u8, u8>) -> Snapshot {
        let bytes = |byte: &u8| Bytes::copy_from_slice(&[*byte]);
        Snapshot::of_image(pairs.iter().map(|(key, value)| (bytes(key), bytes(value))).collect(), Lsn(5))
    }

    proptest! {
        #[test]
        fn the_difference_makes_one_map_of_the_other(
            old in proptest::collection::btree_map(0_u8..20, 0_u8..3, 0..20),
            new in proptest::collection::btree_map(0_u8..20, 0_u8..3, 0..20),
        ) {
            let (mut from, to) = (map(&old), map(&new));
            let changes = difference(&from, &to);
            let differ = (0..20).filter(|key| old.get(key) != new.get(key)).count();
            prop_assert_eq!(changes.len(), differ);
            prop_assert!(changes.is_sorted_by(|one, other| one.key < other.key));
            from.apply(Lsn(6), &changes);
            prop_assert!(from.pairs().eq(to.pairs()));
        }
    }
}
