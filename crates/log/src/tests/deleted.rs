//! Deleted topics that come back, against a model.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::clean::deletion::{Below, cut};
use crate::limits::{DELETED_EXTENTS_MAX, DELETED_PARTITIONS_MAX, DELETED_PER_COMMIT, DELETED_TOPICS_MAX};
use crate::map::deleted::{self, Deleted, Purged, Totals, Which};
use crate::map::format_level;
use crate::map::ids::TopicId;
use crate::map::object::{Object, Trash as ObjectTrash};
use crate::map::partition::{self, Head};
use crate::map::producer::Producer;
use crate::map::remains;
use crate::map::topic::TopicError;
use crate::write::sequencer::{AppendError, sequence};

const DAY: deleted::Trash = deleted::Trash { ms: 86_400_000, bytes: u64::MAX };

fn in_new_tx<T>(test: impl FnOnce(&mut Tx<'_>) -> T) -> T {
    in_tx(|tx| {
        format_level::raise(tx, format_level::WITH_LSNS).unwrap();
        lease(tx, 1, 100_000);
        test(tx)
    })
}

fn named(name: &str) -> Which {
    Which::Name(name.to_owned())
}

/// Appends one batch in an object of its own.
fn append(tx: &mut Tx<'_>, partition: PartitionId, object: u64, batch: &Bytes) -> Result<(), AppendError> {
    let writer = Writer::new("User:a", &format!("c{}", object % 3));
    sequence(tx, &uploaded(object, &[(partition, &writer, batch)])).remove(0).map(drop)
}

fn extents_of(tx: &Tx<'_>, topic: TopicId) -> usize {
    tx.range::<Extent>(..).filter(|pair| pair.as_ref().unwrap().0.partition.topic == topic).count()
}

fn sweep_all(tx: &mut Tx<'_>) {
    while remains::sweep(tx, 10_000).unwrap() {}
}

#[test]
fn a_topic_comes_back_as_it_was() {
    in_new_tx(|tx| {
        let configs = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        let made = topic::create(tx, &NewTopic { name: "t".to_owned(), partitions: 2, configs }).unwrap();
        let first = PartitionId::new(made.id, 0);
        append(tx, first, 1, &plain(3, 0)).unwrap();
        append(tx, first, 2, &idempotent(5, 0, 0, 2)).unwrap();
        cut(tx, Below { partition: first, offset: Some(Offset(1)) }, 10).unwrap();
        let head = partition::head(tx, first).unwrap();

        assert_eq!(deleted::delete(tx, made.id, DAY).unwrap(), made);
        assert_eq!(deleted::delete(tx, made.id, DAY), Err(TopicError::NotFound));
        assert_eq!((topic::by_id(tx, made.id), topic::by_name(tx, "t")), (Ok(None), Ok(None)));
        assert_eq!((topic::by_uuid(tx, made.uuid()), topic::all(tx)), (Ok(None), Ok(Vec::new())));
        assert_eq!(partition::head(tx, first), Ok(None));
        assert_eq!(append(tx, first, 3, &plain(1, 0)), Err(AppendError::UnknownPartition));
        assert!(!remains::any(tx));
        assert_eq!((extents_of(tx, made.id), tx.range::<Object>(..).count()), (2, 2));
        assert!(deleted::exists(tx, made.id).unwrap());
        let all = deleted::all(tx).unwrap();
        let bytes = head.unwrap().bytes;
        assert_eq!(all, [Deleted { topic: made.clone(), at: tx.now(), lsn: tx.lsn(), bytes, removed: None }]);
        assert_eq!(deleted::totals(tx), Ok(Totals { topics: 1, partitions: 2, bytes }));
        assert_eq!(all[0].until(DAY), Some(Timestamp(tx.now().0 + 86_400_000)));

        assert_eq!(deleted::undelete(tx, &named("t"), None).unwrap(), made);
        assert_eq!(topic::by_name(tx, "t").unwrap(), Some(made));
        assert_eq!(partition::head(tx, first).unwrap(), head);
        assert_eq!(deleted::totals(tx), Ok(Totals::default()));
        append(tx, first, 4, &idempotent(5, 0, 2, 1)).expect("its producer goes on");
        assert_eq!(partition::head(tx, first).unwrap().unwrap().next, Offset(6));
        assert_eq!(deleted::miscounted(tx), Ok(None));
    });
}

#[test]
fn a_name_that_is_taken_asks_for_another() {
    in_new_tx(|tx| {
        let old = create(tx, "t", 1);
        deleted::delete(tx, old.id, DAY).unwrap();
        let new = create(tx, "t", 1);
        assert_ne!(new.id, old.id, "the same name can be made anew at once");
        let taken = deleted::undelete(tx, &named("t"), None).unwrap_err();
        assert_eq!(taken, TopicError::NameTaken("t".to_owned()));
        assert!(taken.to_string().contains("--as t-2"), "{taken}");
        let odd = deleted::undelete(tx, &named("t"), Some("no/name")).unwrap_err();
        assert!(matches!(odd, TopicError::InvalidName { .. }), "{odd}");
        create(tx, "a.b", 1);
        let near = deleted::undelete(tx, &named("t"), Some("a_b")).unwrap_err();
        assert!(near.to_string().contains("collides with topic 'a.b'"), "{near}");
        let live = deleted::undelete(tx, &named("a.b"), None).unwrap_err();
        assert!(live.to_string().contains("DeleteRecords or retention took is kept only"), "{live}");
        let back = deleted::undelete(tx, &named("t"), Some("t-2")).unwrap();
        assert_eq!((back.id, back.name.as_str()), (old.id, "t-2"));
        let none = deleted::undelete(tx, &named("t"), None).unwrap_err();
        assert!(none.to_string().contains("floe topic list --deleted"), "{none}");
    });
}

#[test]
fn of_several_with_one_name_each_can_be_told_by_its_id() {
    in_new_tx(|tx| {
        let [first, second] = [1, 2].map(|partitions| {
            let topic = create(tx, "t", partitions);
            deleted::delete(tx, topic.id, DAY).unwrap();
            topic
        });
        let foreign = Which::Id("t".to_owned(), Uuid::from_u128(1));
        let none = deleted::undelete(tx, &foreign, None).unwrap_err();
        assert!(none.to_string().contains("00000000-0000-0000-0000-000000000001"), "{none}");
        let by_id = Which::Id("t".to_owned(), first.uuid());
        assert_eq!(deleted::undelete(tx, &by_id, Some("first")).unwrap().id, first.id);
        assert_eq!(deleted::undelete(tx, &named("t"), None).unwrap().id, second.id);
        let id = first.uuid().to_string();
        assert_eq!(Which::told("t".to_owned(), Some(&id)), Ok(by_id));
        let wrong = Which::told("t".to_owned(), Some("five")).unwrap_err().to_string();
        assert!(wrong.contains("'five' is no id") && wrong.contains("list --deleted"), "{wrong}");
    });
}

#[test]
fn a_topic_may_be_deleted_for_good() {
    in_new_tx(|tx| {
        for (own, trash, kept) in [(Some("0"), DAY, false), (Some("1"), DAY, true), (None, DAY, true)]
            .into_iter()
            .chain([(None, deleted::Trash { ms: 0, ..DAY }, false)])
            .chain([(Some("1"), deleted::Trash { ms: 0, ..DAY }, true)])
        {
            let configs = own.map(|ms| ("floe.trash.ms".to_owned(), ms.to_owned())).into_iter().collect();
            let new = NewTopic { name: "t".to_owned(), partitions: 1, configs };
            let made = topic::create(tx, &new).unwrap();
            deleted::delete(tx, made.id, trash).unwrap();
            assert_eq!(deleted::exists(tx, made.id), Ok(kept), "{own:?} {trash:?}");
        }
    });
    in_tx(|tx| {
        let made = create(tx, "t", 1);
        deleted::delete(tx, made.id, DAY).unwrap();
        assert_eq!(deleted::exists(tx, made.id), Ok(false), "brokers of level 1 do not know what it is");
    });
}

#[test]
fn a_purge_frees_everything_in_steps() {
    in_new_tx(|tx| {
        let count = DELETED_PER_COMMIT + 3;
        for number in 0..count {
            let topic = create(tx, &format!("t{number}"), 1);
            deleted::delete(tx, topic.id, DAY).unwrap();
        }
        let made = create(tx, "last", 1);
        append(tx, PartitionId::new(made.id, 0), 1, &idempotent(5, 0, 0, 2)).unwrap();
        deleted::delete(tx, made.id, DAY).unwrap();

        let none = deleted::purge(tx, &named("nobody")).unwrap_err();
        assert_eq!(none, deleted::undelete(tx, &named("nobody"), None).unwrap_err());
        let one = deleted::purge(tx, &named("t0")).unwrap();
        assert_eq!(one, Purged { topics: 1, bytes: 0, more: false });
        let some = deleted::purge(tx, &Which::All).unwrap();
        assert_eq!((some.topics, some.more), (DELETED_PER_COMMIT as u64, true));
        let rest = deleted::purge(tx, &Which::All).unwrap();
        assert_eq!((rest.topics, rest.more), (3, false));
        assert!(rest.bytes > 0);
        assert_eq!(deleted::purge(tx, &Which::All), Ok(Purged::default()));
        assert_eq!(deleted::miscounted(tx), Ok(None));
        assert!(!deleted::exists(tx, made.id).unwrap());
        sweep_all(tx);
        assert_eq!((tx.range::<Extent>(..).count(), tx.range::<Producer>(..).count()), (0, 0));
        let trash: Vec<_> = tx.range::<ObjectTrash>(..).map(|pair| pair.unwrap().1.lsn).collect();
        assert_eq!(trash, [tx.lsn()], "its readers hold it back until they are done");
    });
}

/// Deleted topics, each with its bytes and its own time in milliseconds.
fn in_trash(tx: &mut Tx<'_>, of_each: &[(u64, &str)]) -> Vec<Deleted> {
    let mut all = Vec::new();
    for (number, (bytes, ms)) in of_each.iter().enumerate() {
        let configs = BTreeMap::from([("floe.trash.ms".to_owned(), (*ms).to_owned())]);
        let new = NewTopic { name: format!("t{number}"), partitions: 1, configs };
        let topic = topic::create(tx, &new).unwrap();
        let (at, lsn) = (Timestamp(1_000), Lsn(number as u64 + 1));
        all.push(Deleted { topic, at, lsn, bytes: *bytes, removed: None });
    }
    all
}

#[test]
fn time_and_bounds_take_the_first_deleted() {
    in_new_tx(|tx| {
        let all = in_trash(tx, &[(10, "500"), (20, "100"), (30, "9223372036854775807"), (40, "500")]);
        let due = |bytes, now, extents: u64| {
            let trash = deleted::Trash { ms: 1, bytes };
            let due = deleted::due(&all, trash, Timestamp(now), |_| extents);
            due.into_iter().map(|(_, lsn)| lsn.0).collect::<Vec<_>>()
        };
        assert_eq!(due(u64::MAX, 1_099, 1), [0_u64; 0]);
        assert_eq!(due(u64::MAX, 1_100, 1), [2], "its time is over");
        assert_eq!(due(u64::MAX, 9_999, 1), [1, 2, 4]);
        assert_eq!(due(100, 1_000, 1), [0_u64; 0]);
        assert_eq!(due(99, 1_000, 1), [1]);
        assert_eq!(due(80, 1_100, 1), [2], "what goes by its time makes room");
        assert_eq!(due(69, 1_000, 1), [1, 2, 3]);
        assert_eq!(due(39, 1_000, 1), [1, 2, 3, 4]);
        assert_eq!(due(0, 1_000, 1), [1, 2, 3, 4]);
        assert_eq!(due(u64::MAX, 1_000, DELETED_EXTENTS_MAX / 2), [1, 2]);
        assert_eq!(due(u64::MAX, 1_000, DELETED_EXTENTS_MAX + 1), [1, 2, 3, 4]);
    });
}

#[test]
fn what_was_seen_and_has_changed_since_does_not_expire() {
    in_new_tx(|tx| {
        let made = create(tx, "t", 1);
        deleted::delete(tx, made.id, DAY).unwrap();
        let other = Lsn(tx.lsn().0 + 1);
        assert_eq!(deleted::expire(tx, &[(made.id, other), (TopicId(9), other)]), Ok(Purged::default()));
        assert!(deleted::exists(tx, made.id).unwrap());
        let lsn = tx.lsn();
        assert_eq!(deleted::expire(tx, &[(made.id, lsn)]).unwrap().topics, 1);
        assert!(!deleted::exists(tx, made.id).unwrap());
        assert_eq!(deleted::miscounted(tx), Ok(None));
    });
}

#[test]
fn the_commit_of_a_deletion_keeps_the_number_of_topics_within_bounds() {
    in_new_tx(|tx| {
        let mut first = None;
        for number in 0..=DELETED_TOPICS_MAX {
            let topic = create(tx, &format!("t{number}"), 1);
            first = first.or(Some(topic.id));
            deleted::delete(tx, topic.id, DAY).unwrap();
        }
        assert_eq!(deleted::totals(tx).unwrap().topics, DELETED_TOPICS_MAX);
        assert_eq!(deleted::exists(tx, first.unwrap()), Ok(false));
        assert_eq!(deleted::miscounted(tx), Ok(None));
    });
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Create { name: usize, partitions: u32, ms: Option<u64> },
    Append { name: usize, partition: u32, records: u32, idempotent: bool },
    Cut { name: usize, partition: u32, share: u8 },
    Delete { name: usize },
    Undelete { name: usize, new_name: Option<usize> },
    Purge { name: Option<usize> },
    Expire { after: i64, bytes: u64 },
    Sweep { records_max: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..NAMES.len();
    let own = prop::option::of(prop_oneof![Just(0), Just(500), Just(2_000)]);
    let create =
        (name(), 1u32..3, own).prop_map(|(name, partitions, ms)| Step::Create { name, partitions, ms });
    let append = (name(), 0u32..2, 1u32..4, any::<bool>());
    let append = append.prop_map(|(name, partition, records, idempotent)| Step::Append {
        name,
        partition,
        records,
        idempotent,
    });
    let cut = (name(), 0u32..2, any::<u8>());
    let cut = cut.prop_map(|(name, partition, share)| Step::Cut { name, partition, share });
    let undelete = (name(), prop::option::of(name()));
    let undelete = undelete.prop_map(|(name, new_name)| Step::Undelete { name, new_name });
    let expire = (0i64..3_000, 0u64..600).prop_map(|(after, bytes)| Step::Expire { after, bytes });
    let step = prop_oneof![
        3 => create,
        5 => append,
        1 => cut,
        3 => name().prop_map(|name| Step::Delete { name }),
        3 => undelete,
        1 => prop::option::of(name()).prop_map(|name| Step::Purge { name }),
        1 => expire,
        1 => (1usize..4).prop_map(|records_max| Step::Sweep { records_max }),
    ];
    prop::collection::vec(step, 1..60)
}

/// An extent: its first offset, its records and its bytes.
type KnownExtent = (i64, u32, u64);

/// A topic as the model has it: of each partition the log start, the next offset, and the extents.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    id: TopicId,
    name: usize,
    ms: u64,
    partitions: Vec<(i64, i64, Vec<KnownExtent>)>,
}

impl Known {
    fn bytes(&self) -> u64 {
        self.partitions.iter().flat_map(|(_, _, extents)| extents).map(|(.., bytes)| bytes).sum()
    }
}

#[derive(Default)]
struct Model {
    live: Vec<Known>,
    deleted: Vec<Known>,
}

impl Model {
    fn live(&mut self, name: usize) -> Option<&mut Known> {
        self.live.iter_mut().find(|known| known.name == name)
    }

    fn purge(&mut self, name: Option<usize>) -> usize {
        let before = self.deleted.len();
        self.deleted.retain(|known| name.is_some_and(|name| known.name != name));
        before - self.deleted.len()
    }

    /// Lets the first go, one after the other, until all is within bounds.
    fn expire(&mut self, after: i64, bytes: u64) {
        self.deleted.retain(|known| known.ms.cast_signed() > after);
        while self.deleted.iter().map(Known::bytes).sum::<u64>() > bytes {
            self.deleted.remove(0);
        }
    }
}

const PRESET: deleted::Trash = deleted::Trash { ms: 1_000, bytes: u64::MAX };

fn apply(tx: &mut Tx<'_>, model: &mut Model, step: &Step, object: u64) {
    match step {
        Step::Create { name, partitions, ms } => {
            let own = ms.map(|ms| ("floe.trash.ms".to_owned(), ms.to_string()));
            let configs = own.into_iter().collect();
            let new = NewTopic { name: NAMES[*name].to_owned(), partitions: *partitions, configs };
            let made = topic::create(tx, &new);
            assert_eq!(made.is_ok(), model.live(*name).is_none());
            if let Ok(made) = made {
                let partitions = vec![(0, 0, Vec::new()); *partitions as usize];
                let ms = ms.unwrap_or(PRESET.ms);
                model.live.push(Known { id: made.id, name: *name, ms, partitions });
            }
        }
        Step::Append { name, partition, records, idempotent: is_idempotent } => {
            let Some(known) = model.live(*name) else { return };
            let Some((_, next, extents)) = known.partitions.get_mut(*partition as usize) else { return };
            let producer = object.cast_signed();
            let batch =
                if *is_idempotent { idempotent(producer, 0, 0, *records) } else { plain(*records, 0) };
            append(tx, PartitionId::new(known.id, *partition), object, &batch).unwrap();
            extents.push((*next, *records, batch.len() as u64));
            *next += i64::from(*records);
        }
        Step::Cut { name, partition, share } => {
            let Some(known) = model.live(*name) else { return };
            let Some((start, next, extents)) = known.partitions.get_mut(*partition as usize) else { return };
            let offset = *next * i64::from(*share) / 255;
            let partition = PartitionId::new(known.id, *partition);
            cut(tx, Below { partition, offset: Some(Offset(offset)) }, 1_000).unwrap();
            // What topics lose has a model of its own (`removed.rs`).
            let all = deleted::all(tx).unwrap();
            let parts = all.iter().filter(|one| one.removed.is_some());
            let seen: Vec<_> = parts.map(|part| (part.topic.id, part.lsn)).collect();
            deleted::expire(tx, &seen).unwrap();
            *start = offset.max(*start);
            extents.retain(|(base, records, _)| base + i64::from(*records) > offset);
        }
        Step::Delete { name } => {
            let Some(at) = model.live.iter().position(|known| known.name == *name) else { return };
            let known = model.live.remove(at);
            deleted::delete(tx, known.id, PRESET).unwrap();
            if known.ms > 0 {
                model.deleted.push(known);
                // All deletions are in one commit here, so the ids give the order.
                model.deleted.sort_by_key(|known| known.id);
            }
        }
        Step::Undelete { name, new_name } => undelete(tx, model, *name, *new_name),
        Step::Purge { name } => {
            let which = name.map_or(Which::All, |name| named(NAMES[name]));
            let purged = deleted::purge(tx, &which).map_or(0, |purged| purged.topics);
            assert_eq!(purged as usize, model.purge(*name));
        }
        Step::Expire { after, bytes } => {
            let now = Timestamp(tx.now().0 + after);
            let trash = deleted::Trash { bytes: *bytes, ..PRESET };
            let due = deleted::due(&deleted::all(tx).unwrap(), trash, now, |_| 0);
            deleted::expire(tx, &due).unwrap();
            model.expire(*after, *bytes);
        }
        Step::Sweep { records_max } => {
            remains::sweep(tx, *records_max).unwrap();
        }
    }
}

fn undelete(tx: &mut Tx<'_>, model: &mut Model, name: usize, new_name: Option<usize>) {
    let new = new_name.map(|name| NAMES[name]);
    let back = deleted::undelete(tx, &named(NAMES[name]), new);
    let target = new_name.unwrap_or(name);
    let found = model.deleted.iter().rposition(|known| known.name == name);
    match found {
        None => assert!(matches!(back, Err(TopicError::NothingDeleted(_)))),
        Some(_) if model.live(target).is_some() => {
            assert_eq!(back, Err(TopicError::NameTaken(NAMES[target].to_owned())));
        }
        Some(at) => {
            let known = Known { name: target, ..model.deleted.remove(at) };
            assert_eq!(back.unwrap().id, known.id);
            model.live.push(known);
        }
    }
}

fn compare(tx: &Tx<'_>, model: &Model) {
    let mut names: Vec<_> = model.live.iter().map(|known| (NAMES[known.name].to_owned(), known.id)).collect();
    names.sort();
    let found: Vec<_> = topic::all(tx).unwrap().into_iter().map(|topic| (topic.name, topic.id)).collect();
    assert_eq!(found, names);
    let heads = tx.range::<Head>(..).count();
    assert_eq!(heads, model.live.iter().map(|known| known.partitions.len()).sum::<usize>());
    let in_trash: Vec<_> = deleted::all(tx)
        .unwrap()
        .iter()
        .map(|one| (one.topic.id, one.topic.name.clone(), one.bytes))
        .collect();
    let expected: Vec<_> =
        model.deleted.iter().map(|known| (known.id, NAMES[known.name].to_owned(), known.bytes())).collect();
    assert_eq!(in_trash, expected);
    for known in &model.live {
        for (index, (start, next, extents)) in (0..).zip(&known.partitions) {
            let partition = PartitionId::new(known.id, index);
            let head = partition::head(tx, partition).unwrap().unwrap();
            let bytes = extents.iter().map(|(.., bytes)| bytes).sum::<u64>();
            assert_eq!((head.log_start.0, head.next.0, head.bytes), (*start, *next, bytes));
        }
    }
    // Extents of all that is there, live or deleted.
    for known in model.live.iter().chain(&model.deleted) {
        let pairs = tx.range::<Extent>(..).map(Result::unwrap);
        let of_topic = pairs.filter(|(key, _)| key.partition.topic == known.id);
        let found: Vec<_> = of_topic
            .map(|(key, extent)| (key.partition.index, key.base.0, extent.offsets() as u32, extent.bytes()))
            .collect();
        let expected: Vec<_> = (0..)
            .zip(&known.partitions)
            .flat_map(|(index, (_, _, extents))| {
                extents.iter().map(move |(base, records, bytes)| (index, *base, *records, *bytes))
            })
            .collect();
        assert_eq!(found, expected);
    }
    assert_eq!(deleted::miscounted(tx), Ok(None));
    assert_eq!(identity::miscounted(tx).unwrap(), Vec::<String>::new());
    assert_eq!(crate::map::producer_count::miscounted(tx).unwrap(), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Nothing is lost, nothing leaks, and what came back is as it was.
    #[test]
    fn deleted_topics_do_what_a_model_does(steps in steps()) {
        in_new_tx(|tx| {
            let mut model = Model::default();
            for (object, step) in (1..).zip(&steps) {
                apply(tx, &mut model, step, object);
                compare(tx, &model);
            }
            // Nothing is left of topics that are neither there nor in the trash.
            sweep_all(tx);
            compare(tx, &model);
            let all = model.live.iter().chain(&model.deleted);
            let extents: usize =
                all.flat_map(|known| &known.partitions).map(|(_, _, extents)| extents.len()).sum();
            assert_eq!(tx.range::<Extent>(..).count(), extents);
            assert_eq!(tx.range::<Object>(..).count(), extents, "each extent has an object of its own here");
            for pair in tx.range::<Producer>(..) {
                assert!(deleted::exists(tx, pair.unwrap().0.partition.topic).unwrap());
            }
        });
    }
}

const _: () = assert!(DELETED_PARTITIONS_MAX >= topic::PARTITIONS_MAX as u64);
