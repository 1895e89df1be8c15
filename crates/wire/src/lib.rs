//! Kafka messages as tables: a bounded, zero-copy codec.
//!
//! This crate knows the layout of Kafka's messages in every version that Kafka 4 speaks. It is not a broker and keeps
//! no state: `floe-kafka` decides what a request means. It does not look into record batches: they stay slices of the
//! frame they came in, and leave as the slices that the log gave.
//!
//! # The flow of one request
//! 1. The connection has read a whole frame and checked its length. A [`Decoder`] (`decoder.rs`) walks over it.
//! 2. [`RequestHeader::decode`] (`header.rs`) gives the API ([`ApiKey`], `api.rs`), the version and the client.
//! 3. The message's table (`messages/*.rs`) decodes the body, one row per field (`table.rs`, `field.rs`).
//! 4. The same tables write the answer into an [`Encoder`] (`encoder.rs`). It yields the segments of one frame for a
//!    vectored write (`frame.rs`); large byte fields are spliced in, not copied.
//!
//! ```text
//! frame     = length i32 | header | body
//! request   = api key i16 | api version i16 | correlation id i32 | client id nullable string | [tagged fields] | body
//! response  = correlation id i32 | [tagged fields] | body
//! [tagged fields] only where the version is flexible; never in the response header of ApiVersions
//! ```
//!
//! # What a hostile frame can do
//! Nothing but get a [`WireError`]. The decoder compares each length or count with the bytes that remain before it
//! allocates for it. All its allocations for one frame stay below [`limits::decode_budget`].

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
