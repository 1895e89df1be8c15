//! The parts as an Apache Iceberg table, `system.commits`: its columns, its data files, and where its documents are.
//! Pure but for reading a document.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use bytes::Bytes;
use floe_iceberg::{DataFile, Error, Field, Metrics, Primitive, Schema, TableMetadata, Type};
use floe_meta::{Lookup, Lsn};
use floe_store::{Store, StoreError};
use serde_json::json;

use crate::error::HistoryError;
use crate::limits;
use crate::map::{self, Document, FOLDER, Form, PlacedPart, document_key};
use crate::object;

/// The namespace of the table.
pub const NAMESPACE: &str = "system";
/// The name of the table.
pub const NAME: &str = "commits";

/// The member of a snapshot's summary with the commit as of which it has the parts.
const AS_OF: &str = "floe.lsn";

/// The metadata document of a map's table, and its URL; none before the first snapshot.
///
/// # Errors
/// The store does not answer, or the document is damaged or gone.
pub async fn metadata(
    store: &Arc<dyn Store>,
    map: &impl Lookup,
) -> Result<Option<(String, TableMetadata)>, HistoryError> {
    let Some(table) = map::table(map)? else { return Ok(None) };
    let key = document_key(Form::Metadata, table.metadata);
    let metadata = read_metadata(store, table.metadata, map.get::<Document>(&table.metadata)?).await?;
    Ok(Some((store.url(&key), metadata)))
}

pub(crate) async fn read_metadata(
    store: &Arc<dyn Store>,
    number: u64,
    document: Option<Document>,
) -> Result<TableMetadata, HistoryError> {
    let (key, bytes) = read(store, number, document).await?;
    TableMetadata::read(&bytes).map_err(|error| damaged(&key, error.to_string()))
}

/// The bytes of a document that the table needs, and its key.
pub(crate) async fn read(
    store: &Arc<dyn Store>,
    number: u64,
    document: Option<Document>,
) -> Result<(String, Bytes), HistoryError> {
    let Some(document) = document else {
        return Err(damaged(&format!("document {number:016x}"), "the map does not know it".to_owned()));
    };
    let key = document_key(document.form, number);
    if document.bytes > limits::DOCUMENT_BYTES_MAX {
        return Err(damaged(&key, format!("the map says that it has {} bytes", document.bytes)));
    }
    let bytes = match store.get(&key, None).await {
        Err(StoreError::NotFound(_)) => return Err(damaged(&key, "it is not there".to_owned())),
        bytes => bytes?,
    };
    match bytes.len() as u64 == document.bytes && crc32c::crc32c(&bytes) == document.crc {
        true => Ok((key, bytes)),
        false => Err(damaged(&key, "its checksum does not match its bytes".to_owned())),
    }
}

pub(crate) fn damaged(key: &str, reason: String) -> HistoryError {
    HistoryError::Damaged { key: key.to_owned(), reason }
}

/// The columns, under the ids that they have in objects.
pub(crate) fn schema() -> Result<Schema, Error> {
    let field = |(id, field): (i32, &Arc<arrow::datatypes::Field>)| Field {
        id,
        name: field.name().clone(),
        required: !field.is_nullable(),
        field_type: Type::Primitive(match field.data_type() {
            DataType::Int32 => Primitive::Int,
            DataType::Int64 => Primitive::Long,
            DataType::Timestamp(..) => Primitive::Timestamptz,
            _ => Primitive::String,
        }),
        doc: None,
    };
    Schema::new(0, (1..).zip(object::schema().fields()).map(field).collect())
}

/// The properties of the table.
pub(crate) fn properties(snapshots_kept: usize, snapshot_age_ms: u64) -> BTreeMap<String, String> {
    let set = |key: &str, value: String| (key.to_owned(), value);
    let fields = object::schema();
    let names = (1..).zip(fields.fields());
    let names: Vec<_> = names.map(|(id, field)| json!({"field-id": id, "names": [field.name()]})).collect();
    BTreeMap::from([
        // Objects of early versions have no ids of columns.
        set("schema.name-mapping.default", json!(names).to_string()),
        set("comment", "who committed what, when, and why; written by Floe alone".to_owned()),
        set("write.metadata.previous-versions-max", limits::METADATA_KEPT.to_string()),
        set("write.metadata.delete-after-commit.enabled", true.to_string()),
        set("history.expire.min-snapshots-to-keep", 1.to_string()),
        set("history.expire.max-snapshot-age-ms", snapshot_age_ms.to_string()),
        set("floe.snapshots-max", snapshots_kept.to_string()),
    ])
}

/// A part as a data file. Its bounds are those of the map: nothing is read.
pub(crate) fn data_file(placed: &PlacedPart, url: String) -> DataFile {
    let part = &placed.part;
    let bounds = |lsn: Lsn, micros: i64| {
        let long = |value: i64| value.to_le_bytes().to_vec();
        BTreeMap::from([(1, long(lsn.0.cast_signed())), (2, long(micros))])
    };
    let micros = |ms: i64| ms.saturating_mul(1_000);
    let schema = object::schema();
    let required = (1..).zip(schema.fields()).filter(|(_, field)| !field.is_nullable());
    let required: Vec<i32> = required.map(|(id, _)| id).collect();
    let metrics = Metrics {
        value_counts: required.iter().map(|id| (*id, part.rows)).collect(),
        null_value_counts: required.iter().map(|id| (*id, 0)).collect(),
        lower_bounds: bounds(placed.first, micros(part.from.0)),
        upper_bounds: bounds(part.last, micros(part.to.0)),
        // The first group begins behind Parquet's magic. So readers take an object as a whole.
        split_offsets: vec![4],
        ..Metrics::default()
    };
    DataFile { file_path: url, record_count: part.rows, file_size_in_bytes: part.bytes, metrics }
}

/// What the summary of a snapshot says of the map that it was made from.
pub(crate) fn summary(as_of: Lsn, end: Lsn) -> BTreeMap<String, String> {
    BTreeMap::from([
        (AS_OF.to_owned(), as_of.0.to_string()),
        ("floe.last-commit".to_owned(), end.0.to_string()),
    ])
}

/// The commit as of which the oldest snapshot of a table has the parts, and its time; 0 if it does not say.
pub(crate) fn oldest(metadata: &TableMetadata) -> (Lsn, i64) {
    let Some(oldest) = metadata.snapshots().first() else { return (Lsn(0), 0) };
    let as_of = oldest.summary.additional_properties.get(AS_OF).and_then(|text| text.parse().ok());
    (Lsn(as_of.unwrap_or(0)), oldest.timestamp_ms)
}

/// The key that a URL of the table's folder names.
pub(crate) fn key_of_url(url: &str) -> Option<&str> {
    let at = url.rfind(&format!("/{FOLDER}/"))? + 1;
    Some(&url[at..])
}

#[cfg(test)]
mod tests {
    use floe_env::Timestamp;

    use super::*;
    use crate::map::Part;

    #[test]
    fn the_columns_are_those_of_objects() {
        let schema = schema().unwrap();
        let told: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| {
                format!(
                    "{} {} {}{}",
                    field.id,
                    field.name,
                    field.field_type,
                    if field.required { "!" } else { "" }
                )
            })
            .collect();
        assert_eq!(told[..3], ["1 lsn long!", "2 time timestamptz!", "3 principal string!"]);
        assert_eq!(told[6..8], ["7 partition int", "8 first_offset long"]);
        assert_eq!(told.len(), 17);
        let properties = properties(10, 5);
        let mapping: serde_json::Value =
            serde_json::from_str(&properties["schema.name-mapping.default"]).unwrap();
        assert_eq!(mapping[16], json!({"field-id": 17, "names": ["topic_id"]}));
    }

    #[test]
    fn a_part_is_a_data_file_with_bounds() {
        let part = Part {
            last: Lsn(9),
            number: 1,
            bytes: 100,
            crc: 0,
            rows: 12,
            from: Timestamp(3),
            to: Timestamp(4),
            since: Lsn(10),
        };
        let file = data_file(&PlacedPart { first: Lsn(5), part }, "file:///d/history/1/x".to_owned());
        assert_eq!((file.record_count, file.file_size_in_bytes), (12, 100));
        assert_eq!(file.metrics.lower_bounds[&1], 5_i64.to_le_bytes());
        assert_eq!(file.metrics.upper_bounds[&2], 4_000_i64.to_le_bytes());
        assert_eq!(key_of_url(&file.file_path), Some("history/1/x"));
        assert_eq!(key_of_url("file:///d/lake/1-t/x"), None);
    }
}
