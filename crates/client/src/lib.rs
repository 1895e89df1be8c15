//! A small Kafka client: for the command line, the demo, `floe bench` and the tests.
//!
//! # What it is not
//! It speaks to one broker over one connection. It does not replace the clients of Kafka: it follows no leaders and
//! joins no groups.
//!
//! # A request, file by file
//! ```text
//! handle.rs      Client::send       encodes it into the outgoing buffer, in the newest version that both sides speak
//! dialect.rs                        versions, correlation ids
//! connection.rs  Connection::flush  writes, and reads meanwhile: two full sockets must not wait for each other
//! handle.rs      Client::receive    takes frames from the incoming buffer until the answer is there
//! calls.rs                          the calls that are made often: topics, batches, offsets
//! split.rs       Client::split      the same in two halves, for a task that sends and one that receives
//! producer.rs    Producer           an idempotent producer on top, with partitioner.rs
//! ```
//! Every method of a [`Client`] is cancel safe: bytes that are not yet written or read stay in the buffers, and an
//! answer whose caller has gone is dropped.
//!
//! # What a hostile broker can do
//! Nothing but get an error: frame lengths, answers in flight and the decoder's memory are bounded ([`limits`]).

mod calls;
mod connection;
mod dialect;
mod error;
mod handle;
pub mod limits;
mod partitioner;
mod producer;
mod split;
#[cfg(test)]
mod tests;

pub use calls::{EARLIEST, Fetched, LATEST, ListedOffset, MAX_TIMESTAMP, NAMED_VERSION_MAX, Produced, Wait};
pub use dialect::Sent;
pub use error::ClientError;
pub use handle::Client;
pub use partitioner::partition_for_key;
pub use producer::{Producer, ProducerConfig, ProducerStats};
pub use split::{Answers, Requests};
