//! The remains of deleted topics, and of removed records: extents, producers, marks, heads, and how far they were
//! compacted, which no commit has freed yet.

use floe_env::Timestamp;
use floe_meta::key::put_u64;
use floe_meta::{DecodeError, Lookup, Tx, postcard_record};
use serde::{Deserialize, Serialize};

use crate::map::compacted::Compacted;
use crate::map::extent::Extent;
use crate::map::freed;
use crate::map::ids::TopicId;
use crate::map::mark::Mark;
use crate::map::partition::PartHead;
use crate::map::producer::{Producer, ProducerKey};
use crate::map::producer_count;

/// Extents and producers that one commit frees: less than 1 MiB of changes.
pub const SWEEP_RECORDS_MAX: usize = 10_000;

/// A deleted topic whose extents are not all freed yet (kind 18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remains {
    deleted: Timestamp,
}

postcard_record!(Remains, 18, 1, TopicId);

/// Part of the command that deletes a topic: frees as much as one commit may, and records whether anything is left.
pub(crate) fn leave(tx: &mut Tx<'_>, id: TopicId) -> Result<(), DecodeError> {
    if !free(tx, id, SWEEP_RECORDS_MAX)?.is_all {
        note(tx, id);
    }
    Ok(())
}

/// Part of a command: leaves everything that a topic has to [`sweep`].
pub(crate) fn note(tx: &mut Tx<'_>, id: TopicId) {
    tx.put(&id, &Remains { deleted: tx.now() });
}

/// Command: frees up to `records_max` extents, producers, marks and heads of deleted topics. Returns whether any are
/// left; call it until none are.
///
/// # Errors
/// A record cannot be read.
pub fn sweep(tx: &mut Tx<'_>, records_max: usize) -> Result<bool, DecodeError> {
    let mut room = records_max;
    while room > 0 {
        let first = tx.range::<Remains>(..).next().transpose()?;
        let Some((id, _)) = first else { break };
        let Freed { records, is_all } = free(tx, id, room)?;
        if !is_all {
            break;
        }
        tx.delete::<Remains>(&id);
        // A topic without anything counts as well.
        room = room.saturating_sub(records + 1);
    }
    Ok(any(tx))
}

/// Whether [`sweep`] has work.
pub fn any(map: &impl Lookup) -> bool {
    map.range::<Remains>(..).next().is_some()
}

struct Freed {
    records: usize,
    /// Whether none are left.
    is_all: bool,
}

/// Frees up to `records_max` extents, producers, marks and heads of a topic.
fn free(tx: &mut Tx<'_>, topic: TopicId, records_max: usize) -> Result<Freed, DecodeError> {
    let prefix = |out: &mut Vec<u8>| put_u64(out, topic.0);
    let extents: Vec<_> = tx.prefix::<Extent>(prefix).take(records_max).collect::<Result<_, _>>()?;
    let room = records_max - extents.len();
    let producers: Vec<_> = tx.prefix::<Producer>(prefix).take(room).collect::<Result<_, _>>()?;
    let room = room - producers.len();
    let marks: Vec<_> = tx.prefix::<Mark>(prefix).take(room).collect::<Result<_, _>>()?;
    let room = room - marks.len();
    let compacted: Vec<_> = tx.prefix::<Compacted>(prefix).take(room).collect::<Result<_, _>>()?;
    let room = room - compacted.len();
    // Those of removed records: a deleted topic has its own in one record.
    let heads: Vec<_> = tx.prefix::<PartHead>(prefix).take(room).collect::<Result<_, _>>()?;
    let is_all = heads.len() < room;
    freed::free(tx, &extents)?;
    let producers: Vec<ProducerKey> = producers.into_iter().map(|(key, _)| key).collect();
    producer_count::delete(tx, &producers)?;
    marks.iter().for_each(|(partition, _)| tx.delete::<Mark>(partition));
    compacted.iter().for_each(|(partition, _)| tx.delete::<Compacted>(partition));
    heads.iter().for_each(|(partition, _)| tx.delete::<PartHead>(partition));
    let small = producers.len() + marks.len() + compacted.len() + heads.len();
    Ok(Freed { records: extents.len() + small, is_all })
}

#[cfg(test)]
mod tests {
    use floe_meta::MapRecord as _;

    use super::*;

    // Users' journals hold these bytes, so they never change.
    #[test]
    fn remains_are_as_they_were() {
        let (remains, mut body) = (Remains { deleted: Timestamp(300) }, Vec::new());
        remains.encode(&mut body);
        assert_eq!((Remains::KIND, Remains::VERSION, &*body), (18, 1, &[0xd8, 0x04][..]));
        assert_eq!(Remains::decode(1, &body), Ok(remains));
    }
}
