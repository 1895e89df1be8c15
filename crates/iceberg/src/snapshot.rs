//! One state of a table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One state of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// Unique in the table.
    pub snapshot_id: i64,
    /// The state before it; none for the first. It may have expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_snapshot_id: Option<i64>,
    /// Counts the commits of the table from 1.
    pub sequence_number: i64,
    /// Milliseconds since 1970 in UTC.
    pub timestamp_ms: i64,
    /// The URL of its manifest list.
    pub manifest_list: String,
    /// What it changed.
    pub summary: Summary,
    /// The schema that was the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_id: Option<i32>,
}

/// What a snapshot changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The kind of the change.
    pub operation: Operation,
    /// Figures, and what Floe needs to know of it.
    #[serde(flatten)]
    pub additional_properties: BTreeMap<String, String>,
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Files were added.
    Append,
    /// Files took the place of others that have the same rows.
    Replace,
    /// Files were added and removed.
    Overwrite,
    /// Files were removed.
    Delete,
}
