//! One Parquet file: rows in, bytes and statistics out.
//!
//! A file is compressed with zstd, has column ids and statistics, and its timestamps are microseconds in UTC. It has no
//! embedded Arrow schema: some readers take its hints literally (string views, for example) and fail. Every byte of it
//! has a checksum ([`crate::checks`]).

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use floe_schema::TableSchema;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, PrimitiveType, Schema, Type,
};
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

/// What a manifest says of a file's columns, by column id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    sizes: HashMap<i32, u64>,
    values: HashMap<i32, u64>,
    nulls: HashMap<i32, u64>,
    lower: HashMap<i32, Datum>,
    upper: HashMap<i32, Datum>,
    splits: Vec<i64>,
}

impl Encoded {
    /// The manifest's entry for this file at `url`.
    pub(crate) fn data_file(&self, url: String) -> Result<DataFile, FileError> {
        let metrics = self.metrics.clone();
        let file = DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path(url)
            .file_format(DataFileFormat::Parquet)
            .record_count(self.rows)
            .file_size_in_bytes(self.bytes.len() as u64)
            .column_sizes(metrics.sizes)
            .value_counts(metrics.values)
            .null_value_counts(metrics.nulls)
            .lower_bounds(metrics.lower)
            .upper_bounds(metrics.upper)
            .split_offsets(Some(metrics.splits))
            .build();
        file.map_err(|error| iceberg::Error::new(iceberg::ErrorKind::Unexpected, error.to_string()).into())
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
    // A column has no bounds if one of its row groups has none.
    let mut boundless = BTreeSet::new();
    for group in metadata.row_groups() {
        metrics.splits.extend(group.columns().first().map(|column| column.byte_range().0.cast_signed()));
        for column in group.columns() {
            let info = column.column_descr().self_type().get_basic_info();
            let id = info.has_id().then(|| info.id());
            let Some(id) = leaf_id(schema, id, column.column_path().parts()) else { continue };
            *metrics.sizes.entry(id).or_default() += column.compressed_size().cast_unsigned();
            *metrics.values.entry(id).or_default() += column.num_values().cast_unsigned();
            let nulls = column.statistics().and_then(|s| s.null_count_opt());
            *metrics.nulls.entry(id).or_default() += nulls.unwrap_or(0);
            // Bounds of repeated values say nothing about rows.
            let field = schema.field_by_id(id).filter(|_| column.column_descr().max_rep_level() == 0);
            let Some(Type::Primitive(of)) = field.map(|field| &*field.field_type) else { continue };
            let bounds = column.statistics().and_then(|s| Some((s.min_bytes_opt()?, s.max_bytes_opt()?)));
            let all_null = nulls == Some(column.num_values().cast_unsigned());
            match bounds {
                Some((min, max)) => {
                    widen(&mut metrics.lower, id, bound(min, of)?, Ordering::Less);
                    widen(&mut metrics.upper, id, bound(max, of)?, Ordering::Greater);
                }
                None if all_null => {}
                None => {
                    boundless.insert(id);
                }
            }
        }
    }
    metrics.lower.retain(|id, _| !boundless.contains(id));
    metrics.upper.retain(|id, _| !boundless.contains(id));
    Ok(metrics)
}

/// The column id of a Parquet leaf. The writer puts ids on every field, also on the elements of lists.
fn leaf_id(schema: &Schema, id: Option<i32>, path: &[String]) -> Option<i32> {
    id.or_else(|| schema.field_id_by_name(&path.join(".")))
}

fn bound(bytes: &[u8], of: &PrimitiveType) -> Result<Datum, FileError> {
    Ok(Datum::try_from_bytes(bytes, of.clone())?)
}

fn widen(bounds: &mut HashMap<i32, Datum>, id: i32, bound: Datum, keep: Ordering) {
    let current = bounds.get(&id);
    if current.is_none_or(|current| bound.partial_cmp(current) == Some(keep)) {
        bounds.insert(id, bound);
    }
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
