//! Compaction against a model: random histories, passes in between, and the log means the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::compact::filter::{self, Counts, Fate, Pass, PlantedBug};
use crate::compact::offset_map::OffsetMap;
use crate::compact::transactions::{Fates, Kept};
use crate::format::batch::Batch;
use crate::format::records::Record;
use crate::map::extent::{Marker, Outcome};

const RETENTION: i64 = 1_000;
const BYTES_MAX: usize = 1 << 20;

/// A partition in memory.
#[derive(Clone, Default)]
struct Partition {
    batches: Vec<Batch>,
    next: Offset,
    covered: Offset,
    /// When a pass first covered an offset.
    met: BTreeMap<i64, i64>,
    bug: Option<PlantedBug>,
}

#[derive(Clone, Debug)]
enum Op {
    Batch { records: Vec<(Option<u8>, bool)>, producer: i64, transactional: bool, codec: Compression },
    Marker { producer: i64, outcome: Outcome },
    Pass { wait: i64, keys: usize },
}

/// A batch at an offset, which may be of a transaction.
fn batch(
    op: &[(Option<u8>, bool)],
    producer: i64,
    transactional: bool,
    codec: Compression,
    at: Offset,
) -> Batch {
    let mut builder = Builder::new(codec).producer(producer, 0, at.0 as i32);
    for (index, (key, has_value)) in op.iter().enumerate() {
        let value = format!("value of {}", at.0 + index as i64);
        let key = key.map(|key| [b'k', key]);
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"x")), (b"", None)];
        builder.push(
            1_000 + at.0 * 10 - index as i64,
            key.as_ref().map(|key| &key[..]),
            has_value.then_some(value.as_bytes()),
            headers,
        );
    }
    let mut bytes = builder.build().to_vec();
    if transactional {
        bytes[22] |= 0x10;
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    Batch::new(at, bytes.into()).unwrap()
}

impl Partition {
    fn push(&mut self, batch: Batch) {
        assert_eq!(batch.base_offset, self.next);
        self.next = batch.next_offset();
        self.batches.push(batch);
    }

    fn newest(&self) -> Offset {
        Offset(self.next.0 - 1)
    }

    fn pass(&mut self, now: i64, keys: usize) {
        let from = self.covered;
        let (mut fates, mut limit) = (Fates::default(), self.next);
        for batch in self.batches.iter().filter(|batch| batch.next_offset() > from) {
            assert!(fates.look(batch).unwrap());
        }
        limit = fates.first_open().map_or(limit, |open| open.min(limit));
        let mut map = OffsetMap::new(7, keys * 32, 1_000);
        for batch in
            self.batches.iter().filter(|batch| batch.next_offset() > from && batch.base_offset < limit)
        {
            if !batch.has_records() || fates.aborts(batch) {
                continue;
            }
            if let Some(full) = filter::note(&mut map, batch, from, limit).unwrap() {
                limit = full;
                break;
            }
        }
        if limit <= from {
            return;
        }
        let horizon = now + RETENTION;
        let (newest, bug) = (self.newest(), self.bug);
        let pass = Pass { covered: self.covered, end: limit, newest, now, horizon, bug };
        let (mut kept, mut counts, mut left) = (Kept::default(), Counts::default(), Vec::new());
        for batch in &self.batches {
            let (fate, max) = filter::filter(&pass, &map, &fates, &mut kept, batch, &mut counts).unwrap();
            match fate {
                Fate::Same => left.push(batch.clone()),
                Fate::Changed(bytes) => {
                    let changed = Batch::new(batch.base_offset, bytes).unwrap();
                    assert_eq!(changed.next_offset(), batch.next_offset(), "it covers the same offsets");
                    assert_eq!(changed.header().base_offset, batch.base_offset.0, "its offset is in it");
                    let of = |batch: &Batch| {
                        let header = *batch.header();
                        (
                            header.producer_id,
                            header.producer_epoch,
                            header.base_sequence,
                            header.compression(),
                        )
                    };
                    assert_eq!(of(&changed), of(batch));
                    let records = changed.records(BYTES_MAX).unwrap();
                    let found = records.iter().map(|record| record.timestamp).max().unwrap();
                    assert_eq!(changed.header().max_timestamp, found);
                    assert!(max.is_none_or(|max| max == found));
                    left.push(changed);
                }
                Fate::Gone => {}
            }
        }
        for offset in self.covered.0..limit.0 {
            self.met.entry(offset).or_insert(now);
        }
        (self.batches, self.covered) = (left, limit);
    }

    fn records(&self) -> Vec<Record> {
        let of_clients = self.batches.iter().filter(|batch| batch.has_records());
        of_clients.flat_map(|batch| batch.records(BYTES_MAX).unwrap()).collect()
    }

    /// What a reader of committed records sees: of each key the last value, without keys that are deleted.
    fn fold(&self) -> BTreeMap<Vec<u8>, (Offset, Vec<u8>)> {
        let (mut fold, mut pending) = (BTreeMap::new(), BTreeMap::<i64, Vec<Record>>::new());
        let mut committed = Vec::new();
        for batch in &self.batches {
            let header = batch.header();
            let records = batch.records(BYTES_MAX).unwrap();
            if header.is_control() {
                let ended = pending.remove(&header.producer_id).unwrap_or_default();
                let is_commit = records[0].key.as_deref().unwrap()[3] == 1;
                committed.extend(ended.into_iter().filter(|_| is_commit));
            } else if header.is_transactional() {
                pending.entry(header.producer_id).or_default().extend(records);
            } else {
                committed.extend(records);
            }
        }
        committed.sort_by_key(|record| record.offset);
        for Record { offset, key, value, .. } in committed {
            let Some(key) = key else { continue };
            match value {
                Some(value) => drop(fold.insert(key.to_vec(), (offset, value.to_vec()))),
                None => drop(fold.remove(&key.to_vec())),
            }
        }
        fold
    }

    /// The tombstones that are the last records of their keys, in the part that has been compacted.
    fn tombstones(&self) -> BTreeSet<Offset> {
        let mut last = BTreeMap::new();
        for record in self.records() {
            if let Some(key) = record.key {
                last.insert(key, (record.offset, record.value.is_none()));
            }
        }
        last.into_values()
            .filter(|(offset, none)| *none && *offset < self.covered)
            .map(|(offset, _)| offset)
            .collect()
    }
}

fn op() -> impl Strategy<Value = Op> {
    let key = prop_oneof![9 => (0u8..6).prop_map(Some), 1 => Just(None)];
    let records = prop::collection::vec((key, prop::bool::weighted(0.7)), 1..5);
    let codec = prop::sample::select(&Compression::ALL[..]);
    let batch = (records, 1i64..4, prop::bool::weighted(0.4), codec).prop_map(
        |(records, producer, transactional, codec)| Op::Batch { records, producer, transactional, codec },
    );
    let outcome = prop::sample::select(&[Outcome::Commit, Outcome::Abort][..]);
    let marker = (1i64..4, outcome).prop_map(|(producer, outcome)| Op::Marker { producer, outcome });
    let pass = (0i64..1_500, 1usize..8).prop_map(|(wait, keys)| Op::Pass { wait, keys });
    prop_oneof![6 => batch, 3 => marker, 3 => pass]
}

/// Runs a history, and compares after each pass. Returns what is wrong.
fn run(ops: &[Op], bug: Option<PlantedBug>) -> Result<(), String> {
    let (mut whole, mut compacted) = (Partition::default(), Partition { bug, ..Partition::default() });
    let mut now = 10_000;
    for op in ops {
        match op {
            Op::Batch { records, producer, transactional, codec } => {
                let batch = batch(records, *producer, *transactional, *codec, whole.next);
                whole.push(batch.clone());
                compacted.push(batch);
            }
            Op::Marker { producer, outcome } => {
                let (outcome, time) = (*outcome, Timestamp(whole.next.0));
                let marker = Marker { producer_id: *producer, producer_epoch: 0, outcome, time, lsn: Lsn(1) };
                let batch = Batch::of_marker(whole.next, &marker);
                whole.push(batch.clone());
                compacted.push(batch);
            }
            Op::Pass { wait, keys } => {
                now += wait;
                let before = compacted.clone();
                let tombstones = compacted.tombstones();
                compacted.pass(now, *keys);
                compare(&whole, &before, &compacted, &tombstones, now)?;
                // Once more, over the same part and at the same time: nothing changes.
                let mut again = compacted.clone();
                again.covered = before.covered;
                again.pass(now, 1_000);
                if again.covered == compacted.covered {
                    let bytes = |partition: &Partition| -> Vec<Bytes> {
                        partition.batches.iter().map(|batch| batch.bytes.clone()).collect()
                    };
                    if bytes(&again) != bytes(&compacted) {
                        return Err("the same pass again changed something".to_owned());
                    }
                }
            }
        }
    }
    Ok(())
}

fn compare(
    whole: &Partition,
    before: &Partition,
    after: &Partition,
    tombstones: &BTreeSet<Offset>,
    now: i64,
) -> Result<(), String> {
    if whole.fold() != after.fold() {
        return Err(format!("the fold differs: {:?} became {:?}", whole.fold(), after.fold()));
    }
    let all: BTreeMap<Offset, Record> =
        whole.records().into_iter().map(|record| (record.offset, record)).collect();
    let mut last = Offset(-1);
    for record in after.records() {
        if record.offset <= last {
            return Err(format!("{} comes after {last}", record.offset));
        }
        last = record.offset;
        if all.get(&record.offset) != Some(&record) {
            return Err(format!("{record:?} is not as it was"));
        }
    }
    let kept: BTreeSet<Offset> = after.records().into_iter().map(|record| record.offset).collect();
    let newest = before.newest();
    if all.contains_key(&newest) && whole.newest() == newest && !kept.contains(&newest) {
        return Err("the newest record is gone".to_owned());
    }
    // A tombstone that was the last of its key before the pass stays for its time.
    for tombstone in tombstones {
        let key = &all[tombstone].key;
        let is_last = !all.values().any(|other| other.offset > *tombstone && other.key == *key);
        let met = after.met[&tombstone.0];
        if is_last && now < met + RETENTION && !kept.contains(tombstone) {
            return Err(format!("the tombstone at {tombstone} is gone at {now}, which came at {met}"));
        }
    }
    if after.covered == before.covered {
        return Ok(());
    }
    // Below the end, each key has one record of those that are not aborted, and aborted ones are gone.
    let mut seen = BTreeSet::new();
    for record in after.records().into_iter().filter(|record| record.offset < after.covered) {
        if record.offset != newest && !record.key.is_some_and(|key| seen.insert(key)) {
            return Err(format!("{} should be gone", record.offset));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_compacted_log_means_what_the_log_means(ops in prop::collection::vec(op(), 1..40)) {
        run(&ops, None).map_err(TestCaseError::fail)?;
    }
}

/// Each planted bug is found by one of some histories.
#[test]
fn planted_bugs_are_found_by_the_model() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    for bug in [PlantedBug::KeepsOlder, PlantedBug::DropsTombstones, PlantedBug::DropsNewest] {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let histories = prop::collection::vec(op(), 1..40);
        let found = (0..200).find_map(|_| {
            let ops = histories.new_tree(&mut runner).unwrap().current();
            run(&ops, Some(bug)).err()
        });
        assert!(found.is_some(), "{bug:?}");
    }
}

#[test]
fn a_delete_horizon_is_written_as_kafka_writes_it() {
    for codec in Compression::ALL {
        let mut partition = Partition::default();
        partition.push(batch(
            &[(Some(1), true), (Some(2), false), (Some(3), true)],
            9,
            false,
            codec,
            Offset(0),
        ));
        partition.push(batch(&[(Some(1), true)], 9, false, codec, Offset(3)));
        let before = partition.records();
        partition.pass(50_000, 100);
        let header = *partition.batches[0].header();
        assert_eq!(header.attributes, codec as i16 | 0x40);
        assert_eq!((header.base_timestamp, header.delete_horizon()), (51_000, Some(51_000)));
        assert_eq!((header.count, header.last_offset_delta), (2, 2));
        assert_eq!(partition.records(), before[1..], "times, headers and offsets are as they were");
        // The horizon is not moved by later passes, and then the tombstone goes.
        partition.push(batch(&[(Some(4), true)], 9, false, codec, Offset(4)));
        partition.pass(50_999, 100);
        assert_eq!(partition.batches[0].header().delete_horizon(), Some(51_000));
        assert_eq!(partition.records().len(), 4);
        partition.push(batch(&[(Some(5), true)], 9, false, codec, Offset(5)));
        partition.pass(51_000, 100);
        let left: Vec<i64> = partition.records().iter().map(|record| record.offset.0).collect();
        assert_eq!(left, [2, 3, 4, 5]);
    }
}

/// A client can set the bit of the horizon. It does not make its tombstones go.
#[test]
fn the_horizon_of_a_client_does_not_count() {
    let mut partition = Partition::default();
    let mut bytes =
        batch(&[(Some(1), false), (Some(2), true)], 9, false, Compression::None, Offset(0)).bytes.to_vec();
    bytes[22] |= 0x40;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    partition.push(Batch::new(Offset(0), bytes.into()).unwrap());
    partition.push(batch(&[(Some(3), true)], 9, false, Compression::None, Offset(2)));
    partition.pass(50_000, 100);
    assert_eq!(partition.records().len(), 3);
    assert_eq!(partition.batches[0].header().delete_horizon(), Some(51_000));
}

/// Flipped bytes are an error, whatever they are: nothing is made of a damaged batch.
#[test]
fn a_damaged_batch_is_an_error() {
    let whole = batch(&[(Some(1), true), (Some(1), true)], 9, false, Compression::None, Offset(0));
    let map = OffsetMap::new(1, 1_000, 10);
    for at in 17..whole.bytes.len() {
        let mut bytes = whole.bytes.to_vec();
        bytes[at] ^= 4;
        let Ok(damaged) = Batch::new(Offset(0), bytes.into()) else { continue };
        let newest = Offset(9);
        let pass = Pass { covered: Offset(0), end: Offset(9), newest, now: 0, horizon: 0, bug: None };
        let (mut kept, mut counts) = (Kept::default(), Counts::default());
        let filtered = filter::filter(&pass, &map, &Fates::default(), &mut kept, &damaged, &mut counts);
        assert!(filtered.is_err(), "byte {at}");
    }
}
