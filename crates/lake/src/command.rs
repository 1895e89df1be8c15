//! The commands of the lake: pure functions over the metadata map, each one journal entry.

use std::collections::BTreeMap;

use floe_log::{
    Offset, PartitionId, TopicId,
    sequencer::{self, Uploaded},
    topic,
};
use floe_meta::{Lease, Tx, lease};
use floe_schema::{Kind, TableSchema};

use crate::{
    error::ViewError,
    limits,
    map::{self, Garbage, GarbageKey, Progress, Table, ViewState},
};

/// The name of the lease on a topic's table.
pub(crate) fn lease_name(topic: TopicId) -> String {
    format!("view/lake/{topic}")
}

/// What a new owner of a table needs to know.
pub(crate) struct Taken {
    pub(crate) epoch: u64,
    pub(crate) table: Option<Table>,
    pub(crate) view: ViewState,
    pub(crate) progress: BTreeMap<u32, Offset>,
}

/// Takes the lease on a topic's table and a range of file numbers. What the former owner may have written under its
/// numbers, and nobody knows, becomes garbage.
pub(crate) fn take_over(
    tx: &mut Tx<'_>,
    topic: TopicId,
    kind: Kind,
    owner: &str,
) -> Result<Taken, ViewError> {
    let name = topic::by_id(tx, topic)?.ok_or(ViewError::TopicGone)?.name;
    let epoch = lease::acquire(tx, &lease_name(topic), owner, limits::LEASE_TTL)?;
    let table = tx.get::<Table>(&topic)?;
    let former = tx.get::<ViewState>(&topic)?;
    let start = former.as_ref().map_or(0, |view| view.numbers_end);
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
    Ok(Taken { epoch, table, view, progress: map::progress(tx, topic)? })
}

/// What an owner may have written that nobody knows.
fn orphans(table: Option<&Table>, view: &ViewState) -> Vec<Garbage> {
    let from = table.map_or(0, |table| table.next_file).max(view.numbers_from);
    numbers(&view.name, from, view.numbers_end).collect()
}

/// Takes more file numbers; the result is the new range's end. The range begins where the last one ended.
pub(crate) fn more_numbers(
    tx: &mut Tx<'_>,
    topic: TopicId,
    epoch: u64,
    count: u64,
) -> Result<u64, ViewError> {
    tx.check_lease(&lease_name(topic), epoch)?;
    let view =
        tx.get::<ViewState>(&topic)?.ok_or_else(|| ViewError::Stale("its state is gone".to_owned()))?;
    let numbers_end = view.numbers_end + count;
    tx.put(&topic, &ViewState { numbers_end, ..view });
    Ok(numbers_end)
}

/// Publishes the first state of a table.
pub(crate) fn create(tx: &mut Tx<'_>, topic: TopicId, epoch: u64, table: &Table) -> Result<(), ViewError> {
    tx.check_lease(&lease_name(topic), epoch)?;
    topic::by_id(tx, topic)?.ok_or(ViewError::TopicGone)?;
    if tx.get::<Table>(&topic)?.is_some() {
        return Err(ViewError::Stale("it was made before".to_owned()));
    }
    tx.put(&topic, table);
    Ok(())
}

/// What one commit of a view publishes, all or nothing.
#[derive(Clone)]
pub(crate) struct Publication {
    pub(crate) topic: TopicId,
    pub(crate) epoch: u64,
    /// The metadata document that the commit was made from.
    pub(crate) from: String,
    pub(crate) table: Table,
    pub(crate) schema: TableSchema,
    pub(crate) read: BTreeMap<u32, (Offset, Offset)>,
    pub(crate) letters: Option<Uploaded>,
    pub(crate) garbage: Vec<Garbage>,
}

/// Publishes a table's next state together with progress and dead letters, if nothing has come in between.
pub(crate) fn publish(tx: &mut Tx<'_>, publication: &Publication) -> Result<(), ViewError> {
    let Publication { topic, epoch, from, table, schema, read, letters, garbage } = publication;
    lease::renew(tx, &lease_name(*topic), *epoch, limits::LEASE_TTL)?;
    topic::by_id(tx, *topic)?.ok_or(ViewError::TopicGone)?;
    let current = tx.get::<Table>(topic)?.ok_or_else(|| ViewError::Stale("it is gone".to_owned()))?;
    if current.metadata != *from {
        return Err(ViewError::Stale(format!("it is at {}, not at {from}", current.metadata)));
    }
    for (index, (start, end)) in read {
        let partition = PartitionId::new(*topic, *index);
        let next = tx.get::<Progress>(&partition)?.map_or(0, |progress| progress.next);
        if next != start.0 {
            return Err(ViewError::Stale(format!("partition {index} was read to {next}, not to {start}")));
        }
        assert!(end > start, "progress moves on");
        tx.put(&partition, &Progress { next: end.0 });
    }
    tx.put(topic, table);
    let view = tx.get::<ViewState>(topic)?.ok_or_else(|| ViewError::Stale("its state is gone".to_owned()))?;
    if view.schema != *schema {
        tx.put(topic, &ViewState { schema: schema.clone(), ..view });
    }
    put_garbage(tx, *topic, garbage.clone())?;
    if let Some(uploaded) = letters {
        for result in sequencer::sequence(tx, uploaded) {
            result?;
        }
    }
    Ok(())
}

/// Takes the table of a deleted topic out of the map; its files become garbage.
pub(crate) fn drop_table(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
    if topic::by_id(tx, topic)?.is_some() {
        return Ok(());
    }
    let (table, view) = (tx.get::<Table>(&topic)?, tx.get::<ViewState>(&topic)?);
    let mut garbage = view.as_ref().map_or_else(Vec::new, |view| orphans(table.as_ref(), view));
    if let Some(table) = table {
        garbage.push(Garbage::Table(Box::new(table)));
        tx.delete::<Table>(&topic);
    }
    if view.is_some() {
        tx.delete::<ViewState>(&topic);
    }
    for index in map::progress(tx, topic)?.into_keys() {
        tx.delete::<Progress>(&PartitionId::new(topic, index));
    }
    // Nobody takes it any more: whoever would is told that the topic is gone, and no other topic gets this id.
    tx.delete::<Lease>(&lease_name(topic));
    put_garbage(tx, topic, garbage)
}

/// The garbage records for these files.
pub(crate) fn files(keys: &[String]) -> impl Iterator<Item = Garbage> {
    keys.chunks(limits::GARBAGE_FILES_MAX).map(|chunk| Garbage::Files(chunk.to_vec()))
}

/// The garbage records for what was written under the numbers `from..to` of the folder `name`, if anything was.
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
