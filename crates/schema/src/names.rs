//! Names of columns: system columns, reserved names, and the rule that turns a key into a name.

use std::collections::BTreeSet;

/// The partition that a row came from. It is not called `_partition`: Iceberg has a metadata column of that name, and
/// Spark refuses every scan of a table with such a column.
pub const PARTITION: &str = "_partition_id";
/// The offset of the row's record in its partition.
pub const OFFSET: &str = "_offset";
/// The timestamp of the record: the producer's or the broker's, depending on the topic's settings.
pub const TIMESTAMP: &str = "_timestamp";
/// The key of the record if it is UTF-8 (JSON tables).
pub const KEY: &str = "_key";
/// The key of the record if it is not UTF-8 (JSON tables; the column exists once such a key was seen).
pub const KEY_BYTES: &str = "_key_bytes";

/// Names that a top-level key cannot have: the system columns, and the metadata columns of Iceberg (specification,
/// "Reserved Field IDs"; `MetadataColumns` of the Java library).
pub const RESERVED: &[&str] = &[
    PARTITION,
    OFFSET,
    TIMESTAMP,
    KEY,
    KEY_BYTES,
    "_change_ordinal",
    "_change_type",
    "_commit_snapshot_id",
    "_deleted",
    "_file",
    "_last_updated_sequence_number",
    "_partition",
    "_pos",
    "_row_id",
    "_spec_id",
];

/// The name of the column of JSON text beside the column `name`, before it is made unique.
pub(crate) fn text(name: &str) -> String {
    format!("{name}_json")
}

/// The name for `key` before it is made unique.
pub(crate) fn clean(key: &str) -> String {
    if key.is_empty() {
        return "empty".to_owned();
    }
    key.chars().map(|c| if c == '.' || c.is_control() { '_' } else { c }).collect()
}

/// The first of `name`, `name_2`, `name_3`, … whose lower case form is not in `taken`.
pub(crate) fn unique(name: &str, taken: &BTreeSet<String>) -> String {
    if !taken.contains(&name.to_lowercase()) {
        return name.to_owned();
    }
    (2u64..)
        .map(|n| format!("{name}_{n}"))
        .find(|candidate| !taken.contains(&candidate.to_lowercase()))
        .expect("a finite set cannot hold every numbered name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_clean_and_free() {
        let taken: BTreeSet<String> = ["id", "id_2", "a_b"].iter().map(ToString::to_string).collect();
        for (key, name) in [
            ("x", "x"),
            ("ID", "ID_3"),
            ("a.b", "a_b_2"),
            ("", "empty"),
            ("tab\there", "tab_here"),
            ("größe", "größe"),
        ] {
            assert_eq!(unique(&clean(key), &taken), name, "{key:?}");
        }
    }
}
