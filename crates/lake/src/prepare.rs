//! From encoded records to one commit: files into the store, then the pointer, progress and dead letters in one
//! journal entry.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use floe_env::Env;
use floe_log::{
    Append, Offset, TopicId, Writer,
    sequencer::Uploaded,
    topic::{self, NewTopic, Topic, TopicError},
    topic_config::{BadRecord, TopicConfig},
};
use floe_meta::{CommitError, Envelope};
use floe_schema::TableSchema;
use floe_store::StoreError;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use iceberg::spec::DataFile;
use metrics::counter;
use tokio::time::sleep;
use tracing::warn;

use crate::{
    command::{self, Publication},
    commit::{self, Delta, Numbers},
    convert,
    data_file::{self, Encoded},
    encode::{DeadLetter, Output},
    error::ViewError,
    files::{Base, Files},
    layout::FileKind,
    limits, manifest,
    map::{Garbage, Table},
    running::dead_letter,
    shared::Shared,
};

/// The ranges of offsets that a commit has read, by partition.
pub(crate) type Read = BTreeMap<u32, (Offset, Offset)>;

/// What the owner of a table knows.
pub(crate) struct State {
    pub(crate) epoch: u64,
    pub(crate) base: Base,
    pub(crate) schema: TableSchema,
    pub(crate) progress: BTreeMap<u32, Offset>,
    pub(crate) numbers: Numbers,
    /// From this number on, files may have been put that belong to no commit (yet).
    pub(crate) loose: u64,
}

impl State {
    /// Progress of a partition.
    pub(crate) fn at(&self, partition: u32) -> Offset {
        self.progress.get(&partition).copied().unwrap_or(Offset::ZERO)
    }
}

/// Commits `output`, the records of the offsets `read`.
pub(crate) async fn publish(
    shared: &Shared,
    state: &mut State,
    topic: &Topic,
    config: &TopicConfig,
    mut output: Output,
    read: Read,
) -> Result<(), ViewError> {
    let dead = std::mem::take(&mut output.dead);
    let (bad, rows) = (dead.len() as u64, output.rows);
    // What is loose now is of failed attempts and becomes garbage; what this attempt adds must not.
    let failed =
        command::numbers(&state.base.table.name.clone(), state.loose, state.numbers.next).collect::<Vec<_>>();
    let mut attempt = prepare(shared, state, topic.id, output, bad, &read).await?;
    attempt.publication.garbage.extend(failed);
    // Last, as their object is kept for some minutes only and the table's files may take longer to be rewritten.
    attempt.publication.letters = bury(shared, topic, config, &dead).await?;
    let publication = attempt.publication.clone();
    let command = move |tx: &mut floe_meta::Tx<'_>| command::publish(tx, &publication);
    let committed = shared.log.meta().commit(envelope(topic, &read), command).await;
    match committed {
        Ok(_) => {}
        Err(CommitError::Unknown(reason)) => {
            resolve(shared, topic.id, state.epoch, &attempt.base.table, reason).await?;
        }
        Err(error) => return Err(ViewError::from_commit(error)),
    }
    state.loose = state.numbers.next;
    state.base = attempt.base;
    state.schema = attempt.publication.schema;
    state.progress.extend(read.into_iter().map(|(partition, (_, to))| (partition, to)));
    counter!("floe_lake_commits_total", "topic" => topic.name.clone()).increment(1);
    counter!("floe_lake_rows_total", "topic" => topic.name.clone()).increment(rows);
    counter!("floe_lake_bad_records_total", "topic" => topic.name.clone()).increment(bad);
    Ok(())
}

/// Everything of a commit but the commit.
struct Attempt {
    base: Base,
    publication: Publication,
}

/// The envelope of a commit: what it was made from.
fn envelope(topic: &Topic, read: &Read) -> Envelope {
    let from = read.iter().next().map_or(String::new(), |(p, (from, to))| format!(" {p}@{from}..{to}"));
    let more =
        if read.len() > 1 { format!(" and {} more partitions", read.len() - 1) } else { String::new() };
    Envelope::broker(&format!("lake view of {}{from}{more}", topic.name))
}

/// Finds out whether a commit whose answer was lost was applied: a command behind it sees it, or it never will.
async fn resolve(
    shared: &Shared,
    topic: TopicId,
    epoch: u64,
    ours: &Table,
    reason: String,
) -> Result<(), ViewError> {
    let mut pause = limits::BACKOFF_MIN;
    loop {
        warn!(%topic, %reason, "the answer of a commit was lost, the journal is asked for it");
        let probe = move |tx: &mut floe_meta::Tx<'_>| -> Result<Option<Table>, ViewError> {
            let found = tx.get::<Table>(&topic)?;
            // A change of its own makes the command an entry behind the one in doubt; without the lease there is no
            // need, as nothing of ours can come any more.
            let _ = floe_meta::lease::renew(tx, &command::lease_name(topic), epoch, limits::LEASE_TTL);
            Ok(found)
        };
        match shared.log.meta().commit(Envelope::broker("lake view asks for its commit"), probe).await {
            Ok(committed) if committed.reply.as_ref() == Some(ours) => return Ok(()),
            Ok(_) => return Err(ViewError::NotApplied(reason)),
            Err(CommitError::Closed) => return Err(ViewError::Closed),
            Err(CommitError::Refused(error)) => return Err(error),
            Err(CommitError::NotApplied(_) | CommitError::Unknown(_)) => sleep(pause).await,
        }
        pause = (pause * 2).min(limits::BACKOFF_MAX);
    }
}

/// Uploads dead letters; they become visible with the commit.
async fn bury(
    shared: &Shared,
    topic: &Topic,
    config: &TopicConfig,
    dead: &[DeadLetter],
) -> Result<Option<Uploaded>, ViewError> {
    if config.table_bad_record != BadRecord::DeadLetter || dead.is_empty() {
        return Ok(None);
    }
    let Some(name) = dead_letter::topic_of(&topic.name) else { return Ok(None) };
    let writer = Writer::new(Envelope::BROKER, "lake");
    let to = dead_letter_topic(shared, &writer, name).await?;
    let batches = dead_letter::batches(dead, &topic.name, &to);
    Ok(Some(shared.log.upload(Append { writer, batches }).await?))
}

async fn dead_letter_topic(shared: &Shared, writer: &Writer, name: String) -> Result<Topic, ViewError> {
    let meta = shared.log.meta();
    if let Some(found) = topic::by_name(&meta.snapshot(), &name)? {
        return Ok(found);
    }
    // Consumers take any batch; the limit is raised so that those who copy the topic can produce its batches elsewhere:
    // letters are larger than the records in them, and records that were compressed may be larger than their batch.
    let configs = [("floe.table", "off"), ("max.message.bytes", "2147483647")];
    let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let new = NewTopic { name: name.clone(), partitions: 1, configs };
    match shared.log.create_topic(writer, new, false).await {
        Err(TopicError::Exists(_)) => {
            Ok(topic::by_name(&meta.snapshot(), &name)?.ok_or(TopicError::NotFound)?)
        }
        made => Ok(made?),
    }
}

/// Puts the data files, and all documents of the next state of the table.
async fn prepare(
    shared: &Shared,
    state: &mut State,
    topic: TopicId,
    output: Output,
    bad_records: u64,
    read: &Read,
) -> Result<Attempt, ViewError> {
    let files = shared.files(&state.base.table.name, topic);
    let old = holders_of_replaced(&files, state, &output.schema).await?;
    let wanted = output.files.len() + old.len() + state.base.manifests.len() + 16;
    reserve_numbers(shared, state, topic, wanted as u64).await?;

    let mut added = put_data(&files, state, &output.files).await?;
    for url in &old {
        let (bytes, schema) = (files.get_url(url).await?, output.schema.clone());
        let encoded = shared.env.blocking(move || data_file::rewrite(bytes, &schema)).await?;
        added.extend(put_data(&files, state, &[encoded]).await?);
    }
    let mut progress = state.progress.clone();
    progress.extend(read.iter().map(|(partition, (_, to))| (*partition, *to)));
    let delta = Delta {
        schema: &output.schema,
        added,
        removed: old,
        read: read.clone(),
        progress,
        bad_records,
        snapshot_id: snapshot_id(&shared.env),
        time: shared.env.now(),
        snapshots_kept: shared.config.snapshots_kept,
    };
    let next = commit::prepare(&files, &mut state.numbers, &state.base, delta).await?;
    put_all(&files, next.files).await?;
    // First what is named by manifests, as some of these may be among the files.
    let name = &state.base.table.name;
    let removed = next.removed.into_iter().map(|manifest| Garbage::Removed { name: name.clone(), manifest });
    let garbage = removed.chain(command::files(&next.garbage)).collect();
    let publication = Publication {
        topic,
        epoch: state.epoch,
        from: state.base.table.metadata.clone(),
        table: next.base.table.clone(),
        schema: output.schema,
        read: read.clone(),
        letters: None,
        garbage,
    };
    Ok(Attempt { base: next.base, publication })
}

/// Positive, as some engines take no others.
fn snapshot_id(env: &Env) -> i64 {
    (env.random_u64() >> 1).max(1).cast_signed()
}

/// URLs of the live data files that hold a column which the new schema replaced.
async fn holders_of_replaced(
    files: &Files,
    state: &State,
    schema: &TableSchema,
) -> Result<BTreeSet<String>, ViewError> {
    let before = state.schema.replaced();
    let gone: BTreeSet<i32> = schema.replaced().into_keys().filter(|id| !before.contains_key(id)).collect();
    let leaves = convert::leaves(&state.schema, &gone);
    let mut holders = BTreeSet::new();
    if leaves.is_empty() {
        return Ok(holders);
    }
    for manifest in state.base.manifests.iter().filter(|manifest| manifest::live(manifest) > 0) {
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
    state: &mut State,
    topic: TopicId,
    wanted: u64,
) -> Result<(), ViewError> {
    if state.numbers.end - state.numbers.next >= wanted {
        return Ok(());
    }
    let (epoch, count) = (state.epoch, wanted.max(limits::NUMBERS_LEASED));
    let command = move |tx: &mut floe_meta::Tx<'_>| command::more_numbers(tx, topic, epoch, count);
    let committed = shared.log.meta().commit(Envelope::broker("lake file numbers"), command).await;
    // If the answer was lost the range may be longer than we know: numbers are left out, which harms nobody.
    state.numbers.end = committed.map_err(ViewError::from_commit)?.reply;
    Ok(())
}

async fn put_data(files: &Files, state: &mut State, encoded: &[Encoded]) -> Result<Vec<DataFile>, ViewError> {
    let mut entries = Vec::with_capacity(encoded.len());
    let mut puts = Vec::with_capacity(encoded.len());
    for file in encoded {
        let key = files.key(FileKind::Data, state.numbers.take()?);
        entries.push(file.data_file(files.url(&key))?);
        puts.push((key, file.bytes.clone()));
    }
    put_all(files, puts).await?;
    Ok(entries)
}

/// Puts files side by side.
pub(crate) async fn put_all(files: &Files, puts: Vec<(String, Bytes)>) -> Result<(), StoreError> {
    let files = files.clone();
    let puts = puts.into_iter().map(move |(key, bytes)| {
        let files = files.clone();
        async move { put(&files, &key, bytes).await }.boxed()
    });
    stream::iter(puts).buffered(limits::PUTS_AT_ONCE).try_collect().await
}

/// Puts one file. The same bytes under the same key can be put again: an answer that was lost is no reason to give the
/// attempt up.
async fn put(files: &Files, key: &str, bytes: Bytes) -> Result<(), StoreError> {
    let mut pause = limits::BACKOFF_MIN;
    for _ in 1..limits::PUT_ATTEMPTS {
        match files.put(key, bytes.clone()).await {
            Err(StoreError::NotApplied(reason) | StoreError::Unknown(reason)) => {
                warn!(key, reason, "a file of a table was not put, it is tried again");
            }
            outcome => return outcome,
        }
        sleep(pause).await;
        pause *= 2;
    }
    files.put(key, bytes).await
}
