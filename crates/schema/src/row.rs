//! What the decoder takes in.

/// One record of a topic, as the log gives it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The partition it is in.
    pub partition: u32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since the epoch; negative when the record has none.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order, duplicates included.
    pub headers: &'a [(bytes::Bytes, Option<bytes::Bytes>)],
}
