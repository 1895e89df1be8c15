//! The fold of one commit: records in, Parquet files out. It may compute for long, so the runner keeps it off the
//! tasks' threads.

use arrow::array::RecordBatch;
use floe_log::{PartitionId, records::Record};
use floe_schema::{Decoder, Refused, Row, TableSchema};
use floe_view::{Fold, Verdict, ViewError};

use crate::{
    data_file::{Encoded, FileWriter},
    error::FileError,
    limits,
};

/// Encodes the records of one commit.
pub(crate) struct Encoder {
    decoder: Decoder,
    writer: Option<FileWriter>,
    file_bytes_max: usize,
    files: Vec<Encoded>,
    /// Bytes of records that left the decoder.
    bytes: usize,
}

/// The rows of one commit.
pub(crate) struct EncodedRows {
    /// The schema that every row fits.
    pub(crate) schema: TableSchema,
    pub(crate) files: Vec<Encoded>,
}

impl Encoder {
    pub(crate) fn new(schema: TableSchema, file_bytes_max: usize) -> Encoder {
        let decoder = Decoder::new(schema);
        Encoder { decoder, writer: None, file_bytes_max, files: Vec::new(), bytes: 0 }
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
        // A file has one schema: where the schema grows, the next file begins.
        let full = |w: &FileWriter, max: usize| w.schema().version() != schema.version() || w.size() >= max;
        if let Some(writer) = self.writer.take_if(|writer| full(writer, self.file_bytes_max)) {
            self.files.push(writer.finish()?);
        }
        if self.writer.is_none() {
            self.writer = Some(FileWriter::new(schema)?);
        }
        self.writer.as_mut().expect("made above").write(batch)
    }
}

impl Fold for Encoder {
    type Folded = EncodedRows;

    fn push(&mut self, partition: PartitionId, record: &Record) -> Result<Verdict, ViewError> {
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
            Ok(()) => {}
            Err(Refused::Bad(bad)) => return Ok(Verdict::Bad(bad.reason)),
            Err(Refused::Full) => unreachable!("an empty decoder is never full"),
        }
        if self.decoder.rows() >= limits::BATCH_ROWS || self.decoder.bytes() >= limits::BATCH_BYTES {
            self.flush()?;
        }
        Ok(Verdict::Taken)
    }

    fn bytes(&self) -> usize {
        self.bytes + self.decoder.bytes()
    }

    fn finish(mut self) -> Result<EncodedRows, ViewError> {
        self.flush()?;
        if let Some(writer) = self.writer.take() {
            self.files.push(writer.finish()?);
        }
        let schema = self.decoder.schema().clone();
        for file in &mut self.files {
            // Whole numbers became doubles after this file was begun. No file may hold the old column.
            if file.schema.replaced() != schema.replaced() {
                *file = crate::data_file::rewrite(file, &schema)?;
            }
        }
        Ok(EncodedRows { schema, files: self.files })
    }
}
