//! Every limit of this crate, and of the engine below it.

use std::time::Duration;

pub use floe_engine::limits::*;

/// Bytes of a statement's text.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// Tokens of a statement. The planner walks them many times.
pub const TOKENS_MAX: usize = 32_768;
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
/// Columns of all `CUBE`s of a statement. Each column doubles the grouping sets.
pub const CUBE_COLUMNS_MAX: usize = 10;
/// The parser's own limit on recursion. It lies above the depth that [`NESTING_MAX`] lets through, so that our error
/// comes first.
pub const PARSER_RECURSION_MAX: usize = 512;
/// Stack of a thread that plans and runs statements. It is reserved, not used. `tests/sql/bombs.rs` tries the deepest
/// statements that the limits above let through.
pub const THREAD_STACK_BYTES: usize = 128 << 20;
/// Centroids of `approx_percentile_cont`. The engine allocates room for all of them for each group.
pub const CENTROIDS_MAX: u64 = 10_000;
/// Bytes of all large constants beside rows in a statement. A batch of 8,192 rows holds 8,192 copies of each.
pub const CONSTANTS_BYTES_MAX: usize = 64 << 10;
/// Rows of a batch.
pub const BATCH_ROWS_MAX: usize = 8_192;
/// Memory of all statements for each row of a batch. A plan holds dozens of batches, however wide their rows are.
pub const BATCH_ROW_MEMORY: usize = 128 << 10;
/// A batch of wide rows has about this part of the memory of all statements. One that has twice as much makes its
/// statement begin again with fewer rows in each, if it has handed on none.
pub const BATCH_MEMORY_SHARE: usize = 512;
/// How often a statement starts, at most. Some rows may be much wider than most.
pub const STARTS_MAX: usize = 3;
/// Bytes of a batch's constants, and of the numbers that its expressions make. Batches of statements with many of them
/// have fewer rows.
pub const BATCH_VALUES_BYTES: usize = 32 << 20;
/// A constant up to this size is not large. Batches with many small ones have fewer rows.
pub const CONSTANT_BYTES_SMALL: usize = 1 << 10;

/// Whether statements run in the process of the broker.
pub const IN_PROCESS: bool = false;
/// Statements that run at once.
pub const QUERIES_MAX: usize = 16;
/// Bytes of memory that all statements share for sorting, joining, grouping and decoded tails.
pub const MEMORY_BYTES_MAX: usize = 512 << 20;
/// Time of one statement, including planning and reading the result.
pub const QUERY_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of log, as stored, up to which the rows of a table's tail are held in memory. They may take twice as much
/// there. So sixteen statements hold at most twice [`MEMORY_BYTES_MAX`] of tails, and those that find it taken stream.
pub const TAIL_HELD_BYTES: u64 = 32 << 20;
/// Memory for the schemas of long tails (LRU).
pub const TAIL_SCHEMAS_BYTES: usize = 8 << 20;
/// Memory for one column of such a schema.
pub const TAIL_COLUMN_BYTES: usize = 256;
/// Memory for one partition of such a tail.
pub const TAIL_PARTITION_BYTES: usize = 64;
/// Bytes that all statements together may spill to disk.
pub const SPILL_BYTES_MAX: u64 = 8 << 30;
/// Bytes that each sort keeps for merging what it has spilled, if the memory is large enough.
pub const SORT_MERGE_BYTES: usize = 4 << 20;
/// Memory of all statements for each thread of a worker. Every thread sorts and groups for itself.
pub const WORKER_THREAD_MEMORY: usize = 64 << 20;
/// Memory of all statements for each run that a sort merges at once. The buffers of its file take half a MiB, however
/// wide its rows are, and several sorts may merge.
pub const RUN_MEMORY: usize = 16 << 20;
/// Rows of one result.
pub const RESULT_ROWS_MAX: u64 = 10_000_000;
/// Batches queued between a running statement and the reader of its result (backpressure).
pub const RESULT_BATCHES_IN_FLIGHT: usize = 2;
/// How long a statement waits for a reader that does not read. Then it ends, and others get its turn.
pub const READER_SECONDS_MAX: Duration = Duration::from_secs(10);
/// Bytes of rows that are encoded at a time, if a row does not take more.
pub const RESULT_PIECE_BYTES: usize = 1 << 20;
/// Bytes of one row of an encoded result, before any character of it is escaped.
pub const RESULT_ROW_BYTES_MAX: usize = 64 << 20;
/// How much longer a text may get in JSON: a control character becomes six characters.
pub const ESCAPE_FACTOR: usize = 6;
/// How long a statement waits for its turn before it is refused.
pub const TURN_SECONDS_MAX: Duration = Duration::from_secs(5);
/// Memory for cached Parquet footers (LRU).
pub const FOOTER_CACHE_BYTES: usize = 64 << 20;
/// They take at most this part of the memory of all statements.
pub const FOOTER_CACHE_SHARE: usize = 8;
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

/// Bytes of the head of a frame between broker and worker. The longest have a statement, or a line of one.
pub const WORKER_HEAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of the payload of a frame. What is longer takes several.
pub const WORKER_PAYLOAD_BYTES: usize = 256 << 10;
/// Frames that wait for a worker, and frames that wait for the broker, of each worker.
pub const WORKER_FRAMES: usize = 4;
/// Bytes of files and of the log that the broker has read for all workers and not handed over yet.
pub const WORKER_READS_BYTES: usize = 64 << 20;
/// Bytes of a file that a worker asks for at a time.
pub const WORKER_READ_BYTES: u64 = 4 << 20;
/// Such pieces of one range that it asks for at once.
pub const WORKER_READS_AT_ONCE: usize = 2;
/// Questions of a statement that the broker answers at once. The others wait in the worker.
pub const WORKER_CALLS_MAX: usize = 32;
/// Counters and values of histograms that a statement brings back.
pub const WORKER_COUNTED_MAX: usize = 256;
/// Bytes of a line that a worker says on its standard error.
pub const WORKER_LINE_BYTES: usize = 2 << 10;
/// Lines of a worker that the log has in each [`WORKER_LINES_PERIOD`].
pub const WORKER_LINES_LOGGED: u32 = 20;
/// See [`WORKER_LINES_LOGGED`].
pub const WORKER_LINES_PERIOD: Duration = Duration::from_secs(10);
/// Lines that the log repeats when a worker has died.
pub const WORKER_LAST_LINES: usize = 5;
/// Bytes of `/proc/PID/statm`: seven numbers.
pub const WORKER_STATM_BYTES: usize = 256;
/// How often the broker looks at the memory of its workers while statements run. A process takes a few gigabytes a
/// second at most, so it grows by some megabytes between two looks.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(2);
/// How often it looks while all of them together have less than a quarter of what they may have.
pub const WATCH_INTERVAL_IDLE: Duration = Duration::from_millis(5);
/// How long statements stand still for the memory of a worker that was killed, at most.
pub const ENDING_PATIENCE: Duration = Duration::from_secs(2);
/// Statements that have less than all may have, divided by this, never stand still.
pub const SMALL_SHARE: u64 = 32;
/// Statements run one after the other when they have more than this part of what all may have, until it is a half.
pub const SCARCE: (u64, u64) = (5, 8);
/// How long a statement runs alone before the next one has its turn.
pub const TURN_ALONE: Duration = Duration::from_secs(2);
/// A worker ends by itself when it has more than all memory of statements by 1 / this: it should have been killed.
pub const OWN_WATCH_SHARE: u64 = 8;
/// Time after the deadline in which a worker ends its statement itself. Then it is killed.
pub const WORKER_LATE_GRACE: Duration = Duration::from_millis(500);
/// Time in which a worker ends a statement whose reader has left. Then it is killed.
pub const WORKER_LEAVE_GRACE: Duration = Duration::from_secs(1);
/// Time in which a worker starts.
pub const WORKER_START_SECONDS_MAX: Duration = Duration::from_secs(20);
/// Statements that a worker runs one after the other. Then another one takes its place, so that nothing grows for ever.
pub const WORKER_STATEMENTS_MAX: u32 = 1_000;
/// Memory that an idle worker may keep beside what it had at its start: its cache of footers. One that has more ends.
/// It may have at most a quarter of the memory of all statements.
pub const WORKER_KEPT_BYTES_MAX: u64 = 96 << 20;
/// A worker that was idle so long ends, except the last one.
pub const WORKER_IDLE_SECONDS: Duration = Duration::from_secs(60);
/// How often the broker looks at its idle workers.
pub const WORKER_TEND_INTERVAL: Duration = Duration::from_secs(1);
/// Memory that a worker with the whole memory for itself has before its operators spill is all of it divided by this:
/// the engine counts about half of what it takes.
pub const SPILL_SHARE: u64 = 2;
/// Of the disk for spilling, a statement that begins gets what is left divided by this.
pub const SPILL_FIRST_SHARE: u64 = 8;
/// But this at least, unless it is more than half of what is left.
pub const SPILL_FIRST_BYTES: u64 = 256 << 20;
/// A statement that needs more gets half of what is left, and all of it divided by this at least, if that is there.
pub const SPILL_GRANT_SHARE: u64 = 64;
/// How often a worker looks whether its statement needs more.
pub const SPILL_LOOK_INTERVAL: Duration = Duration::from_millis(10);

const _: () = assert!(TOKENS_MAX < TEXT_BYTES_MAX);
const _: () = assert!(2 * TEXT_BYTES_MAX < WORKER_HEAD_BYTES_MAX);
const _: () = assert!(WORKER_READ_BYTES < WORKER_READS_BYTES as u64);
const _: () = assert!(TURN_SECONDS_MAX.as_secs() < READER_SECONDS_MAX.as_secs());
const _: () = assert!(RESULT_PIECE_BYTES < RESULT_ROW_BYTES_MAX);
const _: () = assert!(FUNCTION_RESULT_BYTES_MAX < i32::MAX as usize);
const _: () = assert!(NESTING_MAX * 4 < PARSER_RECURSION_MAX);
const _: () = assert!(READ_GAP_BYTES < READ_BYTES_MAX);
const _: () = assert!(FOOTER_HINT_BYTES < FOOTER_CACHE_BYTES);

/// Memory for rows of the history of commits beside the object that they are in.
pub const HISTORY_BATCH_BYTES: usize = 8 << 20;
