//! The input of the decoder.

/// The timestamp of a record without one (Kafka's `RecordBatch.NO_TIMESTAMP`).
pub const NO_TIMESTAMP: i64 = -1;

/// One record of a topic, as the log gives it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The partition of the record.
    pub partition: u32,
    /// The offset of the record in its partition.
    pub offset: i64,
    /// Milliseconds since the epoch, negative before it. [`NO_TIMESTAMP`] if the record has none.
    pub timestamp: i64,
    /// `None` if the record has no key.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers in order, duplicates included.
    pub headers: &'a [(bytes::Bytes, Option<bytes::Bytes>)],
}
