//! The Avro schemas of manifest lists and manifests, with Iceberg's field ids (its specification, "Manifest Lists" and
//! "Manifests").
//!
//! They are persisted: readers of other engines go by them, and [`crate::container`] refuses a file that has another.
//! The fields behind `sort_order_id` in `data_file` are always null. They are here because the files that Floe wrote
//! from the start have them.

use std::{fmt::Write, sync::LazyLock};

/// The schema of a manifest list.
pub(crate) static MANIFEST_FILE: LazyLock<String> = LazyLock::new(|| record("manifest_file", LIST_FIELDS));

/// The schema of a manifest of a table without partitions.
pub(crate) static MANIFEST_ENTRY: LazyLock<String> = LazyLock::new(|| record("manifest_entry", ENTRY_FIELDS));

enum Shape {
    /// Avro calls it so.
    Named(&'static str),
    Record(&'static [Field]),
    List {
        element_id: i32,
        of: &'static Shape,
    },
    /// From whole numbers to something, as an array of pairs, because the keys of Avro's own maps are texts.
    Map {
        key_id: i32,
        value_id: i32,
        of: &'static str,
    },
}

struct Field {
    id: i32,
    name: &'static str,
    of: Shape,
    is_optional: bool,
    default: Option<&'static str>,
}

const fn required(id: i32, name: &'static str, of: Shape) -> Field {
    Field { id, name, of, is_optional: false, default: None }
}

const fn optional(id: i32, name: &'static str, of: Shape) -> Field {
    Field { id, name, of, is_optional: true, default: Some("null") }
}

const BOOLEAN: Shape = Shape::Named("boolean");
const INT: Shape = Shape::Named("int");
const LONG: Shape = Shape::Named("long");
const STRING: Shape = Shape::Named("string");
const BYTES: Shape = Shape::Named("bytes");

const LIST_FIELDS: &[Field] = &[
    required(500, "manifest_path", STRING),
    required(501, "manifest_length", LONG),
    required(502, "partition_spec_id", INT),
    required(517, "content", INT),
    required(515, "sequence_number", LONG),
    required(516, "min_sequence_number", LONG),
    required(503, "added_snapshot_id", LONG),
    required(504, "added_files_count", INT),
    required(505, "existing_files_count", INT),
    required(506, "deleted_files_count", INT),
    required(512, "added_rows_count", LONG),
    required(513, "existing_rows_count", LONG),
    required(514, "deleted_rows_count", LONG),
    optional(507, "partitions", Shape::List { element_id: 508, of: &Shape::Record(PARTITION_FIELDS) }),
    optional(519, "key_metadata", BYTES),
];

const PARTITION_FIELDS: &[Field] = &[
    required(509, "contains_null", BOOLEAN),
    optional(518, "contains_nan", BOOLEAN),
    optional(510, "lower_bound", BYTES),
    optional(511, "upper_bound", BYTES),
];

const ENTRY_FIELDS: &[Field] = &[
    required(0, "status", INT),
    optional(1, "snapshot_id", LONG),
    optional(3, "sequence_number", LONG),
    optional(4, "file_sequence_number", LONG),
    required(2, "data_file", Shape::Record(DATA_FILE_FIELDS)),
];

const DATA_FILE_FIELDS: &[Field] = &[
    Field { id: 134, name: "content", of: INT, is_optional: false, default: Some("0") },
    required(100, "file_path", STRING),
    required(101, "file_format", STRING),
    required(102, "partition", Shape::Record(&[])),
    required(103, "record_count", LONG),
    required(104, "file_size_in_bytes", LONG),
    optional(108, "column_sizes", Shape::Map { key_id: 117, value_id: 118, of: "long" }),
    optional(109, "value_counts", Shape::Map { key_id: 119, value_id: 120, of: "long" }),
    optional(110, "null_value_counts", Shape::Map { key_id: 121, value_id: 122, of: "long" }),
    optional(137, "nan_value_counts", Shape::Map { key_id: 138, value_id: 139, of: "long" }),
    optional(125, "lower_bounds", Shape::Map { key_id: 126, value_id: 127, of: "bytes" }),
    optional(128, "upper_bounds", Shape::Map { key_id: 129, value_id: 130, of: "bytes" }),
    optional(131, "key_metadata", BYTES),
    optional(132, "split_offsets", Shape::List { element_id: 133, of: &LONG }),
    optional(135, "equality_ids", Shape::List { element_id: 136, of: &INT }),
    optional(140, "sort_order_id", INT),
    optional(142, "first_row_id", LONG),
    optional(143, "referenced_data_file", STRING),
    optional(144, "content_offset", LONG),
    optional(145, "content_size_in_bytes", LONG),
];

fn record(name: &str, fields: &[Field]) -> String {
    let fields: Vec<String> = fields.iter().map(field).collect();
    format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, fields.join(","))
}

fn field(field: &Field) -> String {
    let mut of = shape(&field.of, field.id);
    if field.is_optional {
        of = format!(r#"["null",{of}]"#);
    }
    let mut text = format!(r#"{{"name":"{}","type":{of}"#, field.name);
    if let Some(default) = field.default {
        write!(text, r#","default":{default}"#).expect("a text takes more");
    }
    write!(text, r#","field-id":{}}}"#, field.id).expect("a text takes more");
    text
}

/// `id` is that of the field or the element: Avro wants a name for every record, and Iceberg makes it of the id.
fn shape(shape: &Shape, id: i32) -> String {
    match shape {
        Shape::Named(name) => format!(r#""{name}""#),
        Shape::Record(fields) => record(&format!("r{id}"), fields),
        Shape::List { element_id, of } => {
            let of = self::shape(of, *element_id);
            format!(r#"{{"type":"array","items":{of},"element-id":{element_id}}}"#)
        }
        Shape::Map { key_id, value_id, of } => {
            let pair = [("key", "int", key_id), ("value", *of, value_id)];
            let pair =
                pair.map(|(name, of, id)| format!(r#"{{"name":"{name}","type":"{of}","field-id":{id}}}"#));
            let pair = format!(
                r#"{{"type":"record","name":"k{key_id}_v{value_id}","fields":[{}]}}"#,
                pair.join(",")
            );
            format!(r#"{{"type":"array","items":{pair},"logicalType":"map"}}"#)
        }
    }
}
