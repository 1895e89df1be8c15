//! The tail of a topic as rows: what the log holds at a cut and the table does not yet.

use arrow::array::RecordBatch;
use floe_log::{
    batch::Batch,
    ids::{Offset, PartitionId},
    log::{Log, ReadError},
};
use floe_meta::Snapshot;
use floe_schema::{AdaptError, Decoder, Refused, Row, TableSchema};

use crate::{
    lake::{Lake, TableRef},
    limits,
    view::gapless,
};

/// The rows between a table's progress and a cut.
#[derive(Debug)]
pub struct Tail {
    /// The table's schema, wider where the tail needs it. A column whose whole numbers became doubles here
    /// has another id than in the table's files: [`TableSchema::adapt`] brings their rows over.
    pub schema: TableSchema,
    /// The rows, all with `schema`.
    pub batches: Vec<RecordBatch>,
    /// Records that are no rows.
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
    /// The view is far behind.
    #[error("table {table} is more than {max} bytes behind its topic, ask again when its view has caught up")]
    TooLong {
        /// The table.
        table: String,
        /// The limit.
        max: usize,
    },
}

impl Lake {
    /// The rows of the records that `snapshot` has and `table`, taken from the same snapshot, does not: with
    /// the rows of the table's files, each record of the topic once.
    ///
    /// # Errors
    /// The log cannot be read, or the tail is too long ([`limits::TAIL_BYTES_MAX`]).
    pub async fn tail(&self, snapshot: &Snapshot, table: &TableRef) -> Result<Tail, TailError> {
        let mut rows = Rows::new(table.schema.clone());
        for partition in table.topic.partition_ids() {
            self.read_partition(snapshot, table, partition, &mut rows).await?;
        }
        let Rows { decoder, done, bad_records, .. } = rows;
        let (schema, last) = decoder.finish();
        let mut batches = Vec::with_capacity(done.len() + 1);
        for batch in done.iter().chain([&last]).filter(|batch| batch.num_rows() > 0) {
            batches.push(schema.adapt(batch)?);
        }
        Ok(Tail { schema, batches, bad_records })
    }

    async fn read_partition(
        &self,
        snapshot: &Snapshot,
        table: &TableRef,
        partition: PartitionId,
        rows: &mut Rows,
    ) -> Result<(), TailError> {
        let Some(bounds) = Log::bounds(snapshot, partition) else { return Ok(()) };
        let from = table.progress.get(&partition.index).copied().unwrap_or(Offset::ZERO);
        let mut at = from.max(bounds.log_start);
        while at < bounds.high_watermark {
            let read = self.log().read(snapshot, partition, at, limits::READ_BYTES).await?;
            let batches = gapless(partition, at, read.batches)?;
            let next = batches.last().map_or(at, Batch::next_offset);
            for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
                rows.push_batch(partition, batch, at);
            }
            if rows.bytes + rows.decoder.bytes() > limits::TAIL_BYTES_MAX {
                return Err(TailError::TooLong { table: table.name.clone(), max: limits::TAIL_BYTES_MAX });
            }
            at = next;
            // Decoding a long tail must not hold up the other tasks of its thread.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

struct Rows {
    decoder: Decoder,
    done: Vec<RecordBatch>,
    bytes: usize,
    bad_records: u64,
}

impl Rows {
    fn new(schema: TableSchema) -> Rows {
        Rows { decoder: Decoder::new(schema), done: Vec::new(), bytes: 0, bad_records: 0 }
    }

    fn push_batch(&mut self, partition: PartitionId, batch: &Batch, from: Offset) {
        let Ok(records) = batch.records(limits::BATCH_DECODED_BYTES_MAX) else {
            // The view gives the whole batch to the dead letters.
            self.bad_records += 1;
            return;
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
            let mut pushed = self.decoder.push(&row);
            if pushed == Err(Refused::Full) {
                self.flush();
                pushed = self.decoder.push(&row);
            }
            if pushed.is_err() {
                self.bad_records += 1;
            }
            if self.decoder.rows() >= limits::BATCH_ROWS || self.decoder.bytes() >= limits::BATCH_BYTES {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let next = Decoder::new(self.decoder.schema().clone());
        let decoder = std::mem::replace(&mut self.decoder, next);
        self.bytes += decoder.bytes();
        let (_, batch) = decoder.finish();
        self.done.push(batch);
    }
}
