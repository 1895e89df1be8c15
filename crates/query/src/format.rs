//! The formats of rows.

use serde::{Deserialize, Serialize};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Format {
    /// An Arrow IPC stream.
    ArrowStream,
    /// One JSON array with one object per row. NULL is `null`.
    #[default]
    Json,
    /// One JSON object per line. NULL is `null`.
    JsonLines,
    /// CSV with a header line. NULL is empty, and a value with children is JSON.
    Csv,
}
