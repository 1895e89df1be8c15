//! Full keys, with the kind byte, and ranges of them.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

use crate::key::Key;
use crate::record::MapRecord;

/// The full key of a record: kind and body.
pub(crate) fn full_key<R: MapRecord>(key: &R::Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.push(R::KIND);
    key.encode(&mut out);
    out
}

/// A half-open range of full keys; its ends are never inverted.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) start: Bytes,
    pub(crate) end: Bytes,
}

impl Span {
    /// The keys of one kind within a range of its typed keys.
    pub(crate) fn of<R: MapRecord>(range: &impl RangeBounds<R::Key>) -> Span {
        let start = match range.start_bound() {
            Bound::Unbounded => vec![R::KIND],
            Bound::Included(key) => full_key::<R>(key),
            Bound::Excluded(key) => just_after(full_key::<R>(key)),
        };
        let end = match range.end_bound() {
            Bound::Unbounded => after_kind::<R>(),
            Bound::Included(key) => just_after(full_key::<R>(key)),
            Bound::Excluded(key) => full_key::<R>(key),
        };
        Span::between(start, end)
    }

    /// The keys of one kind whose body begins with the bytes that `put` writes.
    pub(crate) fn prefix<R: MapRecord>(put: impl FnOnce(&mut Vec<u8>)) -> Span {
        let mut start = vec![R::KIND];
        put(&mut start);
        let mut end = start.clone();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        let last = end.last_mut().expect("the kind byte is below 0xff");
        *last += 1;
        Span::between(start, end)
    }

    fn between(start: Vec<u8>, end: Vec<u8>) -> Span {
        let end = end.max(start.clone());
        Span { start: start.into(), end: end.into() }
    }

    pub(crate) fn bounds(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        (Bound::Included(self.start.clone()), Bound::Excluded(self.end.clone()))
    }
}

/// The smallest byte string greater than `key`.
fn just_after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

fn after_kind<R: MapRecord>() -> Vec<u8> {
    const { assert!(R::KIND < u8::MAX, "kind 255 is not used: ranges end at the next kind") };
    vec![R::KIND + 1]
}
