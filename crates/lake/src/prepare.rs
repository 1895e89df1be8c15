//! Turns the rows of one commit into the next state of the table: puts the files, and makes the command that publishes
//! them.

use std::collections::BTreeSet;

use floe_env::Env;
use floe_iceberg::engine::Added;
use floe_log::TopicId;
use floe_meta::{Envelope, Tx};
use floe_schema::TableSchema;
use floe_view::{Command, Portion, ViewError};

use crate::{
    command::{self, Publication},
    commit::{self, Delta, Next, Numbers},
    convert::Old,
    data_file::Encoded,
    encode::EncodedRows,
    error::TableError,
    files::Files,
    layout::FileKind,
    limits,
    map::Garbage,
    merge::{self, Merged},
    owned::{Clean, OwnedTable},
    place::Place,
    rewrite::{self, Rewritten},
    shared::Shared,
};

/// What one commit brings.
struct Change {
    /// The schema that every row fits.
    schema: TableSchema,
    /// Files with rows of new records.
    files: Vec<Encoded>,
    replacement: Replacement,
    /// What the widening job has looked through.
    clean: Clean,
}

/// Files that take the place of others.
struct Replacement {
    files: Vec<Encoded>,
    /// The sequence number of their youngest rows.
    sequence_number: Option<i64>,
    /// URLs of the others.
    removed: BTreeSet<String>,
    /// Paths of manifests that name none of the others.
    untouched: BTreeSet<String>,
    /// Replaced columns that no file holds any more.
    gone: BTreeSet<i32>,
    /// Whether every row is as it was, in the same columns.
    same_rows: bool,
}

impl Replacement {
    fn of(rewritten: Rewritten) -> (Replacement, Clean) {
        let gone = rewritten.gone();
        let Rewritten { files, removed, sequence_number, clean, .. } = rewritten;
        let untouched = clean.manifests.clone();
        (Replacement { files, sequence_number, removed, untouched, gone, same_rows: false }, clean)
    }
}

/// Puts the data files of new records and all documents of the next state of the table.
pub(crate) async fn prepare<P: Place>(
    shared: &Shared,
    portion: Portion<'_>,
    table: &mut OwnedTable,
    rows: EncodedRows,
) -> Result<(OwnedTable, Command), ViewError> {
    let files = shared.files(&table.base.table.name, portion.topic.id);
    let rewritten = rewrite::in_step(shared, &files, table, &rows.schema).await?;
    let (replacement, clean) = Replacement::of(rewritten);
    let change = Change { schema: rows.schema, files: rows.files, replacement, clean };
    publish::<P>(shared, &files, portion, table, change).await
}

/// The same for files that a job has rewritten for a wider column.
pub(crate) async fn adopt_rewritten<P: Place>(
    shared: &Shared,
    portion: Portion<'_>,
    table: &mut OwnedTable,
    rewritten: Rewritten,
) -> Result<(OwnedTable, Command), ViewError> {
    let files = shared.files(&table.base.table.name, portion.topic.id);
    let (replacement, clean) = Replacement::of(rewritten);
    let change = Change { schema: table.schema.clone(), files: Vec::new(), replacement, clean };
    publish::<P>(shared, &files, portion, table, change).await
}

/// The same for a file with the rows of others; none if the table has moved on.
pub(crate) async fn adopt_merged<P: Place>(
    shared: &Shared,
    portion: Portion<'_>,
    table: &mut OwnedTable,
    merged: Merged,
) -> Result<Option<(OwnedTable, Command)>, ViewError> {
    let Some(merge::Replaces { sequence_number, removed, untouched }) = merged.replaces(table) else {
        return Ok(None);
    };
    let files = shared.files(&table.base.table.name, portion.topic.id);
    let replacement = Replacement {
        files: vec![merged.file],
        sequence_number: Some(sequence_number),
        removed,
        untouched,
        gone: BTreeSet::new(),
        same_rows: true,
    };
    let (schema, clean) = (table.schema.clone(), table.clean.clone());
    let change = Change { schema, files: Vec::new(), replacement, clean };
    publish::<P>(shared, &files, portion, table, change).await.map(Some)
}

async fn publish<P: Place>(
    shared: &Shared,
    files: &Files,
    portion: Portion<'_>,
    table: &mut OwnedTable,
    change: Change,
) -> Result<(OwnedTable, Command), ViewError> {
    let topic = portion.topic.id;
    let name = table.base.table.name.clone();
    // Loose files are those of failed attempts and become garbage. The files of this attempt must not.
    let failed: Vec<Garbage> = command::numbers(&name, table.loose, table.numbers.next).collect();
    let wanted = change.files.len() + change.replacement.files.len() + table.base.manifests.len() + 16;
    reserve_numbers::<P>(shared, topic, portion.epoch, &mut table.numbers, wanted as u64).await?;
    let (schema, clean) = (change.schema.clone(), change.clean.clone());
    let next = put(shared, files, &portion, table, change).await?;
    // First the files that manifests name, because some of the manifests may be among the others.
    let removed = next.removed.into_iter().map(|manifest| Garbage::Removed { name: name.clone(), manifest });
    let publication = Publication {
        topic,
        from: table.base.table.metadata.clone(),
        table: next.base.table.clone(),
        schema: schema.clone(),
        garbage: removed.chain(command::files(&next.garbage)).chain(failed).collect(),
    };
    let numbers = Numbers { ..table.numbers };
    let loose = numbers.next;
    let command = Box::new(move |tx: &mut Tx<'_>| command::publish::<P>(tx, &publication));
    Ok((OwnedTable { base: next.base, schema, numbers, loose, clean, small: next.small }, command))
}

/// Puts every file of the commit: the data files and the documents.
async fn put(
    shared: &Shared,
    files: &Files,
    portion: &Portion<'_>,
    table: &mut OwnedTable,
    change: Change,
) -> Result<Next, TableError> {
    let Change { schema, files: new, replacement, .. } = change;
    let mut added = put_data(files, &mut table.numbers, &new, None).await?;
    let number = replacement.sequence_number;
    added.extend(put_data(files, &mut table.numbers, &replacement.files, number).await?);
    let delta = Delta {
        old: Old::of(&schema, table.base.metadata.current_schema(), &replacement.gone),
        schema: &schema,
        added,
        removed: replacement.removed,
        untouched: &replacement.untouched,
        same_rows: replacement.same_rows,
        small: table.small.below(merge::small_bytes(&shared.config, portion.topic)),
        read: portion.read,
        progress: portion.progress,
        bad_records: portion.bad_records,
        snapshot_id: snapshot_id(&shared.env),
        time: shared.env.now(),
        snapshots_kept: shared.config.snapshots_kept,
    };
    let mut next = commit::prepare(files, &mut table.numbers, &table.base, delta).await?;
    files.put_all(std::mem::take(&mut next.files)).await?;
    Ok(next)
}

/// Makes sure that the owner has this many file numbers.
pub(crate) async fn reserve_numbers<P: Place>(
    shared: &Shared,
    topic: TopicId,
    epoch: u64,
    numbers: &mut Numbers,
    wanted: u64,
) -> Result<(), ViewError> {
    if numbers.end - numbers.next >= wanted {
        return Ok(());
    }
    let count = wanted.max(limits::NUMBERS_LEASED);
    let command = move |tx: &mut Tx<'_>| command::more_numbers::<P>(tx, topic, epoch, count);
    let committed = shared.log.meta().commit(Envelope::broker("lake file numbers"), command).await;
    // If the answer was lost, the range may be longer than we know. Unused numbers do no harm.
    numbers.end = committed.map_err(ViewError::from_commit)?.reply;
    Ok(())
}

/// Puts data files under new numbers. Their youngest rows have this sequence number, or that of the next snapshot.
pub(crate) async fn put_data(
    files: &Files,
    numbers: &mut Numbers,
    encoded: &[Encoded],
    sequence_number: Option<i64>,
) -> Result<Vec<Added>, TableError> {
    let mut entries = Vec::with_capacity(encoded.len());
    let mut puts = Vec::with_capacity(encoded.len());
    for file in encoded {
        let key = files.key(FileKind::Data, numbers.take()?);
        entries.push(Added { file: file.data_file(files.url(&key)), sequence_number });
        puts.push((key, file.bytes.clone()));
    }
    files.put_all(puts).await?;
    Ok(entries)
}

/// A new id for a snapshot. It is positive, because some engines take no other.
pub(crate) fn snapshot_id(env: &Env) -> i64 {
    (env.random_u64() >> 1).max(1).cast_signed()
}
