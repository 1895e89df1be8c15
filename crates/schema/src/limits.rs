//! Every limit of this crate. A record beyond one of them is a bad record, and its reason names the limit.

/// Columns of one table, including nested columns and list elements. Without the limit, a topic whose objects use
/// values as keys would grow its schema for ever.
pub const COLUMNS_MAX: usize = 2_000;

/// Depth of objects that become structs. Deeper objects are kept as JSON text.
pub const DEPTH_MAX: usize = 16;

/// Depth at which a parsed value is kept as the text that it came as. The parser's own limit is 128
/// (`serde_json::de::Deserializer`), and the structs and lists around the value count there too.
pub const TREE_DEPTH_MAX: usize = 96;

/// Bytes of a JSON key that becomes a column.
pub const NAME_BYTES_MAX: usize = 256;

/// Bytes of one record's value that is read as JSON.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Bytes of input in one record batch. Far below the 2 GiB that 32-bit string offsets can address, because escaped text
/// may grow sixfold.
pub const BATCH_BYTES_MAX: usize = 256 << 20;

/// Cells of one batch: rows times columns, and for lists elements times the columns of an element. Each cell takes up
/// to 8 bytes, even where a record said nothing. A record whose lists alone need more is a bad record.
pub const CELLS_MAX: usize = 16 << 20;

const _: () = assert!(COLUMNS_MAX < CELLS_MAX);
// A struct or a list below the last level of structs is parsed as a value of its own.
const _: () = assert!(DEPTH_MAX < TREE_DEPTH_MAX && DEPTH_MAX + TREE_DEPTH_MAX + 4 < 128);
const _: () = assert!(RECORD_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX + RECORD_BYTES_MAX < (i32::MAX as usize) / 6);
