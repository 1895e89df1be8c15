//! The format of segments: the builder, the footer, the seek index.

use proptest::prelude::*;

use super::*;
use crate::format::batch::Batch;
use crate::format::seek::{INDEX_BYTES_MAX, INTERVAL_BYTES_MIN, INTERVALS_MAX, SeekIndex};
use crate::format::segment::{
    self, DecodedSection, Footer, Origin, PlantedBug, Section, Segment, SegmentBuilder, SegmentError,
    WriterRun,
};
use crate::map::extent::{ExtentKey, Marker, Outcome};
use crate::map::ids::TopicId;

const OBJECT: ObjectId = ObjectId(0x8000_0300_0001_1171);

/// What a section has, in order.
#[derive(Clone, Debug)]
enum Item {
    /// Offsets without records.
    Gap(u32),
    /// A batch of this writer and commit, with so many records of this size.
    Batch { writer: u8, lsn: u64, records: u32, value: usize, time: i64 },
    /// A marker of this commit.
    Marker(u64),
}

/// The sections of a segment: partition, offsets in front of the section, items.
type Plan = Vec<(u32, u32, Vec<Item>)>;

/// What was written.
struct Written {
    bytes: Bytes,
    sections: Vec<Section>,
    batches: Vec<Vec<Batch>>,
    /// The writer and commit of each batch.
    origins: Vec<Vec<(Option<Writer>, Lsn)>>,
}

fn client(number: u8) -> Writer {
    Writer::new("User:a", &format!("client-{number}"))
}

fn partition(index: u32) -> PartitionId {
    PartitionId::new(TopicId(u64::from(index) / 4 + 1), index % 4)
}

fn batch_of(base: Offset, records: u32, value: usize, time: i64) -> Batch {
    let mut builder = Builder::new(Compression::None);
    for index in 0..records {
        builder.push(time + i64::from(index), None, Some(&vec![b'v'; value]), &[]);
    }
    Batch::new(base, builder.build()).unwrap()
}

fn write(plan: &Plan, take_often: bool, bug: Option<PlantedBug>) -> Written {
    let mut builder = SegmentBuilder::new(OBJECT);
    builder.bug = bug;
    let (mut pieces, mut written) = (Vec::new(), (Vec::new(), Vec::new(), Vec::new()));
    let mut ends: BTreeMap<u32, Offset> = BTreeMap::new();
    for (index, skipped, items) in plan {
        let mut next = ends.get(index).copied().unwrap_or(Offset(100)).plus(*skipped);
        builder.begin(partition(*index), next);
        let (mut batches, mut origins, mut time_max) = (Vec::new(), Vec::new(), -1);
        for item in items {
            let (batch, writer, lsn) = match item {
                Item::Gap(offsets) => {
                    // As readers have it.
                    builder.push(
                        &Batch::of_gap(next, u64::from(*offsets)),
                        Origin { writer: None, lsn: Lsn(9) },
                    );
                    next = next.plus(*offsets);
                    continue;
                }
                Item::Batch { writer, lsn, records, value, time } => {
                    time_max = time_max.max(time + i64::from(*records) - 1);
                    (batch_of(next, *records, *value, *time), Some(client(*writer)), Lsn(*lsn))
                }
                Item::Marker(lsn) => {
                    let (time, lsn) = (Timestamp(1 << 41), Lsn(*lsn));
                    let marker =
                        Marker { producer_id: 9, producer_epoch: 1, outcome: Outcome::Abort, time, lsn };
                    (Batch::of_marker(next, &marker), None, lsn)
                }
            };
            builder.push(&batch, Origin { writer: writer.as_ref(), lsn });
            next = batch.next_offset();
            batches.push(batch);
            origins.push((writer, lsn));
            if take_often {
                pieces.extend(builder.take());
            }
        }
        ends.insert(*index, next);
        let section = builder.end(next, time_max);
        assert_eq!(section.is_some(), !batches.is_empty());
        if let Some(section) = section {
            written.0.push(section);
            written.1.push(batches);
            written.2.push(origins);
        }
    }
    let expected = builder.size();
    let (rest, size) = builder.finish();
    pieces.extend(rest);
    let bytes = Bytes::from(pieces.concat());
    assert_eq!(bytes.len() as u64, size);
    assert!(size.abs_diff(expected) < 40, "{size}, about {expected}");
    let (sections, batches, origins) = written;
    Written { bytes, sections, batches, origins }
}

/// Compares a decoded segment with what was written.
fn compare(written: &Written, decoded: &Segment) {
    assert_eq!(decoded.object, OBJECT);
    assert_eq!(decoded.sections.len(), written.sections.len());
    let all =
        decoded.sections.iter().zip(&written.sections).zip(written.batches.iter().zip(&written.origins));
    for ((found, section), (batches, origins)) in all {
        let DecodedSection { listed, batches: found, runs } = found;
        let data = &section.data;
        assert_eq!((listed.key, listed.offsets), (section.key, data.offsets));
        assert_eq!((listed.position, listed.bytes), (data.position, data.bytes));
        assert_eq!(listed.max_timestamp, data.max_timestamp);
        assert_eq!(found.len(), batches.len());
        for (found, batch) in found.iter().zip(batches) {
            assert_eq!((found.base_offset, found.stamped()), (batch.base_offset, batch.stamped()));
        }
        for (batch, (writer, lsn)) in batches.iter().zip(origins) {
            let run = runs.iter().find(|run| (run.first..run.end).contains(&batch.base_offset));
            let run = run.expect("every batch is of a run");
            assert_eq!((&run.writer, run.lsn), (writer, *lsn));
            assert!(batch.next_offset() <= run.end);
        }
        assert_eq!(data.lsn, origins.iter().map(|(_, lsn)| *lsn).max().unwrap());
        let writers: Vec<_> = origins.iter().map(|(writer, _)| writer).collect();
        let only = writers.iter().all(|writer| *writer == writers[0]).then(|| writers[0].clone()).flatten();
        assert_eq!(section.only_writer, only);
        seeks(&written.bytes, section, found);
    }
}

/// Seeks by every offset and time of interest, compared with a naive scan.
fn seeks(bytes: &Bytes, section: &Section, batches: &[Batch]) {
    let Section { key, data, .. } = section;
    let behind = &bytes[data.end() as usize..(data.end() as usize + INDEX_BYTES_MAX).min(bytes.len())];
    let index = SeekIndex::decode(*key, data, behind).unwrap();
    let mut position = data.position;
    let mut places = BTreeMap::new();
    for batch in batches {
        places.insert(position, batch.base_offset);
        position += batch.bytes.len() as u64;
    }
    assert_eq!(position, data.end());
    let mut last = data.position;
    for batch in batches {
        for offset in [batch.base_offset, batch.last_offset(), batch.next_offset()] {
            let found = index.at(offset).expect("the first interval begins at or before it");
            assert_eq!(places.get(&found.position), Some(&found.first), "an interval begins with a batch");
            assert!(found.first <= offset && found.position >= last, "never back");
            last = found.position;
        }
        // A lookup finds the first batch that promises the time, and passes over no such batch.
        let time = batch.header().max_timestamp;
        let promises = |other: &&Batch| other.has_records() && other.header().max_timestamp >= time;
        for from in [key.base, batch.base_offset, batch.next_offset()] {
            let mut behind = batches.iter().filter(|other| other.next_offset() > from);
            let wanted = behind.clone().find(promises);
            let found = index.next_at(from, time);
            if let Some(wanted) = wanted {
                let found = found.expect("there is one");
                assert!(found < wanted.next_offset() && found >= from, "{found}, not behind {wanted:?}");
                let wrong = behind.find(|other| other.next_offset() > found && promises(other));
                assert_eq!(wrong.map(|batch| batch.base_offset), Some(wanted.base_offset));
            }
        }
    }
    let records = batches.iter().filter(|batch| batch.has_records());
    let max = records.map(|batch| batch.header().max_timestamp).max().unwrap_or(-1);
    assert_eq!(index.max_from(key.base), max);
    if index.max_from(key.base) >= 0 {
        assert_eq!(index.next_at(key.base, max + 1), None);
    }
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let batch = (0u8..3, 1u64..5, 1u32..4, 0usize..6_000, 0i64..1_000)
        .prop_map(|(writer, lsn, records, value, time)| Item::Batch { writer, lsn, records, value, time });
    let item =
        prop_oneof![6 => batch, 1 => (1u32..9).prop_map(Item::Gap), 1 => (1u64..5).prop_map(Item::Marker)];
    prop::collection::vec(item, 0..40)
}

fn plans() -> impl Strategy<Value = Plan> {
    let section = (0u32..9, 0u32..3, items());
    let full =
        |plan: &Plan| plan.iter().any(|(_, _, items)| items.iter().any(|item| !matches!(item, Item::Gap(_))));
    let sorted = prop::collection::vec(section, 1..6).prop_map(|mut plan| {
        plan.sort_by_key(|(index, ..)| *index);
        plan
    });
    sorted.prop_filter("a segment has sections", full)
}

proptest! {
    #[test]
    fn segments_are_decoded_as_written(plan in plans(), take_often in any::<bool>()) {
        let written = write(&plan, take_often, None);
        compare(&written, &segment::decode(&written.bytes).unwrap());
        // The footer alone, from the end of the object.
        let footer_bytes = segment::footer_bytes(&written.bytes).unwrap();
        let end = written.bytes.slice(written.bytes.len() - footer_bytes as usize..);
        let footer = Footer::decode(written.bytes.len() as u64, &end).unwrap();
        for section in &written.sections {
            let listed = footer.section(section.data.position).unwrap();
            prop_assert_eq!(listed.key, section.key);
            prop_assert!(footer.runs(listed).all(|run| run.is_ok()));
        }
        prop_assert!(footer.section(0).is_none());
    }

    #[test]
    fn random_bytes_are_no_segment(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(segment::decode(&Bytes::from(bytes)).is_err());
    }

    /// Footers and indexes with right checksums and random contents: an error or some value, never a panic.
    #[test]
    fn random_contents_with_right_checksums_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        small in prop::collection::vec(0u8..4, 0..200),
    ) {
        for body in [bytes, small] {
            let mut object = sample().slice(..16).to_vec();
            object.extend_from_slice(&[0; 64]);
            let footer = [&segment::VERSION.to_be_bytes()[..], &body].concat();
            object.extend_from_slice(&sealed(&footer));
            let decoded = segment::decode(&Bytes::from(object.clone()));
            prop_assert!(decoded.is_err());
            if let Ok(footer) = Footer::decode(object.len() as u64, &Bytes::from(object)) {
                for listed in &footer.sections {
                    prop_assert!(footer.runs(listed).count() <= body.len());
                }
            }
            let data = counted(OBJECT, 16, 1_000, 50, 0);
            let key = ExtentKey::new(partition(1), Offset(5));
            let _ = SeekIndex::decode(key, &data, &index_of(key, 16, &body));
        }
    }
}

/// A footer with its checksum and tail.
fn sealed(footer: &[u8]) -> Vec<u8> {
    let mut out = footer.to_vec();
    out.extend_from_slice(&u32::try_from(footer.len()).unwrap().to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
    out.extend_from_slice(b"ESEGFLOE");
    out
}

/// An index of this body with its checksum.
fn index_of(key: ExtentKey, position: u64, body: &[u8]) -> Vec<u8> {
    let mut summed = vec![1, 0];
    summed.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    summed.extend_from_slice(body);
    let place =
        [&key.partition.index.to_be_bytes()[..], &key.base.0.to_be_bytes(), &position.to_be_bytes(), &summed];
    [&crc32c::crc32c(&place.concat()).to_be_bytes()[..], &summed].concat()
}

/// A small segment with everything: two writers, several commits, a marker, a gap, two sections of one partition.
fn sample() -> Bytes {
    let batch = |writer, lsn, records, time| Item::Batch { writer, lsn, records, value: 1, time };
    let plan = vec![
        (0, 0, vec![batch(1, 5, 2, 100), batch(2, 5, 1, 90), Item::Marker(6)]),
        (1, 0, vec![batch(2, 7, 1, 80)]),
        (1, 3, vec![Item::Gap(2), batch(1, 8, 1, 70), Item::Gap(1), batch(1, 8, 1, 71)]),
    ];
    write(&plan, false, None).bytes
}

#[test]
fn every_flip_and_every_cut_is_found() {
    let bytes = sample();
    assert!(segment::decode(&bytes).is_ok());
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.to_vec();
            flipped[place] ^= 1 << bit;
            assert!(segment::decode(&Bytes::from(flipped)).is_err(), "byte {place} bit {bit}");
        }
        assert!(segment::decode(&bytes.slice(..place)).is_err(), "cut at {place}");
        assert!(segment::decode(&bytes.slice(place + 1..)).is_err(), "begins after {place}");
    }
}

/// Any two bytes of different batches that are swapped, and any two batches.
#[test]
fn batches_that_change_places_are_found() {
    let batch = |time| Item::Batch { writer: 1, lsn: 5, records: 1, value: 1, time };
    let written = write(&vec![(0, 0, vec![batch(1), batch(2), batch(3)])], false, None);
    let size = written.batches[0][0].bytes.len();
    for (first, second) in [(0, 1), (1, 2), (0, 2)] {
        let mut bytes = written.bytes.to_vec();
        for at in 0..size {
            bytes.swap(16 + first * size + at, 16 + second * size + at);
        }
        let error = segment::decode(&Bytes::from(bytes)).unwrap_err();
        assert!(matches!(error, SegmentError::Batch { .. }), "{error}");
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let bytes = sample();
    let length = segment::footer_bytes(&bytes).unwrap() as usize;
    let begin = bytes.len() - length;
    let mut footer = bytes[begin..bytes.len() - 16].to_vec();
    footer[1] = 2;
    let newer = [&bytes[..begin], &sealed(&footer)].concat();
    assert_eq!(segment::decode(&Bytes::from(newer)).unwrap_err(), SegmentError::Version(2));
    let key = ExtentKey::new(partition(0), Offset(5));
    let mut index = index_of(key, 16, &[0, 1, 0]);
    index[4] = 2;
    let crc = {
        let mut fixed = index_of(key, 16, &[0, 1, 0]);
        fixed[4] = 2;
        let place = [
            &key.partition.index.to_be_bytes()[..],
            &key.base.0.to_be_bytes(),
            &16u64.to_be_bytes(),
            &fixed[4..],
        ];
        crc32c::crc32c(&place.concat())
    };
    index[..4].copy_from_slice(&crc.to_be_bytes());
    let refused = SeekIndex::decode(key, &counted(OBJECT, 16, 1, 5, 0), &index).unwrap_err();
    assert_eq!(refused.to_string(), "it has version 2, this broker reads version 1: upgrade it");
}

/// An index belongs to its section, and says what the extent says.
#[test]
fn an_index_of_another_section_is_refused() {
    let batch = Item::Batch { writer: 1, lsn: 5, records: 3, value: 1, time: 1 };
    let written = write(&vec![(0, 0, vec![batch.clone()]), (1, 0, vec![batch])], false, None);
    let [first, second] = &written.sections[..] else { panic!("two sections") };
    let behind = |section: &Section| written.bytes.slice(section.data.end() as usize..);
    let decode = |key, data: &Data, bytes: &Bytes| SeekIndex::decode(key, data, bytes);
    assert!(decode(first.key, &first.data, &behind(first)).is_ok());
    assert!(decode(first.key, &first.data, &behind(second)).is_err());
    assert!(decode(second.key, &first.data, &behind(first)).is_err());
    let other_base = ExtentKey::new(first.key.partition, Offset(99));
    assert!(decode(other_base, &first.data, &behind(first)).is_err());
    let longer = Data { bytes: first.data.bytes + 1, ..first.data };
    assert!(decode(first.key, &longer, &behind(first)).is_err());
    let index = &written.bytes[first.data.end() as usize..second.data.position as usize];
    for cut in 0..index.len() {
        assert!(SeekIndex::decode(first.key, &first.data, &index[..cut]).is_err(), "cut at {cut}");
    }
}

/// The bound holds for offsets and times that take the most bytes, and an interval is never smaller than it must be.
#[test]
fn an_index_is_bounded_whatever_the_section() {
    use crate::format::seek::Intervals;
    let header = |size: usize, time: i64| {
        let mut header = header_of(&plain(1, 0));
        (header.size, header.max_timestamp) = (size, time);
        header
    };
    let key = ExtentKey::new(partition(0), Offset(0));
    let sizes = |seed: u64| [100, 70_000, 1 << 20, 1 << 30][(seed % 4) as usize];
    for (batches, step) in [(1u64, 1), (511, 1), (512, 1 << 50), (513, 1 << 50), (100_000, 1 << 45)] {
        for kind in 0..5 {
            let (mut intervals, mut bytes) = (Intervals::new(), 0);
            for at in 0..batches {
                let size = if kind == 4 { sizes(at / 7) } else { sizes(kind) };
                let size = size.min((1 << 40) / batches as usize);
                let time = if at % 2 == 0 { i64::MAX } else { 0 };
                intervals.note(Offset((at * step).cast_signed()), &header(size, time));
                bytes += size as u64;
            }
            let index = intervals.encode(key, 16);
            let data = Data { offsets: i64::MAX as u64, ..counted(OBJECT, 16, bytes, 1, 0) };
            let decoded = SeekIndex::decode(key, &data, &index).unwrap();
            assert!(decoded.held_bytes() < 64 << 10);
            let last = decoded.at(Offset(i64::MAX - 1)).unwrap();
            assert_eq!(decoded.at(Offset(0)).unwrap().position, 16);
            assert!(bytes < INTERVAL_BYTES_MIN || last.position - 16 <= bytes);
            assert!(index.len() <= INDEX_BYTES_MAX, "{} bytes", index.len());
            // Some 11 bytes each.
            assert!(bytes < 1 << 37 || index.len() > INTERVALS_MAX, "{} bytes", index.len());
        }
    }
}

#[test]
fn planted_bugs_are_found_by_verification() {
    let batch = |writer, at: i64| Item::Batch { writer, lsn: 5, records: 1, value: 20_000, time: at };
    let plan = vec![(0, 0, (0..20).map(|at| batch((at % 3) as u8, at)).collect())];
    assert!(segment::decode(&write(&plan, false, None).bytes).is_ok());
    let late = write(&plan, false, Some(PlantedBug::IndexOneBatchLate)).bytes;
    assert!(matches!(segment::decode(&late), Err(SegmentError::Index { .. })));
    let lost = write(&plan, false, Some(PlantedBug::RunsLoseWriter)).bytes;
    assert_eq!(segment::decode(&lost).unwrap_err(), SegmentError::Contradiction("a batch is of no run"));
}

/// What a run costs: one for each commit and writer, not for each batch.
#[test]
fn the_footer_is_small() {
    let batch = |lsn: u64| Item::Batch { writer: 1, lsn, records: 1, value: 100, time: 1 };
    let bytes = |lsns: &[u64]| {
        let written = write(&vec![(0, 0, lsns.iter().map(|lsn| batch(*lsn)).collect())], false, None);
        segment::footer_bytes(&written.bytes).unwrap()
    };
    let one_commit: Vec<u64> = vec![1_000_000; 1_000];
    let own_commits: Vec<u64> = (0..1_000).map(|at| 1_000_000 + at * 20).collect();
    assert_eq!(bytes(&one_commit), 65);
    assert_eq!(bytes(&own_commits) - bytes(&one_commit), 3_996, "four bytes a commit");
}

#[test]
#[should_panic(expected = "batches are in the order of their offsets")]
fn batches_out_of_order_are_a_bug() {
    let mut builder = SegmentBuilder::new(OBJECT);
    builder.begin(partition(0), Offset(0));
    for base in [5, 4] {
        builder.push(&batch_of(Offset(base), 1, 1, 1), Origin { writer: None, lsn: Lsn(1) });
    }
}

/// Stores in the field hold these bytes, so they never change: a new layout is a new version.
#[test]
fn golden() {
    assert_eq!(super::formats::hex(&sample()), include_str!("../../tests/golden/segment-1.hex").trim_end());
    let runs = segment::decode(&sample()).unwrap().sections.into_iter().map(|section| section.runs);
    let runs: Vec<Vec<WriterRun>> = runs.collect();
    assert_eq!(
        runs.iter().map(Vec::len).collect::<Vec<_>>(),
        [3, 1, 1],
        "a gap within a commit is of its run"
    );
    assert_eq!((runs[2][0].first, runs[2][0].end), (Offset(106), Offset(109)));
}
