//! The files of one table in the store.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use floe_env::{Backoff, Env};
use floe_iceberg::{
    ManifestEntry, ManifestFile, Status, TableMetadata, read_entries, read_manifest, read_manifest_list,
};
use floe_store::{Store, StoreError};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tracing::warn;

use crate::{
    error::TableError,
    layout::{FileKind, Folder},
    limits,
    map::Table,
};

/// A table as its last commit left it: what the next commit starts from.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) table: Table,
    pub(crate) metadata: TableMetadata,
    pub(crate) manifests: Vec<ManifestFile>,
}

/// Reads and writes the files of a table's folder.
#[derive(Clone)]
pub(crate) struct Files {
    env: Env,
    store: Arc<dyn Store>,
    folder: Folder,
}

impl Files {
    pub(crate) fn new(env: Env, store: Arc<dyn Store>, folder: Folder) -> Files {
        Files { env, store, folder }
    }

    /// The URL of the table's folder, for its metadata.
    pub(crate) fn location(&self) -> String {
        self.store.url(&self.folder.to_string())
    }

    pub(crate) fn key(&self, kind: FileKind, number: u64) -> String {
        self.folder.key(kind, number)
    }

    pub(crate) fn url(&self, key: &str) -> String {
        self.store.url(key)
    }

    pub(crate) fn key_of_url(&self, url: &str) -> Option<String> {
        self.folder.key_of_url(url)
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.store.get(key, None).await
    }

    pub(crate) async fn get_url(&self, url: &str) -> Result<Bytes, TableError> {
        let key = self.key_of_url(url).ok_or_else(|| TableError::Foreign(url.to_owned()))?;
        Ok(self.get(&key).await?)
    }

    /// Reads files, several at a time. All of them are in memory.
    pub(crate) async fn get_all(&self, urls: Vec<String>) -> Result<Vec<Bytes>, TableError> {
        let files = self.clone();
        let reads = urls.into_iter().map(move |url| {
            let files = files.clone();
            async move { files.get_url(&url).await }.boxed()
        });
        stream::iter(reads).buffered(limits::PUTS_AT_ONCE).try_collect().await
    }

    async fn put_once(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(key, vec![bytes]).await
    }

    /// Puts files, several at a time.
    pub(crate) async fn put_all(&self, puts: Vec<(String, Bytes)>) -> Result<(), TableError> {
        let files = self.clone();
        let puts = puts.into_iter().map(move |(key, bytes)| {
            let files = files.clone();
            async move { files.put(&key, bytes).await }.boxed()
        });
        Ok(stream::iter(puts).buffered(limits::PUTS_AT_ONCE).try_collect::<()>().await?)
    }

    /// Puts one file. The same bytes can be put again under the same key, so a lost answer is no reason to give up.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let mut backoff =
            Backoff::new(&self.env, floe_view::limits::BACKOFF_MIN, floe_view::limits::BACKOFF_MAX);
        for _ in 1..limits::PUT_ATTEMPTS {
            match self.put_once(key, bytes.clone()).await {
                Err(StoreError::NotApplied(reason) | StoreError::Unknown(reason)) => {
                    warn!(key, reason, "a file of a table was not put, it is tried again");
                }
                outcome => return outcome,
            }
            backoff.pause().await;
        }
        self.put_once(key, bytes).await
    }

    pub(crate) async fn manifest(&self, file: &ManifestFile) -> Result<Vec<ManifestEntry>, TableError> {
        let bytes = self.get_url(&file.manifest_path).await?;
        read_entries(&bytes, file).map_err(|error| TableError::damaged(&file.manifest_path, &error))
    }

    /// The manifests that the manifest list `key` names.
    pub(crate) async fn list(&self, key: &str) -> Result<Vec<ManifestFile>, TableError> {
        let bytes = self.get(key).await?;
        read_manifest_list(&bytes).map_err(|error| TableError::damaged(key, &error))
    }

    pub(crate) async fn metadata(&self, key: &str) -> Result<TableMetadata, TableError> {
        let bytes = self.get(key).await?;
        TableMetadata::read(&bytes).map_err(|error| TableError::damaged(key, &error))
    }

    /// The table as its record points to it.
    pub(crate) async fn load(&self, table: Table) -> Result<Base, TableError> {
        let metadata = self.metadata(&table.metadata).await?;
        let manifests = match &table.manifest_list {
            Some(list) => self.list(list).await?,
            None => Vec::new(),
        };
        Ok(Base { table, metadata, manifests })
    }

    /// Every key that the table's documents name, by rank. A file is in a later rank than the files that it names, and
    /// the current metadata document is alone in the last. A cleaner that deletes one rank after the other may crash at
    /// any point: the next one still finds the rest. With `live`, only the data files that a snapshot still has.
    pub(crate) async fn everything(&self, table: &Table, live: bool) -> Result<Vec<Vec<String>>, TableError> {
        let metadata = match self.metadata(&table.metadata).await {
            Ok(metadata) => Some(metadata),
            // It is deleted last, so the others are gone.
            Err(TableError::Store(StoreError::NotFound(_))) => return Ok(Vec::new()),
            // A table that was rebuilt because it is damaged. What its documents do not tell any more is left alone.
            Err(error) if !live && error.is_damage() => {
                warn!(%error, folder = %self.folder, "files of a damaged table may be left in its folder");
                None
            }
            Err(error) => return Err(error),
        };
        let mut keys: BTreeMap<String, ()> = BTreeMap::new();
        let mut name = |url: &str| keys.extend(self.key_of_url(url).map(|key| (key, ())));
        let lists: Vec<String> = match &metadata {
            Some(metadata) => {
                metadata.snapshots().iter().map(|snapshot| snapshot.manifest_list.clone()).collect()
            }
            None => table.manifest_list.iter().map(|list| self.url(list)).collect(),
        };
        for list in &lists {
            name(list);
            for manifest in self.or_nothing(self.list_of_url(list).await, live)? {
                name(&manifest.manifest_path);
                let entries = self.or_nothing(self.manifest(&manifest).await, live)?;
                for entry in entries.iter().filter(|entry| !live || entry.is_alive()) {
                    name(&entry.data_file.file_path);
                }
            }
        }
        if let Some(metadata) = &metadata {
            metadata.metadata_log().iter().for_each(|log| name(&log.metadata_file));
        }
        keys.remove(&table.metadata);
        let mut ranks = vec![Vec::new(); 4];
        for key in keys.into_keys() {
            let rank = [".parquet", "-m.avro", "-s.avro"].iter().position(|end| key.ends_with(end));
            ranks[rank.unwrap_or(3)].push(key);
        }
        ranks.push(vec![table.metadata.clone()]);
        Ok(ranks)
    }

    /// The keys of the data files that a manifest has as deleted; none if the manifest is gone.
    pub(crate) async fn removed_in(&self, manifest: &str) -> Result<Vec<String>, TableError> {
        let bytes = match self.get(manifest).await {
            Err(StoreError::NotFound(_)) => return Ok(Vec::new()),
            found => found?,
        };
        let entries = match read_manifest(&bytes) {
            Ok(entries) => entries,
            // The cleaner of the table must not stand still for it.
            Err(error) => {
                warn!(manifest, %error, "a manifest is damaged: the files that it removed are left in the store");
                return Ok(Vec::new());
            }
        };
        let removed = entries.iter().filter(|entry| entry.status == Status::Deleted);
        Ok(removed.filter_map(|entry| self.key_of_url(&entry.data_file.file_path)).collect())
    }

    pub(crate) async fn list_of_url(&self, url: &str) -> Result<Vec<ManifestFile>, TableError> {
        let bytes = self.get_url(url).await?;
        read_manifest_list(&bytes).map_err(|error| TableError::damaged(url, &error))
    }

    /// What was read of a document; nothing if it is gone, or, unless the files of a `live` table are asked for,
    /// damaged.
    fn or_nothing<T>(&self, read: Result<Vec<T>, TableError>, live: bool) -> Result<Vec<T>, TableError> {
        match read {
            Err(TableError::Store(StoreError::NotFound(_))) => Ok(Vec::new()),
            Err(error) if !live && error.is_damage() => {
                warn!(%error, folder = %self.folder, "files of a damaged table may be left in its folder");
                Ok(Vec::new())
            }
            other => other,
        }
    }
}
