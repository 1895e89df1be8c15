//! How far a view has read each partition. The record is written in the commit that publishes the output.
//!
//! ```text
//! key <kind> Progress  topic id | partition index  -> next offset          version 1, postcard
//! ```
//! Each view has a kind of its own, so that two views of one topic do not share their progress.

use std::collections::BTreeMap;

use floe_log::{Offset, PartitionId, TopicId};
use floe_meta::{DecodeError, Lookup, MapRecord, Tx, put_postcard, take_postcard};
use serde::{Deserialize, Serialize};

use crate::error::ViewError;

/// The range of offsets, from and to, that one commit takes in, by partition.
pub type ReadRanges = BTreeMap<u32, (Offset, Offset)>;

/// The progress of one view in one partition. `KIND` is the view's kind of record in the metadata map; it never
/// changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress<const KIND: u8> {
    /// The next offset to read: the output covers every record below it.
    pub next: i64,
}

impl<const KIND: u8> MapRecord for Progress<KIND> {
    const KIND: u8 = KIND;
    const VERSION: u8 = 1;
    type Key = PartitionId;

    fn encode(&self, out: &mut Vec<u8>) {
        put_postcard(self, out);
    }

    fn decode(_version: u8, body: &[u8]) -> Result<Self, DecodeError> {
        take_postcard(body)
    }
}

/// A [`Progress`] of some kind.
pub trait ProgressRecord: MapRecord<Key = PartitionId> {
    /// The record that says that `next` is read next.
    fn at(next: Offset) -> Self;
    /// The offset to read next.
    fn next(&self) -> Offset;
}

impl<const KIND: u8> ProgressRecord for Progress<KIND> {
    fn at(next: Offset) -> Self {
        Progress { next: next.0 }
    }

    fn next(&self) -> Offset {
        Offset(self.next)
    }
}

/// The progress of a view in all partitions of a topic; none of a partition that it has not read yet.
///
/// # Errors
/// A record cannot be read.
pub fn progress_of<P: ProgressRecord>(
    map: &impl Lookup,
    topic: TopicId,
) -> Result<BTreeMap<u32, Offset>, DecodeError> {
    let range = PartitionId::new(topic, 0)..=PartitionId::new(topic, u32::MAX);
    map.range::<P>(range)
        .map(|found| found.map(|(partition, progress)| (partition.index, progress.next())))
        .collect()
}

/// The progress in one partition.
pub(crate) fn next_of<P: ProgressRecord>(
    map: &impl Lookup,
    partition: PartitionId,
) -> Result<Offset, DecodeError> {
    Ok(map.get::<P>(&partition)?.map_or(Offset::ZERO, |progress| progress.next()))
}

/// Moves the progress from the begin of each range to its end.
///
/// # Errors
/// The progress is not at the begin of a range.
pub(crate) fn advance<P: ProgressRecord>(
    tx: &mut Tx<'_>,
    topic: TopicId,
    read: &ReadRanges,
) -> Result<(), ViewError> {
    for (index, (from, to)) in read {
        let partition = PartitionId::new(topic, *index);
        let next = next_of::<P>(tx, partition)?;
        if next != *from {
            return Err(ViewError::Stale(format!("partition {index} was read to {next}, not to {from}")));
        }
        assert!(to > from, "progress moves on");
        tx.put(&partition, &P::at(*to));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The bytes below are in users' journals and never change.
    #[test]
    fn the_record_is_as_it_was() {
        let mut body = Vec::new();
        Progress::<41> { next: 300 }.encode(&mut body);
        assert_eq!(body, [0xd8, 0x04], "persisted: a change needs a new version");
        assert_eq!(Progress::<41>::decode(1, &body), Ok(Progress { next: 300 }));
        assert_eq!((Progress::<41>::KIND, Progress::<41>::VERSION), (41, 1));
    }
}
