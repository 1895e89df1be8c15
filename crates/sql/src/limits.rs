//! Every limit of SQL.

use std::time::Duration;

/// Bytes of a statement's text.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// Tokens of a statement: what the planner walks many times over.
pub const TOKENS_MAX: usize = 32_768;
/// Depth of brackets.
pub const NESTING_MAX: usize = 64;
/// What makes a plan deep or large: operators, joins, subqueries, each use of a common table expression with
/// all that it holds. Depth of every tree that the parser and the planner build stays below this.
pub const WEIGHT_MAX: u64 = 1_000;
/// What a join weighs: the optimizer looks at each pair of them.
pub const JOIN_WEIGHT: u64 = 8;
/// Depth of subqueries and `CASE`s inside each other, common table expressions counted where they are used. The
/// optimizer's time grows steeply with it (measured: by the next three numbers), and nothing can stop it.
pub const SUBQUERY_DEPTH_MAX: u64 = 24;
/// Depth of a subquery in the place of a table.
pub const TABLE_DEPTH: u64 = 1;
/// Depth of a `CASE`.
pub const CASE_DEPTH: u64 = 2;
/// Depth of a subquery in the place of a value: `in (select ...)`, `exists (...)`, `x = (select ...)`.
pub const VALUE_DEPTH: u64 = 3;
/// What a call of a function that makes much out of little weighs (`repeat`, `range`, ...): each may make
/// [`FUNCTION_BYTES_MAX`], and what they make is not in the engine's count of memory.
pub const GROWING_FUNCTION_WEIGHT: u64 = 64;
/// The same for functions that are bounded by what they are given (`concat`, `replace`, ...).
pub const TEXT_FUNCTION_WEIGHT: u64 = 32;
/// Columns of all `CUBE`s of a statement; each one doubles the grouping sets.
pub const CUBE_COLUMNS_MAX: usize = 10;
/// The parser's own limit on recursion; above what [`NESTING_MAX`] lets through, so that ours speaks first.
pub const PARSER_RECURSION_MAX: usize = 512;
/// Stack of a thread that plans and runs statements. It is reserved, not used; measured need of the deepest
/// statement that the limits above let through: see `tests/sql/bombs.rs`.
pub const THREAD_STACK_BYTES: usize = 128 << 20;
/// Rows that one call of a function may make out of one value (`range`, `array_repeat`, ...).
pub const FUNCTION_VALUES_MAX: u64 = 1 << 20;
/// Bytes that one call of a function may make (`repeat`, `lpad`, ...).
pub const FUNCTION_BYTES_MAX: u64 = 64 << 20;
/// Bytes of all large constants of a statement that stand beside rows: a batch has 8,192 of these.
pub const CONSTANTS_BYTES_MAX: usize = 64 << 10;
/// A constant up to this size is not counted there: as many as a statement's text holds.
pub const CONSTANT_BYTES_SMALL: usize = 1 << 10;

/// Statements that run at once.
pub const QUERIES_MAX: usize = 16;
/// Bytes of memory of all statements together: sorting, joining, grouping, decoded tails.
pub const MEMORY_BYTES_MAX: usize = 512 << 20;
/// Time of one statement, planning and reading the result included.
pub const QUERY_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of log that the tail of one table may have.
pub const TAIL_BYTES_MAX: u64 = 256 << 20;
/// Bytes on disk of what does not fit in memory.
pub const SPILL_BYTES_MAX: u64 = 8 << 30;
/// Rows of one result.
pub const RESULT_ROWS_MAX: u64 = 10_000_000;
/// Batches between a running statement and whoever reads its result.
pub const RESULT_BATCHES_IN_FLIGHT: usize = 2;
/// Time that a statement waits for its turn before it is refused.
pub const TURN_SECONDS_MAX: Duration = Duration::from_secs(5);
/// Bytes of Parquet footers kept in memory.
pub const FOOTER_CACHE_BYTES: usize = 64 << 20;
/// Bytes read from the end of a Parquet file at first: the footer of most.
pub const FOOTER_HINT_BYTES: usize = 64 << 10;
/// Column chunks closer than this are read in one request.
pub const READ_GAP_BYTES: u64 = 256 << 10;
/// Bytes of one such request: neighbours are not joined beyond it.
pub const READ_BYTES_MAX: u64 = 16 << 20;
/// Requests to the store at once, per file.
pub const READS_AT_ONCE: usize = 8;
/// Characters of the line of a statement that an error shows.
pub const SNIPPET_CHARS: usize = 100;
/// Characters of an error's message: the engine's lists every column of a wide table.
pub const MESSAGE_CHARS_MAX: usize = 600;
/// Characters of one line of a value in a printed table.
pub const CELL_CHARS_MAX: usize = 512;

const _: () = assert!(TOKENS_MAX < TEXT_BYTES_MAX);
const _: () = assert!(NESTING_MAX * 4 < PARSER_RECURSION_MAX);
const _: () = assert!(READ_GAP_BYTES < READ_BYTES_MAX);
const _: () = assert!(FOOTER_HINT_BYTES < FOOTER_CACHE_BYTES);

/// What an operator may set. The defaults are the constants above.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads that plan and run statements.
    pub threads: usize,
    /// Statements that run at once.
    pub queries_max: usize,
    /// Time of one statement, planning and reading the result included.
    pub query_time_max: Duration,
    /// Bytes of memory of all statements together (sorting, joining, grouping, decoded tails).
    pub memory_bytes: usize,
    /// Directory for what does not fit in memory; `None`: such a statement fails.
    pub spill_directory: Option<std::path::PathBuf>,
    /// Bytes in that directory.
    pub spill_bytes: u64,
    /// Rows of one result.
    pub result_rows_max: u64,
    /// Bytes of log that the tail of one table may have.
    pub tail_bytes_max: u64,
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
            result_rows_max: RESULT_ROWS_MAX,
            tail_bytes_max: TAIL_BYTES_MAX,
        }
    }
}
