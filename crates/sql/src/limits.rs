//! Every limit of this crate.

use std::time::Duration;

/// Bytes of a statement's text.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// Tokens of a statement. The planner walks them many times.
pub const TOKENS_MAX: usize = 32_768;
/// Depth of nested brackets.
pub const NESTING_MAX: usize = 64;
/// Weight of a statement. Operators, joins and subqueries have a weight, because they make a plan deep or large. Each
/// use of a common table expression adds the weight of its whole body. The depth of every tree that the parser and the
/// planner build stays below this number.
pub const WEIGHT_MAX: u64 = 1_000;
/// Weight of a join. The optimizer looks at each pair of joins.
pub const JOIN_WEIGHT: u64 = 8;
/// Depth of subqueries and `CASE`s inside each other. A common table expression counts where it is used. The
/// optimizer's time grows steeply with this depth, and nothing can stop the optimizer. The next three numbers say how
/// much depth each kind adds. They are measured.
pub const SUBQUERY_DEPTH_MAX: u64 = 24;
/// Depth that a subquery in the place of a table adds.
pub const TABLE_DEPTH: u64 = 1;
/// Depth that a `CASE` adds.
pub const CASE_DEPTH: u64 = 2;
/// Depth that a subquery in the place of a value adds: `in (select ...)`, `exists (...)`, `x = (select ...)`.
pub const VALUE_DEPTH: u64 = 3;
/// Weight of a call of a function whose result is much larger than its arguments (`repeat`, `range`, ...). Each call
/// may make [`FUNCTION_BYTES_MAX`], and the engine does not count that memory.
pub const GROWING_FUNCTION_WEIGHT: u64 = 64;
/// Weight of a call of a function whose arguments bound its result (`concat`, `replace`, ...).
pub const TEXT_FUNCTION_WEIGHT: u64 = 32;
/// Columns of all `CUBE`s of a statement. Each column doubles the grouping sets.
pub const CUBE_COLUMNS_MAX: usize = 10;
/// The parser's own limit on recursion. It lies above the depth that [`NESTING_MAX`] lets through, so that our error
/// comes first.
pub const PARSER_RECURSION_MAX: usize = 512;
/// Stack of a thread that plans and runs statements. It is reserved, not used. `tests/sql/bombs.rs` tries the deepest
/// statements that the limits above let through.
pub const THREAD_STACK_BYTES: usize = 128 << 20;
/// Values that one call of a function may make for one batch (`range`, `array_resize`, ...).
pub const FUNCTION_VALUES_MAX: u64 = 1 << 20;
/// Bytes that one call of a function may make for one batch (`repeat`, `lpad`, ...).
pub const FUNCTION_BYTES_MAX: u64 = 64 << 20;
/// Bytes of all large constants beside rows in a statement. A batch of 8,192 rows holds 8,192 copies of each.
pub const CONSTANTS_BYTES_MAX: usize = 64 << 10;
/// A constant up to this size is not large. The length of the text bounds the number of small constants.
pub const CONSTANT_BYTES_SMALL: usize = 1 << 10;

/// Statements that run at once.
pub const QUERIES_MAX: usize = 16;
/// Bytes of memory that all statements share for sorting, joining, grouping and decoded tails.
pub const MEMORY_BYTES_MAX: usize = 512 << 20;
/// Time of one statement, including planning and reading the result.
pub const QUERY_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of log, as stored, that the tail of one table may have.
pub const TAIL_BYTES_MAX: u64 = 256 << 20;
/// Bytes that all statements together may spill to disk.
pub const SPILL_BYTES_MAX: u64 = 8 << 30;
/// Rows of one result.
pub const RESULT_ROWS_MAX: u64 = 10_000_000;
/// Batches queued between a running statement and the reader of its result (backpressure).
pub const RESULT_BATCHES_IN_FLIGHT: usize = 2;
/// How long a statement waits for its turn before it is refused.
pub const TURN_SECONDS_MAX: Duration = Duration::from_secs(5);
/// Memory for cached Parquet footers (LRU).
pub const FOOTER_CACHE_BYTES: usize = 64 << 20;
/// Bytes that the first read takes from the end of a Parquet file. They hold most footers whole.
pub const FOOTER_HINT_BYTES: usize = 64 << 10;
/// One request reads neighbouring column chunks with gaps up to this size.
pub const READ_GAP_BYTES: u64 = 256 << 10;
/// Bytes of such a joined request. A single larger chunk is still one request.
pub const READ_BYTES_MAX: u64 = 16 << 20;
/// Requests to the store in flight per file.
pub const READS_AT_ONCE: usize = 8;
/// Columns of all tables that `information_schema` lists. A row takes 150 bytes or so.
pub const DESCRIBED_COLUMNS_MAX: usize = 500_000;
/// Characters of an error's message. A message of the engine may list every column of a wide table.
pub const MESSAGE_CHARS_MAX: usize = 600;
/// Characters of one line of a value in a printed table.
pub const CELL_CHARS_MAX: usize = 512;

const _: () = assert!(TOKENS_MAX < TEXT_BYTES_MAX);
const _: () = assert!(NESTING_MAX * 4 < PARSER_RECURSION_MAX);
const _: () = assert!(READ_GAP_BYTES < READ_BYTES_MAX);
const _: () = assert!(FOOTER_HINT_BYTES < FOOTER_CACHE_BYTES);
