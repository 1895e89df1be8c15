//! The pure functions over the metadata map.

use std::time::Duration;

use floe_log::WriterNumber;
use floe_meta::lease::{self, Lease};
use floe_meta::{CounterKey, DecodeError, Lookup, Lsn, Tx};

use crate::error::Refused;
use crate::map::{self, Document, Form, Loose, Part, PlacedPart, State, Table, Why};

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

/// Documents of the table that may be put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BegunDocuments {
    pub(crate) epoch: u64,
    /// Numbers of manifests and manifest lists, the next one last.
    pub(crate) avro: Vec<u64>,
    /// Numbers of metadata documents, the next one last.
    pub(crate) metadata: Vec<u64>,
    /// What was taken of them.
    pub(crate) used: Vec<(Form, u64)>,
}

/// Metadata documents that a snapshot may need: the first one has one without a snapshot before it.
const METADATA_DOCUMENTS: u64 = 2;

/// Command: takes the lease, and numbers for the documents of a snapshot. The history must have so many parts, and end
/// there.
pub(crate) fn begin_documents(
    tx: &mut Tx<'_>,
    owner: &Owner,
    stale: Option<&Lease>,
    parts: (usize, Lsn),
    avro: u64,
) -> Result<BegunDocuments, Refused> {
    check_parts(tx, parts)?;
    let epoch = lease::acquire(tx, LEASE, &owner.name, stale, owner.ttl)?;
    for (number, left) in map::documents(tx)? {
        // Whoever began it cannot finish it any more.
        if matches!(left.state, State::Begun { .. }) {
            let state = State::Waste { since: tx.now(), lsn: Lsn(0) };
            tx.put(&number, &Document { state, ..left });
        }
    }
    let mut take = |form: Form, count: u64| -> Result<Vec<u64>, Refused> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            let number = owner.number.number(tx.next_counter(&OBJECTS)?);
            tx.put(&number, &Document { form, bytes: 0, crc: 0, state: State::Begun { epoch } });
            numbers.push(number);
        }
        numbers.reverse();
        Ok(numbers)
    };
    let (avro, metadata) = (take(Form::Avro, avro)?, take(Form::Metadata, METADATA_DOCUMENTS)?);
    Ok(BegunDocuments { epoch, avro, metadata, used: Vec::new() })
}

fn check_parts(map: &impl Lookup, (count, end): (usize, Lsn)) -> Result<(), Refused> {
    let parts = map::parts(map)?;
    let found = parts.last().map_or(Lsn(0), |last| last.part.last);
    if (parts.len(), found) == (count, end) { Ok(()) } else { Err(Refused::Moved(found)) }
}

/// The next state of the table.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// The number of the metadata document before it.
    pub(crate) from: Option<u64>,
    /// How many parts there must be.
    pub(crate) parts: usize,
    pub(crate) table: Table,
    /// Documents that are in the store.
    pub(crate) put: Vec<(u64, Document)>,
    /// Documents that nothing needs any more.
    pub(crate) waste: Vec<u64>,
}

/// Command: the documents are in the store, and the table has its next state.
pub(crate) fn publish(tx: &mut Tx<'_>, begun: &BegunDocuments, published: &Published) -> Result<(), Refused> {
    tx.check_lease(LEASE, begun.epoch)?;
    let Published { from, parts, table, put, waste } = published;
    check_parts(tx, (*parts, table.end))?;
    let before = map::table(tx)?;
    if before.map(|table| table.metadata) != *from {
        return Err(Refused::Moved(table.end));
    }
    // What was not used was not put.
    begun.avro.iter().chain(&begun.metadata).for_each(|number| tx.delete::<Document>(number));
    put.iter().for_each(|(number, document)| tx.put(number, document));
    for number in waste {
        if let Some(document) = tx.get::<Document>(number)? {
            let state = State::Waste { since: tx.now(), lsn: tx.lsn() };
            tx.put(number, &Document { state, ..document });
        }
    }
    let stands = before.filter(|before| before.oldest == table.oldest);
    let moved = stands.map_or(tx.now(), |before| before.moved);
    tx.put(&(), &Table { moved, ..*table });
    Ok(())
}

/// Command: these objects and documents are gone from the store.
pub(crate) fn forget(tx: &mut Tx<'_>, numbers: &[u64]) -> Result<(), Refused> {
    for number in numbers {
        if tx.get::<Loose>(number)?.is_some_and(|loose| matches!(loose.why, Why::Waste { .. })) {
            tx.delete::<Loose>(number);
        }
        if tx.get::<Document>(number)?.is_some_and(|of| matches!(of.state, State::Waste { .. })) {
            tx.delete::<Document>(number);
        }
    }
    Ok(())
}
