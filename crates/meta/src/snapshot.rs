//! The metadata map at one LSN: an immutable pointer copy.

use std::fmt;
use std::ops::RangeBounds;

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;

use crate::journal::{Change, Lsn};
use crate::span::{Span, full_key};

use crate::error::DecodeError;
use crate::record::{MapRecord, decode_key, decode_value};

/// Pairs of full keys and values in key order.
pub(crate) type Pairs<'a> = Box<dyn DoubleEndedIterator<Item = (&'a Bytes, &'a Bytes)> + Send + 'a>;

/// The reads that a [`Snapshot`] and a [`crate::Tx`] have in common, for functions that serve both.
pub trait Lookup {
    #[doc(hidden)]
    fn raw_value(&self, key: &[u8]) -> Option<&Bytes>;
    #[doc(hidden)]
    fn raw_pairs(&self, start: Bytes, end: Bytes) -> Pairs<'_>;

    /// The record of a key; `None` if there is none.
    ///
    /// # Errors
    /// Its value cannot be read, see [`DecodeError`].
    fn get<R: MapRecord>(&self, key: &R::Key) -> Result<Option<R>, DecodeError> {
        self.raw_value(&full_key::<R>(key)).map(decode_value::<R>).transpose()
    }

    /// The records of a range of keys, in key order, from either end.
    fn range<R: MapRecord>(
        &self,
        range: impl RangeBounds<R::Key>,
    ) -> impl DoubleEndedIterator<Item = Result<(R::Key, R), DecodeError>> {
        let span = Span::of::<R>(&range);
        self.raw_pairs(span.start, span.end).map(|(key, value)| typed::<R>(key, value))
    }

    /// The records whose key begins with the bytes that `put` writes (its leading fields), in key order.
    fn prefix<R: MapRecord>(
        &self,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> impl DoubleEndedIterator<Item = Result<(R::Key, R), DecodeError>> {
        let span = Span::prefix::<R>(put);
        self.raw_pairs(span.start, span.end).map(|(key, value)| typed::<R>(key, value))
    }
}

fn typed<R: MapRecord>(key: &Bytes, value: &Bytes) -> Result<(R::Key, R), DecodeError> {
    Ok((decode_key::<R>(key)?, decode_value::<R>(value)?))
}

/// The metadata map at one LSN. It never changes. A clone is a pointer copy.
#[derive(Clone, Default)]
pub struct Snapshot {
    map: RedBlackTreeMapSync<Bytes, Bytes>,
    lsn: Lsn,
}

impl Snapshot {
    /// The map of an image, which the journal folded up to an LSN.
    pub(crate) fn of_image(image: Vec<(Bytes, Bytes)>, lsn: Lsn) -> Snapshot {
        let mut map = RedBlackTreeMapSync::new_sync();
        for (key, value) in image {
            map.insert_mut(key, value);
        }
        Snapshot { map, lsn }
    }

    /// The LSN of the last commit in this map.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.map.size()
    }

    /// Whether the map has no keys.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The record of a key; see [`Lookup::get`].
    ///
    /// # Errors
    /// Its value cannot be read.
    pub fn get<R: MapRecord>(&self, key: &R::Key) -> Result<Option<R>, DecodeError> {
        Lookup::get(self, key)
    }

    /// The records of a range of keys, in key order, from either end.
    pub fn range<R: MapRecord>(
        &self,
        range: impl RangeBounds<R::Key>,
    ) -> impl DoubleEndedIterator<Item = Result<(R::Key, R), DecodeError>> {
        let pairs = self.map.range(Span::of::<R>(&range).bounds());
        pairs.map(|(key, value)| typed::<R>(key, value))
    }

    /// The records whose key begins with the bytes that `put` writes (its leading fields), in key order.
    pub fn prefix<R: MapRecord>(
        &self,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> impl DoubleEndedIterator<Item = Result<(R::Key, R), DecodeError>> {
        let pairs = self.map.range(Span::prefix::<R>(put).bounds());
        pairs.map(|(key, value)| typed::<R>(key, value))
    }

    /// All full keys and values in key order, as an image holds them.
    pub fn pairs(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.map.iter()
    }

    /// Applies one commit to this copy of the map.
    ///
    /// # Panics
    /// It is not the next commit.
    pub fn apply(&mut self, lsn: Lsn, changes: &[Change]) {
        assert_eq!(lsn, self.lsn.next(), "commits apply in order, none left out");
        for change in changes {
            match &change.value {
                Some(value) => self.map.insert_mut(change.key.clone(), value.clone()),
                None => {
                    self.map.remove_mut(&change.key);
                }
            }
        }
        self.lsn = lsn;
    }
}

impl Lookup for Snapshot {
    fn raw_value(&self, key: &[u8]) -> Option<&Bytes> {
        self.map.get(key)
    }
    fn raw_pairs(&self, start: Bytes, end: Bytes) -> Pairs<'_> {
        Box::new(self.map.range(Span { start, end }.bounds()))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("lsn", &self.lsn).field("keys", &self.len()).finish()
    }
}
