//! The bytes of an object, a piece at a time.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use floe_store::{Store, StoreError};
use futures::future::BoxFuture;

use crate::limits::CHECK_READ_BYTES;

/// Where the bytes of objects come from.
pub trait Source: Sync {
    /// A range of an object. The result is as long as the range.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn read<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>>;
}

impl Source for Arc<dyn Store> {
    fn read<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        self.get(key, Some(range))
    }
}

/// Reads an object, mostly from its start to its end.
pub(super) struct Reading<'r> {
    source: &'r dyn Source,
    key: String,
    pub(super) size: u64,
    /// What was read last, and where it begins in the object.
    held: Bytes,
    begin: u64,
    read: &'r (dyn Fn(u64) + Sync),
}

impl<'r> Reading<'r> {
    pub(super) fn new(
        source: &'r dyn Source,
        key: String,
        size: u64,
        read: &'r (dyn Fn(u64) + Sync),
    ) -> Reading<'r> {
        Reading { source, key, size, held: Bytes::new(), begin: 0, read }
    }

    /// A range of the object, of which the next ones begin there or behind it.
    ///
    /// # Errors
    /// The object is shorter, or cannot be read.
    pub(super) async fn next(&mut self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let held = self.begin..self.begin + self.held.len() as u64;
        if range.start < held.start || range.end > held.end {
            // What is held of the range is not read again.
            let is_held = held.contains(&range.start);
            let from = if is_held { held.end } else { range.start };
            let until = range.end.max(range.start.saturating_add(CHECK_READ_BYTES)).min(self.size);
            let more = self.get(from..until.max(range.end)).await?;
            let mut all = BytesMut::new();
            if is_held {
                all.extend_from_slice(&self.held[(range.start - held.start) as usize..]);
            }
            self.held = match all.is_empty() {
                true => more,
                false => {
                    all.extend_from_slice(&more);
                    all.freeze()
                }
            };
            self.begin = range.start;
        }
        let at = (range.start - self.begin) as usize;
        Ok(self.held.slice(at..at + (range.end - range.start) as usize))
    }

    /// A range beside the others, which is not held.
    ///
    /// # Errors
    /// As [`Reading::next`].
    pub(super) async fn apart(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.get(range).await
    }

    async fn get(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.end > self.size {
            return Err(StoreError::Corrupt(format!("{} ends before byte {}", self.key, range.end)));
        }
        let wanted = range.end - range.start;
        let bytes = self.source.read(&self.key, range).await?;
        if bytes.len() as u64 != wanted {
            let have = bytes.len();
            return Err(StoreError::Corrupt(format!("{}: {have} of {wanted} bytes are there", self.key)));
        }
        (self.read)(wanted);
        Ok(bytes)
    }
}
