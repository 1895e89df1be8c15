//! Reads Parquet files of the lake from the log's store. Caches footers, and reads close column chunks in one request.
//!
//! Every byte is checked before the engine sees it ([`floe_lake::checks`]). So each read begins and ends with a piece
//! that has a checksum. A damaged or lost file is an error with its name, and with the command that makes the table
//! anew.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use datafusion::common::exec_datafusion_err;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, MetadataFetch};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use floe_env::{Lru, lock};
use floe_lake::checks::{self, Checks, Damage, Found};
use floe_query::{Kind, QueryError};

use crate::limits::{FOOTER_HINT_BYTES, READ_BYTES_MAX, READ_GAP_BYTES, READS_AT_ONCE};
use crate::source::Reads;
use crate::told;

/// The URL of the lake's files inside the engine. The engine never reads through it. This module reads the files from
/// the log's own store.
pub(crate) const LAKE_URL: &str = "floe://lake";

/// The file's key in the store, as an extension of a [`PartitionedFile`]. The path of that file would escape the key.
#[derive(Debug)]
pub(crate) struct FileKey(pub(crate) String);

/// The files' bytes and the footers that the readers of all statements share.
pub(crate) struct Files {
    bytes: Arc<dyn Reads>,
    footers: Footers,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}

impl Files {
    pub(crate) fn new(bytes: Arc<dyn Reads>, footers_max: usize) -> Arc<Files> {
        Arc::new(Files { bytes, footers: Footers::new(footers_max) })
    }

    /// A whole file that is not one of a table.
    pub(crate) async fn whole(&self, key: &str, bytes: u64) -> Result<Bytes, String> {
        self.bytes.get(key, 0..bytes).await
    }
}

/// The engine's [`ParquetFileReaderFactory`] over a shared [`Files`].
#[derive(Clone, Debug)]
pub(crate) struct FileReaders {
    pub(crate) files: Arc<Files>,
    /// The name of the table that has the files.
    pub(crate) table: Arc<str>,
}

impl ParquetFileReaderFactory for FileReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let key = file.extension::<FileKey>();
        let key = key.ok_or_else(|| exec_datafusion_err!("{} is not a file of the lake", file.path()))?;
        Ok(Box::new(FileReader {
            files: self.files.clone(),
            table: self.table.clone(),
            key: key.0.clone(),
            size: file.object_meta.size,
            footer: None,
            metrics: ParquetFileMetrics::new(partition, file.object_meta.location.as_ref(), metrics),
        }))
    }
}

/// The footer of a file, and what its bytes are checked with.
struct Footer {
    metadata: Arc<ParquetMetaData>,
    checks: Checks,
}

/// The last bytes of a file, from an offset on. They are checked.
struct Tail {
    from: u64,
    bytes: Bytes,
}

/// Reads one file.
struct FileReader {
    files: Arc<Files>,
    table: Arc<str>,
    key: String,
    size: u64,
    footer: Option<Arc<Footer>>,
    metrics: ParquetFileMetrics,
}

impl FileReader {
    fn damaged(&self, damage: &Damage) -> ParquetError {
        metrics::counter!("floe_sql_damaged_reads_total").increment(1);
        self.unread(&format!("{} is damaged: {damage}", self.key))
    }

    /// The error of a statement that cannot read this file. The engine hands it on as it is.
    fn unread(&self, why: &str) -> ParquetError {
        let table = &self.table;
        let message = format!("table '{table}' cannot be read: {why}; {}", told::rebuild(table));
        ParquetError::External(Box::new(QueryError::new(Kind::Unavailable, message)))
    }

    /// Bytes of the file as the store has them.
    async fn get_unchecked(&self, range: Range<u64>) -> Result<Bytes> {
        let expected = range.end - range.start;
        let bytes = self.files.bytes.get(&self.key, range).await.map_err(|error| {
            self.unread(&format!("{} could not be read from the store: {error}", self.key))
        })?;
        if bytes.len() as u64 != expected {
            let why = format!("{} gave {} bytes instead of {expected}", self.key, bytes.len());
            return Err(self.unread(&why));
        }
        metrics::counter!("floe_sql_lake_read_bytes_total").increment(expected);
        metrics::counter!("floe_sql_lake_reads_total").increment(1);
        self.metrics.bytes_scanned.add(usize::try_from(expected).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    /// Whole pieces of the file.
    async fn get_pieces(&self, checks: &Checks, pieces: Range<u64>) -> Result<Bytes> {
        let from = pieces.start;
        let bytes = self.get_unchecked(pieces).await?;
        checks.verify(from, &bytes).map_err(|damage| self.damaged(&damage))?;
        Ok(bytes)
    }

    async fn get_many(&mut self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        let footer = self.footer().await?;
        // A damaged file may point anywhere.
        let pieces = ranges.iter().map(|range| footer.checks.pieces(range));
        let pieces = pieces.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| self.damaged(&e))?;
        let joined = join(&pieces);
        let requests = joined.iter().map(|range| self.get_pieces(&footer.checks, range.clone()));
        // The requests are collected, because they borrow: a lazy iterator would have to be Send over all lifetimes.
        let requests: Vec<_> = requests.collect();
        let parts: Vec<Bytes> = stream::iter(requests).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(ranges.iter().map(|range| cut(range, &joined, &parts)).collect())
    }

    async fn footer(&mut self) -> Result<Arc<Footer>> {
        if let Some(footer) = &self.footer {
            return Ok(footer.clone());
        }
        if let Some(footer) = self.files.footers.get(&self.key) {
            metrics::counter!("floe_sql_footers_total", "from" => "cache").increment(1);
            self.footer = Some(footer.clone());
            return Ok(footer);
        }
        metrics::counter!("floe_sql_footers_total", "from" => "store").increment(1);
        let (checks, tail) = self.checked_tail().await?;
        // This also reads the page index, which the engine did not request. Skipping pages needs it, and with a cached
        // footer that lacks it, each statement would read it again.
        let metadata = ParquetMetaDataReader::new()
            .with_prefetch_hint(Some(FOOTER_HINT_BYTES))
            .with_page_index_policy(PageIndexPolicy::Optional)
            .load_and_finish(TailFetch { reader: self, checks: &checks, tail }, self.size)
            .await;
        let metadata = metadata.map_err(|error| match error {
            ParquetError::External(_) => error,
            error => self.unread(&format!("{}: {error}", self.key)),
        })?;
        let footer = Arc::new(Footer { metadata: Arc::new(metadata), checks });
        self.files.footers.put(&self.key, &footer);
        self.footer = Some(footer.clone());
        Ok(footer)
    }

    /// The checksums of the file, and its last bytes, checked.
    async fn checked_tail(&self) -> Result<(Checks, Tail)> {
        let mut from = checks::begin_of_piece(self.size.saturating_sub(FOOTER_HINT_BYTES as u64));
        let mut bytes = self.get_unchecked(from..self.size).await?;
        loop {
            match Checks::find(&bytes, from, self.size).map_err(|damage| self.damaged(&damage))? {
                // A footer of many columns is larger than the hint.
                Found::Before(more) => {
                    bytes = self.get_unchecked(more..self.size).await?;
                    from = more;
                }
                Found::Checks(checks) => {
                    let covered = checks.covered().saturating_sub(from);
                    let covered = usize::try_from(covered).expect("a part of what is in memory");
                    checks.verify(from, &bytes[..covered]).map_err(|damage| self.damaged(&damage))?;
                    return Ok((checks, Tail { from, bytes }));
                }
            }
        }
    }
}

/// Reads the footer and the page index: from the tail, or else from before it.
struct TailFetch<'a> {
    reader: &'a FileReader,
    checks: &'a Checks,
    tail: Tail,
}

impl MetadataFetch for TailFetch<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let Tail { from, bytes } = &self.tail;
            if range.start >= *from && range.start <= range.end && range.end <= self.reader.size {
                return Ok(cut(
                    &range,
                    std::slice::from_ref(&(*from..self.reader.size)),
                    std::slice::from_ref(bytes),
                ));
            }
            let pieces = self.checks.pieces(&range).map_err(|damage| self.reader.damaged(&damage))?;
            let bytes = self.reader.get_pieces(self.checks, pieces.clone()).await?;
            Ok(cut(&range, &[pieces], &[bytes]))
        }
        .boxed()
    }
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { Ok(self.get_many(vec![range]).await?.swap_remove(0)) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        self.get_many(ranges).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move { Ok(self.footer().await?.metadata.clone()) }.boxed()
    }
}

/// The ranges to request, in order. Close neighbours are joined up to [`READ_BYTES_MAX`].
fn join(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.to_vec();
    sorted.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.end <= last.end => {}
            Some(last)
                if range.start <= last.end + READ_GAP_BYTES && range.end - last.start <= READ_BYTES_MAX =>
            {
                last.end = range.end;
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Cuts the bytes of one range out of the joined parts.
fn cut(range: &Range<u64>, joined: &[Range<u64>], parts: &[Bytes]) -> Bytes {
    let index = joined
        .iter()
        .position(|whole| whole.start <= range.start && range.end <= whole.end)
        .expect("each range lies in one that was read");
    let from = usize::try_from(range.start - joined[index].start).expect("a part of what is in memory");
    let to = usize::try_from(range.end - joined[index].start).expect("a part of what is in memory");
    parts[index].slice(from..to)
}

/// An LRU of footers by key. Files never change, so entries never go stale.
struct Footers(Mutex<Lru<String, Arc<Footer>>>);

impl Footers {
    fn new(bytes_max: usize) -> Footers {
        Footers(Mutex::new(Lru::new(bytes_max)))
    }

    fn get(&self, key: &String) -> Option<Arc<Footer>> {
        lock(&self.0).get(key).cloned()
    }

    fn put(&self, key: &str, footer: &Arc<Footer>) {
        let bytes = footer.metadata.memory_size() + footer.checks.memory_size();
        let mut footers = lock(&self.0);
        let evicted = footers.insert(key.to_owned(), footer.clone(), bytes);
        metrics::gauge!("floe_sql_footer_cache_bytes").set(footers.weight() as f64);
        // Footers are large trees. They are freed without the lock.
        drop(footers);
        drop(evicted);
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges, some of which have one")]
mod tests {
    use super::*;

    #[test]
    fn close_ranges_are_read_together() {
        let check = |ranges: &[Range<u64>], expected: &[Range<u64>]| {
            let joined = join(ranges);
            assert_eq!(joined, expected);
            let parts: Vec<Bytes> = joined
                .iter()
                .map(|range| range.clone().map(|i| (i % 251) as u8).collect::<Vec<u8>>().into())
                .collect();
            for range in ranges {
                let bytes = cut(range, &joined, &parts);
                assert_eq!(bytes, range.clone().map(|i| (i % 251) as u8).collect::<Vec<u8>>());
            }
        };
        check(&[], &[]);
        check(&[5..9], &[5..9]);
        check(&[20..30, 0..10, 5..7], &[0..30]);
        let far = READ_GAP_BYTES + 11;
        check(&[0..10, far..far + 1], &[0..10, far..far + 1]);
        check(
            &[0..READ_BYTES_MAX, READ_BYTES_MAX..READ_BYTES_MAX + 9],
            &[0..READ_BYTES_MAX, READ_BYTES_MAX..READ_BYTES_MAX + 9],
        );
    }
}
