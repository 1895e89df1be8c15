//! The WAL object format: round trip, damage, golden bytes.

use proptest::prelude::*;

use super::*;
use crate::format::wal::{self, WalEntry, WalError};
use crate::map::ids::TopicId;

fn entry(topic: u64, index: u32, writer: &str, bytes: Bytes) -> WalEntry {
    let header = header_of(&bytes);
    let partition = PartitionId::new(TopicId(topic), index);
    WalEntry { partition, writer: Writer::new("User:a", writer), header, bytes, follows: false, alone: false }
}

fn join(payload: &[Bytes]) -> Bytes {
    payload.concat().into()
}

fn entry_strategy() -> impl Strategy<Value = WalEntry> {
    (1u64..4, 0u32..3, 0u8..3, 1u32..5, 0i64..1000).prop_map(|(topic, index, writer, count, timestamp)| {
        entry(topic, index, &format!("client-{writer}"), plain(count, timestamp))
    })
}

proptest! {
    #[test]
    fn objects_are_decoded_as_encoded(entries in prop::collection::vec(entry_strategy(), 0..12), id in any::<u64>()) {
        let encoded = wal::encode(ObjectId(id), &entries);
        let bytes = join(&encoded.payload);
        prop_assert_eq!(bytes.len() as u64, encoded.size);
        for (entry, &position) in entries.iter().zip(&encoded.positions) {
            let position = usize::try_from(position).unwrap();
            prop_assert_eq!(&bytes[position..position + entry.bytes.len()], &entry.bytes[..]);
        }
        let decoded = wal::decode(&bytes).unwrap();
        prop_assert_eq!(decoded.object, ObjectId(id));
        // Grouped, and in order of arrival within a group.
        let mut expected: Vec<&WalEntry> = entries.iter().collect();
        expected.sort_by_key(|entry| (entry.partition, entry.writer.clone()));
        prop_assert_eq!(decoded.entries.len(), expected.len());
        for (got, want) in decoded.entries.iter().zip(expected) {
            prop_assert_eq!((got.partition, &got.writer, &got.bytes), (want.partition, &want.writer, &want.bytes));
        }
    }

    #[test]
    fn random_bytes_are_no_object(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(wal::decode(&Bytes::from(bytes)).is_err());
    }
}

fn sample() -> Bytes {
    let entries =
        [entry(1, 0, "b", plain(1, 5)), entry(1, 0, "a", plain(2, 6)), entry(1, 0, "b", plain(1, 7))];
    join(&wal::encode(ObjectId(0x2a), &entries).payload)
}

#[test]
fn every_flip_and_every_cut_is_found() {
    let bytes = sample();
    assert!(wal::decode(&bytes).is_ok());
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.to_vec();
            flipped[place] ^= 1 << bit;
            assert!(wal::decode(&Bytes::from(flipped)).is_err(), "byte {place} bit {bit}");
        }
        assert!(wal::decode(&bytes.slice(..place)).is_err(), "cut at {place}");
        assert!(wal::decode(&bytes.slice(place + 1..)).is_err(), "begins after {place}");
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut bytes = sample().to_vec();
    bytes[9] = 2;
    let footer_bytes = u32::from_be_bytes(bytes[bytes.len() - 16..][..4].try_into().unwrap());
    let footer = bytes.len() - 16 - footer_bytes as usize;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[footer..bytes.len() - 12]);
    let at = bytes.len() - 12;
    bytes[at..at + 4].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(wal::decode(&Bytes::from(bytes)).unwrap_err(), WalError::Version(2));
}

/// Stores in the field hold these bytes, so they never change: a new layout is a new version.
#[test]
fn golden() {
    assert_eq!(super::formats::hex(&sample()), include_str!("../../tests/golden/wal-1.hex").trim_end());
}
