//! Batches of the log in, Parquet files and dead letters out. No I/O: it runs beside the tasks, as it
//! computes for long.

use arrow::array::RecordBatch;
use bytes::Bytes;
use floe_log::{Offset, PartitionId, batch::Batch, records::Record};
use floe_schema::{Decoder, Refused, Row, TableSchema};

use crate::{
    data_file::{Encoded, FileError, FileWriter},
    limits,
};

/// A record that is no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Where it is in the log.
    pub partition: PartitionId,
    /// As it came; the whole batch, undecoded, as the value when the batch cannot be taken apart.
    pub record: Record,
    /// What is wrong with it.
    pub reason: String,
}

/// Takes in the records of one commit.
pub(crate) struct Encoder {
    decoder: Decoder,
    writer: Option<FileWriter>,
    file_bytes_max: usize,
    files: Vec<Encoded>,
    dead: Vec<DeadLetter>,
    rows: u64,
    bytes: usize,
}

/// What one commit is made of.
pub(crate) struct Output {
    /// The schema in which every record fits.
    pub(crate) schema: TableSchema,
    pub(crate) files: Vec<Encoded>,
    pub(crate) dead: Vec<DeadLetter>,
    pub(crate) rows: u64,
}

impl Encoder {
    pub(crate) fn new(schema: TableSchema, file_bytes_max: usize) -> Encoder {
        let decoder = Decoder::new(schema);
        Encoder {
            decoder,
            writer: None,
            file_bytes_max,
            files: Vec::new(),
            dead: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Bytes of records taken in: what a commit is bounded by.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.decoder.bytes()
    }

    /// Takes in the records of `batches` from `from` on, whole batches, until there are `bytes_max` of them. The result
    /// is the offset that comes next. Looked at after every batch, as some kilobytes may decompress to 128 MiB.
    pub(crate) fn fill(
        &mut self,
        partition: PartitionId,
        batches: &[Batch],
        from: Offset,
        bytes_max: usize,
    ) -> Result<Offset, FileError> {
        let mut next = from;
        for batch in batches {
            self.push(partition, batch, from)?;
            next = batch.next_offset();
            if self.bytes() >= bytes_max {
                break;
            }
        }
        Ok(next)
    }

    fn push(&mut self, partition: PartitionId, batch: &Batch, from: Offset) -> Result<(), FileError> {
        if batch.header().is_control() {
            return Ok(());
        }
        let records = match batch.records(limits::BATCH_DECODED_BYTES_MAX) {
            Ok(records) => records,
            Err(error) => {
                // Its checksum was right when it was taken in: the producer wrote it so, and it stays so.
                self.bury_batch(partition, batch, &error.to_string());
                return Ok(());
            }
        };
        for record in records {
            if record.offset < from {
                continue;
            }
            self.push_record(partition, &record)?;
            if self.decoder.rows() >= limits::BATCH_ROWS || self.decoder.bytes() >= limits::BATCH_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn push_record(&mut self, partition: PartitionId, record: &Record) -> Result<(), FileError> {
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
            self.flush()?;
            pushed = self.decoder.push(&row);
        }
        match pushed {
            Ok(()) => self.rows += 1,
            Err(Refused::Bad(bad)) => {
                let record = detached(record);
                self.bury(DeadLetter { partition, record, reason: bad.reason });
            }
            Err(Refused::Full) => unreachable!("an empty decoder is never full"),
        }
        Ok(())
    }

    fn bury_batch(&mut self, partition: PartitionId, batch: &Batch, reason: &str) {
        let record = Record {
            offset: batch.base_offset,
            timestamp: batch.header().max_timestamp,
            key: None,
            value: Some(batch.stamped()),
            headers: Vec::new(),
        };
        self.bury(DeadLetter {
            partition,
            record,
            reason: format!("the batch cannot be taken apart: {reason}"),
        });
    }

    fn bury(&mut self, letter: DeadLetter) {
        // Dead letters are held until the commit, as rows are.
        let DeadLetter { record, reason, .. } = &letter;
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = record.headers.iter().map(|(key, value)| key.len() + of(value) + 100).sum();
        self.bytes += of(&record.key) + of(&record.value) + headers + reason.len() + 200;
        self.dead.push(letter);
    }

    fn flush(&mut self) -> Result<(), FileError> {
        if self.decoder.rows() == 0 {
            return Ok(());
        }
        let next = Decoder::new(self.decoder.schema().clone());
        let decoder = std::mem::replace(&mut self.decoder, next);
        self.bytes += decoder.bytes();
        let (schema, batch) = decoder.finish();
        self.decoder = Decoder::new(schema.clone());
        self.write(schema, &batch)
    }

    fn write(&mut self, schema: TableSchema, batch: &RecordBatch) -> Result<(), FileError> {
        // A file has one schema: the next one begins where the schema grew.
        let full = |w: &FileWriter, max: usize| w.schema().version() != schema.version() || w.size() >= max;
        if let Some(writer) = self.writer.take_if(|writer| full(writer, self.file_bytes_max)) {
            self.files.push(writer.finish()?);
        }
        if self.writer.is_none() {
            self.writer = Some(FileWriter::new(schema)?);
        }
        self.writer.as_mut().expect("made above").write(batch)
    }

    /// The files and dead letters.
    pub(crate) fn finish(mut self) -> Result<Output, FileError> {
        self.flush()?;
        if let Some(writer) = self.writer.take() {
            self.files.push(writer.finish()?);
        }
        let schema = self.decoder.schema().clone();
        for file in &mut self.files {
            // Whole numbers became doubles after this file was begun: none may hold the old column.
            if file.schema.replaced() != schema.replaced() {
                *file = crate::data_file::rewrite(file.bytes.clone(), &schema)?;
            }
        }
        Ok(Output { schema, files: self.files, dead: self.dead, rows: self.rows })
    }
}

/// A copy that shares no memory: a slice would keep the whole batch it is from, decompressed, until the commit.
fn detached(record: &Record) -> Record {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let header = |(key, value): &(Bytes, Option<Bytes>)| (copy(key), value.as_ref().map(copy));
    Record {
        key: record.key.as_ref().map(copy),
        value: record.value.as_ref().map(copy),
        headers: record.headers.iter().map(header).collect(),
        ..*record
    }
}
