//! The image in chunks: their format, and how the next image is made of the one before. Pure.
//!
//! ```text
//! chunk      u8 version = 1 | postcard [(key bytes, value bytes)]      in key order, over all chunks
//! checksum   crc32c of  id of the journal u128 | lsn of the image u64 | number of the chunk u32 | chunk
//! ```
//! An image is the chunks before it with the changes of the entries since, so the one who writes it holds one chunk and
//! those changes in memory, never the map.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoIter;
use std::iter::Peekable;

use bytes::Bytes;

use crate::error::DecodeError;
use crate::journal::{Entry, Lsn, seal};
use crate::limits::POSTGRES_CHUNK_BYTES;
use crate::record::{put_postcard, take_postcard};

const VERSION: u8 = 1;

/// Keys with their values, in order.
pub(super) type Pairs = Vec<(Bytes, Bytes)>;

/// Encodes a chunk.
pub(super) fn encode(pairs: &Pairs) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_postcard(pairs, &mut out);
    out
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<Pairs, DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Truncated),
        Some((&VERSION, body)) => take_postcard(body),
        Some((version, _)) => Err(DecodeError::corrupt(format!(
            "chunk of version {version}, this build knows {VERSION}: a newer floe wrote it"
        ))),
    }
}

/// The checksum of a chunk, which also tells whose it is.
pub(super) fn checksum(id: u128, lsn: Lsn, number: u32, chunk: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&id.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &lsn.0.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &number.to_be_bytes()), chunk)
}

/// The sum of the checksums of all values, modulo 2^64.
pub(super) fn sum_of(pairs: &Pairs) -> u64 {
    let sums = pairs.iter().map(|(key, value)| u64::from(seal::of_value(key, value)));
    sums.fold(0, u64::wrapping_add)
}

/// Changes by key: the last one of each.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeMap<Bytes, Option<Bytes>>);

impl Changes {
    pub(super) fn add(&mut self, entries: Vec<Entry>) {
        for change in entries.into_iter().flat_map(|entry| entry.changes) {
            self.0.insert(change.key, change.value);
        }
    }
}

/// The next image, chunk by chunk.
pub(super) struct Next {
    changes: Peekable<IntoIter<Bytes, Option<Bytes>>>,
    pairs: Pairs,
    pairs_bytes: usize,
    ready: Vec<Vec<u8>>,
    /// The sum of the checksums of all values so far.
    pub(super) sum: u64,
}

impl Next {
    pub(super) fn new(changes: Changes) -> Next {
        let changes = changes.0.into_iter().peekable();
        Next { changes, pairs: Vec::new(), pairs_bytes: 0, ready: Vec::new(), sum: 0 }
    }

    /// Takes the next pairs of the image before, in order. Returns the chunks that are complete.
    pub(super) fn feed(&mut self, pairs: Pairs) -> Vec<Vec<u8>> {
        for (key, value) in pairs {
            while let Some((changed, now)) = self.changes.next_if(|(changed, _)| *changed < key) {
                self.keep(changed, now);
            }
            match self.changes.next_if(|(changed, _)| *changed == key) {
                Some((_, now)) => self.keep(key, now),
                None => self.keep(key, Some(value)),
            }
        }
        std::mem::take(&mut self.ready)
    }

    /// The rest.
    pub(super) fn finish(&mut self) -> Vec<Vec<u8>> {
        while let Some((key, value)) = self.changes.next() {
            self.keep(key, value);
        }
        if !self.pairs.is_empty() {
            self.close();
        }
        std::mem::take(&mut self.ready)
    }

    fn keep(&mut self, key: Bytes, value: Option<Bytes>) {
        let Some(value) = value else { return };
        self.pairs_bytes += key.len() + value.len();
        self.pairs.push((key, value));
        if self.pairs_bytes >= POSTGRES_CHUNK_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        let pairs = std::mem::take(&mut self.pairs);
        self.pairs_bytes = 0;
        self.sum = self.sum.wrapping_add(sum_of(&pairs));
        self.ready.push(encode(&pairs));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::{Change, Envelope};

    /// Databases in the field hold these bytes, so they never change.
    #[test]
    fn golden() {
        let pairs: Pairs = vec![("a".into(), "1".into()), ("bc".into(), "".into())];
        let chunk = encode(&pairs);
        let hex: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01020161013102626300");
        assert_eq!(decode(&chunk), Ok(pairs));
        assert_eq!(checksum(7, Lsn(8), 9, &chunk), GOLDEN_CHECKSUM);
    }

    const GOLDEN_CHECKSUM: u32 = 0xcf1f_7d1c;

    #[test]
    fn newer_and_broken_chunks_are_refused() {
        assert_eq!(decode(&[]), Err(DecodeError::Truncated));
        assert!(decode(&[2, 0]).unwrap_err().to_string().contains("newer floe"));
        // A count that the bytes cannot hold must not allocate.
        assert!(decode(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }

    #[test]
    fn a_chunk_of_another_image_or_place_has_another_checksum() {
        let sound = checksum(1, Lsn(2), 3, b"chunk");
        for other in [(0, 2, 3), (1, 3, 3), (1, 2, 4)] {
            assert_ne!(checksum(other.0, Lsn(other.1), other.2, b"chunk"), sound);
        }
    }

    #[test]
    fn chunks_are_cut_by_their_bytes() {
        let mut next = Next::new(Changes::default());
        let value = Bytes::from(vec![7; POSTGRES_CHUNK_BYTES / 4]);
        let pairs: Pairs = (0..10_u8).map(|key| (vec![key].into(), value.clone())).collect();
        assert_eq!(next.feed(pairs.clone()).len(), 2);
        assert_eq!(next.finish().len(), 1);
        assert_eq!(next.sum, sum_of(&pairs));
    }

    proptest! {
        #[test]
        fn the_next_image_is_the_one_before_with_the_changes(
            before in proptest::collection::btree_map(0_u8..30, 0_u8..5, 0..30),
            changes in proptest::collection::vec((0_u8..30, any::<Option<u8>>()), 0..40),
            piece in 1_usize..9,
        ) {
            let bytes = |byte: u8| Bytes::copy_from_slice(&[byte]);
            let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
            model.extend(before.iter().map(|(key, value)| (bytes(*key), bytes(*value))));
            let pairs: Pairs = model.clone().into_iter().collect();
            let mut folded = Changes::default();
            for (key, value) in &changes {
                let (key, value) = (bytes(*key), value.map(bytes));
                let change = Change { key: key.clone(), value: value.clone() };
                let envelope = Envelope::broker("test");
                folded.add(vec![Entry { lsn: Lsn(1), attempt: 1, envelope, changes: vec![change] }]);
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            let mut next = Next::new(folded);
            let mut chunks: Vec<Vec<u8>> =
                pairs.chunks(piece).flat_map(|pairs| next.feed(pairs.to_vec())).collect();
            chunks.extend(next.finish());
            let found: Pairs = chunks.iter().flat_map(|chunk| decode(chunk).unwrap()).collect();
            prop_assert_eq!(next.sum, sum_of(&found));
            prop_assert!(found.into_iter().eq(model));
        }
    }
}
