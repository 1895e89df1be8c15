//! The calls of a run's clients to a broker. They go through the Kafka protocol on a connection, or straight to the
//! log, as those of a view do.

use async_trait::async_trait;
use bytes::Bytes;

use super::values::Place;
use crate::history::Seen;

/// How a send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Appended now or before, with the offset of the first record.
    Appended(i64),
    /// Not appended, and it never will be. The client may send it again.
    NotApplied(String),
    /// The sequence number does not follow: an earlier batch is missing.
    OutOfOrder,
    /// The partition knows a newer epoch of this producer.
    Fenced,
    /// Not appended: this incarnation of the topic does not exist.
    Gone,
    /// Refused in a way that no client retries.
    Final(String),
    /// Unknown: nobody knows whether it was or will be appended.
    Unknown(String),
}

/// The result of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Records and markers from the requested offset on, without gaps.
    pub records: Vec<Seen>,
    /// The offset where the reader goes on.
    pub next: i64,
    /// The next offset to assign.
    pub high_watermark: i64,
    /// The first offset that is kept.
    pub log_start: i64,
}

/// A client's way to one broker. After an error without details, the client tries again, maybe at another broker.
#[async_trait]
pub trait Front: Send {
    /// The incarnation of the broker at the other end.
    fn broker(&self) -> u32;

    /// The id of the topic that has this name now. The inner option is none if no topic has it.
    async fn incarnation(&mut self, topic: &str) -> Option<Option<u128>>;

    /// A new identity for an idempotent producer.
    async fn producer_id(&mut self) -> Option<(i64, i16)>;

    /// Sends every batch as a request of its own, without waiting in between. The answers have the order of the
    /// batches.
    async fn produce(&mut self, sends: Vec<(Place, Bytes)>) -> Vec<Sent>;

    /// Reads from an offset on. Waits a moment if there is nothing yet.
    async fn fetch(&mut self, place: Place, from: i64) -> Option<Fetched>;

    /// The next offset to assign.
    async fn latest(&mut self, place: Place) -> Option<i64>;

    /// The first offset that is kept.
    async fn earliest(&mut self, place: Place) -> Option<i64>;
}
