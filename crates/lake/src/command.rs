//! The commands of the lake: pure functions over the metadata map, each one journal entry.

use floe_log::{
    TopicId, WriterNumber,
    topic::{self, Topic},
    writer_number,
};
use floe_meta::Tx;
use floe_meta::lease::{self, Lease};
use floe_schema::{Kind, TableSchema};
use floe_view::{ViewError, lease_name};

use crate::{
    limits,
    map::{Garbage, GarbageKey, Table, ViewState},
};

/// The name of the lake's view. It is in leases and envelopes, and never changes.
pub(crate) const VIEW: &str = "lake";

/// What the last owner of a table left to the next.
pub(crate) struct Taken {
    pub(crate) table: Option<Table>,
    pub(crate) view: ViewState,
}

/// Takes a range of file numbers for a new owner. Files that the former owner may have written under its numbers, and
/// that no commit names, become garbage.
pub(crate) fn take_over(tx: &mut Tx<'_>, topic: &Topic, kind: Kind, epoch: u64) -> Result<Taken, ViewError> {
    let (topic, name) = (topic.id, topic.name.clone());
    let table = tx.get::<Table>(&topic)?;
    let former = tx.get::<ViewState>(&topic)?;
    // The count goes on, and the rest is of this process: no other one has files of the same names.
    let count = former.as_ref().map_or(0, |view| WriterNumber::count(view.numbers_end));
    let start = writer_number::known(tx)?.number(count);
    if let Some(view) = &former {
        put_garbage(tx, topic, orphans(table.as_ref(), view))?;
    }
    let (name, schema) = match former {
        Some(view) => (view.name, view.schema),
        None => (name, TableSchema::new(kind)),
    };
    let view =
        ViewState { name, schema, numbers_from: start, numbers_end: start + limits::NUMBERS_LEASED, epoch };
    tx.put(&topic, &view);
    Ok(Taken { table, view })
}

/// Files that an owner may have written and that no record names.
fn orphans(table: Option<&Table>, view: &ViewState) -> Vec<Garbage> {
    let from = table.map_or(0, |table| table.next_file).max(view.numbers_from);
    numbers(&view.name, from, view.numbers_end).collect()
}

/// Takes more file numbers. Returns the end of the range, which begins where the last one ended.
pub(crate) fn more_numbers(
    tx: &mut Tx<'_>,
    topic: TopicId,
    epoch: u64,
    count: u64,
) -> Result<u64, ViewError> {
    tx.check_lease(&lease_name(VIEW, topic), epoch)?;
    let view =
        tx.get::<ViewState>(&topic)?.ok_or_else(|| ViewError::Stale("its state is gone".to_owned()))?;
    let numbers_end = view.numbers_end + count;
    tx.put(&topic, &ViewState { numbers_end, ..view });
    Ok(numbers_end)
}

/// Publishes the first state of a table.
pub(crate) fn create(tx: &mut Tx<'_>, topic: TopicId, epoch: u64, table: &Table) -> Result<(), ViewError> {
    tx.check_lease(&lease_name(VIEW, topic), epoch)?;
    topic::by_id(tx, topic)?.ok_or(ViewError::TopicGone)?;
    if tx.get::<Table>(&topic)?.is_some() {
        return Err(ViewError::Stale("it was made before".to_owned()));
    }
    tx.put(&topic, table);
    Ok(())
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
pub(crate) fn publish(tx: &mut Tx<'_>, publication: &Publication) -> Result<(), ViewError> {
    let Publication { topic, from, table, schema, garbage } = publication;
    let current = tx.get::<Table>(topic)?.ok_or_else(|| ViewError::Stale("it is gone".to_owned()))?;
    if current.metadata != *from {
        return Err(ViewError::Stale(format!("it is at {}, not at {from}", current.metadata)));
    }
    tx.put(topic, table);
    let view = tx.get::<ViewState>(topic)?.ok_or_else(|| ViewError::Stale("its state is gone".to_owned()))?;
    if view.schema != *schema {
        tx.put(topic, &ViewState { schema: schema.clone(), ..view });
    }
    put_garbage(tx, *topic, garbage.clone())
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
    let name = lease_name(VIEW, topic);
    if let Some(Lease { owner: Some(_), epoch, .. }) = tx.get::<Lease>(&name)? {
        lease::release(tx, &name, epoch)?;
    }
    Ok(dropped)
}

/// Removes the table of a deleted topic from the map. Its files become garbage.
pub(crate) fn drop_table(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
    let (table, view) = (tx.get::<Table>(&topic)?, tx.get::<ViewState>(&topic)?);
    let mut garbage = view.as_ref().map_or_else(Vec::new, |view| orphans(table.as_ref(), view));
    if let Some(table) = table {
        garbage.push(Garbage::Table(Box::new(table)));
        tx.delete::<Table>(&topic);
    }
    if view.is_some() {
        tx.delete::<ViewState>(&topic);
    }
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
