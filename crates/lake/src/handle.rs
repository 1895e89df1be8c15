//! The handle on the lake: starts and ends the views, and answers questions about tables.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use floe_env::{Env, Task, lock};
use floe_iceberg::TableMetadata;
use floe_log::{
    Log, deleted,
    topic::{self, Topic},
    topic_config::{TableMode, TopicConfig},
};
use floe_meta::{DecodeError, Envelope, Snapshot, Tx};
use floe_schema::{Kind, TableSchema};
use floe_store::StoreError;
use floe_view::{ViewError, ViewStatus, Views, progress_of};

use crate::{
    cache::{CachedTable, FileCache, Manifests},
    cleaner, command,
    convert::Old,
    error::TableError,
    files::Files,
    limits,
    map::{self, Garbage, LogStarts, Progress, Rebuild, Table, ViewState},
    places::{Beside, Running},
    rebuild::{self, Below},
    shared::{Config, Shared},
    supervise::supervise,
    table::{DataFile, TableRef},
    view::TableView,
};

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
    Document(#[from] TableError),
    /// Rebuilding a table would lose rows.
    #[error(
        "up to {rows} rows are damaged that the log does not have any more: rebuilding would lose them; to do it \
         nevertheless, say --lose"
    )]
    WouldLose {
        /// At most so many.
        rows: u64,
    },
    /// A round of the cleaner, which goes on in the next one; or a change of a table.
    #[error(transparent)]
    Commit(#[from] ViewError),
}

impl LakeError {
    /// Whether a file of a table is lost, or is not what was written, as opposed to a store that fails for a while.
    pub fn is_damage(&self) -> bool {
        match self {
            LakeError::Store(error) => matches!(error, StoreError::NotFound(_) | StoreError::Corrupt(_)),
            LakeError::Document(error) => error.is_damage(),
            LakeError::Metadata(_) | LakeError::WouldLose { .. } | LakeError::Commit(_) => false,
        }
    }
}

/// The lake of one broker. A clone is the same lake.
#[derive(Clone)]
pub struct Lake {
    shared: Arc<Shared>,
    views: Views<TableView<Running>>,
    rebuilds: Views<TableView<Beside>>,
    cache: Arc<Mutex<FileCache>>,
    supervisor: Arc<Mutex<Option<Task<()>>>>,
}

impl Lake {
    /// Starts the lake of a broker: a view for each topic that is a table, now or later.
    pub fn start(env: Env, log: Log, config: Config) -> Lake {
        let cleaning = Mutex::default();
        let shared = Arc::new(Shared { env: env.clone(), log: log.clone(), config, cleaning });
        let Config { views_at_work, commit_bytes, .. } = config;
        let working = floe_view::Config { views_at_work, commit_bytes };
        let views = Views::new(env.clone(), log.clone(), TableView::new(&shared), working);
        let one = floe_view::Config { views_at_work: 1, ..working };
        let rebuilds = Views::new(env, log, TableView::new(&shared), one);
        let tasks = || supervise(Arc::clone(&shared), views.clone(), rebuilds.clone());
        let start = || shared.env.spawn("lake", tasks());
        let supervisor = Arc::new(Mutex::new(config.views.then(start)));
        let cache = Arc::new(Mutex::new(FileCache::new(limits::FILE_CACHE_BYTES)));
        Lake { shared, views, rebuilds, cache, supervisor }
    }

    /// Ends the views and gives their leases back, so that another process need not wait for them to expire. A commit
    /// under way is abandoned, and nothing of it is visible.
    pub async fn close(self) {
        let supervisor = lock(&self.supervisor).take();
        let Some(supervisor) = supervisor else { return };
        supervisor.abort();
        let _ = supervisor.await;
        self.views.release().await;
        self.rebuilds.release().await;
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

    /// The tables of deleted topics that can come back. Nobody reads them meanwhile.
    ///
    /// # Errors
    /// The metadata cannot be read.
    pub fn tables_of_deleted(&self, snapshot: &Snapshot) -> Result<Vec<TableRef>, LakeError> {
        let mut tables = Vec::new();
        // The table of removed records stays with the topic that lost them.
        for deleted in deleted::all(snapshot)?.into_iter().filter(|deleted| deleted.removed.is_none()) {
            tables.extend(self.table_of(snapshot, deleted.topic)?);
        }
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
            // A table stays readable when its topic's setting is switched off.
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
            metadata_location: table.as_ref().map(|table| self.shared.log.store().url(&table.metadata)),
            snapshot_id: table.as_ref().and_then(|table| table.snapshot_id),
            progress: progress_of::<Progress>(snapshot, topic.id)?,
            snapshots: of(|table| table.snapshots),
            rows: of(|table| table.rows),
            files: of(|table| table.files),
            bytes: of(|table| table.bytes),
            bad_records: of(|table| table.bad_records),
            topic,
            record,
        }))
    }

    /// The data files of a table's snapshot. A manifest is read once and then cached.
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
        let files = self.shared.files(&record.name, table.topic.id);
        let manifests = files.list(&list).await?;
        let mut read = Manifests::new();
        for manifest in manifests.iter().filter(|manifest| manifest.live() > 0) {
            let live = match known.get(&manifest.manifest_path) {
                Some(live) => Arc::clone(live),
                None => {
                    let entries = files.manifest(manifest).await?;
                    let live = entries.iter().filter(|entry| entry.is_alive());
                    live.map(|entry| data_file(&files, &entry.data_file)).collect::<Result<_, _>>()?
                }
            };
            read.insert(manifest.manifest_path.clone(), live);
        }
        let read = CachedTable::new(list.clone(), record.snapshots, read);
        let found = read.files();
        check_totals(record, list, &found)?;
        let now = self.log().meta().snapshot();
        self.cache().insert(topic, read, |topic| !matches!(topic::by_id(&now, topic), Ok(None)));
        Ok(found)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, FileCache> {
        lock(&self.cache)
    }

    /// The metadata document of a table; none until its view has made it.
    ///
    /// # Errors
    /// The store fails, or the document is damaged.
    pub async fn metadata(&self, table: &TableRef) -> Result<Option<TableMetadata>, LakeError> {
        let Some(record) = &table.record else { return Ok(None) };
        Ok(Some(self.shared.files(&record.name, table.topic.id).metadata(&record.metadata).await?))
    }

    /// Whether files of the table hold columns that others replaced, so that a job has to rewrite them. Other readers
    /// see both columns meanwhile.
    ///
    /// # Errors
    /// The store fails, or the document is damaged.
    pub async fn is_rewriting(&self, table: &TableRef) -> Result<bool, LakeError> {
        let Some(metadata) = self.metadata(table).await? else { return Ok(false) };
        let old = Old::of(&table.schema, metadata.current_schema(), &BTreeSet::new());
        Ok(!old.ids().is_empty())
    }

    /// The keys of all files that the table needs: those of every kept snapshot, and its metadata documents. Any other
    /// file in the table's folder waits for its deletion, or is an orphan.
    ///
    /// # Errors
    /// The store fails, or a document is damaged.
    pub async fn everything(&self, table: &TableRef) -> Result<Vec<String>, LakeError> {
        let Some(record) = &table.record else { return Ok(Vec::new()) };
        Ok(self.shared.files(&record.name, table.topic.id).everything(record, true).await?.concat())
    }

    /// The keys of all files that are garbage and wait for the end of their grace. Some of them were never written.
    ///
    /// # Errors
    /// The store fails, or a document is damaged.
    pub async fn waste(&self, snapshot: &Snapshot) -> Result<Vec<String>, LakeError> {
        let mut keys = Vec::new();
        for found in snapshot.range::<Garbage>(..) {
            let (key, garbage) = found?;
            keys.extend(cleaner::ranks(&self.shared, key.topic, &garbage).await?.concat());
        }
        Ok(keys)
    }

    /// How the views of this broker are doing.
    pub fn status(&self) -> Vec<ViewStatus> {
        self.views.status()
    }

    /// Drops the columns of a table's top-level keys that match one of `patterns`, in which `*` stands for any text:
    /// the way back when keys that were values have used up the table's columns. SQL shows the table without them at
    /// once, other readers with the next commit that has rows. The values stay in the log. Returns how many columns
    /// went.
    ///
    /// # Errors
    /// The table has not been made yet, or the journal does not take it.
    pub async fn drop_columns(&self, table: &TableRef, patterns: Vec<String>) -> Result<u64, LakeError> {
        let topic = table.topic.id;
        let envelope = Envelope::broker(&format!("columns of {} are dropped", table.name));
        let command = move |tx: &mut Tx<'_>| command::drop_columns(tx, topic, &patterns);
        let committed = self.log().meta().commit(envelope, command).await;
        Ok(committed.map_err(|error| LakeError::Commit(ViewError::from_commit(error)))?.reply)
    }

    /// Makes a table anew from the log, beside the running one, which goes on as far as it can until the new one has
    /// caught up and takes its place. Rows that the log does not have any more are kept if their files verify. Returns
    /// how many rows are lost at most: 0 unless `lose` allows it.
    ///
    /// # Errors
    /// The table has not been made yet, rows would be lost, or the store or the journal fails.
    pub async fn rebuild(&self, table: &TableRef, lose: bool) -> Result<u64, LakeError> {
        let snapshot = self.log().meta().snapshot();
        let starts = map::log_starts(&snapshot, &table.topic)?;
        let lost = match &table.record {
            Some(record) if !starts.is_empty() => self.lost_below(table, record, &starts).await?,
            _ => 0,
        };
        if lost > 0 && !lose {
            return Err(LakeError::WouldLose { rows: lost });
        }
        let topic = table.topic.id;
        let envelope = Envelope::broker(&format!("the table of {} is made anew", table.name));
        let command = move |tx: &mut Tx<'_>| command::begin_rebuild(tx, topic, lose);
        let committed = self.log().meta().commit(envelope, command).await;
        committed.map_err(|error| LakeError::Commit(ViewError::from_commit(error)))?;
        self.rebuilds.look();
        Ok(lost)
    }

    /// How many rows below the log's start cannot be read: at most as many as there are offsets without a row, if
    /// anything there is damaged.
    async fn lost_below(
        &self,
        table: &TableRef,
        record: &Table,
        starts: &LogStarts,
    ) -> Result<u64, LakeError> {
        let files = self.shared.files(&record.name, table.topic.id);
        let mut below = Below::find(files, record, starts).await?;
        let mut rows = 0;
        while let Some(bytes) = below.next().await? {
            let (schema, starts) = (table.schema.clone(), starts.clone());
            let counted = self.shared.env.blocking(move || rebuild::count(bytes, &schema, &starts)).await;
            rows += counted.map_err(TableError::from)?;
        }
        if below.damage.is_empty() {
            return Ok(0);
        }
        let read = |partition| table.progress.get(&partition).map_or(0, |next| next.0);
        let offsets: i64 = starts.iter().map(|(partition, start)| read(*partition).min(*start)).sum();
        // Damage without offsets is no loss, but a reason to tell.
        Ok(offsets.cast_unsigned().saturating_sub(rows).max(1))
    }

    /// How the rebuilding of a table is doing; none if it is not rebuilt.
    ///
    /// # Errors
    /// The metadata cannot be read.
    pub fn rebuilding(&self, table: &TableRef) -> Result<Option<ViewStatus>, LakeError> {
        let snapshot = self.log().meta().snapshot();
        if snapshot.get::<Rebuild>(&table.topic.id)?.is_none() {
            return Ok(None);
        }
        let (topic, name) = (table.topic.id, table.name.clone());
        let begun = self.rebuilds.status().into_iter().find(|view| view.topic == topic);
        Ok(Some(begun.unwrap_or_else(|| ViewStatus::new(topic, name))))
    }

    /// Deletes now what has been garbage for the grace period, instead of at the cleaner's next round. Returns the
    /// number of files.
    ///
    /// # Errors
    /// The store or the journal fails; the rest is deleted the next time.
    pub async fn clean(&self) -> Result<u64, LakeError> {
        Ok(cleaner::clean(&self.shared, self.views.owner()).await?)
    }

    /// The log that the tables are made from.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }
}

/// Refuses manifests that have other live files than the table. They have no checksums, and a lost file would be rows
/// that are missing.
fn check_totals(table: &Table, list: String, files: &[Arc<DataFile>]) -> Result<(), TableError> {
    let sum = |of: fn(&DataFile) -> u64| files.iter().map(|file| of(file)).sum::<u64>();
    let found = (files.len() as u64, sum(|file| file.records), sum(|file| file.bytes));
    let wanted = (table.files, table.rows, table.bytes);
    if found == wanted {
        return Ok(());
    }
    let told = |(files, rows, bytes)| format!("{files} files with {rows} rows and {bytes} bytes");
    Err(TableError::Totals { list, found: told(found), wanted: told(wanted) })
}

fn data_file(files: &Files, entry: &floe_iceberg::DataFile) -> Result<Arc<DataFile>, TableError> {
    let url = &entry.file_path;
    let key = files.key_of_url(url).ok_or_else(|| TableError::Foreign(url.clone()))?;
    let (bytes, records) = (entry.file_size_in_bytes, entry.record_count);
    Ok(Arc::new(DataFile { key, bytes, records }))
}
