//! Documents of a table that Floe made with the `iceberg` crate 0.10.1, which it used before this one, and the same
//! documents as this crate writes them. Neither may change: both kinds are in the stores of running clusters.
//!
//! `tests/golden/` has each Avro document three times: `x.avro` is that of the crate, `x.json` is what the crate read
//! of it, and `x-written.avro` is ours.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    ManifestEntry, ManifestFile, Schema, TableMetadata,
    container::{self, Header},
    read_manifest, read_manifest_list,
    shapes::{MANIFEST_ENTRY, MANIFEST_FILE},
    write_manifest, write_manifest_list,
};

struct Golden {
    name: &'static str,
    avro: &'static [u8],
    json: &'static [u8],
    written: &'static [u8],
}

macro_rules! golden {
    ($name:literal) => {
        Golden {
            name: $name,
            avro: include_bytes!(concat!("../../tests/golden/", $name, ".avro")),
            json: include_bytes!(concat!("../../tests/golden/", $name, ".json")),
            written: include_bytes!(concat!("../../tests/golden/", $name, "-written.avro")),
        }
    };
}

/// Manifests with added files, with kept ones, and with removed ones.
const MANIFESTS: [Golden; 3] = [golden!("added"), golden!("kept"), golden!("removed")];

const LISTS: [Golden; 2] = [golden!("first-list"), golden!("list")];

/// The metadata before the first commit, and after the last.
const METADATA: [&[u8]; 2] = [
    include_bytes!("../../tests/golden/empty.metadata.json"),
    include_bytes!("../../tests/golden/table.metadata.json"),
];

/// The header of a file, with the schema of its records as JSON.
fn header(bytes: &[u8], shape: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let take = |header: &Header<'_>| {
        found = header
            .iter()
            .map(|(name, value)| {
                let text = std::str::from_utf8(value).unwrap();
                ((*name).to_owned(), serde_json::from_str(text).unwrap_or_else(|_| text.into()))
            })
            .collect();
        Err(crate::Error::Avro("its header is all that is wanted"))
    };
    let stopped: Result<Vec<()>, _> = container::read(bytes, shape, &[], take, |_| Ok(()));
    assert!(stopped.is_err());
    found
}

fn entries_as_json(entries: &[ManifestEntry]) -> Value {
    fn counts(counts: &BTreeMap<i32, u64>) -> Value {
        counts.iter().map(|(id, count)| (format!("{id:04}"), Value::from(*count))).collect()
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bounds = |bounds: &BTreeMap<i32, Vec<u8>>| -> Value {
        bounds.iter().map(|(id, bound)| (format!("{id:04}"), Value::from(hex(bound)))).collect()
    };
    let entry = |entry: &ManifestEntry| {
        let (file, metrics) = (&entry.data_file, &entry.data_file.metrics);
        json!({
            "status": entry.status as i32,
            "snapshot-id": entry.snapshot_id,
            "sequence-number": entry.sequence_number,
            "file-sequence-number": entry.file_sequence_number,
            "file-path": file.file_path,
            "record-count": file.record_count,
            "file-size-in-bytes": file.file_size_in_bytes,
            "column-sizes": counts(&metrics.column_sizes),
            "value-counts": counts(&metrics.value_counts),
            "null-value-counts": counts(&metrics.null_value_counts),
            "lower-bounds": bounds(&metrics.lower_bounds),
            "upper-bounds": bounds(&metrics.upper_bounds),
            "split-offsets": metrics.split_offsets,
        })
    };
    entries.iter().map(entry).collect()
}

fn list_as_json(manifests: &[ManifestFile]) -> Value {
    let manifest = |m: &ManifestFile| {
        json!({
            "manifest-path": m.manifest_path,
            "manifest-length": m.manifest_length,
            "sequence-number": m.sequence_number,
            "min-sequence-number": m.min_sequence_number,
            "added-snapshot-id": m.added_snapshot_id,
            "files": [m.added_files_count, m.existing_files_count, m.deleted_files_count],
            "rows": [m.added_rows_count, m.existing_rows_count, m.deleted_rows_count],
        })
    };
    manifests.iter().map(manifest).collect()
}

#[test]
fn manifests_are_read_and_written_as_before() {
    for golden in &MANIFESTS {
        let entries = read_manifest(golden.avro).unwrap();
        let before = header(golden.avro, &MANIFEST_ENTRY);
        let schema: Schema = serde_json::from_value(before["schema"].clone()).unwrap();
        let (_, bytes) = write_manifest("x", 1, 1, &schema, &entries).unwrap();
        assert_eq!(header(&bytes, &MANIFEST_ENTRY), before, "{}", golden.name);
        assert!(bytes == golden.written, "{}: persisted", golden.name);
        let again = read_manifest(&bytes).unwrap();
        let expected: Value = serde_json::from_slice(golden.json).unwrap();
        assert_eq!(entries_as_json(&again), expected, "{}", golden.name);
        // The crate brought bounds of earlier types and of earlier columns up to date when it read them, and we do when
        // we write them. Only the table that was widened has some.
        let (mut old, mut new) = (entries.clone(), again.clone());
        if golden.name == "removed" {
            assert_ne!(old, new);
            for entry in old.iter_mut().chain(&mut new) {
                entry.data_file.metrics.lower_bounds.clear();
                entry.data_file.metrics.upper_bounds.clear();
            }
        }
        assert_eq!(old, new, "{}", golden.name);
    }
}

#[test]
fn manifest_lists_are_read_and_written_as_before() {
    for golden in &LISTS {
        let manifests = read_manifest_list(golden.avro).unwrap();
        let expected: Value = serde_json::from_slice(golden.json).unwrap();
        assert_eq!(list_as_json(&manifests), expected, "{}", golden.name);
        let before = header(golden.avro, &MANIFEST_FILE);
        let number = |name: &str| before[name].as_i64();
        let (id, sequence) = (number("snapshot-id").unwrap(), number("sequence-number").unwrap());
        let bytes = write_manifest_list(id, number("parent-snapshot-id"), sequence, &manifests).unwrap();
        assert_eq!(header(&bytes, &MANIFEST_FILE), before, "{}", golden.name);
        assert!(bytes == golden.written, "{}: persisted", golden.name);
        assert_eq!(read_manifest_list(&bytes).unwrap(), manifests, "{}", golden.name);
    }
}

#[test]
fn the_schema_of_the_records_is_the_same_text() {
    for (golden, shape) in [(&MANIFESTS[0], &MANIFEST_ENTRY), (&LISTS[0], &MANIFEST_FILE)] {
        let text = shape.as_bytes();
        assert!(golden.avro.windows(text.len()).any(|window| window == text), "{}", golden.name);
    }
}

#[test]
fn metadata_documents_are_read_and_written_as_before() {
    for bytes in METADATA {
        let table = TableMetadata::read(bytes).unwrap();
        assert_eq!(table.document().unwrap().to_string().as_bytes(), bytes.trim_ascii_end());
    }
    let table = TableMetadata::read(METADATA[1]).unwrap();
    assert_eq!(table.snapshots().len(), table.snapshot_log().len());
    assert_eq!(table.current_snapshot(), table.snapshots().last());
}

#[test]
fn metadata_of_other_tables_is_refused() {
    let whole: Value = serde_json::from_slice(METADATA[1]).unwrap();
    let why = |change: &dyn Fn(&mut Value)| {
        let mut document = whole.clone();
        change(&mut document);
        TableMetadata::read(document.to_string().as_bytes()).unwrap_err().to_string()
    };
    assert!(why(&|table| table["format-version"] = json!(3)).contains("version 3"));
    assert!(why(&|table| table["current-schema-id"] = json!(77)).contains("no schema 77"));
    assert!(why(&|table| table["current-snapshot-id"] = json!(77)).contains("no snapshot 77"));
    assert!(why(&|table| table["refs"] = json!({})).contains("branch main"));
    assert!(why(&|table| table["last-sequence-number"] = json!(1)).contains("newer than the table"));
    assert!(why(&|table| table["snapshots"][3]["snapshot-id"] = json!(77)).contains("no snapshot"));
    let spec = json!({"source-id": 1, "field-id": 1000, "name": "p", "transform": "identity"});
    assert!(why(&|table| table["partition-specs"][0]["fields"] = json!([spec])).contains("not a metadata"));
    let schema = whole["schemas"][0].clone();
    assert!(why(&|table| table["schemas"] = json!([schema, schema])).contains("one id"));
    for member in ["table-uuid", "location", "schemas", "last-column-id", "sort-orders"] {
        assert!(
            why(&|table| drop(table.as_object_mut().unwrap().remove(member))).contains(member),
            "{member}"
        );
    }
}
