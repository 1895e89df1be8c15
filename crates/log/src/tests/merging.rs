//! The commit of a merge, the index of sources, and what to merge next.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clean::retention::Defaults;
use crate::map::deleted;
use crate::map::extent::{ExtentKey, Marker, Outcome};
use crate::map::format_level::{self, FormatLevel, NEWEST};
use crate::map::identity::miscounted;
use crate::map::object::{Level, Object, ObjectKind, Trash};
use crate::map::partition::{self, Head};
use crate::map::writer_number::WriterNumber;
use crate::merge::index::{Index, source_of};
use crate::merge::plan::{self, Plan, Rules, Run, Sorting};
use crate::merge::sizes::{Class, Sizes};
use crate::read::source::Source;
use crate::write::leases::{end_ids, lease_ids};
use crate::write::merged::{MergeError, Merged, Swap, merge};
use crate::write::sequencer::sequence;

const BYTES: u64 = 500;

/// A partition with two objects and a marker between them, and the merge of all three.
fn prepared(tx: &mut Tx<'_>) -> (PartitionId, Merged) {
    format_level::raise(tx, NEWEST).unwrap();
    let partition = PartitionId::new(create(tx, "t", 1).id, 0);
    lease(tx, 1, 1000);
    let append = |tx: &mut Tx<'_>, object, client| {
        let writer = Writer::new("User:a", client);
        let bytes = plain(2, 0);
        assert!(sequence(tx, &uploaded(object, &[(partition, &writer, &bytes)]))[0].is_ok());
    };
    append(tx, 1, "one");
    crate::write::marker::mark(tx, &[partition], (9, 1), Outcome::Commit).unwrap();
    append(tx, 2, "two");
    let old: Vec<_> = tx.range::<Extent>(..).map(|pair| pair.unwrap()).collect();
    let old: Vec<_> = old.into_iter().map(|(key, extent)| (key.base, extent)).collect();
    let owner = 77;
    let object = lease_ids(tx, ObjectKind::Segment, WriterNumber(3), owner, 1, Duration::ZERO).unwrap();
    let data = Data {
        spacing: Spacing::Stamped,
        written_by: WrittenBy::Footer,
        lsn: Lsn(1),
        ..counted(object, 0, BYTES, 5, 1)
    };
    let swaps = vec![Swap { partition, old, new: vec![(Offset(0), Extent::Data(data))] }];
    let (size, level) = (BYTES + 100, Level::Gathered);
    (partition, Merged { object, owner, size, level, continues: false, swaps })
}

#[test]
fn a_merge_swaps_extents_and_moves_everything_that_counts_them() {
    in_tx(|tx| {
        let (partition, merged) = prepared(tx);
        assert_eq!(miscounted(tx).unwrap(), Vec::<String>::new());
        merge(tx, &merged).unwrap();
        let left: Vec<_> = tx.range::<Extent>(..).map(|pair| pair.unwrap().1).collect();
        assert_eq!(left, [merged.swaps[0].new[0].1]);
        let head = partition::head(tx, partition).unwrap().unwrap();
        assert_eq!((head.next, head.log_start, head.bytes), (Offset(5), Offset(0), BYTES));
        assert_eq!(miscounted(tx).unwrap(), Vec::<String>::new(), "the footer has the writers now");
        let object = tx.get::<Object>(&merged.object).unwrap();
        assert_eq!(object, Some(Object { size: BYTES + 100, extents: 1, level: Level::Gathered }));
        for id in [1, 2] {
            let trash = tx.get::<Trash>(&ObjectId(id)).unwrap().expect("it has no extents left");
            assert_eq!(trash.lsn, tx.lsn(), "older snapshots refer to it");
        }
        let owner = merged.owner;
        end_ids(tx, owner, merged.object, ObjectId(merged.object.0 + 1)).unwrap();
        assert!(tx.get::<Trash>(&merged.object).unwrap().is_none(), "it is named");
        assert_eq!(
            merge(tx, &merged).unwrap_err().to_string(),
            "the lease on object 8000030000000001 ended before its commit"
        );
    });
}

/// Whatever changed since the merge read the extents, the merge loses.
#[test]
fn a_merge_of_extents_that_have_changed_is_refused() {
    type Change = fn(&mut Tx<'_>, PartitionId, &mut Merged);
    let changes: [(&str, Change); 5] = [
        ("an extent is gone", |tx, partition, _| {
            tx.delete::<Extent>(&ExtentKey::new(partition, Offset(0)));
        }),
        ("an extent is another", |tx, partition, _| {
            let (time, lsn) = (Timestamp(0), Lsn(4));
            let marker = Marker { producer_id: 1, producer_epoch: 0, outcome: Outcome::Abort, time, lsn };
            tx.put(&ExtentKey::new(partition, Offset(2)), &Extent::Marker(marker));
        }),
        ("the partition is gone", |tx, partition, _| tx.delete::<Head>(&partition)),
        ("the lease has ended", |tx, _, merged| {
            end_ids(tx, merged.owner, merged.object, merged.object).unwrap();
        }),
        ("old brokers are there", |tx, _, _| tx.put(&(), &FormatLevel(1))),
    ];
    for (what, change) in changes {
        in_tx(|tx| {
            let (partition, mut merged) = prepared(tx);
            change(tx, partition, &mut merged);
            let refused = merge(tx, &merged).expect_err(what);
            let expected = match what {
                "the lease has ended" => matches!(refused, MergeError::Object(_)),
                "old brokers are there" => matches!(refused, MergeError::Level { .. }),
                _ => refused == MergeError::Changed(partition),
            };
            assert!(expected, "{what}: {refused}");
        });
    }
}

#[test]
#[should_panic(expected = "a merge leaves no offset out")]
fn a_merge_that_leaves_an_offset_out_is_a_bug() {
    in_tx(|tx| {
        let (_, mut merged) = prepared(tx);
        let (_, Extent::Data(data)) = &mut merged.swaps[0].new[0] else { panic!("it has data") };
        data.offsets -= 1;
        let _ = merge(tx, &merged);
    });
}

/// A deleted topic that can come back is merged like others.
#[test]
fn extents_of_a_deleted_topic_are_merged_and_come_back_with_it() {
    in_tx(|tx| {
        let (partition, merged) = prepared(tx);
        let kept = deleted::Trash { ms: 1_000, ..deleted::Trash::default() };
        let topic = deleted::delete(tx, partition.topic, kept).unwrap();
        merge(tx, &merged).unwrap();
        assert_eq!(deleted::by_id(tx, partition.topic).unwrap().unwrap().bytes, BYTES);
        assert_eq!(deleted::totals(tx).unwrap().bytes, BYTES);
        deleted::undelete(tx, &deleted::Which::Name(topic.name), None).unwrap();
        let head = partition::head(tx, partition).unwrap().unwrap();
        assert_eq!((head.next, head.log_start, head.bytes), (Offset(5), Offset(0), BYTES));
        assert_eq!(deleted::totals(tx).unwrap(), deleted::Totals::default());
    });
    in_tx(|tx| {
        let (partition, merged) = prepared(tx);
        deleted::delete(tx, partition.topic, deleted::Trash { ms: 0, ..deleted::Trash::default() }).unwrap();
        assert_eq!(merge(tx, &merged), Err(MergeError::Changed(partition)), "it is gone for good");
    });
}

/// The parts of a merge are commits of their own, and the writer that an extent names is counted.
#[test]
fn a_merge_in_several_commits_adds_extents_to_its_object() {
    in_tx(|tx| {
        let (partition, first) = prepared(tx);
        let second = PartitionId::new(create(tx, "second", 1).id, 0);
        let writer = Writer::new("User:a", "three");
        let bytes = plain(2, 0);
        assert!(sequence(tx, &uploaded(3, &[(second, &writer, &bytes)]))[0].is_ok());
        let base = ExtentKey::new(second, Offset(0));
        let old = tx.get::<Extent>(&base).unwrap().unwrap();
        let moved = Data { place: Place::Object(first.object), position: BYTES, ..data(old) };
        let swaps = vec![Swap {
            partition: second,
            old: vec![(Offset(0), old)],
            new: vec![(Offset(0), Extent::Data(moved))],
        }];
        let more = Merged { continues: true, swaps, ..first.clone() };
        let refused = merge(tx, &more).unwrap_err().to_string();
        assert!(refused.ends_with("is gone before all of it was committed"), "{refused}");
        merge(tx, &first).unwrap();
        merge(tx, &more).unwrap();
        let object = tx.get::<Object>(&first.object).unwrap().unwrap();
        assert_eq!((object.extents, object.size), (2, BYTES + 100));
        assert_eq!(miscounted(tx).unwrap(), Vec::<String>::new());
        assert_eq!(partition::head(tx, partition).unwrap().unwrap().bytes, BYTES);
        let again = merge(tx, &Merged { continues: false, ..more }).unwrap_err();
        assert!(matches!(again, MergeError::Object(_)), "{again}");
    });
}

const KEEPS_ALL: Defaults = Defaults { ms: -1, bytes: -1 };
/// The owner of the leases on all segments of a model.
const MERGING: u128 = 77;

/// A map to which objects come and in which merges are done, without any bytes.
struct Model {
    map: Snapshot,
    index: Index,
    sizes: Sizes,
    topic: crate::TopicId,
    objects: u64,
    segments: ObjectId,
    came: u64,
    written: u64,
    /// Whether the journal has little room.
    pressed: bool,
}

impl Model {
    fn new(partitions: u32, sizes: Sizes) -> Model {
        assert_eq!(sizes.check(), Ok(()));
        let mut model = Model {
            map: Snapshot::default(),
            index: Index::new(sizes),
            sizes,
            topic: crate::TopicId(0),
            objects: 0,
            segments: ObjectId(0),
            came: 0,
            written: 0,
            pressed: false,
        };
        (model.topic, model.segments) = model.commit(|tx| {
            cluster::open(tx, 1 << 100).unwrap();
            format_level::raise(tx, NEWEST).unwrap();
            lease(tx, 1, 1 << 30);
            let owner = MERGING;
            let first = lease_ids(tx, ObjectKind::Segment, WriterNumber(3), owner, 1 << 20, Duration::ZERO);
            (create(tx, "t", partitions).id, first.unwrap())
        });
        model
    }

    fn commit<T>(&mut self, command: impl FnOnce(&mut Tx<'_>) -> T) -> T {
        let envelope = Envelope::broker("test");
        let mut tx = Tx::new(&self.map, &envelope);
        let reply = command(&mut tx);
        let changes = tx.into_changes();
        self.map.apply(self.map.lsn().next(), &changes);
        self.index.follow(&self.map, &changes);
        reply
    }

    /// An object with so many bytes of each of these partitions, or the same in a frame.
    fn come(&mut self, parts: &[(u32, u64)], in_frame: bool) {
        self.objects += 1;
        let object = ObjectId(self.objects);
        let topic = self.topic;
        let bytes: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
        self.came += bytes;
        let count = u32::try_from(parts.len()).unwrap();
        let parts = parts.to_vec();
        self.commit(|tx| {
            let mut position = 16;
            for (index, bytes) in parts {
                let partition = PartitionId::new(topic, index);
                let head = partition::head(tx, partition).unwrap().unwrap();
                let place = if in_frame { Place::Frame } else { Place::Object(object) };
                let data = Data { place, lsn: tx.lsn(), ..counted(object, position, bytes, 1, 5) };
                let data = Data { written_by: WrittenBy::Footer, ..data };
                tx.put(&ExtentKey::new(partition, head.next), &Extent::Data(data));
                tx.put(&partition, &Head { next: head.next.plus(1), bytes: head.bytes + bytes, ..head });
                position += bytes;
            }
            if !in_frame {
                tx.put(&object, &Object::raw(position + 100, count));
            }
        });
    }

    fn mark(&mut self, index: u32) {
        let partition = PartitionId::new(self.topic, index);
        let mark = |tx: &mut Tx<'_>| crate::write::marker::mark(tx, &[partition], (9, 1), Outcome::Commit);
        self.commit(mark).unwrap();
    }

    /// Does all merges that are due. Returns how many.
    fn settle(&mut self, keeps: Defaults) -> usize {
        let (mut sorting, mut merges): (Option<Sorting>, usize) = (None, 0);
        loop {
            let holds = |_: Source, _: &ExtentKey| false;
            let rules = Rules { sizes: self.sizes, retention: keeps, pressed: self.pressed, holds: &holds };
            let next = plan::next(&self.map, &self.index, &rules, &|_| false, sorting.take()).unwrap();
            sorting = next.sorting;
            let Some(plan) = next.plan else { return merges };
            assert!(plan.bytes <= self.sizes.segment_bytes || plan.sources().len() == 1, "{}", plan.bytes);
            self.carry_out(&plan);
            merges += 1;
        }
    }

    fn carry_out(&mut self, plan: &Plan) {
        let object = self.segments;
        self.segments = ObjectId(object.0 + 1);
        let (mut position, mut swaps) = (0, Vec::new());
        for Run { partition, extents } in &plan.runs {
            assert!(extents.last().unwrap().1.data().is_some(), "a run ends with data");
            let new = Data {
                position,
                bytes: extents.iter().map(|(_, extent)| extent.bytes()).sum(),
                offsets: extents.iter().map(|(_, extent)| extent.offsets()).sum(),
                spacing: Spacing::Stamped,
                written_by: WrittenBy::Footer,
                lsn: extents.iter().filter_map(|(_, e)| e.data()).map(|data| data.lsn).max().unwrap(),
                ..counted(object, 0, 0, 0, 5)
            };
            position += new.bytes;
            let new = vec![(extents[0].0, Extent::Data(new))];
            swaps.push(Swap { partition: *partition, old: extents.clone(), new });
        }
        self.written += position;
        let (size, level) = (position, plan.level);
        let merged = Merged { object, owner: MERGING, size, level, continues: false, swaps };
        self.commit(|tx| merge(tx, &merged)).unwrap();
    }

    fn extents(&self) -> u64 {
        self.map.range::<Extent>(..).count() as u64
    }

    fn objects(&self) -> u64 {
        self.map.range::<Object>(..).count() as u64
    }

    /// Every offset is in one extent, and the index is that of the map.
    fn check(&self) {
        let fresh = Index::of_map(&self.map, self.sizes);
        assert_eq!(fresh.backlog(), self.index.backlog());
        assert_eq!(fresh.due(), self.index.due());
        let mut sources = std::collections::BTreeSet::new();
        let mut next: BTreeMap<PartitionId, Offset> = BTreeMap::new();
        for pair in self.map.range::<Extent>(..) {
            let (key, extent) = pair.unwrap();
            let begin = next.insert(key.partition, extent.next_offset(key.base)).unwrap_or(Offset(0));
            assert_eq!(key.base, begin, "no offset is left out of {}", key.partition);
            sources.extend(source_of(&extent));
        }
        for (partition, end) in next {
            assert_eq!(partition::head(&self.map, partition).unwrap().unwrap().next, end);
        }
        for source in sources {
            let of = |index: &Index| index.extents(&self.map, source).unwrap();
            assert_eq!(of(&fresh), of(&self.index), "{source}");
        }
    }
}

const SMALL: Sizes = Sizes {
    segment_bytes: 64_000,
    small_bytes: 500,
    small_objects: 8,
    long_bytes: 2_000,
    pool_bytes: 256_000,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Objects of any size come, and bytes in frames, and markers. After the merges that are due, few are left, no byte
    /// was written too often, and the index knows it all.
    #[test]
    fn merges_keep_objects_few_and_bytes_written_bounded(
        sizes in prop::collection::vec((0u32..14, prop::collection::vec(0u32..5, 1..4), 0u8..8), 20..200),
    ) {
        let mut model = Model::new(5, SMALL);
        for (power, mut partitions, what) in sizes {
            if what == 0 {
                model.mark(partitions[0]);
                continue;
            }
            partitions.sort_unstable();
            partitions.dedup();
            let bytes = (1 << power).max(70);
            let parts: Vec<(u32, u64)> = partitions.into_iter().map(|partition| (partition, bytes)).collect();
            model.come(&parts, what < 3);
            model.settle(KEEPS_ALL);
            prop_assert_eq!(model.index.due(), None);
            prop_assert!(model.written <= model.came * 3, "{} bytes written of {}", model.written, model.came);
        }
        model.check();
        let whole = model.came / (SMALL.segment_bytes / 2);
        let waiting = SMALL.small_objects as u64 + SMALL.segment_bytes / SMALL.small_bytes
            + SMALL.pool_bytes / SMALL.long_bytes;
        prop_assert!(model.objects() <= whole + waiting, "{} objects", model.objects());
    }
}

/// A few small commits would hold whole files of the journal for as long as no merge is due. One that is as long as a
/// segment would stay there for ever.
#[test]
fn what_a_crowded_journal_holds_is_merged_although_nothing_is_due() {
    let mut model = Model::new(2, SMALL);
    model.come(&[(0, SMALL.segment_bytes)], true);
    for index in [0, 1, 0] {
        model.come(&[(index, 100)], true);
        model.come(&[(index, 100)], false);
    }
    assert_eq!(model.settle(KEEPS_ALL), 0);
    assert_eq!(model.index.frames().len(), 1, "the first one fills a segment");
    model.pressed = true;
    assert_eq!(model.settle(KEEPS_ALL), 2, "what is as long as a segment is alone");
    assert!(model.index.frames().is_empty());
    assert_eq!(model.settle(KEEPS_ALL), 0, "objects wait until they are due");
    model.check();
}

/// How long an extent becomes is bounded by what its topic keeps.
#[test]
fn an_extent_has_a_part_of_what_retention_keeps() {
    let merged = |keeps: Defaults| {
        let mut model = Model::new(1, SMALL);
        for _ in 0..8 {
            model.come(&[(0, 100)], false);
        }
        assert_eq!(model.settle(keeps), 1);
        model.extents()
    };
    assert_eq!(merged(KEEPS_ALL), 1);
    assert_eq!(merged(Defaults { ms: -1, bytes: 200 * 16 }), 4, "two each");
    assert_eq!(merged(Defaults { ms: -1, bytes: 0 }), 8, "nothing becomes one");
}

/// Sources that were left alone come back, and an object of which most is gone is merged again.
#[test]
fn what_is_set_aside_is_not_merged_and_waste_is() {
    let mut model = Model::new(2, SMALL);
    (0..8).for_each(|_| model.come(&[(0, 100)], false));
    assert_eq!(model.index.due(), Some(Class::Small));
    model.index.set_aside(Source::Object(ObjectId(3)));
    assert_eq!(model.index.due(), None);
    model.index.take_back(Source::Object(ObjectId(3)));
    assert_eq!(model.settle(KEEPS_ALL), 1);
    (0..16).for_each(|_| model.come(&[(0, 2_000), (1, 2_000)], false));
    assert_eq!((model.index.due(), model.objects()), (None, 17), "they are long, and wait for others");
    model.come(&[(0, 60_000)], false);
    assert_eq!(model.index.due(), None, "it is as good as a segment");
    (0..64).for_each(|_| model.come(&[(0, 2_000), (1, 2_000)], false));
    assert!(model.settle(KEEPS_ALL) >= 4);
    assert!(model.extents() < 32 + 10, "{} extents, of which 32 wait for others", model.extents());
    model.check();
}

/// Merging that stood still catches up, and looks at nothing twice: ten times as much takes ten times as long, about.
#[test]
fn ten_thousand_small_objects_are_merged_in_one_go() {
    let mut model = Model::new(16, Sizes::default());
    for at in 0..10_000 {
        model.come(&[(at % 16, 300), ((at + 1) % 16, 300)], at % 3 == 0);
    }
    let merges = model.settle(KEEPS_ALL);
    assert!(merges < 20, "{merges} merges");
    assert!(model.extents() < 3_000, "{} extents", model.extents());
    model.check();
}

/// Objects of 4 KiB to 8 MiB come. A byte is written once when it comes, and at most twice by merging, but for the few
/// that came in tiny objects. The example `merging` counts what real objects take.
fn bytes_written(partitions: u32, objects: u64, written_max: f64, extents_max: u64) {
    let mut model = Model::new(partitions, Sizes::default());
    let mut random = 1_u64;
    let mut dice = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let all = u64::from(partitions);
    for _ in 0..objects {
        let size = (4 << 10) << dice(12);
        let count = dice(all).min(size / (4 << 10)) + 1;
        let first = dice(all);
        let mut parts: Vec<(u32, u64)> =
            (0..count).map(|at| (((first + at) % all) as u32, size / count)).collect();
        parts.sort_unstable();
        model.come(&parts, false);
        model.settle(KEEPS_ALL);
    }
    let written = (model.came + model.written) as f64 / model.came as f64;
    let (gibibytes, extents, left) = (model.came >> 30, model.extents(), model.objects());
    println!("{gibibytes} GiB: {written:.3} bytes written for each, {extents} extents, {left} objects");
    assert!(written <= written_max, "{written} bytes written for each");
    assert!(extents <= extents_max, "{extents} extents of {gibibytes} GiB");
    assert!(left <= 20 * gibibytes + 6_000, "{left} objects of {gibibytes} GiB");
}

#[test]
fn bytes_written_per_byte_produced_to_a_few_partitions() {
    bytes_written(16, 20_000, 3.0, 20_000);
}

#[test]
fn bytes_written_per_byte_produced_to_a_thousand_partitions() {
    bytes_written(1_000, 1_200, 3.01, 120_000);
}

/// The index follows the commits of a broker: what was merged, and what went.
#[tokio::test(start_paused = true)]
async fn the_index_follows_the_map() {
    let env = floe_env::Env::simulated(1);
    let journal = std::sync::Arc::new(floe_meta::MemoryJournal::new());
    let meta = floe_meta::Meta::open(env, journal, floe_meta::Options::default()).await.unwrap();
    let commit = |work: fn(&mut Tx<'_>)| {
        let command = move |tx: &mut Tx<'_>| -> Result<(), floe_meta::DecodeError> {
            work(tx);
            Ok(())
        };
        meta.commit(Envelope::broker("test"), command)
    };
    let key = |base| ExtentKey::new(PartitionId::new(crate::TopicId(1), 0), Offset(base));
    commit(|tx| {
        tx.put(&ObjectId(1), &Object::raw(1, 1));
        let key = ExtentKey::new(PartitionId::new(crate::TopicId(1), 0), Offset(0));
        tx.put(&key, &Extent::Data(counted(ObjectId(1), 0, 1, 1, 0)));
    })
    .await
    .unwrap();
    let index = Index::of(&meta, Sizes::default());
    let of = |object| {
        let source = Source::Object(ObjectId(object));
        let extents = index.extents(&meta.snapshot(), source).unwrap();
        extents.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(of(1), [key(0)]);
    commit(|tx| {
        tx.put(&ObjectId(2), &Object::raw(1, 2));
        tx.delete::<Object>(&ObjectId(1));
        for base in [1, 0] {
            let key = ExtentKey::new(PartitionId::new(crate::TopicId(1), 0), Offset(base));
            tx.put(&key, &Extent::Data(counted(ObjectId(2), 0, 1, 1, 0)));
        }
    })
    .await
    .unwrap();
    assert_eq!((of(1), of(2)), (vec![], vec![key(0), key(1)]), "an extent has moved");
    commit(|tx| {
        tx.delete::<Extent>(&ExtentKey::new(PartitionId::new(crate::TopicId(1), 0), Offset(1)));
    })
    .await
    .unwrap();
    assert_eq!((of(1), of(2)), (vec![], vec![key(0)]));
}
