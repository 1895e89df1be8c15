//! What broker and worker say to each other.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use floe_env::Timestamp;
use floe_log::{Offset, PartitionId, TopicId};
use floe_meta::Lsn;
use floe_query::{Format, QueryError};

use super::counted::Counted;
use crate::config::Config;
use crate::limits::WORKER_THREAD_MEMORY;

/// What the broker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// The first message.
    Setup(Setup),
    /// Run a statement. The worker runs none.
    Start(Start),
    /// A part of an answer in the payload. It is the last one if `end`; then an error means that there is no answer.
    Answer { call: u32, end: bool, error: Option<QueryError> },
    /// From now on, operators that can spill may have so many bytes of memory before they do.
    Memory { before_spilling: u64 },
    /// From now on, the statement may spill so many bytes in all.
    Spill { bytes: u64 },
    /// Nobody reads the rows of a statement any more.
    Leave { number: u32 },
}

/// The settings of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) threads: usize,
    pub(super) query_time_max: Duration,
    pub(super) memory_bytes: usize,
    pub(super) spill_directory: Option<PathBuf>,
    pub(super) spill_bytes: u64,
    pub(super) disk_reserve_bytes: u64,
    pub(super) result_rows_max: u64,
    pub(super) tail_held_bytes: u64,
    /// Whether the worker may misbehave, for tests.
    pub(super) faults: bool,
}

/// A statement.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// Statements of this worker are counted from 1.
    pub(super) number: u32,
    pub(super) text: String,
    pub(super) format: Format,
    pub(super) cut: Lsn,
    pub(super) now: Timestamp,
    /// Time that is left until its deadline.
    pub(super) left: Duration,
    pub(super) before_spilling: u64,
    pub(super) spill_bytes: u64,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromWorker {
    /// It takes statements.
    Ready,
    /// It asks for something. The answer has the same number.
    Call { call: u32, ask: Ask },
    /// The statement is planned.
    Planned,
    /// A piece of the result in the payload.
    Rows,
    /// The statement has spilled so much, a large part of what it may, and would like to spill more.
    Spilled { bytes: u64 },
    /// The statement has ended, and the worker takes the next one.
    Ended { error: Option<QueryError>, counted: Vec<Counted> },
}

/// What a worker asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// All tables: a [`Listed`].
    Described,
    /// The table of a name: an `Option<TableHead>`, then its files, each a [`File`].
    Table(String),
    /// Batches of the log: of each, its first offset and its length (i64 and u32, little endian), then its bytes.
    Batches { partition: PartitionId, from: Offset },
    /// The parts of the history of commits: a `Vec<PlacedPart>`.
    History,
    /// The rows after them: an object of the history.
    Recent,
    /// Bytes of a file.
    File { key: String, from: u64, to: u64 },
    /// What is known of the tail of a table: an `Option<TailSchema>`.
    Learned(TopicId),
    /// Keep the payload's `TailSchema`. The answer is empty.
    Learn(TopicId),
}

/// All tables, and the number of their columns.
pub(super) type Listed = (Vec<(String, Option<floe_schema::TableSchema>)>, u64);

/// A table without its files.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TableHead {
    pub(super) name: String,
    pub(super) topic: TopicId,
    pub(super) schema: floe_schema::TableSchema,
    pub(super) spans: Vec<floe_lake::TailSpan>,
    pub(super) tail_bytes: u64,
    pub(super) files: u64,
}

/// A data file of a table: its key, its bytes and its records.
pub(super) type File = (String, u64, u64);

impl Setup {
    pub(super) fn of(config: &Config, spill_directory: Option<PathBuf>, faults: bool) -> Setup {
        Setup {
            threads: config.threads.min(config.memory_bytes / WORKER_THREAD_MEMORY).max(1),
            query_time_max: config.query_time_max,
            memory_bytes: config.memory_bytes,
            spill_directory,
            spill_bytes: config.spill_bytes,
            disk_reserve_bytes: config.disk_reserve_bytes,
            result_rows_max: config.result_rows_max,
            tail_held_bytes: config.tail_held_bytes,
            faults,
        }
    }

    /// The settings of the worker's engine, which runs one statement at a time.
    pub(super) fn config(self) -> Config {
        Config {
            threads: self.threads,
            queries_max: 1,
            query_time_max: self.query_time_max,
            memory_bytes: self.memory_bytes,
            spill_directory: self.spill_directory,
            spill_bytes: self.spill_bytes,
            disk_reserve_bytes: self.disk_reserve_bytes,
            result_rows_max: self.result_rows_max,
            tail_held_bytes: self.tail_held_bytes,
        }
    }
}
