//! Makes a table anew from the log, beside the running one (`floe table rebuild`), when its documents or its data files
//! are damaged.
//!
//! 1. [`begin`](crate::Lake::rebuild) leaves a request in the map. A second view (`places.rs`, `Beside`) reads the log
//!    from its start, into a folder of its own, while the running table goes on as far as it can.
//! 2. Rows that the log does not have any more are copied from the running table, as far as their files verify. If one
//!    does not, nothing is begun unless the caller accepts the loss.
//! 3. When the new table has read as far as the running one, one journal entry puts its pointer, its schema and its
//!    progress in the place of the others'. The files of the old table become garbage.

use std::collections::{BTreeSet, VecDeque};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Int32Type, Int64Type},
};
use bytes::Bytes;
use floe_iceberg::DataFile;
use floe_log::{Offset, topic::Topic};
use floe_schema::{OFFSET_ID, TableSchema, names};
use floe_view::{ReadRanges, ViewError};
use tracing::warn;

use crate::{
    checks,
    commit::{self, Delta, Numbers},
    convert::Old,
    data_file::{self, Encoded, FileWriter},
    error::{FileError, TableError},
    files::{Base, Files},
    map::{LogStarts, Rebuild, Table},
    place::Place,
    prepare::{put_data, reserve_numbers, snapshot_id},
    shared::Shared,
    small::SmallFiles,
};

/// The data files of a table that have rows below the log's start, one after the other, as far as they verify.
pub(crate) struct Below {
    files: Files,
    urls: VecDeque<String>,
    /// What is wrong with the others.
    pub(crate) damage: Vec<String>,
}

impl Below {
    /// Finds the files.
    ///
    /// # Errors
    /// The store fails. Damage is no error.
    pub(crate) async fn find(files: Files, table: &Table, starts: &LogStarts) -> Result<Below, TableError> {
        let mut below = Below { files, urls: VecDeque::new(), damage: Vec::new() };
        let (Some(list), Some(last)) = (&table.manifest_list, starts.values().max()) else {
            return Ok(below);
        };
        let manifests = below.files.list(list).await;
        for manifest in below.whole(manifests)?.unwrap_or_default() {
            if manifest.live() == 0 {
                continue;
            }
            let entries = below.files.manifest(&manifest).await;
            for entry in below.whole(entries)?.unwrap_or_default() {
                if entry.is_alive() && may_be_below(&entry.data_file, *last) {
                    below.urls.push_back(entry.data_file.file_path);
                }
            }
        }
        Ok(below)
    }

    /// The next file, verified; none behind the last.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, TableError> {
        while let Some(url) = self.urls.pop_front() {
            let read = self.files.get_url(&url).await.and_then(|bytes| {
                checks::verify(&bytes).map_err(|damage| TableError::damaged(&url, &damage))?;
                Ok(bytes)
            });
            if let Some(bytes) = self.whole(read)? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// What was read; none if it is damaged, which is noted.
    fn whole<T>(&mut self, read: Result<T, TableError>) -> Result<Option<T>, TableError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.is_damage() => {
                warn!(%error, "rows below the log's start cannot be read");
                self.damage.push(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// How many rows of a verified file lie below the log's start.
pub(crate) fn count(file: Bytes, schema: &TableSchema, starts: &LogStarts) -> Result<u64, FileError> {
    let mut rows = 0;
    data_file::copy(file, schema, |batch| {
        rows += only_below(batch, starts)?.num_rows() as u64;
        Ok(())
    })?;
    Ok(rows)
}

/// A file of the rows of a verified one that lie below the log's start; none if it has none.
pub(crate) fn keep(
    file: Bytes,
    schema: &TableSchema,
    starts: &LogStarts,
) -> Result<Option<Encoded>, FileError> {
    let (mut writer, mut rows) = (FileWriter::new(schema.clone())?, 0);
    data_file::copy(file, schema, |batch| {
        let kept = only_below(batch, starts)?;
        rows += kept.num_rows();
        if kept.num_rows() > 0 { writer.write(&kept) } else { Ok(()) }
    })?;
    if rows > 0 { writer.finish().map(Some) } else { Ok(None) }
}

/// Whether a file may have rows with offsets below `last`, by its bounds.
fn may_be_below(file: &DataFile, last: i64) -> bool {
    let bound = file.metrics.lower_bounds.get(&OFFSET_ID);
    let least = bound.and_then(|bound| Some(i64::from_le_bytes(bound.as_slice().try_into().ok()?)));
    least.is_none_or(|least| least < last)
}

/// The rows that lie below the log's start.
fn only_below(batch: &RecordBatch, starts: &LogStarts) -> Result<RecordBatch, FileError> {
    let column = |name: &str| batch.column_by_name(name).expect("every table has the system columns");
    let partitions = column(names::PARTITION).as_primitive::<Int32Type>();
    let offsets = column(names::OFFSET).as_primitive::<Int64Type>();
    let start = |row: usize| {
        let partition = u32::try_from(partitions.value(row)).unwrap_or(u32::MAX);
        starts.get(&partition).copied().unwrap_or(0)
    };
    let is_below: BooleanArray =
        (0..batch.num_rows()).map(|row| Some(offsets.value(row) < start(row))).collect();
    Ok(filter_record_batch(batch, &is_below).map_err(parquet::errors::ParquetError::from)?)
}

/// The rows that a table which is rebuilt takes from the running one.
pub(crate) struct BelowStart<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) epoch: u64,
    pub(crate) rebuild: &'a Rebuild,
    pub(crate) running: &'a Table,
}

impl BelowStart<'_> {
    /// The first snapshot of the new table: the rows below the log's start, or `base` if there are none.
    pub(crate) async fn copy_into<P: Place>(
        self,
        shared: &Shared,
        files: &Files,
        numbers: &mut Numbers,
        base: Base,
        schema: &TableSchema,
    ) -> Result<Base, ViewError> {
        let starts: LogStarts = self.rebuild.starts.iter().copied().collect();
        let mut added = Vec::new();
        let old = shared.files(&self.running.name, self.topic.id);
        let mut below = Below::find(old, self.running, &starts).await?;
        while let Some(bytes) = below.next().await? {
            let (schema, starts) = (schema.clone(), starts.clone());
            let kept = shared.env.blocking(move || keep(bytes, &schema, &starts)).await?;
            let wanted = added.len() as u64 + 16;
            reserve_numbers::<P>(shared, self.topic.id, self.epoch, numbers, wanted).await?;
            added.extend(put_data(files, numbers, kept.as_slice(), None).await?);
        }
        if let Some(damage) = below.damage.first().filter(|_| !self.rebuild.lose) {
            let reason = format!("rows that the log does not have any more are damaged: {damage}");
            return Err(TableError::damaged(&self.running.metadata, &reason).into());
        }
        if added.is_empty() {
            return Ok(base);
        }
        let progress = starts.iter().map(|(partition, start)| (*partition, Offset(*start))).collect();
        let delta = Delta {
            schema,
            old: Old::default(),
            added,
            removed: BTreeSet::new(),
            untouched: &BTreeSet::new(),
            same_rows: false,
            small: SmallFiles::default(),
            read: &ReadRanges::new(),
            progress: &progress,
            bad_records: 0,
            snapshot_id: snapshot_id(&shared.env),
            time: shared.env.now(),
            snapshots_kept: shared.config.snapshots_kept,
        };
        let mut next = commit::prepare(files, numbers, &base, delta).await?;
        files.put_all(std::mem::take(&mut next.files)).await?;
        Ok(next.base)
    }
}
