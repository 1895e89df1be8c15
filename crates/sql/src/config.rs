//! The operator's settings.

use std::path::PathBuf;
use std::time::Duration;

use crate::limits::{
    MEMORY_BYTES_MAX, QUERIES_MAX, QUERY_TIME_MAX, RESULT_ROWS_MAX, SPILL_BYTES_MAX, TAIL_HELD_BYTES,
};

/// Settings of the SQL engine. The defaults of the limits come from [`crate::limits`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads that plan and run statements; by default one per core.
    pub threads: usize,
    /// Statements that run at once.
    pub queries_max: usize,
    /// Time of one statement, including planning and reading the result.
    pub query_time_max: Duration,
    /// Bytes of memory that all statements share for sorting, joining, grouping and decoded tails.
    pub memory_bytes: usize,
    /// Directory for what sorting and grouping cannot hold in memory. It is emptied when the engine starts. Without
    /// one, a statement that does not fit in memory fails.
    pub spill_directory: Option<PathBuf>,
    /// Bytes that all statements together may spill there.
    pub spill_bytes: u64,
    /// Bytes on the disk of that directory that no statement may take.
    pub disk_reserve_bytes: u64,
    /// Rows of one result.
    pub result_rows_max: u64,
    /// Bytes of log, as stored, up to which the rows of a table's tail are held in memory. They may take twice as much
    /// there. A longer tail is decoded twice, once to plan and once to run, and only a part of it is in memory.
    pub tail_held_bytes: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            queries_max: QUERIES_MAX,
            query_time_max: QUERY_TIME_MAX,
            memory_bytes: MEMORY_BYTES_MAX,
            spill_directory: None,
            spill_bytes: SPILL_BYTES_MAX,
            disk_reserve_bytes: floe_env::DISK_RESERVE_BYTES,
            result_rows_max: RESULT_ROWS_MAX,
            tail_held_bytes: TAIL_HELD_BYTES,
        }
    }
}
