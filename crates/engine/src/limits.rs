//! Every limit of this crate.

/// Depth of nested brackets.
pub const NESTING_MAX: usize = 64;
/// Weight of a call of a function whose result is much larger than its arguments (`repeat`, `range`, ...). Planning
/// runs a few of them over constants before the statement has a meter, and each may make [`FUNCTION_BYTES_MAX`].
pub const GROWING_FUNCTION_WEIGHT: u64 = 64;
/// Weight of a call of a function whose arguments bound its result (`concat`, `replace`, ...).
pub const TEXT_FUNCTION_WEIGHT: u64 = 32;
/// Values that one call of a function may make for one row (`range`, `array_resize`, ...).
pub const FUNCTION_VALUES_MAX: u64 = 1 << 20;
/// Bytes that one call of a function may make for one row (`repeat`, `lpad`, ...).
pub const FUNCTION_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the result of one call for a batch. Offsets of text and of lists have 32 bits.
pub const FUNCTION_RESULT_BYTES_MAX: usize = 1 << 30;
/// Bytes that a function makes at a time, if a row does not make more. Its rows are counted between two such slices.
pub const FUNCTION_SLICE_BYTES: usize = 4 << 20;
/// Steps that a function takes at a time, if a row does not take more. A statement ends at its deadline between two
/// such slices. A step looks at a character or compares two; it takes about a nanosecond.
pub const FUNCTION_SLICE_STEPS: u64 = 1 << 28;
/// Steps of one row of a function that compares everything with everything (`levenshtein`, a pattern with counts, ...).
pub const FUNCTION_STEPS_MAX: u64 = 1 << 31;
/// States of a pattern, at most: its compiled form is bounded.
pub const PATTERN_STATES_MAX: u128 = 1 << 18;
/// Rows of a batch that are not too many, however wide they are.
pub const BATCH_ROWS_MIN: usize = 16;
/// Bytes of every value of a type of fixed width. A NULL takes them, too.
pub const FIXED_WIDTH_MAX: usize = 64 << 10;
