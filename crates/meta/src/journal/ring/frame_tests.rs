use bytes::Bytes;
use floe_env::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::journal::{Change, Envelope};

const PLACE: Place = Place { journal: 7, generation: 3, nonce: 0x0123_4567_89ab_cdef, offset: 8_192 };
const BEFORE: Link = Link { attempt: 5, crc: 0xdead_beef };
const ROOM: u64 = 1 << 20;

fn commit(key: &str, value: Option<&str>) -> Commit {
    let mut envelope = Envelope::client("User:ann".into(), "etl-7".into());
    envelope.time = Timestamp(1_767_225_600_123);
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    Commit { envelope, changes: vec![Change { key: Bytes::copy_from_slice(key.as_bytes()), value }] }
}

fn attachment(commit: u32, text: &str) -> Attachment {
    Attachment { commit, ..Attachment::of(vec![Bytes::copy_from_slice(text.as_bytes())]) }
}

fn group(commits: &[Commit], attachments: &[Attachment]) -> (Header, Vec<u8>) {
    let draft = Draft::of(commits, attachments, ROOM).expect("it fits");
    let mut out = vec![0xff; draft.frame_bytes() as usize];
    let header = draft.write(&mut out, PLACE, 9, BEFORE, Lsn(41)).expect("nothing has changed");
    (header, out)
}

fn some_group() -> (Header, Vec<u8>) {
    let commits = [commit("\x0aabc", Some("\x01xy")), commit("\x0b", None), commit("\x0c", Some(""))];
    group(&commits, &[attachment(0, "first batch"), attachment(2, "second")])
}

/// A frame as a start reads it: header, entries, bytes.
fn read(bytes: &[u8]) -> Result<(Header, MetaPart, Vec<Bytes>), NoFrame> {
    let header = Header::decode(bytes, &PLACE, ROOM.min(bytes.len() as u64))?;
    let meta = header.decode_meta(&bytes[HEADER_BYTES..HEADER_BYTES + header.meta_bytes as usize])?;
    let mut found = Vec::new();
    for listed in &meta.attachments {
        let range = listed.range(&header);
        let range = (range.start - PLACE.offset) as usize..(range.end - PLACE.offset) as usize;
        let bytes = Bytes::copy_from_slice(&bytes[range]);
        if crc32c::crc32c(&bytes) != listed.crc {
            return Err(NoFrame::Damaged("an attachment"));
        }
        found.push(bytes);
    }
    Ok((header, meta, found))
}

/// Files in the field hold these bytes, so they never change.
#[test]
fn golden() {
    let (header, bytes) = some_group();
    assert_eq!(bytes, include_bytes!("golden/group.frame"));
    let (found, meta, attached) = read(include_bytes!("golden/group.frame")).expect("it is sound");
    assert_eq!(found, header);
    assert_eq!((found.first, found.last(), found.durable), (Lsn(42), Lsn(44), Lsn(41)));
    assert_eq!(attached, ["first batch", "second"]);
    assert_eq!(meta.entries[1].changes, commit("\x0b", None).changes);
    assert_eq!(meta.entries[2].lsn, Lsn(44));
    assert_eq!(header.link(), Link { attempt: 9, crc: u32_at(&bytes, 12) });
    for (kind, golden) in [
        (Kind::Seal, &include_bytes!("golden/seal.frame")[..]),
        (Kind::Void, &include_bytes!("golden/void.frame")[..]),
    ] {
        let header = Header::empty(kind, PLACE, 9, BEFORE, Lsn(41));
        assert_eq!(block_of(&header), golden);
        assert_eq!(Header::decode(golden, &PLACE, ROOM), Ok(header));
        assert_eq!((header.first, header.last()), (Lsn(42), Lsn(41)));
    }
}

#[test]
fn no_changed_byte_is_taken_for_sound() {
    let (header, bytes) = some_group();
    let used = (header.payload_at() + u64::from(header.payload_bytes)) as usize;
    let filling = HEADER_BYTES + header.meta_bytes as usize..header.payload_at() as usize;
    for at in (0..used).filter(|at| !filling.contains(at)) {
        for bit in [1, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
    }
    for length in 0..used {
        assert!(read(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn a_frame_counts_only_where_it_was_written() {
    let (_, bytes) = some_group();
    let elsewhere = [
        Place { journal: 8, ..PLACE },
        Place { generation: 4, ..PLACE },
        Place { nonce: 1, ..PLACE },
        Place { offset: 4_096, ..PLACE },
    ];
    for place in elsewhere {
        assert_eq!(Header::decode(&bytes, &place, ROOM), Err(NoFrame::None), "{place:?}");
    }
    assert!(matches!(Header::decode(&bytes, &PLACE, BLOCK - 1), Err(NoFrame::Damaged(_))), "it does not fit");
}

/// Seals a header again after a change, as a writer with a mistake would.
fn sealed(mut bytes: Vec<u8>, at: usize, number: &[u8]) -> Vec<u8> {
    bytes[at..at + number.len()].copy_from_slice(number);
    let header: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().expect("it is long enough");
    bytes[12..16].copy_from_slice(&checksum(&header).to_le_bytes());
    bytes
}

#[test]
fn newer_frames_and_impossible_sizes_are_refused() {
    let (_, bytes) = some_group();
    let newer = sealed(bytes.clone(), 8, &2_u16.to_le_bytes());
    assert_eq!(Header::decode(&newer, &PLACE, ROOM), Err(NoFrame::Newer(2)));
    for at in [96, 100, 104, 112, 116] {
        for number in [u32::MAX, 1 << 31, u32::MAX / 16] {
            let wrong = sealed(bytes.clone(), at, &number.to_le_bytes());
            assert!(matches!(read(&wrong), Err(NoFrame::Damaged(_))), "{number} at {at}");
        }
    }
    for (at, number) in [(48, 0), (48, u64::MAX), (88, 42), (88, u64::MAX)] {
        assert!(read(&sealed(bytes.clone(), at, &u64::to_le_bytes(number))).is_err(), "{number} at {at}");
    }
    for kind in [0, 2, 3, 4] {
        assert!(read(&sealed(bytes.clone(), 10, &[kind])).is_err(), "kind {kind}");
    }
}

#[test]
fn what_is_no_frame_is_said_before_it_is_written() {
    let commits = [commit("a", Some(&"x".repeat(9_000)))];
    let large = Draft::of(&commits, &[], BLOCK).err();
    assert!(matches!(large, Some(NotWritten::Large(bytes, BLOCK)) if bytes > 9_000), "{large:?}");
    let many = vec![commit("a", None); GROUP_COMMITS_MAX + 1];
    assert_eq!(Draft::of(&many, &[], ROOM).err(), Some(NotWritten::Many(GROUP_COMMITS_MAX + 1)));
    let attachments = [Attachment { crc: 1, ..attachment(0, "other bytes") }];
    let draft = Draft::of(&commits, &attachments, ROOM).expect("it fits");
    let mut out = vec![0; draft.frame_bytes() as usize];
    let changed = draft.write(&mut out, PLACE, 9, BEFORE, Lsn(0));
    assert_eq!(changed, Err(NotWritten::Changed(0)));
}

proptest! {
    #[test]
    fn round_trip(
        keys in proptest::collection::vec((any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 1..20),
        texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5_000), 0..20),
    ) {
        let commits: Vec<Commit> = keys
            .into_iter()
            .map(|(key, value)| {
                let changes = vec![Change { key: key.into(), value: value.map(Bytes::from) }];
                Commit { changes, ..commit("", None) }
            })
            .collect();
        let attachments: Vec<Attachment> = (0..commits.len() as u32)
            .zip(&texts)
            .map(|(at, text)| Attachment { commit: at, ..Attachment::of(vec![text.clone().into()]) })
            .collect();
        let (header, bytes) = group(&commits, &attachments);
        let (found, meta, attached) = read(&bytes).expect("it is sound");
        prop_assert_eq!(found, header);
        prop_assert_eq!(attached, texts[..attachments.len()].iter().cloned().map(Bytes::from).collect::<Vec<_>>());
        let kept = meta.entries.into_iter().map(|entry| Commit { envelope: entry.envelope, changes: entry.changes });
        prop_assert_eq!(kept.collect::<Vec<_>>(), commits);
    }

    #[test]
    fn any_damage_is_found_or_harmless(
        places in proptest::collection::vec((0..4_096_usize, any::<u8>()), 1..8),
    ) {
        let (header, mut damaged) = some_group();
        places.iter().for_each(|(at, byte)| damaged[*at] = *byte);
        if let Ok((found, _, attached)) = read(&damaged) {
            // Only filling may change without a trace.
            prop_assert_eq!(found, header);
            prop_assert_eq!(attached, ["first batch", "second"]);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), crc: bool) {
        let _ = read(&bytes);
        if crc && bytes.len() >= HEADER_BYTES {
            let (_, sound) = some_group();
            let mut mixed = bytes;
            mixed[..96].copy_from_slice(&sound[..96]);
            let _ = read(&sealed(mixed, 120, &[0; 8]));
        }
    }
}
