//! The handle on the lake: starts and ends views, answers what tables there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use floe_env::{Env, Task, Timestamp};
use floe_log::{
    Log, Offset, TopicId,
    topic::{self, Topic},
    topic_config::{TableMode, TopicConfig},
};
use floe_meta::{DecodeError, Envelope, Snapshot, Tx, lease};
use floe_schema::{Kind, TableSchema};
use floe_store::StoreError;
use iceberg::spec::TableMetadata;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, error, warn};

use crate::{
    cache::{Cache, Cached, Manifests},
    cleaner, command, commit,
    error::ViewError,
    files::Files,
    layout::Folder,
    limits, manifest,
    map::{self, Garbage, Table, ViewState},
    view::View,
};

/// What can be chosen for a broker's lake; topics have settings of their own.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whether this broker runs views. Without, it still answers for the tables that others write.
    pub views: bool,
    /// Views that encode at the same time: each takes a core and the memory of one commit.
    pub views_at_work: usize,
    /// Snapshots that a table keeps; older ones are expired by the commit that adds one more. At least 2.
    pub snapshots_kept: usize,
    /// Bytes of records, as decoded, that one commit takes in while a view catches up; one batch more at most.
    pub commit_bytes: usize,
    /// Bytes of the log, as stored, at which a view commits whatever the freshness: until then queries read them from
    /// the log. A topic's `floe.table.file.bytes` counts as well, where it is less.
    pub gather_bytes: u64,
    /// How long a file is kept that no snapshot names any more: for readers that still hold one which did, and for puts
    /// that are still on their way.
    pub garbage_grace: Duration,
    /// How often the cleaner looks for files whose grace is over.
    pub clean_interval: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            views: true,
            views_at_work: limits::VIEWS_AT_WORK,
            snapshots_kept: limits::SNAPSHOTS_KEPT,
            commit_bytes: limits::COMMIT_BYTES_MAX,
            gather_bytes: limits::GATHER_BYTES_MAX,
            garbage_grace: limits::GARBAGE_GRACE,
            clean_interval: limits::CLEAN_INTERVAL,
        }
    }
}

/// A topic as a table, at one snapshot of the metadata.
#[derive(Clone, Debug)]
pub struct TableRef {
    /// The topic.
    pub topic: Topic,
    /// The table's name: the topic's.
    pub name: String,
    /// Its columns.
    pub schema: TableSchema,
    /// Where its metadata document is; none until the view has made it.
    pub metadata_location: Option<String>,
    /// The current Iceberg snapshot.
    pub snapshot_id: Option<i64>,
    /// By partition, the offset up to which records are in the table.
    pub progress: BTreeMap<u32, Offset>,
    /// Snapshots committed so far.
    pub snapshots: u64,
    /// Rows in the current snapshot.
    pub rows: u64,
    /// Data files in the current snapshot.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Records that were no rows so far.
    pub bad_records: u64,
    pub(crate) record: Option<Table>,
}

/// One Parquet file of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFile {
    /// Its key in the store.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub records: u64,
}

/// How a view is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewStatus {
    /// The topic.
    pub topic: TopicId,
    /// Its name.
    pub name: String,
    /// Why its last step failed, and when it first did so; none while it works.
    pub error: Option<(String, Timestamp)>,
}

/// Why the lake cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The metadata map.
    #[error(transparent)]
    Metadata(#[from] DecodeError),
    /// The store.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// A document of a table.
    #[error(transparent)]
    Document(#[from] ViewError),
}

/// The lake of one broker. A clone is the same lake.
#[derive(Clone)]
pub struct Lake {
    inner: Arc<Inner>,
    supervisor: Arc<Mutex<Option<Task<()>>>>,
}

/// What the views of a broker share.
pub(crate) struct Inner {
    pub(crate) env: Env,
    pub(crate) log: Log,
    pub(crate) owner: String,
    pub(crate) config: Config,
    pub(crate) working: Semaphore,
    /// Counts changes of topics.
    pub(crate) topics_changed: watch::Sender<u64>,
    status: Mutex<BTreeMap<TopicId, ViewStatus>>,
    cache: Mutex<Cache>,
}

impl Inner {
    pub(crate) fn files(&self, name: &str, topic: TopicId) -> Files {
        Files::new(Arc::clone(self.log.store()), Folder::of(name, topic))
    }

    /// Notes how the last step of a view went.
    pub(crate) fn report(&self, topic: TopicId, error: Option<String>) {
        let now = self.env.now();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(status) = status.get_mut(&topic) else { return };
        let since = status.error.as_ref().map_or(now, |(_, since)| *since);
        status.error = error.map(|error| (error, since));
    }
}

impl Lake {
    /// Starts the lake of a broker: a view for each topic that is a table, now or later.
    pub fn start(env: Env, log: Log, config: Config) -> Lake {
        let owner = format!("lake-{:032x}", env.random_u128());
        let inner = Arc::new(Inner {
            env,
            log,
            owner,
            config,
            working: Semaphore::new(config.views_at_work.max(1)),
            topics_changed: watch::Sender::new(0),
            status: Mutex::default(),
            cache: Mutex::new(Cache::new(limits::FILE_CACHE_BYTES)),
        });
        let observed = Arc::downgrade(&inner);
        inner.log.meta().observe(move |applied| {
            let touched = applied.changes.iter().any(|change| topic::is_topic(&change.key));
            if let Some(inner) = observed.upgrade().filter(|_| touched) {
                inner.topics_changed.send_modify(|changes| *changes += 1);
            }
        });
        let supervisor = config.views.then(|| inner.env.spawn("lake", supervise(Arc::clone(&inner))));
        Lake { inner, supervisor: Arc::new(Mutex::new(supervisor)) }
    }

    /// Ends the views and gives their leases back, so that another process need not wait for them to expire. A commit
    /// under way is given up; nothing of it is visible.
    pub async fn close(self) {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(supervisor) = supervisor else { return };
        supervisor.abort();
        let _ = supervisor.await;
        let topics: Vec<TopicId> =
            self.inner.status.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        let owner = self.inner.owner.clone();
        let release = move |tx: &mut Tx<'_>| -> Result<(), ViewError> {
            for topic in &topics {
                let name = command::lease_name(*topic);
                let held = tx.get::<floe_meta::Lease>(&name)?;
                if let Some(held) = held.filter(|held| held.owner.as_deref() == Some(&*owner)) {
                    lease::release(tx, &name, held.epoch)?;
                }
            }
            Ok(())
        };
        if let Err(error) = self.inner.log.meta().commit(Envelope::broker("lake closes"), release).await {
            debug!(error = %ViewError::from_commit(error), "leases of views were not given back and will expire");
        }
    }

    /// The topics that are tables, by name.
    ///
    /// # Errors
    /// The metadata cannot be read.
    pub fn tables(&self, snapshot: &Snapshot) -> Result<Vec<TableRef>, LakeError> {
        let mut tables = Vec::new();
        for topic in topic::all(snapshot)? {
            tables.extend(self.table_of(snapshot, topic)?);
        }
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tables)
    }

    /// The table of a name.
    ///
    /// # Errors
    /// The metadata cannot be read.
    pub fn table(&self, snapshot: &Snapshot, name: &str) -> Result<Option<TableRef>, LakeError> {
        match topic::by_name(snapshot, name)? {
            Some(topic) => self.table_of(snapshot, topic),
            None => Ok(None),
        }
    }

    fn table_of(&self, snapshot: &Snapshot, topic: Topic) -> Result<Option<TableRef>, LakeError> {
        let record = snapshot.get::<Table>(&topic.id)?;
        let kind = match TopicConfig::of(&topic).table {
            TableMode::Raw => Kind::Raw,
            TableMode::Json => Kind::Json,
            // A table whose setting was switched off stays what it was.
            TableMode::Off if record.is_none() => return Ok(None),
            TableMode::Off => Kind::Json,
        };
        let view = snapshot.get::<ViewState>(&topic.id)?;
        let schema = view.map_or_else(|| TableSchema::new(kind), |view| view.schema);
        let table = record.clone();
        let of = |f: fn(&Table) -> u64| table.as_ref().map_or(0, f);
        Ok(Some(TableRef {
            name: topic.name.clone(),
            schema,
            metadata_location: table.as_ref().map(|table| self.inner.log.store().url(&table.metadata)),
            snapshot_id: table.as_ref().and_then(|table| table.snapshot_id),
            progress: map::progress(snapshot, topic.id)?,
            snapshots: of(|table| table.snapshots),
            rows: of(|table| table.rows),
            files: of(|table| table.files),
            bytes: of(|table| table.bytes),
            bad_records: of(|table| table.bad_records),
            topic,
            record,
        }))
    }

    /// The data files of a table's snapshot. Manifests are read once.
    ///
    /// # Errors
    /// The store fails, or a document is damaged.
    pub async fn data_files(&self, table: &TableRef) -> Result<Arc<Vec<Arc<DataFile>>>, LakeError> {
        let record = table.record.as_ref();
        let Some((record, list)) = record.and_then(|record| Some((record, record.manifest_list.clone()?)))
        else {
            return Ok(Arc::default());
        };
        let topic = table.topic.id;
        if let Some(known) = self.cache().files(topic, &list) {
            return Ok(known);
        }
        let known = self.cache().manifests(topic);
        let files = self.inner.files(&record.name, table.topic.id);
        let manifests = commit::parse_list(&files.get(&list).await?).map_err(ViewError::from)?;
        let mut read = Manifests::new();
        for manifest in manifests.iter().filter(|manifest| manifest::live(manifest) > 0) {
            let live = match known.get(&manifest.manifest_path) {
                Some(live) => Arc::clone(live),
                None => {
                    let entries = files.manifest(manifest).await?;
                    let live = entries.iter().filter(|entry| entry.is_alive());
                    live.map(|entry| data_file(&files, entry.data_file())).collect::<Result<_, _>>()?
                }
            };
            read.insert(manifest.manifest_path.clone(), live);
        }
        let read = Cached::new(list, record.snapshots, read);
        let found = read.files();
        let now = self.log().meta().snapshot();
        self.cache().keep(topic, read, |topic| !matches!(topic::by_id(&now, topic), Ok(None)));
        Ok(found)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metadata document of a table; none until its view has made it.
    ///
    /// # Errors
    /// The store fails, or the document is damaged.
    pub async fn metadata(&self, table: &TableRef) -> Result<Option<TableMetadata>, LakeError> {
        let Some(record) = &table.record else { return Ok(None) };
        Ok(Some(self.inner.files(&record.name, table.topic.id).metadata(&record.metadata).await?))
    }

    /// The keys of all files that the table needs: those of every kept snapshot, and its metadata documents.
    /// What is in the table's folder beside them waits for its deletion or is an orphan.
    ///
    /// # Errors
    /// The store fails, or a document is damaged.
    pub async fn everything(&self, table: &TableRef) -> Result<Vec<String>, LakeError> {
        let Some(record) = &table.record else { return Ok(Vec::new()) };
        Ok(self.inner.files(&record.name, table.topic.id).everything(record, true).await?.concat())
    }

    /// The keys of all files that are garbage and wait for the end of their grace. Some may never have been written.
    ///
    /// # Errors
    /// The store fails, or a document is damaged.
    pub async fn waste(&self, snapshot: &Snapshot) -> Result<Vec<String>, LakeError> {
        let mut keys = Vec::new();
        for found in snapshot.range::<Garbage>(..) {
            let (key, garbage) = found?;
            keys.extend(cleaner::ranks(&self.inner, key.topic, &garbage).await?.concat());
        }
        Ok(keys)
    }

    /// How the views of this broker are doing.
    pub fn status(&self) -> Vec<ViewStatus> {
        self.inner.status.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Deletes from the store what has been garbage for the grace period, now; the number of files. The
    /// cleaner does it by itself every now and then.
    ///
    /// # Errors
    /// The store or the journal fails; the rest is deleted the next time.
    pub async fn clean(&self) -> Result<u64, LakeError> {
        Ok(cleaner::clean(&self.inner).await?)
    }

    /// The log this lake is a view of.
    pub fn log(&self) -> &Log {
        &self.inner.log
    }
}

fn data_file(files: &Files, entry: &iceberg::spec::DataFile) -> Result<Arc<DataFile>, ViewError> {
    let url = entry.file_path();
    let key = files.key_of_url(url).ok_or_else(|| ViewError::Foreign(url.to_owned()))?;
    let (bytes, records) = (entry.file_size_in_bytes(), entry.record_count());
    Ok(Arc::new(DataFile { key, bytes, records }))
}

/// Ends its task with it.
struct Guard(Task<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a view for each table, and the cleaner.
async fn supervise(inner: Arc<Inner>) {
    let _cleaner = Guard(inner.env.spawn("lake cleaner", cleaner::run(Arc::clone(&inner))));
    let mut changes = inner.topics_changed.subscribe();
    let mut views: BTreeMap<TopicId, Guard> = BTreeMap::new();
    loop {
        if let Err(error) = supervise_once(&inner, &mut views).await {
            warn!(%error, "the views cannot be matched with the topics, it will be tried again");
            tokio::time::sleep(limits::BACKOFF_MAX).await;
            continue;
        }
        // A view that ended by itself, and should not have, is started again with the next look.
        if let Ok(Err(_)) = tokio::time::timeout(limits::SUPERVISE_INTERVAL, changes.changed()).await {
            return;
        }
    }
}

async fn supervise_once(inner: &Arc<Inner>, views: &mut BTreeMap<TopicId, Guard>) -> Result<(), ViewError> {
    let snapshot = inner.log.meta().snapshot();
    let topics: BTreeMap<TopicId, Topic> =
        topic::all(&snapshot)?.into_iter().map(|topic| (topic.id, topic)).collect();
    let is_table = |topic: &Topic| TopicConfig::of(topic).table != TableMode::Off;
    views.retain(|id, view| {
        let wanted = topics.get(id).is_some_and(is_table);
        if wanted && view.0.is_finished() {
            error!(topic = %id, "a view ended that should run, it is started again");
            inner.report(
                *id,
                Some("the view ended unexpectedly, see the log; it was started again".to_owned()),
            );
        }
        wanted && !view.0.is_finished()
    });
    {
        let mut status = inner.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.retain(|id, _| topics.get(id).is_some_and(is_table));
        for topic in topics.values().filter(|topic| is_table(topic)) {
            let new = ViewStatus { topic: topic.id, name: topic.name.clone(), error: None };
            status.entry(topic.id).or_insert(new);
        }
    }
    for topic in topics.values().filter(|topic| is_table(topic)) {
        let start = || Guard(inner.env.spawn("lake view", View::new(Arc::clone(inner), topic).run()));
        views.entry(topic.id).or_insert_with(start);
    }
    drop_tables(inner, &snapshot, &topics).await
}

/// A deleted topic takes its table along.
async fn drop_tables(
    inner: &Arc<Inner>,
    snapshot: &Snapshot,
    topics: &BTreeMap<TopicId, Topic>,
) -> Result<(), ViewError> {
    let mut known = BTreeSet::new();
    for found in snapshot.range::<ViewState>(..) {
        known.insert(found?.0);
    }
    for topic in known.into_iter().filter(|topic| !topics.contains_key(topic)) {
        let command = move |tx: &mut Tx<'_>| command::drop_table(tx, topic);
        let envelope = Envelope::broker("lake table of a deleted topic");
        inner.log.meta().commit(envelope, command).await.map_err(ViewError::from_commit)?;
    }
    Ok(())
}
