//! The commands of the lake: pure functions over the metadata map, each one journal entry.

use std::collections::BTreeMap;

use floe_log::{
    Offset, PartitionId, TopicId, WriterNumber,
    topic::{self, Topic},
    writer_number,
};
use floe_meta::Tx;
use floe_meta::lease::{self, Lease};
use floe_schema::{Kind, TableSchema};
use floe_view::{ViewError, lease_name, progress_of};

use crate::{
    limits,
    map::{self, Garbage, GarbageKey, LogStarts, Progress, Rebuild, RebuildProgress, Table, ViewState},
    place::Place,
};

/// The name of the lake's view. It is in leases and envelopes, and never changes.
pub(crate) const VIEW: &str = "lake";
/// The name of the view that rebuilds tables.
pub(crate) const REBUILD_VIEW: &str = "lake-rebuild";

/// What the last owner of a table left to the next.
pub(crate) struct Taken {
    pub(crate) table: Option<Table>,
    pub(crate) view: ViewState,
    /// For a table that is rebuilt and is not made yet: the request, and the running table.
    pub(crate) rebuild: Option<(Rebuild, Option<Table>)>,
}

/// Takes a range of file numbers for a new owner. Files that the former owner may have written under its numbers, and
/// that no commit names, become garbage.
pub(crate) fn take_over<P: Place>(
    tx: &mut Tx<'_>,
    topic: &Topic,
    kind: Kind,
    epoch: u64,
) -> Result<Taken, ViewError> {
    let id = topic.id;
    let table = P::table(tx, id)?;
    let former = P::state(tx, id)?;
    // The count goes on, and the rest is of this process: no other one has files of the same names.
    let count = former.as_ref().map_or(0, |view| WriterNumber::count(view.numbers_end));
    let start = writer_number::known(tx)?.number(count);
    if let Some(view) = &former {
        put_garbage(tx, id, orphans(table.as_ref(), view))?;
    }
    let rebuild = P::rebuild(tx, id)?;
    let (name, schema) = match former {
        Some(view) => (view.name, view.schema),
        None => (P::folder(tx, topic)?, first_schema(tx, id, rebuild.as_ref(), kind)?),
    };
    let view =
        ViewState { name, schema, numbers_from: start, numbers_end: start + limits::NUMBERS_LEASED, epoch };
    P::put_state(tx, id, &view)?;
    let rebuild = match rebuild.filter(|_| table.is_none()) {
        Some(rebuild) => Some((rebuild, tx.get::<Table>(&id)?)),
        None => None,
    };
    Ok(Taken { table, view, rebuild })
}

/// The first schema of a table. One that keeps rows of the running table begins with the ids of its columns.
fn first_schema(
    tx: &Tx<'_>,
    topic: TopicId,
    rebuild: Option<&Rebuild>,
    kind: Kind,
) -> Result<TableSchema, ViewError> {
    let keeps = rebuild.is_some_and(|rebuild| !rebuild.starts.is_empty());
    let running = if keeps { tx.get::<ViewState>(&topic)? } else { None };
    Ok(running.map_or_else(|| TableSchema::new(kind), |view| view.schema))
}

/// Files that an owner may have written and that no record names.
fn orphans(table: Option<&Table>, view: &ViewState) -> Vec<Garbage> {
    let from = table.map_or(0, |table| table.next_file).max(view.numbers_from);
    numbers(&view.name, from, view.numbers_end).collect()
}

/// Takes more file numbers. Returns the end of the range, which begins where the last one ended.
pub(crate) fn more_numbers<P: Place>(
    tx: &mut Tx<'_>,
    topic: TopicId,
    epoch: u64,
    count: u64,
) -> Result<u64, ViewError> {
    tx.check_lease(&lease_name(P::VIEW, topic), epoch)?;
    let view = P::state(tx, topic)?.ok_or_else(|| ViewError::Stale("its state is gone".to_owned()))?;
    let numbers_end = view.numbers_end + count;
    P::put_state(tx, topic, &ViewState { numbers_end, ..view })?;
    Ok(numbers_end)
}

/// Publishes the first state of a table.
pub(crate) fn create<P: Place>(
    tx: &mut Tx<'_>,
    topic: TopicId,
    epoch: u64,
    table: &Table,
) -> Result<(), ViewError> {
    tx.check_lease(&lease_name(P::VIEW, topic), epoch)?;
    topic::by_id(tx, topic)?.ok_or(ViewError::TopicGone)?;
    if P::table(tx, topic)?.is_some() {
        return Err(ViewError::Stale("it was made before".to_owned()));
    }
    P::put_table(tx, topic, table)
}

/// What one commit of the view publishes, besides progress and dead letters.
pub(crate) struct Publication {
    pub(crate) topic: TopicId,
    /// The metadata document that the commit was made from.
    pub(crate) from: String,
    pub(crate) table: Table,
    pub(crate) schema: TableSchema,
    pub(crate) garbage: Vec<Garbage>,
}

/// Publishes a table's next state, if the table is as the owner left it.
pub(crate) fn publish<P: Place>(tx: &mut Tx<'_>, publication: &Publication) -> Result<(), ViewError> {
    let Publication { topic, from, table, schema, garbage } = publication;
    let current = P::table(tx, *topic)?.ok_or_else(|| ViewError::Stale("it is gone".to_owned()))?;
    if current.metadata != *from {
        return Err(ViewError::Stale(format!("it is at {}, not at {from}", current.metadata)));
    }
    P::put_table(tx, *topic, table)?;
    let view = P::state(tx, *topic)?.ok_or_else(|| ViewError::Stale("its state is gone".to_owned()))?;
    if view.schema != *schema {
        P::put_state(tx, *topic, &ViewState { schema: schema.clone(), ..view })?;
    }
    put_garbage(tx, *topic, garbage.clone())
}

/// Leaves the request that a table be made anew from the log. A second request only adds that rows may be lost, unless
/// a client has deleted records that the new table has not read. Then it begins once more, because those rows are in
/// the running table alone.
pub(crate) fn begin_rebuild(tx: &mut Tx<'_>, topic: TopicId, lose: bool) -> Result<(), ViewError> {
    let found = topic::by_id(tx, topic)?.ok_or(ViewError::TopicGone)?;
    let starts = map::log_starts(tx, &found)?;
    let before = tx.get::<Rebuild>(&topic)?;
    if let Some(before) = &before
        && !is_overtaken(tx, topic, &starts)?
    {
        tx.put(&topic, &Rebuild { lose: lose || before.lose, ..before.clone() });
        return Ok(());
    }
    let running = tx.get::<ViewState>(&topic)?;
    let running = running.ok_or_else(|| ViewError::Stale("the table has not been made yet".to_owned()))?;
    // The folder's name begins with the topic's id, so it differs from those of all other topics.
    let base = format!("{}.rebuilt-", &found.name[..found.name.len().min(limits::REBUILT_NAME_BYTES)]);
    let number =
        |name: &str| name.strip_prefix(&base).and_then(|number| number.parse().ok()).unwrap_or(0_u32);
    let number = before.as_ref().map_or(0, |before| number(&before.name)).max(number(&running.name));
    if let Some(Rebuild { table, state, .. }) = before {
        let mut garbage = state.as_ref().map_or_else(Vec::new, |state| orphans(table.as_ref(), state));
        garbage.extend(table.map(|table| Garbage::Table(Box::new(table))));
        put_garbage(tx, topic, garbage)?;
        for partition in progress_of::<RebuildProgress>(tx, topic)?.into_keys() {
            tx.delete::<RebuildProgress>(&PartitionId::new(topic, partition));
        }
        release(tx, REBUILD_VIEW, topic)?;
    }
    let name = format!("{base}{}", number + 1);
    let starts: Vec<(u32, i64)> = starts.into_iter().collect();
    for (partition, start) in &starts {
        tx.put(&PartitionId::new(topic, *partition), &RebuildProgress { next: *start });
    }
    tx.put(&topic, &Rebuild { name, lose, starts, table: None, state: None });
    Ok(())
}

/// Whether the log begins behind what the new table has read.
fn is_overtaken(tx: &Tx<'_>, topic: TopicId, starts: &LogStarts) -> Result<bool, ViewError> {
    let progress = progress_of::<RebuildProgress>(tx, topic)?;
    let next = |partition| progress.get(partition).map_or(0, |next| next.0);
    Ok(starts.iter().any(|(partition, start)| next(partition) < *start))
}

/// Puts the table that was made anew in the place of the running one, if it has read as far.
///
/// The owner of the running table knows the old one. It loses its lease, as in [`drop_columns`].
pub(crate) fn end_rebuild(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
    let rebuild = tx.get::<Rebuild>(&topic)?.ok_or_else(|| ViewError::Stale("it is over".to_owned()))?;
    let Rebuild { table: Some(mut table), state: Some(state), .. } = rebuild else {
        return Err(ViewError::NotYet);
    };
    let progress = progress_of::<RebuildProgress>(tx, topic)?;
    if !covers(&progress, &progress_of::<Progress>(tx, topic)?) {
        return Err(ViewError::NotYet);
    }
    for (partition, next) in progress {
        let partition = PartitionId::new(topic, partition);
        tx.put(&partition, &Progress { next: next.0 });
        tx.delete::<RebuildProgress>(&partition);
    }
    let (old, view) = (tx.get::<Table>(&topic)?, tx.get::<ViewState>(&topic)?);
    let mut garbage = view.as_ref().map_or_else(Vec::new, |view| orphans(old.as_ref(), view));
    if let Some(old) = old {
        // Readers tell a table's states apart by their number.
        table.snapshots += old.snapshots;
        garbage.push(Garbage::Table(Box::new(old)));
    }
    put_garbage(tx, topic, garbage)?;
    tx.put(&topic, &table);
    tx.put(&topic, &state);
    tx.delete::<Rebuild>(&topic);
    release(tx, VIEW, topic)
}

/// Whether `progress` is at least as far as `other` in every partition.
pub(crate) fn covers(progress: &BTreeMap<u32, Offset>, other: &BTreeMap<u32, Offset>) -> bool {
    let of = |partition| progress.get(partition).copied().unwrap_or(Offset::ZERO);
    other.iter().all(|(partition, next)| of(partition) >= *next)
}

/// Takes the lease of a table from its owner.
fn release(tx: &mut Tx<'_>, view: &str, topic: TopicId) -> Result<(), ViewError> {
    let name = lease_name(view, topic);
    if let Some(Lease { owner: Some(_), epoch, .. }) = tx.get::<Lease>(&name)? {
        lease::release(tx, &name, epoch)?;
    }
    Ok(())
}

/// Drops the columns of the top-level keys that match one of the patterns. Returns how many columns went.
///
/// The view's owner knows the old schema. It loses its lease here, so that the commit that it works on is refused, and
/// it takes over again from what this command leaves.
pub(crate) fn drop_columns(tx: &mut Tx<'_>, topic: TopicId, patterns: &[String]) -> Result<u64, ViewError> {
    topic::by_id(tx, topic)?.ok_or(ViewError::TopicGone)?;
    let view = tx.get::<ViewState>(&topic)?;
    let view =
        view.ok_or_else(|| ViewError::Stale("the table has not been made yet, try again".to_owned()))?;
    let drops = |key: &str| patterns.iter().any(|pattern| floe_schema::matches(pattern, key));
    let schema = view.schema.without(drops);
    let dropped = (view.schema.columns_used() - schema.columns_used()) as u64;
    if schema == view.schema {
        return Ok(0);
    }
    tx.put(&topic, &ViewState { schema, ..view });
    release(tx, VIEW, topic)?;
    Ok(dropped)
}

/// Removes the table of a deleted topic from the map. Its files become garbage.
pub(crate) fn drop_table<P: Place>(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
    let (table, view) = (P::table(tx, topic)?, P::state(tx, topic)?);
    let mut garbage = view.as_ref().map_or_else(Vec::new, |view| orphans(table.as_ref(), view));
    garbage.extend(table.map(|table| Garbage::Table(Box::new(table))));
    P::remove(tx, topic)?;
    put_garbage(tx, topic, garbage)
}

/// The garbage records for these files.
pub(crate) fn files(keys: &[String]) -> impl Iterator<Item = Garbage> {
    keys.chunks(limits::GARBAGE_FILES_MAX).map(|chunk| Garbage::Files(chunk.to_vec()))
}

/// The garbage records for the files that may have the numbers `from..to` in the folder `name`.
pub(crate) fn numbers(name: &str, from: u64, to: u64) -> impl Iterator<Item = Garbage> {
    let step = limits::GARBAGE_FILES_MAX as u64;
    let record = move |from: u64| Garbage::Numbers { name: name.to_owned(), from, to: to.min(from + step) };
    (from..to).step_by(limits::GARBAGE_FILES_MAX).map(record)
}

fn put_garbage(tx: &mut Tx<'_>, topic: TopicId, garbage: Vec<Garbage>) -> Result<(), ViewError> {
    let since = tx.now();
    let key = |number| GarbageKey { since, topic, number };
    let taken = tx.range::<Garbage>(key(0)..=key(u32::MAX)).next_back().transpose()?;
    let first = taken.map_or(0, |(key, _)| key.number + 1);
    for (number, garbage) in (first..).zip(garbage) {
        tx.put(&key(number), &garbage);
    }
    Ok(())
}
