//! Which record of a key is the last one, in a bounded number of bytes.
//!
//! The map holds no keys: it holds a hash of 16 bytes of each. Two keys of one hash would be one key, and the older
//! record of the two would be lost. So the hash is SipHash-2-4 of 128 bits under a secret of each pass. Among the
//! [`KEYS_MAX`] keys that the largest map holds, two share a hash with a chance of 2^-81; and without the secret no
//! client can make two keys that do, as anybody can for MD5, which other cleaners use.
//!
//! The table is one allocation: open addressing with linear probing, a hash and an offset in a slot, at most three
//! quarters of the slots in use.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::map::ids::Offset;

/// Bytes of a slot.
const SLOT_BYTES: usize = size_of::<Slot>();
/// Keys of the largest map that an address space of 32 bits of slots can have; only the bound on collisions needs it.
const KEYS_MAX: usize = 1 << 24;
/// An offset that no record has.
const FREE: i64 = -1;

/// The last offset of each key.
pub(crate) struct OffsetMap {
    secret: (u64, u64),
    slots: Vec<Slot>,
    used: usize,
    used_max: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    offset: i64,
}

impl OffsetMap {
    /// An empty map of at most `bytes_max` bytes, which has room for so many keys if that is enough for them. It has
    /// room for one in any case.
    pub(crate) fn new(secret: u128, bytes_max: usize, keys: u64) -> OffsetMap {
        let most = (bytes_max / SLOT_BYTES).clamp(2, KEYS_MAX / 3 * 4);
        let wanted = usize::try_from(keys).unwrap_or(usize::MAX).saturating_mul(4) / 3;
        let count = wanted.saturating_add(2).min(most);
        OffsetMap {
            secret: ((secret >> 64) as u64, secret as u64),
            slots: vec![Slot { hash: [0; 2], offset: FREE }; count],
            used: 0,
            used_max: count * 3 / 4,
        }
    }

    /// Notes a record. Returns `false`, and notes nothing, if its key is new and the map is full.
    #[must_use]
    pub(crate) fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        assert!(offset.0 > FREE, "a record has an offset");
        let hash = self.hash(key);
        let at = self.slot_of(hash);
        let slot = &mut self.slots[at];
        if slot.offset == FREE {
            if self.used == self.used_max {
                return false;
            }
            self.used += 1;
        }
        *slot = Slot { hash, offset: slot.offset.max(offset.0) };
        true
    }

    /// The last offset that was noted for a key.
    pub(crate) fn last(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots[self.slot_of(self.hash(key))];
        (slot.offset != FREE).then_some(Offset(slot.offset))
    }

    /// How many keys it holds.
    pub(crate) fn keys(&self) -> usize {
        self.used
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = SipHasher24::new_with_keys(self.secret.0, self.secret.1);
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// The slot of a hash, or the free one where it would be. There is always a free one.
    fn slot_of(&self, hash: [u64; 2]) -> usize {
        let count = self.slots.len();
        let scaled = (u128::from(hash[0]) * count as u128) >> 64;
        let mut at = usize::try_from(scaled).expect("it is below the number of slots");
        while self.slots[at].offset != FREE && self.slots[at].hash != hash {
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The map is a map of keys to their last offsets, until it is full.
        #[test]
        fn it_is_a_map_until_it_is_full(
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 1..200),
            bytes_max in 0usize..4_000,
            secret in any::<u128>(),
        ) {
            let mut map = OffsetMap::new(secret, bytes_max, keys.len() as u64);
            let mut model: BTreeMap<&[u8], i64> = BTreeMap::new();
            for (offset, key) in (0..).zip(&keys) {
                if !map.note(key, Offset(offset)) {
                    prop_assert!(!model.contains_key(&key[..]), "a known key always has room");
                    prop_assert_eq!(model.len(), (bytes_max / SLOT_BYTES).max(2) * 3 / 4);
                    break;
                }
                model.insert(key, offset);
            }
            prop_assert_eq!(map.keys(), model.len());
            for key in &keys {
                prop_assert_eq!(map.last(key), model.get(&key[..]).map(|offset| Offset(*offset)));
            }
            prop_assert!(map.slots.len() * SLOT_BYTES <= bytes_max.max(2 * SLOT_BYTES));
        }
    }

    #[test]
    fn it_has_room_for_the_keys_it_was_made_for_and_takes_no_more_memory_than_it_needs() {
        for keys in [0u64, 1, 2, 3, 4, 5, 100, 1_000] {
            let mut map = OffsetMap::new(1, 32 << 20, keys);
            for key in 0..keys {
                assert!(map.note(&key.to_be_bytes(), Offset(0)), "key {key} of {keys}");
            }
            assert!(map.slots.len() as u64 <= keys * 2 + 2, "{keys}: {}", map.slots.len());
        }
        assert_eq!(OffsetMap::new(1, 32 << 20, u64::MAX).slots.len(), (32 << 20) / SLOT_BYTES);
    }

    /// Keys are noted in any order: the last offset counts, not the last call.
    #[test]
    fn the_largest_offset_counts() {
        let mut map = OffsetMap::new(1, 1_000, 10);
        for offset in [3, 7, 5] {
            assert!(map.note(b"k", Offset(offset)));
        }
        assert_eq!((map.last(b"k"), map.last(b"")), (Some(Offset(7)), None));
    }
}
