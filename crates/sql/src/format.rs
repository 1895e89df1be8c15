//! Encodes rows as an Arrow stream, JSON, JSON lines, CSV, and as the table that the command line prints.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{EncoderOptions, JsonArray, LineDelimited, WriterBuilder, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use floe_query::Format;

use crate::limits::CELL_CHARS_MAX;
use crate::printable;

/// Encodes a result piece by piece: [`Encoder::batch`] for each batch, then [`Encoder::finish`] once.
pub struct Encoder(Inner);

enum Inner {
    Arrow(Box<StreamWriter<Vec<u8>>>),
    /// With the keys of its objects.
    Json(arrow::json::Writer<Vec<u8>, JsonArray>, SchemaRef),
    JsonLines(arrow::json::Writer<Vec<u8>, LineDelimited>, SchemaRef),
    Csv {
        schema: SchemaRef,
        header: bool,
    },
}

impl Encoder {
    /// An encoder for rows of `schema`.
    ///
    /// # Errors
    /// The format cannot hold a type of the schema.
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Encoder, ArrowError> {
        let json = || WriterBuilder::new().with_explicit_nulls(true);
        Ok(Encoder(match format {
            Format::ArrowStream => Inner::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema)?)),
            Format::Json => Inner::Json(json().build(Vec::new()), keys(schema)),
            Format::JsonLines => Inner::JsonLines(json().build(Vec::new()), keys(schema)),
            Format::Csv => Inner::Csv { schema: flat_schema(schema), header: true },
        }))
    }

    /// Encodes a batch. Returns the bytes that are ready.
    ///
    /// # Errors
    /// The format cannot hold a value of the batch.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        match &mut self.0 {
            Inner::Arrow(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Inner::Json(writer, keys) => {
                printable::check(batch)?;
                writer.write(&renamed(batch, keys)?)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Inner::JsonLines(writer, keys) => {
                printable::check(batch)?;
                writer.write(&renamed(batch, keys)?)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Inner::Csv { schema, header } => {
                printable::check(batch)?;
                csv(&flat(batch, schema)?, std::mem::take(header))
            }
        }
    }

    /// Ends the result. Returns its last bytes.
    ///
    /// # Errors
    /// Those of [`Encoder::batch`].
    pub fn finish(self) -> Result<Vec<u8>, ArrowError> {
        match self.0 {
            Inner::Arrow(writer) => writer.into_inner(),
            Inner::Json(mut writer, _) => {
                writer.finish()?;
                Ok(writer.into_inner())
            }
            Inner::JsonLines(mut writer, _) => {
                writer.finish()?;
                Ok(writer.into_inner())
            }
            // A result without rows still has its header.
            Inner::Csv { schema, header: true } => csv(&RecordBatch::new_empty(schema), true),
            Inner::Csv { header: false, .. } => Ok(Vec::new()),
        }
    }
}

/// The columns under names that differ, because a JSON object has a key once: of two columns `id` the second becomes
/// `id_1`.
fn keys(schema: &SchemaRef) -> SchemaRef {
    let mut taken: BTreeSet<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    if taken.len() == schema.fields().len() {
        return schema.clone();
    }
    let mut seen = BTreeSet::new();
    let mut key = |field: &FieldRef| {
        let mut key = field.name().clone();
        let mut number = 0_u64;
        while !seen.insert(key.clone()) {
            // A name that another column has by itself is not free.
            key = loop {
                number += 1;
                let next = format!("{}_{number}", field.name());
                if taken.insert(next.clone()) {
                    break next;
                }
            };
        }
        Arc::new(field.as_ref().clone().with_name(key))
    };
    Arc::new(Schema::new(schema.fields().iter().map(&mut key).collect::<Vec<_>>()))
}

/// A batch under the names of `schema`. The engine's batches may carry other names than its plan.
pub(crate) fn renamed(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let own = batch.schema();
    let pairs = || own.fields().iter().zip(schema.fields());
    if own.fields().len() != schema.fields().len() || pairs().all(|(own, wanted)| own.name() == wanted.name())
    {
        return Ok(batch.clone());
    }
    let fields = pairs().map(|(own, wanted)| Arc::new(own.as_ref().clone().with_name(wanted.name())));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options)
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let mut writer = arrow::csv::WriterBuilder::new().with_header(header).build(Vec::new());
    writer.write(batch)?;
    Ok(writer.into_inner())
}

/// The schema for CSV. Types with children become text, because CSV does not have them.
fn flat_schema(schema: &SchemaRef) -> SchemaRef {
    let text = |field: &FieldRef| match field.data_type().is_nested() {
        true => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        false => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(text).collect::<Vec<_>>()))
}

fn flat(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let source = batch.schema();
    let columns = source.fields().iter().zip(batch.columns());
    let columns = columns.map(|(field, column)| match column.data_type().is_nested() {
        true => json_text(field, column),
        false => Ok(column.clone()),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<Vec<_>, _>>()?, &options)
}

/// Encodes each value of a column as JSON.
fn json_text(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default();
    let mut encoder = make_encoder(field, column, &options)?;
    let mut values = StringBuilder::with_capacity(column.len(), column.len() * 16);
    let mut text = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            values.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        values.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(values.finish()))
}

/// Formats a result as the table that the command line prints. Columns are aligned, numbers to the right. NULL is
/// shown. A value of several lines (a plan) takes several lines. The last line has the number of rows and the time.
/// Control characters are escaped, so that none reaches the terminal.
///
/// # Errors
/// Arrow cannot format a value.
pub fn text_table(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    elapsed: Duration,
) -> Result<String, ArrowError> {
    let columns = schema.fields().iter().enumerate();
    let columns = columns.map(|(index, field)| Column::new(index, field, batches));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut text = String::new();
    if !columns.is_empty() {
        line(&mut text, columns.iter().map(|c| centred(&c.name, c.width)), " | ");
        line(&mut text, columns.iter().map(|c| "-".repeat(c.width)), "-+-");
    }
    for row in 0..if columns.is_empty() { 0 } else { rows } {
        let height = columns.iter().map(|c| c.cells[row].len()).max().unwrap_or(1);
        for at in 0..height {
            line(&mut text, columns.iter().map(|c| c.cell(row, at)), " | ");
        }
    }
    let noun = if rows == 1 { "row" } else { "rows" };
    let _ = writeln!(text, "({} {noun}, {:.3} s)", grouped(rows), elapsed.as_secs_f64());
    Ok(text)
}

/// A column of a printed table.
struct Column {
    name: String,
    /// The lines of each cell. Each cell has at least one.
    cells: Vec<Vec<String>>,
    width: usize,
    right: bool,
}

impl Column {
    fn new(index: usize, field: &FieldRef, batches: &[RecordBatch]) -> Result<Column, ArrowError> {
        let options = FormatOptions::default().with_null("NULL");
        let mut cells = Vec::new();
        for batch in batches {
            let formatter = ArrayFormatter::try_new(batch.column(index).as_ref(), &options)?;
            for row in 0..batch.num_rows() {
                let text = formatter.value(row).try_to_string()?;
                cells.push(text.trim_end_matches('\n').split('\n').map(shown).collect::<Vec<_>>());
            }
        }
        let name = shown(field.name());
        let width = cells.iter().flatten().chain([&name]).map(|text| text.chars().count()).max().unwrap_or(0);
        Ok(Column { name, cells, width, right: field.data_type().is_numeric() })
    }

    fn cell(&self, row: usize, at: usize) -> String {
        let text = self.cells[row].get(at).map_or("", String::as_str);
        let pad = " ".repeat(self.width - text.chars().count());
        if self.right { pad + text } else { text.to_owned() + &pad }
    }
}

/// Prepares a line of a value for a terminal. Escapes control characters and cuts the line at [`CELL_CHARS_MAX`].
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (count, c) in text.chars().enumerate() {
        if count == CELL_CHARS_MAX {
            shown.push('…');
            break;
        }
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

fn centred(text: &str, width: usize) -> String {
    let pad = width - text.chars().count();
    format!("{}{text}{}", " ".repeat(pad / 2), " ".repeat(pad - pad / 2))
}

fn line(text: &mut String, cells: impl Iterator<Item = String>, separator: &str) {
    let edge = &separator[..1];
    text.push_str(edge);
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            text.push_str(separator);
        }
        text.push_str(&cell);
    }
    text.push_str(edge);
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// Writes `1234567` as `1,234,567`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::json::ReaderBuilder;

    fn sample() -> RecordBatch {
        let fields = vec![Field::new("x", DataType::Int32, true)];
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("name", DataType::Utf8, true),
            Field::new("s", DataType::Struct(fields.into()), true),
        ]));
        let mut decoder = ReaderBuilder::new(schema).build_decoder().unwrap();
        let json = r#"{"n":1,"name":"a,b","s":{"x":7}} {"n":1234,"name":null,"s":null}
            {"n":null,"name":"ü\n\u001b[1m"}"#;
        decoder.decode(json.as_bytes()).unwrap();
        decoder.flush().unwrap().unwrap()
    }

    fn encode(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
        let mut encoder = Encoder::new(format, &sample().schema()).unwrap();
        let mut bytes = Vec::new();
        for batch in batches {
            bytes.extend(encoder.batch(batch).unwrap());
        }
        bytes.extend(encoder.finish().unwrap());
        bytes
    }

    fn check(format: Format, expected: &str) {
        let (batch, bytes) = (sample(), encode(format, &[sample()]));
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        // Pieces make the same text as the whole.
        let pieces = encode(format, &[batch.slice(0, 1), batch.slice(1, 0), batch.slice(1, 2)]);
        assert_eq!(String::from_utf8(pieces).unwrap(), expected);
    }

    #[test]
    fn text_formats() {
        check(Format::Csv, "n,name,s\n1,\"a,b\",\"{\"\"x\"\":7}\"\n1234,,\n,\"ü\n\u{1b}[1m\",\n");
        let rows = [
            r#"{"n":1,"name":"a,b","s":{"x":7}}"#,
            r#"{"n":1234,"name":null,"s":null}"#,
            r#"{"n":null,"name":"ü\n\u001b[1m","s":null}"#,
        ];
        check(Format::JsonLines, &rows.map(|row| row.to_owned() + "\n").concat());
        check(Format::Json, &format!("[{}]", rows.join(",")));
        assert_eq!(encode(Format::Csv, &[]), b"n,name,s\n");
        assert_eq!(encode(Format::Json, &[]), b"[]");
        assert_eq!(encode(Format::JsonLines, &[]), b"");
    }

    #[test]
    fn each_column_has_a_key_of_its_own() {
        let check = |names: &[&str], expected: &[&str]| {
            let fields = names.iter().map(|name| Field::new(*name, DataType::Int64, true));
            let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            let keys = keys(&schema);
            let keys: Vec<&str> = keys.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!(keys, expected);
        };
        check(&["a", "b"], &["a", "b"]);
        check(&["id", "id", "id"], &["id", "id_1", "id_2"]);
        check(&["id", "id_1", "id"], &["id", "id_1", "id_2"]);
        check(&["id", "id", "id_1", "id_1"], &["id", "id_2", "id_1", "id_1_1"]);
    }

    #[test]
    fn batches_take_the_names_of_the_plan() {
        let field = |name: &str| Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, true)]));
        let column: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1]));
        let batch = RecordBatch::try_new(field("r.n + Int64(1)"), vec![column]).unwrap();
        assert_eq!(renamed(&batch, &field("n")).unwrap().schema(), field("n"));
    }

    #[test]
    fn the_arrow_stream_is_read_back() {
        let bytes = encode(Format::ArrowStream, &[sample(), sample()]);
        let reader = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(batches, [sample(), sample()]);
    }

    #[test]
    fn tables_are_aligned() {
        let elapsed = Duration::from_micros(12_345);
        let text = text_table(&sample().schema(), &[sample()], elapsed).unwrap();
        let expected = r"
  n   |   name    |   s
------+-----------+--------
    1 | a,b       | {x: 7}
 1234 | NULL      | NULL
 NULL | ü         | NULL
      | \u{1b}[1m |
(3 rows, 0.012 s)
";
        assert_eq!(text, &expected[1..], "\n{text}");
        let empty = text_table(&sample().schema(), &[], elapsed).unwrap();
        assert!(empty.ends_with("(0 rows, 0.012 s)\n"), "{empty}");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
