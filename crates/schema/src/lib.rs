//! Record bytes to Arrow: the schema of a topic's table, and the decoder that fills it.
//!
//! **What it is.** A pure library. [`TableSchema`] is a tree of columns with ids that are never reused (an Iceberg
//! table resolves columns by id). [`Decoder`] takes records one by one, widens the schema when a value does not fit,
//! and returns one Arrow [`RecordBatch`](arrow::record_batch::RecordBatch). [`TableSchema::adapt`] brings a batch of an
//! older schema to the current one.
//!
//! **What it is not.** It reads no log and writes no file. It knows neither Iceberg nor a schema registry. It has no
//! clock.
//!
//! # Files, in the order of one record
//! ```text
//! row.rs         Row             the input: one record of a topic
//! decode.rs      Decoder         push a record, finish a batch
//! stream.rs                      the fast way: one pass of serde over the JSON text, straight into the columns
//! column.rs                      columns while they are being filled; a row can be taken back
//! tree.rs                        the slow way, for a value that does not fit: the record as a tree ...
//! widen.rs                       ... widens the schema ...
//! value.rs                       ... and is appended to the widened columns
//! raw.rs                         raw tables: key, value and headers as they are
//! table.rs       TableSchema     the schema: a tree of slots, and its columns
//! narrow.rs      without         a schema without the columns of some keys
//! fit.rs                         the values that a type holds without loss
//! timestamp.rs   parse           RFC 3339 to microseconds
//! text.rs                        JSON text without a parser: `-0`, blanks
//! names.rs       RESERVED        column names: of the system, reserved, made from keys
//! cells.rs, width.rs             the number of values in a batch, counted before they take memory
//! adapt.rs       adapt           old batches in the current schema
//! limits.rs                      every limit of this crate
//! ```
//!
//! # From JSON to columns
//!
//! | JSON | column |
//! |---|---|
//! | `true`, `false` | boolean |
//! | whole number within 32 / 64 bits | int / long |
//! | number with a fraction or an exponent, whole number beyond 64 bits (unsigned) | double |
//! | string in RFC 3339 with an offset and at most six decimals, years 1 to 9999 | timestamptz, microseconds |
//! | any other string | string |
//! | object | struct of its members |
//! | array | list |
//! | `null`, and arrays and objects that hold nothing else | null; no column until another value comes |
//!
//! **Widening** never loses a value, in whatever order values arrive:
//! - A new member of an object is a new column.
//! - Int becomes long in place. The column id stays the same, which Iceberg allows.
//! - Int or long becomes double as a *new* column (new id) of the same name, because Iceberg has no such promotion. The
//!   old column is dropped, and [`TableSchema::replaced`] tells the lake to rewrite the files that have it.
//! - Every other value goes, as JSON text, to a string column beside the first: `<name>_json`. So do whole numbers of
//!   64 bits that the column cannot hold exactly: from 2^63 on in a long column, beyond 2^53 in a double column. An
//!   array goes there whole if one of its elements does not fit the list.
//!
//! **Names.** A column has the name of its key. `.` and control characters become `_` (Iceberg joins names by dots),
//! and the empty key becomes `empty`. A reserved or taken name gets the first free suffix of `_2`, `_3`, …. Names are
//! compared without regard to case, because SQL engines fold it: by lower case, and by upper case first as Java does,
//! for which `ı` and `i` are one letter. At the top level, the names of the system columns and of Iceberg's metadata
//! columns are reserved ([`names::RESERVED`]): Spark and Trino refuse a table that has one of the latter.
//!
//! **Duplicate keys** in one object: the last wins, as in every JSON library.
//!
//! **Depth.** Objects become structs down to [`limits::DEPTH_MAX`]. Below that they are text, however deep they are
//! ([`limits::TREE_DEPTH_MAX`]).
//!
//! **A byte order mark** before the value is skipped. `-0` is the whole number 0, and `-0.0` is a double.
//!
//! **Inexact numbers**: numbers with a fraction, and whole numbers beyond 64 bits, become the nearest IEEE double, as
//! in JavaScript. No double can hold `1e400`, so its record is a bad record.
//!
//! # System columns
//! Every table begins with `_partition_id int`, `_offset long`, `_timestamp timestamptz`. A record without a timestamp
//! has a null there, and a record whose timestamp is outside the years 1 to 9999 is a bad record. JSON tables then have
//! `_key string`. Keys that are not UTF-8 go to `_key_bytes binary`, which exists once such a key was seen. A record
//! without a value (a tombstone) is a row of system columns only, so a table counts what its topic counts. Raw tables
//! have `key binary`, `value binary` and `headers list<struct<key string, value binary>>` instead of `_key`.

mod adapt;
mod cells;
mod column;
mod decode;
mod fit;
pub mod limits;
pub mod names;
mod narrow;
mod raw;
mod row;
mod stream;
mod table;
mod text;
pub mod timestamp;
mod tree;
mod value;
mod widen;
mod width;

pub use crate::{
    adapt::AdaptError,
    decode::{BadRecord, Decoder, Refused},
    narrow::matches,
    row::{NO_TIMESTAMP, Row},
    table::{Column, ColumnType, FIELD_ID, Kind, OFFSET_ID, TableSchema},
};

#[cfg(test)]
mod tests;
