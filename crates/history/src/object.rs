//! The objects of the history: rows as Parquet, sorted by commit.
//!
//! ```text
//! lsn           INT64   delta            principal, client_id       text, dictionary
//! time          INT64   delta, µs UTC    run_id, cause, comment     text, dictionary
//! undo_of       INT64                    change, topic, group       text, dictionary
//! topic_id      INT64                    detail                     text
//! partition     INT32
//! first_offset  INT64   delta
//! offsets       INT64
//! bytes         INT64
//! ```
//! Columns have ids from 1 on. All but the first five may be null. The footer has the key `floe.names` if the object
//! ends the history that it was written for: names.rs in hexadecimal digits. The map has the object's checksum, because
//! every reader reads all of it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{
    DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use bytes::Bytes;
use floe_env::Timestamp;
use floe_meta::Lsn;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;

use crate::limits::{BATCH_ROWS, GROUP_ROWS};
use crate::names::Names;
use crate::row::{ChangeKind, Row};

/// The key in the footer under which the names are.
const NAMES: &str = "floe.names";

/// The columns.
pub fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("lsn", DataType::Int64, false),
        Field::new("time", time, false),
        Field::new("principal", DataType::Utf8, false),
        Field::new("client_id", DataType::Utf8, false),
        Field::new("change", DataType::Utf8, false),
        Field::new("topic", DataType::Utf8, true),
        Field::new("partition", DataType::Int32, true),
        Field::new("first_offset", DataType::Int64, true),
        Field::new("offsets", DataType::Int64, true),
        Field::new("bytes", DataType::Int64, true),
        Field::new("group", DataType::Utf8, true),
        Field::new("run_id", DataType::Utf8, true),
        Field::new("cause", DataType::Utf8, true),
        Field::new("undo_of", DataType::Int64, true),
        Field::new("comment", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
        Field::new("topic_id", DataType::Int64, true),
    ]))
}

/// The same with the ids of the columns, which are in objects: Iceberg's readers find columns by them. An id is the
/// place of its column, counted from 1, and never changes. Objects of early versions have none.
fn schema_with_ids() -> SchemaRef {
    let with_id = |(at, field): (usize, &Arc<Field>)| {
        let id = (PARQUET_FIELD_ID_META_KEY.to_owned(), (at + 1).to_string());
        field.as_ref().clone().with_metadata([id].into())
    };
    Arc::new(Schema::new(schema().fields().iter().enumerate().map(with_id).collect::<Vec<_>>()))
}

/// Rows as columns.
pub fn to_batch(rows: &[Row]) -> RecordBatch {
    let text = |of: &dyn Fn(&Row) -> Option<&Arc<str>>| -> ArrayRef {
        let mut column = StringBuilder::new();
        rows.iter().for_each(|row| column.append_option(of(row)));
        Arc::new(column.finish())
    };
    let number = |of: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef {
        let mut column = Int64Builder::with_capacity(rows.len());
        rows.iter().for_each(|row| column.append_option(of(row)));
        Arc::new(column.finish())
    };
    let mut time = TimestampMicrosecondBuilder::with_capacity(rows.len());
    let mut change = StringBuilder::new();
    let mut partition = Int32Builder::with_capacity(rows.len());
    for row in rows {
        time.append_value(row.time.0.saturating_mul(1_000));
        change.append_value(row.change.word());
        partition.append_option(row.partition.map(u32::cast_signed));
    }
    let columns: Vec<ArrayRef> = vec![
        number(&|row| Some(row.lsn.0.cast_signed())),
        Arc::new(time.finish().with_timezone("UTC")),
        text(&|row| Some(&row.principal)),
        text(&|row| Some(&row.client_id)),
        Arc::new(change.finish()),
        text(&|row| row.topic.as_ref()),
        Arc::new(partition.finish()),
        number(&|row| row.first_offset),
        number(&|row| row.offsets.map(u64::cast_signed)),
        number(&|row| row.bytes.map(u64::cast_signed)),
        text(&|row| row.group.as_ref()),
        text(&|row| row.run_id.as_ref()),
        text(&|row| row.cause.as_ref()),
        number(&|row| row.undo_of.map(|lsn| lsn.0.cast_signed())),
        text(&|row| row.comment.as_ref()),
        text(&|row| row.detail.as_ref()),
        number(&|row| row.topic_id.map(u64::cast_signed)),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns are those of the schema")
}

/// Rows of columns as [`to_batch`] makes them.
///
/// # Errors
/// The columns are others.
pub(crate) fn of_batch(batch: &RecordBatch) -> Result<Vec<Row>, String> {
    if batch.schema().fields().len() != schema().fields().len() {
        return Err("it has other columns".to_owned());
    }
    let mut rows = Vec::with_capacity(batch.num_rows());
    for at in 0..batch.num_rows() {
        let cells = Cells { batch, at };
        let change = cells.text(4)?.ok_or("a row has no change")?;
        rows.push(Row {
            lsn: Lsn(cells.number(0)?.ok_or("a row has no commit")?.cast_unsigned()),
            time: Timestamp(cells.time(1)? / 1_000),
            principal: cells.text(2)?.ok_or("a row has no principal")?,
            client_id: cells.text(3)?.ok_or("a row has no client")?,
            change: ChangeKind::of(&change)
                .ok_or_else(|| format!("{change} is no change that this build knows"))?,
            topic: cells.text(5)?,
            partition: cells.small(6)?.map(i32::cast_unsigned),
            first_offset: cells.number(7)?,
            offsets: cells.number(8)?.map(i64::cast_unsigned),
            bytes: cells.number(9)?.map(i64::cast_unsigned),
            group: cells.text(10)?,
            run_id: cells.text(11)?,
            cause: cells.text(12)?,
            undo_of: cells.number(13)?.map(|lsn| Lsn(lsn.cast_unsigned())),
            comment: cells.text(14)?,
            detail: cells.text(15)?,
            topic_id: cells.number(16)?.map(i64::cast_unsigned),
        });
    }
    Ok(rows)
}

/// One row of a batch.
struct Cells<'a> {
    batch: &'a RecordBatch,
    at: usize,
}

impl Cells<'_> {
    fn column(&self, column: usize) -> Option<&ArrayRef> {
        Some(self.batch.column(column)).filter(|column| column.is_valid(self.at))
    }

    fn text(&self, column: usize) -> Result<Option<Arc<str>>, String> {
        let Some(found) = self.column(column) else { return Ok(None) };
        let texts = found.as_string_opt::<i32>().ok_or_else(|| format!("column {column} is no text"))?;
        Ok(Some(texts.value(self.at).into()))
    }

    fn number(&self, column: usize) -> Result<Option<i64>, String> {
        let Some(found) = self.column(column) else { return Ok(None) };
        let numbers =
            found.as_primitive_opt::<Int64Type>().ok_or_else(|| format!("column {column} is no number"))?;
        Ok(Some(numbers.value(self.at)))
    }

    fn small(&self, column: usize) -> Result<Option<i32>, String> {
        let Some(found) = self.column(column) else { return Ok(None) };
        let numbers =
            found.as_primitive_opt::<Int32Type>().ok_or_else(|| format!("column {column} is no number"))?;
        Ok(Some(numbers.value(self.at)))
    }

    fn time(&self, column: usize) -> Result<i64, String> {
        let found = self.column(column).ok_or("a row has no time")?;
        let times = found.as_primitive_opt::<TimestampMicrosecondType>();
        Ok(times.ok_or_else(|| format!("column {column} is no time"))?.value(self.at))
    }
}

/// Writes one object.
pub struct Encoder {
    writer: ArrowWriter<Vec<u8>>,
    waiting: Vec<Row>,
    rows: u64,
}

impl Encoder {
    /// An object without rows.
    ///
    /// # Errors
    /// Parquet refuses the schema.
    pub fn new() -> Result<Encoder, ParquetError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level of zstd")))
            .set_created_by("floe".to_owned())
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_statistics_truncate_length(Some(64));
        for column in ["lsn", "time", "first_offset"] {
            properties = properties
                .set_column_dictionary_enabled(ColumnPath::from(column), false)
                .set_column_encoding(ColumnPath::from(column), Encoding::DELTA_BINARY_PACKED);
        }
        let options =
            ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema_with_ids(), options)?;
        Ok(Encoder { writer, waiting: Vec::new(), rows: 0 })
    }

    /// Adds a row. Rows come in the order of their commits.
    ///
    /// # Errors
    /// Parquet refuses it.
    pub fn push(&mut self, row: Row) -> Result<(), ParquetError> {
        self.waiting.push(row);
        if self.waiting.len() >= BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    /// Adds rows as they are in another object.
    ///
    /// # Errors
    /// Parquet refuses them.
    pub fn push_batch(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        self.flush()?;
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch)
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.waiting);
        self.push_batch(&to_batch(&rows))
    }

    /// The rows so far.
    pub fn rows(&self) -> u64 {
        self.rows + self.waiting.len() as u64
    }

    /// Ends the object, with the names as they are after its last row, if anybody will need them.
    ///
    /// # Errors
    /// Parquet refuses it, or the names cannot be compressed.
    pub fn finish(mut self, names: Option<&Names>) -> Result<Bytes, ParquetError> {
        self.flush()?;
        if let Some(names) = names {
            let bytes = names.encode().map_err(|error| ParquetError::External(Box::new(error)))?;
            self.writer.append_key_value_metadata(KeyValue::new(NAMES.to_owned(), hex(&bytes)));
        }
        Ok(self.writer.into_inner()?.into())
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// An object that was read.
#[derive(Debug)]
pub struct Decoded {
    /// Its rows as columns.
    pub batches: Vec<RecordBatch>,
    /// The names, if it has them.
    pub names: Option<Names>,
}

impl Decoded {
    /// Its rows.
    ///
    /// # Errors
    /// They are not of the history.
    pub fn rows(&self) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        for batch in &self.batches {
            rows.extend(of_batch(batch)?);
        }
        Ok(rows)
    }
}

/// The names of an object, if it has them. Its rows are not read.
///
/// # Errors
/// It is not an object of the history.
pub(crate) fn names_of(object: Bytes) -> Result<Option<Names>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(object).map_err(|error| error.to_string())?;
    names_in(&builder)
}

fn names_in(builder: &ParquetRecordBatchReaderBuilder<Bytes>) -> Result<Option<Names>, String> {
    let found = builder.metadata().file_metadata().key_value_metadata();
    let found = found
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == NAMES))
        .and_then(|pair| pair.value.as_ref());
    let Some(text) = found else { return Ok(None) };
    let bytes = of_hex(text).ok_or("its names are no hexadecimal digits")?;
    Names::decode(&bytes).map(Some).map_err(|error| error.to_string())
}

/// Reads a whole object, without its names if they are not `wanted`.
///
/// # Errors
/// It is not an object of the history.
pub fn decode(object: Bytes, names_wanted: bool) -> Result<Decoded, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(object).map_err(|error| error.to_string())?;
    let names = if names_wanted { names_in(&builder)? } else { None };
    let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| error.to_string())?;
    let batches =
        reader.map(|batch| batch.map_err(|error| error.to_string()).and_then(|batch| adapted(&batch)));
    Ok(Decoded { batches: batches.collect::<Result<_, _>>()?, names })
}

/// What a reader wants of an object. It may get more rows of the same groups, but not fewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Numbers of commits.
    pub lsns: RangeInclusive<i64>,
    /// Times of commits, in microseconds since the epoch.
    pub times: RangeInclusive<i64>,
}

impl Wanted {
    /// Everything.
    pub const ALL: Wanted = Wanted { lsns: 0..=i64::MAX, times: i64::MIN..=i64::MAX };

    /// Whether something between these bounds may be wanted.
    pub fn meets(&self, lsns: (i64, i64), times: (i64, i64)) -> bool {
        let meet =
            |wanted: &RangeInclusive<i64>, (least, most)| *wanted.start() <= most && least <= *wanted.end();
        meet(&self.lsns, lsns) && meet(&self.times, times)
    }
}

/// Reads some columns of the groups of an object in which something may be wanted, `rows` of them at a time.
///
/// # Errors
/// It is not an object of the history.
pub fn scan(
    object: Bytes,
    wanted: &Wanted,
    columns: Option<&[usize]>,
    rows: usize,
) -> Result<impl Iterator<Item = Result<RecordBatch, String>> + Send + use<>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(object).map_err(|error| error.to_string())?;
    let groups = builder.metadata().row_groups();
    let chosen = (0..groups.len()).filter(|at| may_have(&groups[*at], wanted)).collect();
    let all: Vec<usize> = (0..schema().fields().len()).collect();
    let columns = columns.map_or(all, <[usize]>::to_vec);
    // The first column is always read, so that there are rows where no column is asked for.
    let mut read: Vec<usize> = columns.iter().copied().chain([0]).collect();
    read.sort_unstable();
    read.dedup();
    let mask = ProjectionMask::roots(builder.parquet_schema(), read.iter().copied());
    let whole = Arc::new(schema().project(&read).map_err(|error| error.to_string())?);
    let places: Vec<usize> =
        columns.iter().filter_map(|column| read.iter().position(|other| other == column)).collect();
    let reader = builder.with_row_groups(chosen).with_projection(mask).with_batch_size(rows.max(1)).build();
    let reader = reader.map_err(|error| error.to_string())?;
    Ok(reader.map(move |batch| {
        let batch = batch.map_err(|error| error.to_string())?;
        let batch = RecordBatch::try_new(Arc::clone(&whole), batch.columns().to_vec());
        batch.and_then(|batch| batch.project(&places)).map_err(|error| error.to_string())
    }))
}

fn may_have(group: &RowGroupMetaData, wanted: &Wanted) -> bool {
    let bounds = |column: usize| match group.column(column).statistics() {
        Some(Statistics::Int64(found)) => found.min_opt().copied().zip(found.max_opt().copied()),
        _ => None,
    };
    let all = (i64::MIN, i64::MAX);
    wanted.meets(bounds(0).unwrap_or(all), bounds(1).unwrap_or(all))
}

/// The same columns under the schema of this build.
fn adapted(batch: &RecordBatch) -> Result<RecordBatch, String> {
    RecordBatch::try_new(schema(), batch.columns().to_vec()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts() -> impl Strategy<Value = Option<Arc<str>>> {
        proptest::option::of("[a-c]{0,3}").prop_map(|text| text.map(Arc::from))
    }

    prop_compose! {
        fn row()(
            numbers in any::<(i64, i32, Option<u64>)>(), place in any::<(Option<u64>, Option<u32>, Option<i64>)>(),
            counts in any::<(Option<u64>, Option<u64>)>(), kind in 0..ChangeKind::ALL.len(),
            one in (texts(), texts(), texts()), two in (texts(), texts(), texts()), names in ("[a-b]*", "[a-b]*"),
        ) -> Row {
            Row {
                lsn: Lsn(numbers.0.unsigned_abs() >> 1), time: Timestamp(numbers.1.into()),
                principal: names.0.into(), client_id: names.1.into(), run_id: one.0, cause: one.1,
                undo_of: numbers.2.map(Lsn), comment: one.2, change: ChangeKind::ALL[kind], topic: two.0,
                topic_id: place.0, partition: place.1, first_offset: place.2, offsets: counts.0, bytes: counts.1,
                group: two.1, detail: two.2,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn what_was_written_is_read(rows in proptest::collection::vec(row(), 0..50)) {
            let mut encoder = Encoder::new().unwrap();
            for row in &rows {
                encoder.push(row.clone()).unwrap();
            }
            prop_assert_eq!(encoder.rows(), rows.len() as u64);
            let names = Names::default();
            let object = encoder.finish(Some(&names)).unwrap();
            let decoded = decode(object, true).unwrap();
            prop_assert_eq!(decoded.names.as_ref(), Some(&names));
            prop_assert_eq!(decoded.rows(), Ok(rows.clone()));
            let mut again = Encoder::new().unwrap();
            for batch in &decoded.batches {
                again.push_batch(batch).unwrap();
            }
            let again = decode(again.finish(None).unwrap(), true).unwrap();
            prop_assert_eq!((again.names.is_none(), again.rows()), (true, Ok(rows)));
        }
    }

    #[test]
    fn groups_are_passed_over_by_commit_and_time() {
        let mut encoder = Encoder::new().unwrap();
        for number in 0..3 * GROUP_ROWS as i64 {
            let text: Arc<str> = "x".into();
            encoder
                .push(Row {
                    lsn: Lsn(number.unsigned_abs() / 2 + 1),
                    time: Timestamp(number),
                    principal: text.clone(),
                    client_id: text,
                    run_id: None,
                    cause: None,
                    undo_of: None,
                    comment: None,
                    change: ChangeKind::Other,
                    topic: None,
                    topic_id: None,
                    partition: None,
                    first_offset: Some(number),
                    offsets: None,
                    bytes: None,
                    group: None,
                    detail: None,
                })
                .unwrap();
        }
        let object = encoder.finish(None).unwrap();
        let rows = |wanted: Wanted, columns: Option<&[usize]>| {
            let batches = scan(object.clone(), &wanted, columns, 1_000).unwrap();
            batches
                .map(|batch| batch.unwrap())
                .fold((0, 0), |(rows, _), batch| (rows + batch.num_rows(), batch.num_columns()))
        };
        assert_eq!(rows(Wanted::ALL, None), (3 * GROUP_ROWS, 17));
        assert_eq!(rows(Wanted { lsns: 5..=9, ..Wanted::ALL }, Some(&[7, 0])), (GROUP_ROWS, 2));
        assert_eq!(rows(Wanted { times: i64::MIN..=5_000, ..Wanted::ALL }, Some(&[])), (GROUP_ROWS, 0));
        assert_eq!(rows(Wanted { lsns: 1 << 40..=i64::MAX, ..Wanted::ALL }, None).0, 0);
        let batch = scan(object, &Wanted { lsns: 0..=1, ..Wanted::ALL }, Some(&[7, 0]), 2)
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert_eq!(
            batch.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(),
            ["first_offset", "lsn"]
        );
    }

    #[test]
    fn columns_have_the_ids_that_they_had() {
        let object = Encoder::new().unwrap().finish(None).unwrap();
        let builder = ParquetRecordBatchReaderBuilder::try_new(object).unwrap();
        let root = builder.parquet_schema().root_schema().get_fields().to_vec();
        let ids: Vec<String> =
            root.iter().map(|field| format!("{} {}", field.get_basic_info().id(), field.name())).collect();
        let golden = "1 lsn, 2 time, 3 principal, 4 client_id, 5 change, 6 topic, 7 partition, 8 first_offset, 9 offsets, \
                      10 bytes, 11 group, 12 run_id, 13 cause, 14 undo_of, 15 comment, 16 detail, 17 topic_id";
        assert_eq!(ids.join(", "), golden, "persisted: they never change");
    }

    #[test]
    fn other_bytes_are_no_object() {
        assert!(decode(Bytes::from_static(b"PAR1 this is none"), true).is_err());
        assert_eq!(of_hex(&hex(&[0, 255, 18])), Some(vec![0, 255, 18]));
        assert_eq!((of_hex("0"), of_hex("0g")), (None, None));
    }
}
