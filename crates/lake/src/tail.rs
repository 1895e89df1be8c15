//! The tail of a topic as rows: the records that the log holds at a cut and the table does not yet.

use arrow::array::RecordBatch;
use floe_log::{Log, Offset, PartitionId, batch::Batch, records::Record, walk::ReadError};
use floe_meta::Snapshot;
use floe_schema::{AdaptError, Decoder, Refused, Row, TableSchema};
use floe_view::{
    gapless,
    limits::{BATCH_DECODED_BYTES_MAX, READ_BYTES},
};

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

/// Why the tail cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The log.
    #[error("the log could not be read: {0}")]
    Read(#[from] ReadError),
    /// The rows.
    #[error(transparent)]
    Adapt(#[from] AdaptError),
    /// The caller refuses the memory, for this reason.
    #[error("{0}")]
    Memory(String),
    /// The view is too far behind.
    #[error("table {table} is more than {max} bytes behind its topic, ask again when its view has caught up")]
    TooLong {
        /// The table.
        table: String,
        /// The limit.
        max: usize,
    },
}

/// Is told how many bytes the tail takes in all, before it takes them and after it frees some. An error ends the read.
pub type Hold<'a> = &'a mut (dyn FnMut(usize) -> Result<(), String> + Send);

impl Lake {
    /// The rows of the records that the log has at `snapshot` and `table`, taken from the same snapshot, has not.
    /// Together with the rows of the table's files, each record of the topic is there once. `hold` allows the memory.
    ///
    /// # Errors
    /// The log cannot be read, `hold` refuses, or the tail is too long ([`limits::TAIL_BYTES_MAX`]).
    pub async fn tail(
        &self,
        snapshot: &Snapshot,
        table: &TableRef,
        hold: Hold<'_>,
    ) -> Result<Tail, TailError> {
        let mut rows = Rows::new(table.schema.clone(), hold);
        for partition in table.topic.partition_ids() {
            self.read_partition(snapshot, table, partition, &mut rows).await?;
        }
        rows.finish()
    }

    async fn read_partition(
        &self,
        snapshot: &Snapshot,
        table: &TableRef,
        partition: PartitionId,
        rows: &mut Rows<'_>,
    ) -> Result<(), TailError> {
        let Some(bounds) = Log::bounds(snapshot, partition) else { return Ok(()) };
        let from = table.progress.get(&partition.index).copied().unwrap_or(Offset::ZERO);
        let mut at = from.max(bounds.log_start);
        while at < bounds.high_watermark {
            let read = self.log().read(snapshot, partition, at, READ_BYTES).await?;
            let batches = gapless(partition, at, read.batches)?;
            let next = batches.last().map_or(at, Batch::next_offset);
            for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
                rows.push_batch(partition, batch, at)?;
                if rows.bytes + rows.decoder.bytes() > limits::TAIL_BYTES_MAX {
                    return Err(TailError::TooLong {
                        table: table.name.clone(),
                        max: limits::TAIL_BYTES_MAX,
                    });
                }
                // Decoding a long tail must not block the other tasks of this thread.
                tokio::task::yield_now().await;
            }
            at = next;
        }
        Ok(())
    }
}

/// The most bytes that decoding `value` takes.
fn value_bytes(value: &[u8]) -> usize {
    let nodes = value.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() + 1;
    2 * value.len() + nodes * NODE_BYTES
}

struct Rows<'a> {
    decoder: Decoder,
    done: Vec<RecordBatch>,
    /// Bytes of memory that `done` takes.
    held: usize,
    hold: Hold<'a>,
    /// Bytes of the records in `done`.
    bytes: usize,
    bad_records: u64,
}

impl<'a> Rows<'a> {
    fn new(schema: TableSchema, hold: Hold<'a>) -> Rows<'a> {
        let decoder = Decoder::new(schema);
        Rows { decoder, done: Vec::new(), held: 0, hold, bytes: 0, bad_records: 0 }
    }

    fn push_batch(&mut self, partition: PartitionId, batch: &Batch, from: Offset) -> Result<(), TailError> {
        let mut decoding = 0;
        let Some(records) = self.decode(batch, &mut decoding)? else {
            // The view counts the whole batch as one bad record.
            self.bad_records += 1;
            return Ok(());
        };
        for record in records.iter().filter(|record| record.offset >= from) {
            let row = Row {
                partition: partition.index,
                offset: record.offset.0,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
            };
            if let Some(value) = row.value.filter(|value| value.len() > VALUE_BYTES_SMALL) {
                self.hold(decoding + value_bytes(value))?;
            }
            let mut pushed = self.decoder.push(&row);
            if pushed == Err(Refused::Full) {
                self.flush(decoding)?;
                pushed = self.decoder.push(&row);
            }
            if pushed.is_err() {
                self.bad_records += 1;
            }
            let rows = self.decoder.rows();
            if rows >= limits::BATCH_ROWS
                || self.decoder.bytes() >= limits::BATCH_BYTES
                || self.decoder.cells() * CELL_BYTES >= limits::BATCH_BYTES
            {
                self.flush(decoding)?;
            }
        }
        drop(records);
        self.hold(0)
    }

    /// The records of a batch; none if it cannot be decoded. `decoding` becomes the bytes that they take.
    fn decode(&mut self, batch: &Batch, decoding: &mut usize) -> Result<Option<Vec<Record>>, TailError> {
        let mut refused = None;
        let records = batch.records_in(BATCH_DECODED_BYTES_MAX, &mut |more| {
            *decoding += more;
            refused = self.hold(*decoding).err();
            refused.is_none()
        });
        refused.map_or(Ok(records.ok()), Err)
    }

    /// Asks for the memory of all rows, and of `beside` bytes more.
    fn hold(&mut self, beside: usize) -> Result<(), TailError> {
        // Text is copied, and escaped where it becomes JSON again. Every column has a cell in each row, even if the
        // record has no value for it.
        let decoding = 2 * self.decoder.bytes() + self.decoder.cells() * CELL_BYTES;
        (self.hold)(self.held + decoding + beside).map_err(TailError::Memory)
    }

    fn flush(&mut self, beside: usize) -> Result<(), TailError> {
        if self.decoder.rows() == 0 {
            return Ok(());
        }
        self.hold(beside)?;
        let next = Decoder::new(self.decoder.schema().clone());
        let decoder = std::mem::replace(&mut self.decoder, next);
        self.bytes += decoder.bytes();
        let (_, batch) = decoder.finish();
        self.held += batch.get_array_memory_size();
        self.done.push(batch);
        self.hold(beside)
    }

    fn finish(mut self) -> Result<Tail, TailError> {
        self.flush(0)?;
        let schema = self.decoder.schema().clone();
        let arrow = schema.arrow();
        let mut batches = Vec::with_capacity(self.done.len());
        for batch in std::mem::take(&mut self.done) {
            if batch.schema() == arrow {
                batches.push(batch);
                continue;
            }
            let before = batch.get_array_memory_size();
            self.hold(before + schema.cells_of(&batch) * CELL_BYTES)?;
            let adapted = schema.adapt(&batch)?;
            drop(batch);
            self.held = self.held - before + adapted.get_array_memory_size();
            batches.push(adapted);
        }
        self.hold(0)?;
        Ok(Tail { schema, batches, bad_records: self.bad_records })
    }
}
