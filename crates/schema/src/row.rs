//! The input of the decoder.

/// One record of a topic, as the log gives it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The partition of the record.
    pub partition: u32,
    /// The offset of the record in its partition.
    pub offset: i64,
    /// Milliseconds since the epoch. Negative if the record has no timestamp.
    pub timestamp: i64,
    /// `None` if the record has no key.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers in order, duplicates included.
    pub headers: &'a [(bytes::Bytes, Option<bytes::Bytes>)],
}
