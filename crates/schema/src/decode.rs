//! The decoder: records in, one record batch and a perhaps wider schema out.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray},
    datatypes::Fields,
};

use crate::{
    cells,
    column::{self, Group, binaries, strings},
    limits, names,
    raw::RawColumns,
    row::{NO_TIMESTAMP, Row},
    stream::{self, Refusal},
    table::{Kind, TableSchema},
    timestamp,
    tree::Tree,
    width::row_width,
};

/// A record that cannot become a row. The table's rule for bad records decides what happens to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadRecord {
    /// Tells people what is wrong with the record.
    pub reason: String,
}

/// Why the decoder did not take a record. The rows that it holds are unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This batch has no room: [`Decoder::finish`] it and give the record to the next decoder. An empty decoder is
    /// never full.
    #[error("the batch has no room for the record, which goes into the next")]
    Full,
    /// No batch can take the record.
    #[error(transparent)]
    Bad(#[from] BadRecord),
}

impl Refused {
    fn bad(reason: &impl ToString) -> Refused {
        Refused::Bad(BadRecord { reason: reason.to_string() })
    }
}

/// Fills one record batch.
///
/// ```
/// use floe_schema::{Decoder, Kind, Row, TableSchema};
/// let mut decoder = Decoder::new(TableSchema::new(Kind::Json));
/// let value = Some(br#"{"carrier": "UA", "delay": 2}"#.as_slice());
/// decoder.push(&Row { partition: 0, offset: 7, timestamp: 0, key: None, value, headers: &[] })?;
/// let (schema, batch) = decoder.finish();
/// assert_eq!(batch.num_rows(), 1);
/// let names: Vec<_> = schema.columns().into_iter().map(|column| column.name).collect();
/// assert_eq!(names, ["_partition_id", "_offset", "_timestamp", "_key", "carrier", "delay"]);
/// # Ok::<(), floe_schema::Refused>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    schema: TableSchema,
    bytes: usize,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    timestamps: Vec<Option<i64>>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Json(Box<JsonColumns>),
    Raw(Box<RawColumns>),
}

#[derive(Debug)]
struct JsonColumns {
    top: Group,
    key: column::Bytes,
    key_bytes: column::Bytes,
    /// Cells of one row, without the elements of lists.
    width: usize,
    /// Cells of the elements of all lists so far.
    list_cells: usize,
}

impl Decoder {
    /// A decoder that starts with `schema`.
    pub fn new(schema: TableSchema) -> Decoder {
        let body = match schema.kind {
            Kind::Json => Body::Json(Box::new(JsonColumns {
                top: Group::new(&schema.slots),
                key: column::Bytes::new(),
                key_bytes: column::Bytes::new(),
                width: row_width(&schema),
                list_cells: 0,
            })),
            Kind::Raw => Body::Raw(Box::new(RawColumns::new())),
        };
        let (partitions, offsets, timestamps) = (Vec::new(), Vec::new(), Vec::new());
        Decoder { schema, bytes: 0, partitions, offsets, timestamps, body }
    }

    /// Rows taken in.
    pub fn rows(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes of keys, values and headers so far, plus a little for each row: about the size of the batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Cells of the batch ([`limits::CELLS_MAX`]). A record of few bytes may have many.
    pub fn cells(&self) -> usize {
        match &self.body {
            Body::Json(columns) => self.rows() * columns.width + columns.list_cells,
            Body::Raw(_) => self.rows() * RAW_WIDTH,
        }
    }

    /// The schema as it is now.
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// Appends a record as a row.
    ///
    /// # Errors
    /// [`Refused::Full`] when the batch would exceed [`limits::CELLS_MAX`]. [`Refused::Bad`] when the record cannot be
    /// a row.
    ///
    /// # Panics
    /// When the decoder holds more than [`limits::BATCH_BYTES_MAX`]: the caller ends a batch long before.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), Refused> {
        assert!(self.bytes <= limits::BATCH_BYTES_MAX, "a batch is ended before it is too large");
        let at = self.rows();
        let timestamp = timestamp(row.timestamp)?;
        match &mut self.body {
            Body::Raw(columns) => columns.push(at, row),
            Body::Json(_) => self.push_json(at, row)?,
        }
        self.partitions.push(i32::try_from(row.partition).expect("partition numbers are 31 bits in Kafka"));
        self.offsets.push(row.offset);
        self.timestamps.push(timestamp);
        let headers: usize =
            row.headers.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, |v| v.len()) + 8).sum();
        self.bytes += row.key.map_or(0, <[u8]>::len) + row.value.map_or(0, <[u8]>::len) + headers + 20;
        Ok(())
    }

    fn push_json(&mut self, at: usize, row: &Row<'_>) -> Result<(), Refused> {
        match row.value {
            Some(value) if value.len() > limits::RECORD_BYTES_MAX => {
                let max = limits::RECORD_BYTES_MAX;
                return Err(Refused::bad(&format!("the value is longer than {max} bytes")));
            }
            Some(value) => self.push_value(at, value)?,
            None => drop(self.room(at)?),
        }
        let Body::Json(columns) = &mut self.body else { unreachable!("asked for JSON") };
        match row.key.map(std::str::from_utf8) {
            None => {}
            Some(Ok(text)) => columns.key.push(at, text.as_bytes()),
            Some(Err(_)) => {
                columns.key_bytes.push(at, row.key.unwrap_or_default());
                self.schema.see_key_bytes();
            }
        }
        Ok(())
    }

    /// Cells left for lists if there is one row more.
    fn room(&self, rows: usize) -> Result<usize, Refused> {
        let Body::Json(columns) = &self.body else { unreachable!("asked for JSON") };
        let taken = (rows + 1) * columns.width + columns.list_cells;
        limits::CELLS_MAX.checked_sub(taken).ok_or(Refused::Full)
    }

    fn push_value(&mut self, at: usize, value: &[u8]) -> Result<(), Refused> {
        let value = value.strip_prefix(BYTE_ORDER_MARK).unwrap_or(value);
        let room = self.room(at)?;
        let Body::Json(columns) = &mut self.body else { unreachable!("asked for JSON") };
        match stream::append(&mut columns.top, at, value, room) {
            Ok(taken) => {
                columns.list_cells += taken;
                return Ok(());
            }
            Err(refusal) => {
                columns.top.truncate(at);
                match refusal {
                    Refusal::Bad(reason) => return Err(Refused::bad(&reason)),
                    Refusal::Full => return Err(full(at)),
                    Refusal::Misfit => {}
                }
            }
        }
        let Tree::Object(members) = Tree::parse(value).map_err(|error| Refused::bad(&error))? else {
            unreachable!("the text begins an object");
        };
        self.push_tree(at, &members)
    }

    fn push_tree(&mut self, at: usize, members: &[(String, Tree)]) -> Result<(), Refused> {
        let Body::Json(columns) = &mut self.body else { unreachable!("asked for JSON") };
        // A table with a text column beside a list comes here often. So the schema is copied only if it must grow.
        let covered = self.schema.covers(members).map_err(|error| Refused::bad(&error))?;
        let wider = match covered {
            true => None,
            false => Some(self.schema.widened(members).map_err(|error| Refused::bad(&error))?),
        };
        let wider = wider.filter(|wider| wider.version != self.schema.version);
        // The rows so far become as wide as the new schema.
        let schema = wider.as_ref().unwrap_or(&self.schema);
        let held = columns.top.list_cells(&schema.slots);
        let (width, needed) = (row_width(schema), cells::needed(&schema.slots, members));
        if (at + 1) * width + held + needed > limits::CELLS_MAX {
            return Err(full(at));
        }
        (columns.width, columns.list_cells) = (width, held + needed);
        if let Some(wider) = wider {
            columns.top.conform(&wider.slots);
            self.schema = wider;
        }
        columns.top.append(at, members);
        Ok(())
    }

    /// The batch and its schema ([`TableSchema::arrow`]).
    pub fn finish(self) -> (TableSchema, RecordBatch) {
        let rows = self.rows();
        let schema = self.schema.arrow();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(self.partitions)),
            Arc::new(Int64Array::from(self.offsets)),
            Arc::new(TimestampMicrosecondArray::from(self.timestamps).with_timezone("UTC")),
        ];
        match self.body {
            Body::Json(json) => {
                let JsonColumns { top, key, key_bytes, .. } = *json;
                columns.push(strings(key, rows));
                if self.schema.key_bytes.is_some() {
                    columns.push(binaries(key_bytes, rows));
                }
                let fields: Fields = schema.fields()[columns.len()..].iter().cloned().collect();
                columns.extend(top.finish_top(&fields, rows));
            }
            Body::Raw(raw) => {
                let fields: Fields = schema.fields()[columns.len()..].iter().cloned().collect();
                columns.extend(raw.finish(&fields, rows));
            }
        }
        debug_assert_eq!(schema.field(0).name(), names::PARTITION);
        let batch = RecordBatch::try_new(schema, columns).expect("the columns have the shape of the schema");
        (self.schema, batch)
    }
}

/// Writers on Windows begin a text with it. RFC 8259 lets a reader skip it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The instant of a record in microseconds; none if the record has no timestamp.
fn timestamp(millis: i64) -> Result<Option<i64>, Refused> {
    if millis == NO_TIMESTAMP {
        return Ok(None);
    }
    // A producer that takes microseconds for milliseconds is thousands of centuries away, and one such cell keeps
    // common readers from the whole table.
    timestamp::of_record(millis).map(Some).ok_or_else(|| {
        let reason = format!(
            "its timestamp, {millis} ms since 1970, is outside the years 1 to 9999: does the producer write milliseconds?"
        );
        Refused::bad(&reason)
    })
}

/// Cells of one row of a raw table: three system columns, key, value and the list of headers. The headers themselves
/// are counted by bytes.
const RAW_WIDTH: usize = 6;

/// A record that no batch has room for is bad.
fn full(rows: usize) -> Refused {
    match rows {
        0 => Refused::bad(&format!(
            "its lists take more than {} cells: elements times the columns of an element",
            limits::CELLS_MAX
        )),
        _ => Refused::Full,
    }
}
