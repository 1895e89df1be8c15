//! A command's view of the map: an overlay over a snapshot, pure and without I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeBounds;

use bytes::Bytes;

use crate::counter::{Counter, CounterKey};
use crate::journal::{Change, Envelope, Lsn};
use crate::span::{Span, full_key};

use crate::error::DecodeError;
use crate::limits::KEY_BYTES_MAX;
use crate::record::{MapRecord, encode_value};
use crate::snapshot::{Lookup, Pairs, Snapshot};
use floe_env::Timestamp;

/// One command's view of the map: the committed records, the writes of earlier commands of its group, and its own
/// writes. It becomes one commit, as a whole or not at all.
pub struct Tx<'a> {
    base: &'a Snapshot,
    writes: BTreeMap<Bytes, Option<Bytes>>,
    envelope: &'a Envelope,
}

impl<'a> Tx<'a> {
    /// A command over `base`. Tests of pure commands use it without a journal.
    pub fn new(base: &'a Snapshot, envelope: &'a Envelope) -> Tx<'a> {
        Tx { base, writes: BTreeMap::new(), envelope }
    }

    /// The LSN that this commit will have.
    pub fn lsn(&self) -> Lsn {
        self.base.lsn().next()
    }

    /// The time in the commit's envelope. It never goes back from one commit to the next. It stands still after
    /// somebody put a clock right that was ahead, so nothing must wait for it to pass.
    pub fn now(&self) -> Timestamp {
        self.envelope.time
    }

    /// Who commits, and why.
    pub fn envelope(&self) -> &Envelope {
        self.envelope
    }

    /// The record of a key, including this command's writes; see [`Lookup::get`].
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
        Lookup::range(self, range)
    }

    /// The records whose key begins with the bytes that `put` writes (its leading fields), in key order.
    pub fn prefix<R: MapRecord>(
        &self,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> impl DoubleEndedIterator<Item = Result<(R::Key, R), DecodeError>> {
        Lookup::prefix(self, put)
    }

    /// Writes the record of a key.
    ///
    /// # Panics
    /// The key is longer than [`KEY_BYTES_MAX`]. Callers must bound names from outside first.
    pub fn put<R: MapRecord>(&mut self, key: &R::Key, record: &R) {
        let key = full_key::<R>(key);
        assert!(key.len() <= KEY_BYTES_MAX, "names are bounded before they become keys");
        self.writes.insert(exact(key), Some(exact(encode_value(record))));
    }

    /// Removes the record of a key. A missing record is not an error.
    pub fn delete<R: MapRecord>(&mut self, key: &R::Key) {
        self.writes.insert(exact(full_key::<R>(key)), None);
    }

    /// The next number of a counter; the first is 1. No number is assigned twice.
    ///
    /// # Errors
    /// The counter's value cannot be read.
    pub fn next_counter(&mut self, key: &CounterKey) -> Result<u64, DecodeError> {
        self.take_counter(key, 1)
    }

    /// Takes `count` consecutive numbers of a counter and returns the first.
    ///
    /// # Errors
    /// The counter's value cannot be read.
    pub fn take_counter(&mut self, key: &CounterKey, count: u64) -> Result<u64, DecodeError> {
        let Counter(last) = self.get(key)?.unwrap_or_default();
        let next = last.checked_add(count).expect("a counter of 64 bits does not run out");
        self.put(key, &Counter(next));
        Ok(last + 1)
    }

    /// The changes of this command: its writes that differ from the base, in key order.
    pub fn into_changes(self) -> Vec<Change> {
        let base = self.base;
        let differs = |(key, value): &(Bytes, Option<Bytes>)| base.raw_value(key) != value.as_ref();
        let changes = self.writes.into_iter().filter(differs);
        changes.map(|(key, value)| Change { key, value }).collect()
    }
}

/// Bytes without spare capacity, because keys and values live as long as the map.
fn exact(mut bytes: Vec<u8>) -> Bytes {
    bytes.shrink_to_fit();
    Bytes::from(bytes)
}

impl Lookup for Tx<'_> {
    fn raw_value(&self, key: &[u8]) -> Option<&Bytes> {
        match self.writes.get(key) {
            Some(written) => written.as_ref(),
            None => self.base.raw_value(key),
        }
    }

    fn raw_pairs(&self, start: Bytes, end: Bytes) -> Pairs<'_> {
        let written = self.writes.range(Span { start: start.clone(), end: end.clone() }.bounds());
        let base = self.base.raw_pairs(start, end);
        if written.clone().next().is_none() {
            return base;
        }
        Box::new(Merged { base, written, base_ends: (None, None), written_ends: (None, None) })
    }
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("lsn", &self.lsn()).field("writes", &self.writes.len()).finish()
    }
}

type Pair<'a> = (&'a Bytes, &'a Bytes);
type Write<'a> = (&'a Bytes, &'a Option<Bytes>);

/// Committed pairs overlaid by written ones, in key order, from both ends. Each side keeps the pairs that were
/// looked at but not yet returned, one per end.
struct Merged<'a, W> {
    base: Pairs<'a>,
    written: W,
    base_ends: (Option<Pair<'a>>, Option<Pair<'a>>),
    written_ends: (Option<Write<'a>>, Option<Write<'a>>),
}

impl<'a, W: DoubleEndedIterator<Item = Write<'a>>> Iterator for Merged<'a, W> {
    type Item = Pair<'a>;
    fn next(&mut self) -> Option<Pair<'a>> {
        loop {
            let (front, back) = &mut self.base_ends;
            *front = front.take().or_else(|| self.base.next()).or_else(|| back.take());
            let (written_front, written_back) = &mut self.written_ends;
            *written_front =
                written_front.take().or_else(|| self.written.next()).or_else(|| written_back.take());
            match (*front, *written_front) {
                (Some(pair), None) => {
                    *front = None;
                    return Some(pair);
                }
                (Some(pair), Some(write)) if pair.0 < write.0 => {
                    *front = None;
                    return Some(pair);
                }
                (pair, Some(write)) => {
                    *written_front = None;
                    if pair.is_some_and(|pair| pair.0 == write.0) {
                        *front = None;
                    }
                    if let (key, Some(value)) = write {
                        return Some((key, value));
                    }
                }
                (None, None) => return None,
            }
        }
    }
}

impl<'a, W: DoubleEndedIterator<Item = Write<'a>>> DoubleEndedIterator for Merged<'a, W> {
    fn next_back(&mut self) -> Option<Pair<'a>> {
        loop {
            let (front, back) = &mut self.base_ends;
            *back = back.take().or_else(|| self.base.next_back()).or_else(|| front.take());
            let (written_front, written_back) = &mut self.written_ends;
            *written_back =
                written_back.take().or_else(|| self.written.next_back()).or_else(|| written_front.take());
            match (*back, *written_back) {
                (Some(pair), None) => {
                    *back = None;
                    return Some(pair);
                }
                (Some(pair), Some(write)) if pair.0 > write.0 => {
                    *back = None;
                    return Some(pair);
                }
                (pair, Some(write)) => {
                    *written_back = None;
                    if pair.is_some_and(|pair| pair.0 == write.0) {
                        *back = None;
                    }
                    if let (key, Some(value)) = write {
                        return Some((key, value));
                    }
                }
                (None, None) => return None,
            }
        }
    }
}
