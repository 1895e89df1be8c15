//! One Parquet file: rows in, bytes and statistics out.
//!
//! A file is compressed with zstd, has column ids and statistics, and its timestamps are microseconds in UTC. It has no
//! embedded Arrow schema: some readers take its hints literally (string views, for example) and fail. Every byte of it
//! has a checksum ([`crate::checks`]).

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use floe_iceberg::{DataFile, Metrics, Primitive, Schema};
use floe_schema::TableSchema;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{metadata::ParquetMetaData, properties::WriterProperties},
};

use crate::{
    checks, convert,
    error::{FileError, TableError},
    limits,
};

/// A finished file that is not in the store yet.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    pub(crate) rows: u64,
    /// The schema it was written with.
    pub(crate) schema: TableSchema,
    pub(crate) metrics: Metrics,
}

impl Encoded {
    /// The manifest's entry for this file at `url`.
    pub(crate) fn data_file(&self, file_path: String) -> DataFile {
        DataFile {
            file_path,
            record_count: self.rows,
            file_size_in_bytes: self.bytes.len() as u64,
            metrics: self.metrics.clone(),
        }
    }
}

/// Writes one file.
pub(crate) struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    schema: TableSchema,
    rows: u64,
}

impl FileWriter {
    pub(crate) fn new(schema: TableSchema) -> Result<FileWriter, FileError> {
        let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_created_by("floe".to_owned())
            .set_statistics_truncate_length(Some(limits::BOUND_BYTES))
            .set_max_row_group_bytes(Some(limits::ROW_GROUP_BYTES))
            .build();
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema.arrow(), options)?;
        Ok(FileWriter { writer, schema, rows: 0 })
    }

    pub(crate) fn schema(&self) -> &TableSchema {
        &self.schema
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        self.writer.write(batch)?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// About how many bytes the file would have if it were finished now.
    pub(crate) fn size(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    pub(crate) fn finish(mut self) -> Result<Encoded, FileError> {
        let metadata = self.writer.finish()?;
        let mut bytes = std::mem::take(self.writer.inner_mut());
        checks::add(&mut bytes);
        let bytes = Bytes::from(bytes);
        let metrics = metrics(&metadata, &convert::schema(&self.schema)?)?;
        Ok(Encoded { bytes, rows: self.rows, schema: self.schema, metrics })
    }
}

fn metrics(metadata: &ParquetMetaData, schema: &Schema) -> Result<Metrics, FileError> {
    let mut metrics = Metrics::default();
    let types = schema.primitives();
    // A column has no bounds if one of its row groups has none.
    let mut boundless = BTreeSet::new();
    for group in metadata.row_groups() {
        let begin = group.columns().first().map(|column| column.byte_range().0.cast_signed());
        metrics.split_offsets.extend(begin);
        for column in group.columns() {
            let info = column.column_descr().self_type().get_basic_info();
            // The writer puts ids on every field, also on the elements of lists.
            let Some(id) = info.has_id().then(|| info.id()) else { continue };
            *metrics.column_sizes.entry(id).or_default() += column.compressed_size().cast_unsigned();
            *metrics.value_counts.entry(id).or_default() += column.num_values().cast_unsigned();
            let nulls = column.statistics().and_then(|s| s.null_count_opt());
            *metrics.null_value_counts.entry(id).or_default() += nulls.unwrap_or(0);
            // Bounds of repeated values say nothing about rows.
            let of = types.get(&id).filter(|_| column.column_descr().max_rep_level() == 0);
            let Some(of) = of.copied() else { continue };
            let bounds = column.statistics().and_then(|s| Some((s.min_bytes_opt()?, s.max_bytes_opt()?)));
            let all_null = nulls == Some(column.num_values().cast_unsigned());
            match bounds {
                Some((min, max)) => {
                    widen(&mut metrics.lower_bounds, id, of, min, Ordering::Less)?;
                    widen(&mut metrics.upper_bounds, id, of, max, Ordering::Greater)?;
                }
                None if all_null => {}
                None => {
                    boundless.insert(id);
                }
            }
        }
    }
    metrics.lower_bounds.retain(|id, _| !boundless.contains(id));
    metrics.upper_bounds.retain(|id, _| !boundless.contains(id));
    Ok(metrics)
}

/// Takes in the bound of one row group.
fn widen(
    bounds: &mut BTreeMap<i32, Vec<u8>>,
    id: i32,
    of: Primitive,
    bound: &[u8],
    keep: Ordering,
) -> Result<(), FileError> {
    of.check_bound(bound)?;
    let current = bounds.get(&id);
    if current.is_none_or(|current| of.compare_bounds(bound, current) == Some(keep)) {
        bounds.insert(id, bound.to_vec());
    }
    Ok(())
}

/// Rewrites one file of a commit in the making under a later schema of the table.
pub(crate) fn rewrite(file: &Encoded, schema: &TableSchema) -> Result<Encoded, FileError> {
    let mut writer = FileWriter::new(schema.clone())?;
    copy(file.bytes.clone(), schema, |batch| writer.write(batch))?;
    writer.finish()
}

/// Makes the files of the rows of other files, which have earlier schemas of the table. A new file begins where one has
/// `file_bytes_max`.
pub(crate) fn rewrite_all(
    files: Vec<(String, Bytes)>,
    schema: &TableSchema,
    file_bytes_max: usize,
) -> Result<Vec<Encoded>, TableError> {
    let mut made = Vec::new();
    let mut writer = FileWriter::new(schema.clone())?;
    for (name, bytes) in files {
        let copied = copy(bytes, schema, |batch| {
            writer.write(batch)?;
            if writer.size() >= file_bytes_max {
                let full = std::mem::replace(&mut writer, FileWriter::new(schema.clone())?);
                made.push(full.finish()?);
            }
            Ok(())
        });
        copied.map_err(|error| TableError::damaged(&name, &error))?;
    }
    if writer.rows > 0 {
        made.push(writer.finish()?);
    }
    Ok(made)
}

/// Gives the rows of a file, under `schema`, to `take`.
pub(crate) fn copy(
    file: Bytes,
    schema: &TableSchema,
    mut take: impl FnMut(&RecordBatch) -> Result<(), FileError>,
) -> Result<(), FileError> {
    checks::verify(&file)?;
    for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(8192).build()? {
        take(&schema.adapt(&batch.map_err(ParquetError::from)?)?)?;
    }
    Ok(())
}

/// Every row of a file under `schema`, for tests and tools.
///
/// # Errors
/// The file is damaged, or not of this table.
pub fn read(file: Bytes, schema: &TableSchema) -> Result<Vec<RecordBatch>, FileError> {
    let mut batches = Vec::new();
    copy(file, schema, |batch| {
        batches.push(batch.clone());
        Ok(())
    })?;
    Ok(batches)
}
