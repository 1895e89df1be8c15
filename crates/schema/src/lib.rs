//! Record bytes to Arrow: the schema of a table that is made from a topic, and the decoder that fills it.
//!
//! **What it is.** A pure library. [`TableSchema`] is a tree of columns with ids that are never reused
//! (an Iceberg table resolves columns by id). [`Decoder`] takes records one by one, widens the schema when a
//! value does not fit, and gives one Arrow [`RecordBatch`](arrow::record_batch::RecordBatch). [`TableSchema::adapt`]
//! brings a batch that was written under an older schema to the current one.
//!
//! **What it is not.** It reads no log, writes no file, knows no Iceberg and no registry; it has no clock.
//!
//! **The way of one record**: [`decode`] `Decoder::push` → `stream` (one pass with serde over the JSON text,
//! straight into the columns of `column`) → when a value does not fit: the row is taken back, the record is
//! parsed to a tree, `widen` changes the schema, `column` changes what is held already, and `value` appends
//! the tree → [`Decoder::finish`]. `cells` counts on the way what the batch takes in memory.
//!
//! # From JSON to columns
//!
//! | JSON | column |
//! |---|---|
//! | `true`, `false` | boolean |
//! | whole number within 32 / 64 bits | int / long |
//! | number with a fraction or an exponent, whole number beyond 64 bits (unsigned) | double |
//! | string in RFC 3339 with an offset and at most six decimals | timestamptz, microseconds |
//! | any other string | string |
//! | object | struct of its members |
//! | array | list |
//! | `null`, and arrays and objects that hold nothing else | no value; no column until a value comes |
//!
//! **Widening** never loses a value, in whatever order they arrive:
//! - a new member of an object is a new column;
//! - int becomes long in place (same column id, which Iceberg allows);
//! - int or long becomes double as a *new* column (new id) of the same name, since Iceberg has no such promotion:
//!   the old column is dropped, and [`TableSchema::replaced`] tells the lake to rewrite the files that hold it;
//! - everything else goes, as JSON text, to a string column of its own beside the first: `<name>_json`. So do whole
//!   numbers of 64 bits that the column cannot hold exactly: from 2^63 on in a long column, beyond 2^53 in a double
//!   column. An array whose elements do not all fit the list goes there whole.
//!
//! **Names.** A column is named by its key. `.` and control characters become `_` (Iceberg joins names by dots), the
//! empty key becomes `empty`. A name that is taken (case-insensitively: SQL engines fold) or reserved gets the
//! first free of `_2`, `_3`, … appended. Reserved at the top are the system columns and the names of Iceberg's own
//! metadata columns, which make Spark and Trino refuse the table ([`names::RESERVED`]).
//!
//! **Duplicate keys** in one object: the last wins, as in every JSON library. Numbers with a fraction, and whole
//! numbers that 64 bits cannot hold, are the nearest IEEE double, as in JavaScript. `1e400` is no JSON number that
//! can be held: a bad record.
//!
//! # System columns
//! First in every table: `_partition_id int`, `_offset long`, `_timestamp timestamptz`, and in JSON tables
//! `_key string`; keys that are not UTF-8 go to `_key_bytes binary`, which exists once one was seen. A record without a
//! value (a tombstone) is a row of system columns only, so a table counts what its topic counts.
//! Raw tables have `key binary`, `value binary` and `headers list<struct<key string, value binary>>` instead.

mod adapt;
mod cells;
mod column;
mod decode;
mod fit;
pub mod limits;
pub mod names;
mod raw;
mod row;
pub mod schema;
mod stream;
pub mod timestamp;
mod tree;
mod value;
mod widen;
mod width;

pub use crate::{
    adapt::AdaptError,
    decode::{BadRecord, Decoder, Refused},
    row::Row,
    schema::{Column, ColumnType, Kind, TableSchema},
};

#[cfg(test)]
mod tests;
