//! Helpers for payloads and ranges.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::StoreError;

/// Bytes of a payload.
pub fn payload_bytes(payload: &[Bytes]) -> u64 {
    payload.iter().map(|piece| piece.len() as u64).sum()
}

/// The payload in one piece. Copies it unless it already is one.
pub fn concat(payload: &[Bytes]) -> Bytes {
    if let [only] = payload {
        return only.clone();
    }
    let total: usize = payload.iter().map(Bytes::len).sum();
    let mut whole = BytesMut::with_capacity(total);
    for piece in payload {
        whole.extend_from_slice(piece);
    }
    whole.freeze()
}

/// Cuts `range` out of a whole object.
pub fn slice(key: &str, object: &Bytes, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
    let Some(range) = range else {
        return Ok(object.clone());
    };
    if range.start > range.end || range.end > object.len() as u64 {
        return Err(StoreError::Corrupt(too_short(key, &range, object.len() as u64)));
    }
    // Both ends are at most the length, which is a usize.
    Ok(object.slice(range.start as usize..range.end as usize))
}

/// The error message for an object that ends before a requested range.
pub(crate) fn too_short(key: &str, range: &Range<u64>, length: u64) -> String {
    format!("{key} has {length} bytes, bytes {} to {} were asked for", range.start, range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_never_shorter_than_was_asked_for() {
        let object = Bytes::from_static(b"0123456789");
        assert_eq!(slice("k", &object, Some(2..5)).as_deref(), Ok(&b"234"[..]));
        assert_eq!(slice("k", &object, None).as_deref(), Ok(&object[..]));
        assert!(matches!(slice("k", &object, Some(8..11)), Err(StoreError::Corrupt(_))));
        assert!(matches!(slice("k", &object, Some(u64::MAX..u64::MAX)), Err(StoreError::Corrupt(_))));
    }
}
