//! SQL over unified tables. Such a table is the lake up to its progress and the log from there, read at one cut.
//!
//! # What it is not
//! No writes, no files or buckets in statements, no state between statements. DataFusion is the engine; `floe-engine`
//! mends its answers and bounds its functions. This crate adds the tables that the engine sees, and the bounds that
//! keep one statement from harming the broker.
//!
//! # A statement, file by file
//! ```text
//! worker/        Workers          statements in processes of their own, watched by the broker
//! engine.rs     Sql::query       a statement in this process: a deadline, one metadata snapshot: the cut
//! turns.rs      Turns            how many statements run at once
//! told.rs                        metrics of every statement
//! source/        Source           what a statement reads at its cut, whoever has it
//! guard.rs      check            bounds size, nesting and weight on tokens, before any recursive code runs
//! statement.rs  parse            one read-only statement
//! session.rs    session          the engine without files, stores or writes
//! spill.rs      Runtimes         memory, and the directory for what does not fit
//! constants.rs  check            refuses large constants that every row would copy
//! arguments.rs  check            refuses arguments that make aggregates allocate too much
//! catalog.rs    Inputs::unified  floe.default.<topic>: files and tail of one table at the cut
//! commits.rs    Commits          floe.system.commits: the history of all commits
//! described.rs  Described        information_schema: the columns of all tables, without reading one
//! table.rs      UnifiedTable     files of the lake UNION tail of the log
//! files.rs      FileReader       Parquet from the log's store, with cached footers
//! evolve.rs     Evolution        older files under a newer schema
//! tail.rs       TailSource       rows of the log, in memory or decoded as they are needed
//! wanted.rs     Wanted           the partitions and offsets that filters let through
//! error.rs      of               the engine's errors -> their kind, and their place in the text
//! words.rs      for_people       the engine's messages in words for people
//! fault.rs      logged           faults of the engine -> a number, and the log
//! config.rs     Config           the operator's settings
//! limits.rs                      every limit of this crate
//! results.rs    Rows             the queue between a statement and its reader
//! pieces.rs     pieces           results in encoded pieces of bounded size
//! format.rs     Encoder          Arrow, JSON, JSON lines, CSV; the table of the command line
//! views.rs      without          results without views of text and bytes
//! printable.rs  check            finds times that no text can hold
//! ```
//!
//! # Why no row is missing and none comes twice
//! One commit writes a table's progress and the list of its files. A statement reads both, and the ends of the log,
//! from one snapshot of the metadata. So the files hold exactly the records before the progress, and the tail holds
//! exactly the records from the progress to the end of the log. All tables of a statement share that snapshot.
//!
//! # Names
//! A table is `floe.default.<topic>`, and a statement may leave out catalog and schema. The engine folds names to lower
//! case unless they are quoted: `select "userId" from "my-topic"`. `system.commits` is the history of all commits.
//! `information_schema` lists all tables, and their
//! columns as of their last commits; of a single table, also those that records brought since.

mod arguments;
mod catalog;
mod commits;
mod config;
mod constants;
mod described;
mod engine;
mod error;
mod evolve;
mod fault;
mod files;
mod format;
mod guard;
pub mod limits;
mod pieces;
mod printable;
mod results;
mod session;
mod source;
mod spill;
mod statement;
mod table;
mod tail;
mod told;
mod turns;
mod views;
mod wanted;
mod words;
mod worker;

pub use catalog::{CATALOG, SCHEMA};
pub use config::Config;
pub use engine::{OpenError, QueryResult, Sql};
pub use format::{Encoder, text_table};
pub use worker::{Program, WorkError, Workers, WorkersError, work};
