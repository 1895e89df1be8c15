//! What an engine and its fronts say to each other about a statement: the format of its rows, and why it has none.
//!
//! # What it is not
//! No engine and no protocol. `floe-sql` writes the rows and makes the errors. `floe-http` gives them names and codes.
//! Neither knows the other.
//!
//! # File by file
//! ```text
//! error.rs    QueryError   what is wrong, and where in the text, with a caret
//! format.rs   Format       Arrow stream, JSON, JSON lines, CSV
//! limits.rs                every limit of this crate
//! ```

mod error;
mod format;
pub mod limits;

pub use error::{Kind, Place, QueryError};
pub use format::Format;
