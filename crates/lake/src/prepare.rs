//! Turns the rows of one commit into the next state of the table: puts the files, and makes the command that publishes
//! them.

use std::collections::BTreeSet;

use floe_env::Env;
use floe_meta::{Envelope, Tx};
use floe_schema::TableSchema;
use floe_view::{Command, Portion, ViewError};
use iceberg::spec::DataFile;

use crate::{
    command::{self, Publication},
    commit::{self, Delta, Next, Numbers},
    convert,
    data_file::{self, Encoded},
    encode::EncodedRows,
    error::TableError,
    files::{Base, Files},
    layout::FileKind,
    limits, manifest,
    map::Garbage,
    shared::Shared,
};

/// What the owner of a table knows of it.
pub(crate) struct OwnedTable {
    pub(crate) base: Base,
    pub(crate) schema: TableSchema,
    pub(crate) numbers: Numbers,
    /// Files with numbers from here on may be in the store and belong to no commit.
    pub(crate) loose: u64,
}

/// Puts the data files and all documents of the next state of the table.
pub(crate) async fn prepare(
    shared: &Shared,
    portion: Portion<'_>,
    table: &mut OwnedTable,
    rows: EncodedRows,
) -> Result<(OwnedTable, Command), ViewError> {
    let topic = portion.topic.id;
    let name = table.base.table.name.clone();
    let files = shared.files(&name, topic);
    // Loose files are those of failed attempts and become garbage. The files of this attempt must not.
    let failed: Vec<Garbage> = command::numbers(&name, table.loose, table.numbers.next).collect();
    let old = holders_of_replaced(&files, table, &rows.schema).await?;
    let wanted = rows.files.len() + old.len() + table.base.manifests.len() + 16;
    reserve_numbers(shared, &portion, table, wanted as u64).await?;
    let schema = rows.schema.clone();
    let next = put(shared, &files, &portion, table, rows, old).await?;
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
    let command = Box::new(move |tx: &mut Tx<'_>| command::publish(tx, &publication));
    Ok((OwnedTable { base: next.base, schema, numbers, loose }, command))
}

/// Puts every file of the commit: the new data files, those that replace `old` ones, and the documents.
async fn put(
    shared: &Shared,
    files: &Files,
    portion: &Portion<'_>,
    table: &mut OwnedTable,
    rows: EncodedRows,
    old: BTreeSet<String>,
) -> Result<Next, TableError> {
    let mut added = put_data(files, table, &rows.files).await?;
    for url in &old {
        let (bytes, schema) = (files.get_url(url).await?, rows.schema.clone());
        let encoded = shared.env.blocking(move || data_file::rewrite(bytes, &schema)).await;
        let encoded = encoded.map_err(|error| TableError::damaged(url, error))?;
        added.extend(put_data(files, table, &[encoded]).await?);
    }
    let delta = Delta {
        schema: &rows.schema,
        added,
        removed: old,
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

/// A new id for a snapshot. It is positive, because some engines take no other.
fn snapshot_id(env: &Env) -> i64 {
    (env.random_u64() >> 1).max(1).cast_signed()
}

/// URLs of the live data files that hold a column which the new schema replaces.
async fn holders_of_replaced(
    files: &Files,
    table: &OwnedTable,
    schema: &TableSchema,
) -> Result<BTreeSet<String>, TableError> {
    let before = table.schema.replaced();
    let gone: BTreeSet<i32> = schema.replaced().into_keys().filter(|id| !before.contains_key(id)).collect();
    let leaves = convert::leaves(&table.schema, &gone);
    let mut holders = BTreeSet::new();
    if leaves.is_empty() {
        return Ok(holders);
    }
    for manifest in table.base.manifests.iter().filter(|manifest| manifest::live(manifest) > 0) {
        for entry in files.manifest(manifest).await?.iter().filter(|entry| entry.is_alive()) {
            if entry.data_file().value_counts().keys().any(|id| leaves.contains(id)) {
                holders.insert(entry.file_path().to_owned());
            }
        }
    }
    Ok(holders)
}

async fn reserve_numbers(
    shared: &Shared,
    portion: &Portion<'_>,
    table: &mut OwnedTable,
    wanted: u64,
) -> Result<(), ViewError> {
    if table.numbers.end - table.numbers.next >= wanted {
        return Ok(());
    }
    let (topic, epoch, count) = (portion.topic.id, portion.epoch, wanted.max(limits::NUMBERS_LEASED));
    let command = move |tx: &mut Tx<'_>| command::more_numbers(tx, topic, epoch, count);
    let committed = shared.log.meta().commit(Envelope::broker("lake file numbers"), command).await;
    // If the answer was lost, the range may be longer than we know. Unused numbers do no harm.
    table.numbers.end = committed.map_err(ViewError::from_commit)?.reply;
    Ok(())
}

async fn put_data(
    files: &Files,
    table: &mut OwnedTable,
    encoded: &[Encoded],
) -> Result<Vec<DataFile>, TableError> {
    let mut entries = Vec::with_capacity(encoded.len());
    let mut puts = Vec::with_capacity(encoded.len());
    for file in encoded {
        let key = files.key(FileKind::Data, table.numbers.take()?);
        entries.push(file.data_file(files.url(&key))?);
        puts.push((key, file.bytes.clone()));
    }
    files.put_all(puts).await?;
    Ok(entries)
}
