//! SQL over unified tables: the lake up to its progress, the log from there, one cut.
//!
//! # What it is not
//! No writing, no files or buckets in statements, no state between statements. The engine is DataFusion; what is
//! here is the tables that it sees, and the bounds that keep one statement from harming the broker.
//!
//! # A statement, file by file
//! ```text
//! engine.rs     Sql::query       a turn, a deadline, one metadata snapshot: the cut
//! guard.rs      check            size, nesting and weight, on tokens, before anything recursive
//! statement.rs  parse            one statement, and only one that reads
//! session.rs    session          the engine without files, stores or writing
//! functions.rs  bound            functions that make much out of little
//! give_way.rs   GiveWay          joins pause now and then, so that a statement can end at its deadline
//! constants.rs  check            large constants, which every row would get a copy of
//! catalog.rs    Cut::unified     floe.default.<topic>: files and tail of one table at the cut
//! table.rs      UnifiedTable     files of the lake UNION tail of the log
//! files.rs      FileReader       Parquet from the log's store; footers cached
//! evolve.rs     Evolution        older files under a newer schema
//! tail.rs       TailSource       rows of the log, in memory
//! error.rs      SqlError         what is wrong, and where in the text, with a caret
//! format.rs     Encoder, table   Arrow, JSON, JSON lines, CSV; the table of the command line
//! ```
//! # Why nothing is missing and nothing comes twice
//! A table's progress and the list of its files are written by one commit. Both, and the ends of the log, are read
//! from one snapshot of the metadata, so the files hold exactly what lies before the progress, and the tail is
//! exactly what lies between the progress and the end of the log. All tables of a statement share that snapshot.
//!
//! # Names
//! Tables are `floe.default.<topic>`; catalog and schema may be left out. Names are folded to lower case unless quoted:
//! `select "userId" from "my-topic"`. `information_schema` has all tables and columns.

mod catalog;
mod constants;
mod engine;
pub mod error;
mod evolve;
mod files;
pub mod format;
mod functions;
mod give_way;
mod guard;
pub mod limits;
mod session;
mod statement;
mod table;
mod tail;

pub use catalog::{CATALOG, SCHEMA};
pub use engine::{OpenError, QueryResult, Sql};
pub use error::{Kind, Place, SqlError};
pub use format::Format;
pub use limits::Config;
