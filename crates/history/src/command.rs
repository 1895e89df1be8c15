//! The pure functions over the metadata map.

use std::time::Duration;

use floe_log::WriterNumber;
use floe_meta::lease::{self, Lease};
use floe_meta::{CounterKey, DecodeError, Lsn, Tx};

use crate::error::Refused;
use crate::map::{self, Loose, Part, PlacedPart, Why};

/// The name of the lease.
pub(crate) const LEASE: &str = "history";
/// The counter of objects.
const OBJECTS: CounterKey = CounterKey::named("history object");

/// Who begins an object.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// The name as a holder of the lease.
    pub(crate) name: String,
    pub(crate) number: WriterNumber,
    pub(crate) ttl: Duration,
}

/// An object that may be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    pub(crate) first: Lsn,
}

/// Command: takes the lease, and a number for an object that begins with `first`. The history must end with `end`.
pub(crate) fn begin(
    tx: &mut Tx<'_>,
    owner: &Owner,
    stale: Option<&Lease>,
    first: Lsn,
    end: Lsn,
) -> Result<Begun, Refused> {
    let found = map::end(tx)?;
    if found != end {
        return Err(Refused::Moved(found));
    }
    let epoch = lease::acquire(tx, LEASE, &owner.name, stale, owner.ttl)?;
    let left: Vec<(u64, Loose)> = tx.range::<Loose>(..).collect::<Result<_, DecodeError>>()?;
    for (number, loose) in left {
        // Whoever began it cannot finish it any more.
        if matches!(loose.why, Why::Begun { .. }) {
            let why = Why::Waste { since: tx.now(), lsn: Lsn(0) };
            tx.put(&number, &Loose { why, ..loose });
        }
    }
    let number = owner.number.number(tx.next_counter(&OBJECTS)?);
    tx.put(&number, &Loose { first, why: Why::Begun { epoch } });
    Ok(Begun { epoch, number, first })
}

/// Command: the object is in the store. Its part takes the place of `replaced`, or follows the last one.
pub(crate) fn finish(
    tx: &mut Tx<'_>,
    begun: Begun,
    part: Part,
    replaced: &[PlacedPart],
) -> Result<(), Refused> {
    tx.check_lease(LEASE, begun.epoch)?;
    let end = map::end(tx)?;
    let is_due = match replaced {
        [] => end.next() == begun.first,
        _ => {
            let mut same = true;
            for old in replaced {
                same &= tx.get::<Part>(&old.first.0)? == Some(old.part);
            }
            same
        }
    };
    if !is_due {
        return Err(Refused::Moved(end));
    }
    for old in replaced {
        tx.delete::<Part>(&old.first.0);
        let why = Why::Waste { since: tx.now(), lsn: tx.lsn() };
        tx.put(&old.part.number, &Loose { first: old.first, why });
    }
    let since = replaced.last().map_or(tx.lsn(), |old| old.part.since);
    tx.delete::<Loose>(&begun.number);
    tx.put(&begun.first.0, &Part { number: begun.number, since, ..part });
    Ok(())
}

/// Command: these objects are gone from the store.
pub(crate) fn forget(tx: &mut Tx<'_>, numbers: &[u64]) -> Result<(), Refused> {
    for number in numbers {
        if tx.get::<Loose>(number)?.is_some_and(|loose| matches!(loose.why, Why::Waste { .. })) {
            tx.delete::<Loose>(number);
        }
    }
    Ok(())
}
