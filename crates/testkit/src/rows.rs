//! Compares a row of a table with the record that it shows. In a topic with a table, the value of a record is its text.
//! It is a JSON object, or, marked by its first character, a text that is not JSON and must become a dead letter.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use floe_log::extent::Outcome;
use serde_json::{Map, Value};

/// A record of a compacted topic as a client reads it: its offset, its key and its value; none for a tombstone.
pub type Keyed = (i64, String, Option<String>);

/// The first character of a value that is not JSON.
pub const BAD: char = '!';

/// The first character of the value that stands for a marker, which is no record and has no row.
pub const MARK: char = '?';

/// The value that stands for a marker.
pub fn marker(producer: i64, outcome: Outcome) -> String {
    format!("{MARK}{producer} {outcome:?}")
}

/// Whether the value stands for a marker.
pub fn is_marker(value: &str) -> bool {
    value.starts_with(MARK)
}

/// Partition, offset, and the record that the row shows.
pub type Row = (u32, i64, String);

/// Whether the record must become a dead letter.
pub fn is_bad(value: &str) -> bool {
    value.starts_with(BAD)
}

/// Whether the value is that of a record with a row.
pub fn has_row(value: &str) -> bool {
    !is_bad(value) && !is_marker(value)
}

/// The id of a record. It is in the record's value and, because all clients here write it there, in its key.
pub fn id_of(value: &str) -> &str {
    let in_object = value.strip_prefix(r#"{"id":""#).and_then(|rest| rest.split('"').next());
    in_object.unwrap_or_else(|| value.trim_start_matches(BAD))
}

/// The rows of a batch as JSON objects, one member per column.
///
/// # Errors
/// Arrow cannot write the batch as JSON.
pub fn objects(batch: &RecordBatch) -> Result<Vec<Value>, ArrowError> {
    let mut text = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut text);
    writer.write(&with_offsets(batch)?)?;
    writer.finish()?;
    let rows = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
    rows.map(|row| row.map_err(|error| ArrowError::JsonError(error.to_string()))).collect()
}

/// The batch with the time zone `+00:00` instead of `UTC`: Arrow prints named zones only with a zone database.
fn with_offsets(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        match column.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) => Arc::new(times.clone().with_timezone("+00:00")),
            None => Arc::clone(column),
        }
    });
    let schema = batch.schema();
    RecordBatch::try_from_iter_with_nullable(
        schema.fields().iter().zip(columns).map(|(field, column)| (field.name(), column, true)),
    )
}

/// Reads a row that is a JSON object with one member per column. A text column (`<name>_json`) holds the JSON of a
/// value that did not fit the column `<name>`, and takes its place. A wrong key stays in the value, so that the
/// comparison sees it.
pub fn of_json(row: &Value) -> Option<Row> {
    let columns = row.as_object()?;
    let partition = u32::try_from(columns.get("_partition_id")?.as_i64()?).ok()?;
    let offset = columns.get("_offset")?.as_i64()?;
    let mut record = merged(columns);
    record.retain(|name, _| !matches!(name.as_str(), "_partition_id" | "_offset" | "_timestamp"));
    if record.get("_key") == record.get("id") {
        record.remove("_key");
    }
    Some((partition, offset, Value::Object(record).to_string()))
}

/// Offset, key, and the value that the row shows, of a row that is a JSON object; none for the value of a tombstone.
pub fn keyed_of_json(row: &Value) -> Option<Keyed> {
    let columns = row.as_object()?;
    let offset = columns.get("_offset")?.as_i64()?;
    let key = columns.get("_key")?.as_str()?.to_owned();
    let mut record = merged(columns);
    record.retain(|name, _| !name.starts_with('_'));
    Some((offset, key, (!record.is_empty()).then(|| Value::Object(record).to_string())))
}

/// Turns the columns of a struct back into the members of an object.
fn merged(columns: &Map<String, Value>) -> Map<String, Value> {
    let is_set = |name: &str| columns.get(name).is_some_and(|cell| !cell.is_null());
    let mut members = Map::new();
    for (name, cell) in columns.iter().filter(|(_, cell)| !cell.is_null()) {
        let beside = name.strip_suffix("_json").filter(|other| !is_set(other));
        let text = beside.and_then(|other| Some((other, serde_json::from_str(cell.as_str()?).ok()?)));
        match text {
            Some((other, value)) => members.insert(other.to_owned(), value),
            None => members.insert(name.clone(), of_cell(cell)),
        };
    }
    members
}

fn of_cell(cell: &Value) -> Value {
    match cell {
        Value::Object(columns) => Value::Object(merged(columns)),
        Value::Array(cells) => cells.iter().map(of_cell).collect(),
        plain => plain.clone(),
    }
}

/// Whether a row ([`of_json`]) shows the record with this value. Both must be the same JSON, where null members count
/// as missing and 5 equals 5.0. Text that is not JSON must be identical.
pub fn shows(row: &str, value: &str) -> bool {
    let parsed = |text| serde_json::from_str(text).ok().map(normal);
    row == value || parsed(value).is_some_and(|value| parsed(row) == Some(value))
}

fn normal(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, member)| !member.is_null());
            Value::Object(members.map(|(name, member)| (name, normal(member))).collect())
        }
        Value::Array(elements) => elements.into_iter().map(normal).collect(),
        Value::Number(number) => match number.as_f64() {
            // Whole doubles below the size where doubles have gaps between whole numbers.
            Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() < 1e15 => {
                Value::from(double as i64)
            }
            _ => Value::Number(number),
        },
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(columns: &Value) -> Value {
        let mut row =
            json!({"_partition_id": 1, "_offset": 7, "_timestamp": "2026-01-01T00:00:00Z", "_key": "a"});
        row.as_object_mut().expect("an object").extend(columns.as_object().expect("an object").clone());
        row
    }

    #[test]
    fn a_row_is_its_record() {
        for (columns, record) in [
            (json!({"id": "a", "n": 5.0, "gone": null}), r#"{"id":"a","n":5}"#),
            (json!({"id": "a", "n": null, "n_json": "\"5\""}), r#"{"id":"a","n":"5","flag":null}"#),
            (json!({"id": "a", "n_json": "9007199254740993"}), r#"{"id":"a","n":9007199254740993}"#),
            (
                json!({"id": "a", "s": {"x": null, "x_json": "[1]", "y": [1, 2.0]}}),
                r#"{"s":{"x":[1],"y":[1,2]},"id":"a"}"#,
            ),
        ] {
            let (partition, offset, shown) = of_json(&row(&columns)).expect("a row");
            assert_eq!((partition, offset), (1, 7));
            assert!(shows(&shown, record), "{shown} is not {record}");
        }
        assert!(shows("a", "a") && !shows("a", "b"));
        assert_eq!(
            (id_of(r#"{"id":"p1-7","n":1}"#), id_of("!p1-8"), id_of("p1-9")),
            ("p1-7", "p1-8", "p1-9")
        );
    }

    #[test]
    fn a_row_shows_a_key_and_a_value_or_a_tombstone() {
        let keyed = |columns: &Value| keyed_of_json(&row(columns));
        let shown = |value: Option<&str>| Some((7, "a".to_owned(), value.map(str::to_owned)));
        assert_eq!(keyed(&json!({"v": 17})), shown(Some(r#"{"v":17}"#)));
        assert_eq!(keyed(&json!({"v": null})), shown(None));
        assert_eq!(keyed(&json!({})), shown(None));
        assert_eq!(keyed_of_json(&json!({"_offset": 7, "v": 17})), None);
    }

    #[test]
    fn a_cell_that_is_lost_changed_or_swapped_is_seen() {
        let record = r#"{"id":"a","n":5,"s":{"x":1}}"#;
        for columns in [
            json!({"id": "a", "s": {"x": 1}}),
            json!({"id": "a", "n": 6, "s": {"x": 1}}),
            json!({"id": "a", "n": 5, "s": {}}),
            json!({"id": "a", "n": 5, "s": null}),
            json!({"id": "a", "n": 5, "n_json": "5", "s": {"x": 1}}),
            json!({"id": "a", "n": 5, "s": {"x": 1}, "_key": "b"}),
            json!({"id": "a", "n": 5, "s": {"x": 1}, "more": true}),
        ] {
            let (_, _, shown) = of_json(&row(&columns)).expect("a row");
            assert!(!shows(&shown, record), "{shown} passed");
        }
        assert_eq!(of_json(&json!({"id": "a"})), None);
    }
}
