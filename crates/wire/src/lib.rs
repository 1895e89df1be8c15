//! Kafka messages as tables: a bounded, zero-copy codec.
//!
//! This crate knows what Kafka's messages look like on the wire, in every version that Kafka 4 speaks. It is not a
//! broker and keeps no state: what a request means is decided in `floe-kafka`. It never looks into record batches
//! either; they stay slices of the frame they came in, and go out as the slices that the log handed over.
//!
//! # The flow of one request
//! 1. A frame arrives whole, its length checked by the connection; [`Decoder`] (`decoder.rs`) walks over it.
//! 2. [`RequestHeader::decode`] (`header.rs`) says which API ([`ApiKey`], `api.rs`), which version, which client.
//! 3. The message's table (`messages/*.rs`) drives the decoding, field by field, row by row (`table.rs`, `field.rs`).
//! 4. The answer is written by the same tables through a [`Encoder`] (`encoder.rs`), which yields the segments of one
//!    frame for a vectored write; large byte fields are spliced in, not copied.
//!
//! ```text
//! frame     = length i32 | header | body
//! request   = api key i16 | api version i16 | correlation id i32 | client id nullable string | [tagged fields] | body
//! response  = correlation id i32 | [tagged fields] | body
//! [tagged fields] only where the version is flexible; never in the response header of ApiVersions
//! ```
//!
//! # What a hostile frame can do
//! Be refused with a [`WireError`]. A length or count is compared with the bytes that remain before anything is
//! allocated for it, and all that one frame makes the decoder allocate stays below [`limits::decode_budget`].

mod api;
mod decoder;
mod encoder;
mod error_code;
mod fault;
mod field;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
mod header;
pub mod limits;
mod message;
mod messages;
#[cfg(test)]
mod proof;
mod rope;
#[cfg(test)]
mod sample;
mod table;
mod versions;

pub use api::{ApiKey, Request};
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use error_code::ErrorCode;
pub use fault::{Fault, WireError};
pub use header::{RequestHeader, ResponseHeader};
pub use message::Message;
pub use messages::{admin, fetch, group_offsets, groups, metadata, offsets, produce, producer, sasl};
pub use rope::Rope;
pub use versions::Versions;
