//! The lake: a topic as an Apache Iceberg table.
//!
//! **What it is.** One view for each topic with `floe.table` = `json` or `raw`. It reads the log from the
//! table's progress, writes Parquet, and commits metadata pointer, progress and dead letters in one journal
//! entry, so the table holds every record up to its progress exactly once, whatever crashed in between. Own
//! commit engine on the specification types of the `iceberg` crate. Also: the table's files for SQL, the
//! log's tail as rows, and the documents of the read side of the Iceberg REST catalog.
//!
//! **What it is not.** No writer for others: there is one writer, the view. No compaction, no partitions, no
//! sort order, no row deletes yet. No HTTP: [`catalog`] gives documents, the front serves them.
//!
//! **One record's way**: [`view`] `View::step` → `Log::read` → [`encode`] `Encoder::push` → `floe_schema::Decoder` →
//! [`data_file`] (Parquet) → [`publish`] (files into the store) → [`commit`] (manifest, manifest list,
//! metadata document) → [`command`] `publish` (the journal entry).
//!
//! ```text
//! journal   40 Table (pointer)  41 Progress per partition  42 ViewState (schema, file numbers)  43 Garbage
//!               │
//! store         └▶ metadata.json ─▶ manifest list ─▶ manifests ─▶ Parquet files          (layout.rs has the names)
//! ```
//!
//! **Widening from whole numbers to double** is no promotion that Iceberg knows. The new column has a new id, and the
//! commit that first has it is an `overwrite`: the data files that hold the old column are rewritten in it,
//! so no reader ever sees the table without these values. Whole numbers beyond 2^53 that a double cannot hold
//! go to the text column beside it (`floe_schema`).
//!
//! **Freshness.** A view gathers for half of `floe.table.freshness.ms` (from the record that woke it), or until the log
//! has enough bytes for a data file (`floe.table.file.bytes`) or as many as a query should have to read from it
//! ([`Config::gather_bytes`]), then commits what is there; while it is behind, it commits without a pause, in chunks of
//! bounded memory. A topic without new records makes no commits.
//!
//! **What is kept.** The last [`limits::SNAPSHOTS_KEPT`] snapshots, for time travel and for readers under way. What no
//! snapshot names is deleted [`limits::GARBAGE_GRACE`] later ([`cleaner`]). A deleted topic takes its table along.

mod cache;
pub mod catalog;
mod cleaner;
mod command;
mod commit;
mod convert;
pub mod data_file;
mod encode;
mod error;
mod files;
mod handle;
mod layout;
pub mod limits;
mod manifest;
pub mod map;
mod prepare;
mod shared;
mod supervise;
mod table;
mod tail;
mod view;

pub use crate::{
    data_file::FileError,
    error::TableError,
    handle::{Lake, LakeError},
    shared::Config,
    table::{DataFile, TableRef},
    tail::{Hold, Tail, TailError},
};
