//! The lake: a topic as an Apache Iceberg table.
//!
//! Each topic with `floe.table` = `json` or `raw` has a view. The view reads the log from the table's progress, writes
//! Parquet, and commits the metadata pointer, the progress and the dead letters in one journal entry. So the table
//! holds every record below its progress exactly once, whatever crashed in between. The runner of `floe_view` drives
//! the view.
//!
//! # What it is not
//! There is one writer, the view: no writer for others, no partitions, no sort order, no row deletes yet. There is no
//! HTTP: [`catalog`] makes documents, and the front serves them.
//!
//! # Files
//! ```text
//! handle.rs     Lake           starts and closes; tables, their files and documents for SQL and the catalog
//! supervise.rs                 the tasks: the views of floe_view, and the cleaner
//! view.rs       TableView      the lake's view: what the runner asks it for
//! encode.rs     Encoder        records of one commit -> Parquet files
//! data_file.rs  FileWriter     one Parquet file and its statistics
//! checks.rs     Checks         the checksums of all its bytes, inside the file
//! rewrite.rs    job            rewrites files that hold replaced columns: small tables in a step, others by a job
//! merge.rs      job            merges small files; merge_plan.rs: which of them next; small.rs: which there are
//! owned.rs      OwnedTable     what the owner of a table knows of it
//! place.rs      Place          where a table is in the map; places.rs: it runs, or is rebuilt beside the running one
//! rebuild.rs                   makes a table anew from the log; what lies below the log's start
//! prepare.rs    prepare        puts the files of one commit, makes the command that publishes them
//! commit.rs     prepare        a commit, as the engine of floe_iceberg takes it and makes its documents
//! files.rs      Files          the files of one table in the store
//! layout.rs     Folder         their names
//! command.rs                   the pure functions over the metadata map
//! map.rs                       the records in the metadata map
//! cleaner.rs                   deletes garbage when its grace is over
//! table.rs      TableRef       a table as readers see it
//! cache.rs      FileCache      data files that queries asked for
//! tail.rs       Lake::tail     the log behind the table as rows
//! catalog.rs                   the documents of the Iceberg REST catalog
//! ```
//!
//! # One step
//! 1. The runner folds records into the `Encoder`, which decodes them with `floe_schema` and writes Parquet.
//! 2. `TableView::prepare` puts the Parquet files under new numbers, and asks the commit engine for the manifest, the
//!    manifest list and the metadata document of the next snapshot. It puts these, too.
//! 3. `command::publish` swaps the pointer. The runner commits it with the progress and the dead
//!    letters.
//!
//! ```text
//! journal   40 Table (pointer)  41 Progress per partition  42 ViewState (schema, file numbers)  43 Garbage
//!               │
//! store         └▶ metadata.json ─▶ manifest list ─▶ manifests ─▶ Parquet files
//! ```
//!
//! # From whole numbers to double
//! Iceberg knows no promotion from whole numbers to double. The wider column gets a new id, and the data files that
//! hold the old one are rewritten: those of a small table in the commit that first has the new column, those of a
//! large one by a job of the view, in bounded pieces (`rewrite.rs`). Until the last piece the Iceberg schema has both
//! columns, and every value is in one of them. SQL reads old files as if they were rewritten. Whole numbers beyond 2^53
//! that a double cannot hold go to the text column beside it (`floe_schema`).
//!
//! # Small files
//! Every commit makes some files, so a job merges small ones (`merge.rs`): neighbours in the order of the stream, in
//! tiers by the logarithm of their rows. A table has about as many files as if it had been written at once, and a row
//! is written again about once for each tier. Manifests are merged in the same manner, by the commits themselves
//! (`floe_iceberg::engine`). The rows of a partition are in the order of their offsets in every file, and files are in
//! the order of their sequence numbers. No reader relies on more than that.
//!
//! # Freshness
//! A view gathers records for as long as `floe.table.freshness.ms` allows, less what a commit takes, counted from the
//! record that woke it. Every commit makes some files, so a patient view makes fewer and larger ones. It commits sooner
//! when the log has enough bytes for a data file (`floe.table.file.bytes`), or as many as a query should have to
//! read ([`Config::gather_bytes`]). A view that is behind commits without a pause, in chunks of bounded memory. An idle
//! topic makes no commits.
//!
//! # What is kept
//! The last [`limits::SNAPSHOTS_KEPT`] snapshots, for time travel and for readers under way. A file that no snapshot
//! names is deleted [`limits::GARBAGE_GRACE`] later. A deleted topic takes its table along.

mod cache;
pub mod catalog;
pub mod checks;
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
pub mod map;
mod merge;
mod merge_plan;
mod owned;
mod place;
mod places;
mod prepare;
mod rebuild;
mod rewrite;
mod shared;
mod small;
mod supervise;
mod table;
mod tail;
mod unread;
mod view;

pub use crate::{
    error::TableError,
    handle::{Lake, LakeError},
    shared::Config,
    table::{DataFile, TableRef},
    tail::{Batches, Hold, Tail, TailError, TailReader, TailSchema, TailSpan},
    unread::{unread, unread_by_rebuild},
};
