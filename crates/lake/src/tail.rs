//! The tail of a topic as rows: the records that the log holds at a cut and the table does not yet.
//!
//! A tail may be longer than memory. So there are three ways to read it. [`Lake::tail`] holds all rows.
//! [`Lake::tail_schema`] decodes the records only to learn the columns that they need, and forgets the rows. With that
//! schema a [`TailReader`] gives the rows batch by batch.
//!
//! A process that has no log reads a tail, too: it gets the batches from another process ([`Batches`]).

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use floe_log::{FoundBy, Log, Offset, PartitionId, batch::Batch, records::Record, walk::ReadError};
use floe_meta::Snapshot;
use floe_schema::{AdaptError, Decoder, Refused, Row, TableSchema};
use floe_view::{gapless, limits::BATCH_DECODED_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::{handle::Lake, limits, table::TableRef};

/// Bytes that a cell of a column takes at least.
const CELL_BYTES: usize = 8;

/// Bytes of one JSON value while it is a tree. A record becomes a tree when the schema has to grow.
const NODE_BYTES: usize = 128;

/// Memory for a value up to this size is reserved after decoding, together with that of others.
const VALUE_BYTES_SMALL: usize = 64 << 10;

/// The rows between a table's progress and a cut.
#[derive(Debug)]
pub struct Tail {
    /// The table's schema, wider where the tail needs it. A column whose whole numbers became doubles here has another
    /// id than in the table's files; [`TableSchema::adapt`] converts their rows.
    pub schema: TableSchema,
    /// The rows, all with `schema`.
    pub batches: Vec<RecordBatch>,
    /// Records that do not fit the table.
    pub bad_records: u64,
}

/// The columns that the records of a tail need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailSchema {
    /// The table's schema, as it was when reading began.
    pub table: TableSchema,
    /// That schema, wider where the tail needs it.
    pub schema: TableSchema,
    /// The offset after the last record that was looked at, by partition.
    pub ends: BTreeMap<u32, Offset>,
}

/// Why the tail cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The log.
    #[error("the log could not be read: {0}")]
    Read(#[from] ReadError),
    /// Records went while the tail was read, for longer than their objects are kept.
    #[error("records of {0} are gone, they were deleted or moved while they were read: ask again")]
    Gone(PartitionId),
    /// The rows.
    #[error(transparent)]
    Adapt(#[from] AdaptError),
    /// The caller refuses the memory, for this reason.
    #[error("{0}")]
    Memory(String),
    /// The process that has the log could not read it, for this reason.
    #[error("{0}")]
    Away(String),
}

/// The offsets of a partition that a tail has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailSpan {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last; not above `from` if there is nothing.
    pub to: Offset,
}

/// Where a tail gets its batches: at one cut.
#[async_trait]
pub trait Batches: Send + Sync {
    /// Batches from `from` on, which is below the end of the tail; at least one, and then as many as suit one read.
    /// The first may begin before `from`.
    async fn read(&self, partition: PartitionId, from: Offset) -> Result<Vec<Batch>, TailError>;
}

/// Batches of the log of this process.
struct OfLog {
    log: Log,
    snapshot: Snapshot,
}

#[async_trait]
impl Batches for OfLog {
    async fn read(&self, partition: PartitionId, from: Offset) -> Result<Vec<Batch>, TailError> {
        match self.log.read(&self.snapshot, partition, from, limits::TAIL_READ_BYTES).await {
            Ok(read) => Ok(read.batches),
            Err(ReadError::OutOfRange { .. } | ReadError::Gone { .. }) => Err(TailError::Gone(partition)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Is told how many bytes the tail takes in all, before it takes them and after it frees some. An error ends the read.
pub type Hold<'a> = &'a mut (dyn FnMut(usize) -> Result<(), String> + Send);

impl Lake {
    /// The offsets that the log has at `snapshot` and `table`, taken from the same snapshot, has not.
    pub fn tail_spans(snapshot: &Snapshot, table: &TableRef) -> Vec<TailSpan> {
        let spans = table.topic.partition_ids().filter_map(|partition| {
            let bounds = Log::bounds(snapshot, partition)?;
            let progress = table.progress.get(&partition.index).copied().unwrap_or(Offset::ZERO);
            Some(TailSpan { partition, from: progress.max(bounds.log_start), to: bounds.high_watermark })
        });
        spans.collect()
    }

    /// The batches of the log, as they are at `snapshot`, for a statement.
    pub fn batches(&self, snapshot: &Snapshot) -> Arc<dyn Batches> {
        let log = self.log().on_behalf_of(FoundBy::Statement);
        Arc::new(OfLog { log, snapshot: snapshot.clone() })
    }

    /// The rows of the records that the log has at `snapshot` and `table`, taken from the same snapshot, has not.
    /// Together with the rows of the table's files, each record of the topic is there once. `hold` allows the memory.
    ///
    /// # Errors
    /// The log cannot be read, or `hold` refuses.
    pub async fn tail(
        &self,
        snapshot: &Snapshot,
        table: &TableRef,
        hold: Hold<'_>,
    ) -> Result<Tail, TailError> {
        self.tail_reader(snapshot, table, table.schema.clone()).all(hold).await
    }

    /// The columns that the records of the tail need. Records that `known` has looked at are not read again. `hold`
    /// allows the memory for decoding.
    ///
    /// # Errors
    /// The log cannot be read, or `hold` refuses.
    pub async fn tail_schema(
        &self,
        snapshot: &Snapshot,
        table: &TableRef,
        known: Option<TailSchema>,
        hold: Hold<'_>,
    ) -> Result<TailSchema, TailError> {
        self.tail_reader(snapshot, table, table.schema.clone()).learn(known, hold).await
    }

    /// A reader of the rows that [`Lake::tail`] holds. If `schema` is that of [`Lake::tail_schema`], all its batches
    /// have that schema. With the table's own schema, later batches may be wider than earlier ones.
    pub fn tail_reader(&self, snapshot: &Snapshot, table: &TableRef, schema: TableSchema) -> TailReader {
        TailReader::new(self.batches(snapshot), &Lake::tail_spans(snapshot, table), schema)
    }
}

/// Batches under one schema, which is that of the widest.
fn adapted(
    batches: Vec<RecordBatch>,
    schema: &TableSchema,
    mut held: usize,
    hold: Hold<'_>,
) -> Result<Vec<RecordBatch>, TailError> {
    let arrow = schema.arrow();
    let mut wide = Vec::with_capacity(batches.len());
    for batch in batches {
        if batch.schema() == arrow {
            wide.push(batch);
            continue;
        }
        let before = batch.get_array_memory_size();
        hold(held + before + schema.cells_of(&batch) * CELL_BYTES).map_err(TailError::Memory)?;
        let adapted = schema.adapt(&batch)?;
        drop(batch);
        held = held - before + adapted.get_array_memory_size();
        wide.push(adapted);
    }
    hold(held).map_err(TailError::Memory)?;
    Ok(wide)
}

/// The most bytes that decoding `value` takes.
fn value_bytes(value: &[u8]) -> usize {
    let nodes = value.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() + 1;
    2 * value.len() + nodes * NODE_BYTES
}

/// The records of one batch of the log, of which the first ones are already rows.
#[derive(Debug, Default)]
struct Decoded {
    partition: u32,
    records: std::vec::IntoIter<Record>,
    /// Bytes of memory that they take.
    bytes: usize,
}

/// Reads a tail batch by batch.
pub struct TailReader {
    batches: Arc<dyn Batches>,
    /// The offsets that are still to be read.
    spans: VecDeque<TailSpan>,
    /// Batches of the log that are not decoded yet, each with the first offset that is wanted of it.
    read: VecDeque<(PartitionId, Offset, Batch)>,
    decoded: Decoded,
    decoder: Decoder,
    bad_records: u64,
}

impl std::fmt::Debug for TailReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TailReader").field("spans", &self.spans).finish_non_exhaustive()
    }
}

impl TailReader {
    /// A reader of `spans`, whose first rows have `schema`.
    pub fn new(batches: Arc<dyn Batches>, spans: &[TailSpan], schema: TableSchema) -> TailReader {
        TailReader {
            batches,
            spans: spans.iter().copied().collect(),
            read: VecDeque::new(),
            decoded: Decoded::default(),
            decoder: Decoder::new(schema),
            bad_records: 0,
        }
    }

    /// All rows. `hold` allows the memory.
    ///
    /// # Errors
    /// The log cannot be read, or `hold` refuses.
    pub async fn all(mut self, hold: Hold<'_>) -> Result<Tail, TailError> {
        let (mut batches, mut held) = (Vec::new(), 0);
        while let Some(batch) = self.next(&mut |bytes| hold(held + bytes)).await? {
            held += batch.get_array_memory_size();
            batches.push(batch);
        }
        let (schema, bad_records) = (self.schema().clone(), self.bad_records());
        let batches = adapted(batches, &schema, held, hold)?;
        Ok(Tail { schema, batches, bad_records })
    }

    /// The columns that the records need, for a reader that begins with the table's own schema. Records that `known`
    /// has looked at are not read again. `hold` allows the memory for decoding.
    ///
    /// # Errors
    /// The log cannot be read, or `hold` refuses.
    pub async fn learn(mut self, known: Option<TailSchema>, hold: Hold<'_>) -> Result<TailSchema, TailError> {
        let table = self.schema().clone();
        let ends: BTreeMap<u32, Offset> =
            self.spans.iter().map(|span| (span.partition.index, span.to)).collect();
        // What is based on another schema has other ids. What a later cut needed may be no column of this one.
        let seen = |index: &u32| known.as_ref().and_then(|known| known.ends.get(index)).copied();
        let usable = |known: &TailSchema| {
            known.table == table && known.ends.iter().all(|(index, seen)| ends.get(index) >= Some(seen))
        };
        if let Some(known) = known.as_ref().filter(|known| usable(known)) {
            self.decoder = Decoder::new(known.schema.clone());
            for span in &mut self.spans {
                span.from = span.from.max(seen(&span.partition.index).unwrap_or(Offset::ZERO));
            }
        }
        while self.fill(hold).await?.is_some() {}
        hold(0).map_err(TailError::Memory)?;
        Ok(TailSchema { table, schema: self.schema().clone(), ends })
    }

    /// Leaves out the records of other partitions and of other offsets.
    pub fn within(&mut self, partitions: &RangeInclusive<i64>, offsets: &RangeInclusive<i64>) {
        self.spans.retain(|span| partitions.contains(&i64::from(span.partition.index)));
        for span in &mut self.spans {
            span.from = span.from.max(Offset(*offsets.start()));
            span.to = span.to.min(Offset(offsets.end().saturating_add(1)));
        }
    }

    /// The schema of the rows so far.
    pub fn schema(&self) -> &TableSchema {
        self.decoder.schema()
    }

    /// Records so far that do not fit the table.
    pub fn bad_records(&self) -> u64 {
        self.bad_records
    }

    /// The next rows, or `None` after the last. `hold` is told what decoding takes, and with the last call what the
    /// batch takes.
    ///
    /// # Errors
    /// The log cannot be read, or `hold` refuses.
    pub async fn next(&mut self, hold: Hold<'_>) -> Result<Option<RecordBatch>, TailError> {
        let Some(decoder) = self.fill(hold).await? else { return Ok(None) };
        let (_, batch) = decoder.finish();
        let bytes = self.decoded.bytes + batch.get_array_memory_size();
        hold(bytes).map_err(TailError::Memory)?;
        Ok(Some(batch))
    }

    /// Decodes until a batch is full. `None` after the last record.
    async fn fill(&mut self, hold: Hold<'_>) -> Result<Option<Decoder>, TailError> {
        loop {
            while let Some(record) = self.decoded.records.next() {
                let full = self.push(&record, hold)?;
                if full.is_some() {
                    return Ok(full);
                }
            }
            self.decoded = Decoded::default();
            self.hold(hold)?;
            // Decoding a long tail must not block the other tasks of this thread.
            tokio::task::yield_now().await;
            if !self.decode_next(hold).await? {
                return Ok((self.decoder.rows() > 0).then(|| self.take()));
            }
        }
    }

    /// Makes a row of a record. Returns the rows when the batch is full.
    fn push(&mut self, record: &Record, hold: Hold<'_>) -> Result<Option<Decoder>, TailError> {
        let row = Row {
            partition: self.decoded.partition,
            offset: record.offset.0,
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
        };
        if let Some(value) = row.value.filter(|value| value.len() > VALUE_BYTES_SMALL) {
            hold(self.bytes() + value_bytes(value)).map_err(TailError::Memory)?;
        }
        let mut pushed = self.decoder.push(&row);
        let mut full = None;
        if pushed == Err(Refused::Full) {
            self.hold(hold)?;
            full = Some(self.take());
            pushed = self.decoder.push(&row);
        }
        if pushed.is_err() {
            self.bad_records += 1;
        }
        if full.is_none()
            && (self.decoder.rows() >= limits::BATCH_ROWS
                || self.decoder.bytes() >= limits::BATCH_BYTES
                || self.decoder.cells() * CELL_BYTES >= limits::BATCH_BYTES)
        {
            self.hold(hold)?;
            full = Some(self.take());
        }
        Ok(full)
    }

    /// Replaces the decoder by an empty one.
    fn take(&mut self) -> Decoder {
        let next = Decoder::new(self.decoder.schema().clone());
        std::mem::replace(&mut self.decoder, next)
    }

    /// Bytes that the decoded records and the rows of the next batch take.
    fn bytes(&self) -> usize {
        // Text is copied, and escaped where it becomes JSON again. Every column has a cell in each row, even if the
        // record has no value for it.
        2 * self.decoder.bytes() + self.decoder.cells() * CELL_BYTES + self.decoded.bytes
    }

    fn hold(&self, hold: Hold<'_>) -> Result<(), TailError> {
        hold(self.bytes()).map_err(TailError::Memory)
    }

    /// Decodes the next batch of the log. Returns `false` if there is none.
    async fn decode_next(&mut self, hold: Hold<'_>) -> Result<bool, TailError> {
        loop {
            while let Some((partition, from, batch)) = self.read.pop_front() {
                if !batch.has_records() {
                    continue;
                }
                let Some(mut records) = self.decode(&batch, hold)? else {
                    // The view counts the whole batch as one bad record.
                    self.bad_records += 1;
                    continue;
                };
                records.retain(|record| record.offset >= from);
                self.decoded.partition = partition.index;
                self.decoded.records = records.into_iter();
                return Ok(true);
            }
            let Some(span) = self.spans.front_mut() else { return Ok(false) };
            if span.from >= span.to {
                self.spans.pop_front();
                continue;
            }
            let (partition, at) = (span.partition, span.from);
            let batches = gapless(partition, at, self.batches.read(partition, at).await?)?;
            span.from = batches.last().map_or(at, Batch::next_offset);
            self.read = batches.into_iter().map(|batch| (partition, at, batch)).collect();
        }
    }

    /// The records of a batch; none if it cannot be decoded.
    fn decode(&mut self, batch: &Batch, hold: Hold<'_>) -> Result<Option<Vec<Record>>, TailError> {
        let before = self.bytes();
        let (mut decoding, mut refused) = (0, None);
        let records = batch.records_in(BATCH_DECODED_BYTES_MAX, &mut |more| {
            decoding += more;
            refused = hold(before + decoding).err();
            refused.is_none()
        });
        if let Some(reason) = refused {
            return Err(TailError::Memory(reason));
        }
        let records = records.ok();
        self.decoded.bytes = if records.is_some() { decoding } else { 0 };
        Ok(records)
    }
}
