//! What the clients of a run ask of a broker, whichever way they reach it: through the Kafka protocol on a
//! connection, or by calling the log as a view does.

use async_trait::async_trait;
use bytes::Bytes;

use super::values::Place;
use crate::history::Seen;

/// How a send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Appended, or found to be appended before: the offset of its first record.
    Appended(i64),
    /// Not appended, now or later. It may be sent again.
    NotApplied(String),
    /// Its sequence number does not follow: a batch before it is missing.
    OutOfOrder,
    /// The partition knows a newer epoch of this producer.
    Fenced,
    /// The partition does not know this producer, and its batch is not its first.
    Stranger,
    /// Not appended: this incarnation of the topic is not there.
    Gone,
    /// Refused in a way that no client tries again.
    Final(String),
    /// Nobody knows.
    Unknown(String),
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Records from the offset asked for, without gaps.
    pub records: Vec<Seen>,
    /// The next offset that will be assigned.
    pub high_watermark: i64,
    /// The first offset that is kept.
    pub log_start: i64,
}

/// A client's way to one broker. An error of any call that says nothing else means: try again, maybe elsewhere.
#[async_trait]
pub trait Front: Send {
    /// The incarnation of the broker at the other end.
    fn broker(&self) -> u32;

    /// The id of the topic that has this name now; none within if there is none.
    async fn incarnation(&mut self, topic: &str) -> Option<Option<u128>>;

    /// A new identity for an idempotent producer.
    async fn producer_id(&mut self) -> Option<(i64, i16)>;

    /// Sends every batch as a request of its own without waiting in between; answers in their order.
    async fn produce(&mut self, sends: Vec<(Place, Bytes)>) -> Vec<Sent>;

    /// Reads from an offset on; waits a moment if there is nothing yet.
    async fn fetch(&mut self, place: Place, from: i64) -> Option<Fetched>;

    /// The next offset that will be assigned.
    async fn latest(&mut self, place: Place) -> Option<i64>;
}
