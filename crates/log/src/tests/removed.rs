//! What retention and DeleteRecords took, and what comes back of it.

use proptest::prelude::*;

use super::*;
use crate::clean::deletion::{Below, cut};
use crate::clean::retention::{Defaults, Due, take};
use crate::limits::REMOVED_RECORDS_BYTES;
use crate::map::deleted::{self, Deleted, Totals, Trash, Which};
use crate::map::extent::ExtentKey;
use crate::map::format_level;
use crate::map::ids::TopicId;
use crate::map::object::{Object, Trash as ObjectTrash};
use crate::map::partition::{self, Head, PartHead};
use crate::map::remains;
use crate::map::removed;
use crate::map::topic::TopicError;
use crate::write::sequencer::sequence;

const KEEPS: &[(&str, &str)] = &[("floe.trash.ms", "60000"), ("retention.bytes", "0")];
const NONE: Defaults = Defaults { ms: -1, bytes: -1 };
const TRASH: Trash = Trash { ms: 86_400_000, bytes: u64::MAX };

fn in_new_tx<T>(test: impl FnOnce(&mut Tx<'_>) -> T) -> T {
    in_tx(|tx| {
        format_level::raise(tx, format_level::WITH_LSNS).unwrap();
        lease(tx, 1, 100_000);
        test(tx)
    })
}

fn configs(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn create_with(tx: &mut Tx<'_>, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Topic {
    topic::create(tx, &NewTopic { name: name.to_owned(), partitions, configs: configs(settings) }).unwrap()
}

/// Appends one batch of two records in an object of its own.
fn append(tx: &mut Tx<'_>, partition: PartitionId, object: u64) {
    let writer = Writer::new("User:a", &format!("c{}", object % 3));
    let appended = sequence(tx, &uploaded(object, &[(partition, &writer, &plain(2, object as i64))]));
    assert!(appended[0].is_ok(), "{appended:?}");
}

fn below(partition: PartitionId, offset: i64) -> Below {
    Below { partition, offset: Some(Offset(offset)) }
}

fn extents(tx: &Tx<'_>, topic: TopicId) -> Vec<(u32, i64, u64)> {
    let all = tx.range::<Extent>(..).map(Result::unwrap);
    let own = all.filter(|(key, _)| key.partition.topic == topic);
    own.map(|(key, extent)| (key.partition.index, key.base.0, extent.bytes())).collect()
}

fn parts(tx: &Tx<'_>) -> Vec<Deleted> {
    deleted::all(tx).unwrap().into_iter().filter(|one| one.removed.is_some()).collect()
}

fn ranges(tx: &Tx<'_>, part: &Deleted) -> Vec<(u32, i64, i64)> {
    let ranges = removed::ranges(tx, part.topic.id, 100).unwrap();
    ranges.iter().map(|range| (range.partition, range.from.0, range.to.0)).collect()
}

fn adds_up(tx: &Tx<'_>) {
    assert_eq!(deleted::miscounted(tx), Ok(None));
    assert_eq!(identity::miscounted(tx).unwrap(), Vec::<String>::new());
}

fn named(name: &str) -> Which {
    Which::Name(name.to_owned())
}

#[test]
fn what_a_topic_loses_comes_back_as_another_with_its_offsets() {
    in_new_tx(|tx| {
        let made = create_with(tx, "t", 3, KEEPS);
        let [first, second, _] = [0, 1, 2].map(|index| PartitionId::new(made.id, index));
        for (object, partition) in [(1, first), (2, first), (3, first), (4, second)] {
            append(tx, partition, object);
        }
        let all = extents(tx, made.id);
        cut(tx, below(first, 3), 10).unwrap();
        let due = [Due { partition: second, ceiling: None }];
        let taken = take(tx, &due, NONE, Timestamp(0), 10).unwrap();
        assert_eq!((taken.extents, taken.records), (1, 2));
        assert_eq!(partition::head(tx, first).unwrap().unwrap().log_start, Offset(3));
        cut(tx, below(first, 4), 10).unwrap();

        let part = parts(tx).remove(0);
        assert_eq!(ranges(tx, &part), [(0, 0, 4), (1, 0, 2)]);
        assert_eq!((part.topic.name.as_str(), &part.topic.configs), ("t", &made.configs));
        assert_eq!(extents(tx, part.topic.id), [all[0], all[1], all[3]]);
        assert_eq!(extents(tx, made.id), [all[2]]);
        let bytes = all[0].2 + all[1].2 + all[3].2;
        assert_eq!(deleted::totals(tx), Ok(Totals { topics: 1, partitions: 2, bytes }));
        assert_eq!((tx.range::<Object>(..).count(), tx.range::<ObjectTrash>(..).count()), (4, 0));
        assert!(deleted::exists(tx, part.topic.id).unwrap());
        adds_up(tx);

        let needs = deleted::undelete(tx, &named("t"), None).unwrap_err();
        assert!(needs.to_string().contains("--as t-removed"), "{needs}");
        assert_eq!(deleted::undelete(tx, &named("t"), Some("t")), Err(TopicError::NameTaken("t".to_owned())));
        adds_up(tx);
        let back = deleted::undelete(tx, &named("t"), Some("t-removed")).unwrap();
        assert_eq!((back.id, back.partitions), (part.topic.id, 3));
        assert_eq!(back.configs["retention.bytes"], "-1", "retention would take it again at once");
        assert_eq!(
            (&back.configs["retention.ms"], &back.configs["floe.trash.ms"]),
            (&"-1".into(), &"60000".into())
        );
        let head = |index| partition::head(tx, PartitionId::new(back.id, index)).unwrap().unwrap();
        let bounds = |head: Head| (head.log_start.0, head.next.0, head.bytes, head.max_timestamp);
        assert_eq!(bounds(head(0)), (0, 4, all[0].2 + all[1].2, 3));
        assert_eq!(bounds(head(1)), (0, 2, all[3].2, 5));
        assert_eq!(bounds(head(2)), (0, 0, 0, -1));
        assert_eq!((tx.range::<PartHead>(..).count(), deleted::totals(tx)), (0, Ok(Totals::default())));
        append(tx, PartitionId::new(back.id, 0), 9);
        cut(tx, below(first, 6), 10).unwrap();
        let next = parts(tx).remove(0);
        assert_eq!(ranges(tx, &next), [(0, 4, 6)], "what came back takes no more");
        adds_up(tx);
    });
}

#[test]
fn only_a_topic_that_asks_keeps_what_it_loses() {
    for (settings, kept) in [
        (&[][..], false),
        (&[("floe.trash.ms", "0")], false),
        (&[("floe.trash.bytes", "1000")], false),
        (&[("floe.trash.ms", "1")], true),
    ] {
        in_new_tx(|tx| {
            let first = PartitionId::new(create_with(tx, "t", 1, settings).id, 0);
            append(tx, first, 1);
            cut(tx, below(first, 2), 10).unwrap();
            assert_eq!(parts(tx).len(), usize::from(kept), "{settings:?}");
            assert_eq!(tx.range::<ObjectTrash>(..).count(), usize::from(!kept));
        });
    }
    in_tx(|tx| {
        lease(tx, 1, 100);
        let first = PartitionId::new(create_with(tx, "t", 1, KEEPS).id, 0);
        append(tx, first, 1);
        cut(tx, below(first, 2), 10).unwrap();
        assert_eq!(
            (parts(tx).len(), tx.range::<Extent>(..).count()),
            (0, 0),
            "brokers of level 1 know no parts"
        );
    });
}

#[test]
fn offsets_that_do_not_follow_on_begin_another_part_and_each_has_its_id() {
    in_new_tx(|tx| {
        let made = create_with(tx, "t", 1, KEEPS);
        let first = PartitionId::new(made.id, 0);
        (1..=5).for_each(|object| append(tx, first, object));
        cut(tx, below(first, 2), 10).unwrap();
        topic::configure(tx, made.id, &configs(&[("floe.trash.ms", "0")])).unwrap();
        assert_eq!(parts(tx)[0].until(TRASH), Some(tx.now()), "the settings of now count");
        cut(tx, below(first, 4), 10).unwrap();
        topic::configure(tx, made.id, &configs(KEEPS)).unwrap();
        cut(tx, below(first, 8), 10).unwrap();
        let found = parts(tx);
        assert_eq!(found.iter().map(|part| ranges(tx, part)).collect::<Vec<_>>(), [[(0, 0, 2)], [(0, 4, 8)]]);
        adds_up(tx);

        let ids: Vec<String> = found.iter().map(|part| part.topic.uuid().to_string()).collect();
        let several = deleted::undelete(tx, &named("t"), Some("u")).unwrap_err().to_string();
        assert!(
            several.contains(&format!("{}, {}", ids[1], ids[0])) && several.contains("--id"),
            "{several}"
        );
        let by_id = Which::told("t".to_owned(), Some(&ids[0])).unwrap();
        let back = deleted::undelete(tx, &by_id, Some("u")).unwrap();
        assert_eq!(back.id, found[0].topic.id);
        adds_up(tx);

        // A topic is meant before what topics lost.
        deleted::delete(tx, made.id, TRASH).unwrap();
        assert_eq!(
            deleted::undelete(tx, &named("t"), None).unwrap(),
            topic::by_id(tx, made.id).unwrap().unwrap()
        );
        cut(tx, below(first, 10), 10).unwrap();
        let last = parts(tx).remove(0);
        assert_eq!(ranges(tx, &last), [(0, 4, 10)], "it is the same topic");
        adds_up(tx);
    });
}

#[test]
fn a_purge_frees_removed_records_and_what_is_deleted_later_stays() {
    in_new_tx(|tx| {
        let made = create_with(tx, "t", 2, KEEPS);
        for index in 0..2 {
            let partition = PartitionId::new(made.id, index);
            append(tx, partition, 1 + u64::from(index));
            append(tx, partition, 3 + u64::from(index));
            cut(tx, below(partition, 2), 10).unwrap();
        }
        let purged = deleted::purge(tx, &named("t")).unwrap();
        assert_eq!(purged.topics, 1);
        adds_up(tx);
        cut(tx, below(PartitionId::new(made.id, 0), 4), 10).unwrap();
        assert_eq!(parts(tx).len(), 1, "another part");
        while remains::sweep(tx, 1).unwrap() {}
        assert_eq!((tx.range::<PartHead>(..).count(), tx.range::<Extent>(..).count()), (1, 2));
        assert_eq!((tx.range::<Object>(..).count(), tx.range::<ObjectTrash>(..).count()), (2, 2));
        adds_up(tx);
    });
}

#[test]
fn a_topic_has_its_own_room() {
    in_new_tx(|tx| {
        let mut all = Vec::new();
        for (lsn, name, of, bytes) in [(1, "a", 7, 10), (2, "b", 0, 10), (3, "a", 7, 20), (4, "a", 7, 30)] {
            let configs = configs(&[("floe.trash.ms", "1000"), ("floe.trash.bytes", "50")]);
            let new = NewTopic { name: format!("{name}{lsn}"), partitions: 1, configs };
            let topic = topic::create(tx, &new).unwrap();
            let removed = (of > 0).then_some(removed::Removed { of: TopicId(of), partitions: 1, extents: 1 });
            all.push(Deleted { topic, at: Timestamp(1_000), lsn: Lsn(lsn), bytes, removed });
        }
        let due = |all: &[Deleted], now| -> Vec<u64> {
            deleted::due(all, TRASH, Timestamp(now), |_| 1).into_iter().map(|(_, lsn)| lsn.0).collect()
        };
        assert_eq!(due(&all, 1_000), [1], "20 and 30 fit");
        assert_eq!(due(&all, 2_000), [1, 2, 3, 4]);
        all[3].topic.configs.insert("floe.trash.bytes".to_owned(), "30".to_owned());
        assert_eq!(due(&all, 1_000), [1, 3], "the last settings count");
        all[3].bytes = 31;
        assert_eq!(due(&all, 1_000), [1, 3, 4], "the others are not concerned");
    });
}

#[test]
fn a_commit_writes_so_many_settings_at_most() {
    in_new_tx(|tx| {
        let long = "1:1,".repeat(REMOVED_RECORDS_BYTES / 12);
        let mut due = Vec::new();
        for number in 0..4 {
            let mut settings = KEEPS.to_vec();
            settings.push(("leader.replication.throttled.replicas", &long));
            let topic = create_with(tx, &format!("t{number}"), 2, &settings);
            for index in 0..2 {
                let partition = PartitionId::new(topic.id, index);
                append(tx, partition, due.len() as u64 + 1);
                due.push(Due { partition, ceiling: None });
            }
        }
        let taken = take(tx, &due, NONE, Timestamp(0), 100).unwrap();
        assert_eq!((taken.partitions, taken.extents), (2, 2));
        let taken = take(tx, &due[2..], NONE, Timestamp(0), 100).unwrap();
        assert_eq!(taken.partitions, 2);
        adds_up(tx);
    });
}

/// What happens to a topic of two partitions.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append(u32),
    Cut { partition: u32, share: u8, extents_max: usize },
    Retain { extents_max: usize },
    Keep(bool),
    Undelete(u8),
    Purge,
    DeleteAndBack,
    Sweep(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cut = (0u32..2, any::<u8>(), 1usize..4);
    let cut = cut.prop_map(|(partition, share, extents_max)| Step::Cut { partition, share, extents_max });
    let step = prop_oneof![
        6 => (0u32..2).prop_map(Step::Append),
        4 => cut,
        1 => (1usize..4).prop_map(|extents_max| Step::Retain { extents_max }),
        1 => prop::bool::weighted(0.8).prop_map(Step::Keep),
        1 => any::<u8>().prop_map(Step::Undelete),
        1 => Just(Step::Purge),
        1 => Just(Step::DeleteAndBack),
        1 => (1usize..4).prop_map(Step::Sweep),
    ];
    prop::collection::vec(step, 1..60)
}

/// An extent: its partition, its first offset, its bytes.
type Known = (u32, i64, u64);

struct Model {
    made: Topic,
    keeps: bool,
    /// What is there.
    here: Vec<Known>,
    /// What can come back.
    gone: Vec<Known>,
    /// Topics that came back.
    others: Vec<TopicId>,
}

impl Model {
    /// Does a step. Returns whether the topic is still there.
    fn apply(&mut self, tx: &mut Tx<'_>, step: Step, object: u64) -> bool {
        match step {
            Step::Append(index) => {
                let partition = PartitionId::new(self.made.id, index);
                let base = partition::head(tx, partition).unwrap().unwrap().next.0;
                append(tx, partition, object);
                self.here.push((index, base, plain(2, 0).len() as u64));
            }
            Step::Cut { partition, share, extents_max } => {
                let partition = PartitionId::new(self.made.id, partition);
                let next = partition::head(tx, partition).unwrap().unwrap().next.0;
                cut(tx, below(partition, next * i64::from(share) / 255), extents_max).unwrap();
            }
            Step::Retain { extents_max } => {
                let due = self.made.partition_ids().map(|partition| Due { partition, ceiling: None });
                take(tx, &due.collect::<Vec<_>>(), NONE, Timestamp(0), extents_max).unwrap();
            }
            Step::Keep(keep) => {
                self.keeps = keep;
                let ms = if keep { "60000" } else { "0" };
                let own = configs(&[("floe.trash.ms", ms), ("retention.bytes", "0")]);
                topic::configure(tx, self.made.id, &own).unwrap();
            }
            Step::Undelete(which) => self.undelete(tx, which, object),
            Step::Purge => {
                deleted::purge(tx, &Which::All).unwrap();
                self.gone.clear();
            }
            Step::DeleteAndBack => {
                deleted::delete(tx, self.made.id, TRASH).unwrap();
                if !self.keeps {
                    return false;
                }
                let id = Which::Id("t".to_owned(), self.made.uuid());
                deleted::undelete(tx, &id, None).unwrap();
            }
            Step::Sweep(records) => drop(remains::sweep(tx, records).unwrap()),
        }
        true
    }

    fn undelete(&mut self, tx: &mut Tx<'_>, which: u8, object: u64) {
        let found = parts(tx);
        if found.is_empty() {
            return;
        }
        let part = &found[usize::from(which) % found.len()];
        let (offsets, of_part) = (ranges(tx, part), extents(tx, part.topic.id));
        let id = Which::Id("t".to_owned(), part.topic.uuid());
        let back = deleted::undelete(tx, &id, Some(&format!("back{object}"))).unwrap();
        for (index, from, to) in offsets {
            let head = partition::head(tx, PartitionId::new(back.id, index)).unwrap().unwrap();
            assert_eq!((head.log_start.0, head.next.0), (from, to));
        }
        self.gone.retain(|one| !of_part.contains(one));
        self.others.push(back.id);
    }

    /// What left the topic went to where the topic wanted it.
    fn compare(&mut self, tx: &Tx<'_>) {
        let left = extents(tx, self.made.id);
        let lost: Vec<_> = self.here.iter().copied().filter(|one| !left.contains(one)).collect();
        self.here.retain(|one| left.contains(one));
        if self.keeps {
            self.gone.extend(lost);
        }
        let mut found: Vec<_> = parts(tx).iter().flat_map(|part| extents(tx, part.topic.id)).collect();
        found.sort_unstable();
        self.gone.sort_unstable();
        assert_eq!(found, self.gone);
        adds_up(tx);
    }

    fn compare_at_the_end(&self, tx: &mut Tx<'_>) {
        while remains::sweep(tx, 10_000).unwrap() {}
        let of_others: usize = self.others.iter().map(|id| extents(tx, *id).len()).sum();
        let all = self.here.len() + self.gone.len() + of_others;
        assert_eq!(tx.range::<Extent>(..).count(), all);
        assert_eq!(tx.range::<Object>(..).count(), all, "each extent has an object of its own here");
        let parts: Vec<TopicId> = parts(tx).iter().map(|part| part.topic.id).collect();
        for pair in tx.range::<PartHead>(..) {
            assert!(parts.contains(&pair.unwrap().0.topic));
        }
        for pair in tx.range::<Extent>(..) {
            let ExtentKey { partition, .. } = pair.unwrap().0;
            assert!(deleted::exists(tx, partition.topic).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Every extent is in one place: with its topic, with what can come back, or with what came back.
    #[test]
    fn removed_records_are_those_that_went(steps in steps()) {
        in_new_tx(|tx| {
            let made = create_with(tx, "t", 2, KEEPS);
            let (here, gone, others) = (Vec::new(), Vec::new(), Vec::new());
            let mut model = Model { made, keeps: true, here, gone, others };
            for (object, step) in (1..).zip(steps) {
                if !model.apply(tx, step, object) {
                    return;
                }
                model.compare(tx);
            }
            model.compare_at_the_end(tx);
        });
    }
}
