//! Topics: rules for names, creation, look-ups, deletion.

use floe_meta::{Counter, CounterKey};

use super::*;
use crate::map::extent::Extent;
use crate::map::object::{Object, Trash};
use crate::map::partition::{self, Head};
use crate::map::producer::Producer;
use crate::map::remains::{self, SWEEP_RECORDS_MAX, sweep};
use crate::map::topic::{TopicError, by_id, by_name, by_uuid};
use crate::map::topic_config::ConfigError;
use crate::write::sequencer::sequence;

fn new(name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: 1, configs: BTreeMap::new() }
}

#[test]
fn names_follow_kafkas_rules() {
    for name in ["a", "A.b_c-9", "...", &"x".repeat(249)] {
        assert_eq!(topic::check_name(name), Ok(()), "{name}");
    }
    for name in ["", ".", "..", "a b", "ä", "a/b", "a\0", &"x".repeat(250)] {
        assert!(matches!(topic::check_name(name), Err(TopicError::InvalidName { .. })), "{name}");
    }
}

#[test]
fn a_topic_is_found_by_everything_it_is_called() {
    in_tx(|tx| {
        let orders = create(tx, "orders", 3);
        let other = create(tx, "a-topic", 1);
        assert_ne!(orders.uuid(), other.uuid());
        assert_eq!(orders.uuid().as_u64_pair(), (0x0123_4567_89ab_cdef, orders.id.0));
        assert_eq!(by_name(tx, "orders").unwrap(), Some(orders.clone()));
        assert_eq!(by_id(tx, orders.id).unwrap(), Some(orders.clone()));
        assert_eq!(by_uuid(tx, orders.uuid()).unwrap(), Some(orders.clone()));
        let foreign = uuid::Uuid::from_u64_pair(1, orders.id.0);
        assert_eq!(by_uuid(tx, foreign).unwrap(), None, "the same number in another cluster");
        assert_eq!(by_name(tx, "Orders").unwrap(), None);
        assert_eq!(by_name(tx, &"x".repeat(100_000)).unwrap(), None);
        let names: Vec<String> = topic::all(tx).unwrap().into_iter().map(|topic| topic.name).collect();
        assert_eq!(names, ["a-topic", "orders"]);
        for id in orders.partition_ids() {
            assert_eq!(partition::head(tx, id).unwrap(), Some(Head::default()));
        }
        assert_eq!(partition::head(tx, PartitionId::new(orders.id, 3)).unwrap(), None);
    });
}

#[test]
fn creation_is_refused_with_a_reason() {
    in_tx(|tx| {
        create(tx, "a.b", 1);
        assert_eq!(topic::create(tx, &new("a.b")), Err(TopicError::Exists("a.b".to_owned())));
        let collision = topic::create(tx, &new("a_b")).unwrap_err();
        assert!(collision.to_string().contains("collides with topic 'a.b'"), "{collision}");
        for (name, collides) in [
            ("a.b.c", false),
            ("a_b_c", true),
            ("a_b.c", true),
            ("a.b_c", true),
            ("a-b.c", false),
            ("a.b-c", false),
            ("_x", false),
            (".x", true),
            ("x.", false),
            ("x_", true),
            ("aXb", false),
            ("a", false),
        ] {
            assert_eq!(topic::create(tx, &new(name)).is_err(), collides, "{name}");
        }
        let topics = topic::all(tx).unwrap().len();
        let none = NewTopic { partitions: 0, ..new("none") };
        assert_eq!(topic::create(tx, &none), Err(TopicError::InvalidPartitions(0)));
        let many = NewTopic { partitions: topic::PARTITIONS_MAX + 1, ..new("many") };
        assert!(matches!(topic::create(tx, &many), Err(TopicError::InvalidPartitions(_))));
        let configs = BTreeMap::from([("no.such".to_owned(), "1".to_owned())]);
        let odd = topic::create(tx, &NewTopic { configs, ..new("odd") });
        assert_eq!(odd, Err(TopicError::InvalidConfig(ConfigError::UnknownName("no.such".to_owned()))));
        assert_eq!(topic::all(tx).unwrap().len(), topics);
    });
}

/// The bound counts existing partitions, not all that ever existed. It also holds for a map from before the count.
#[test]
fn partitions_of_all_topics_are_bounded() {
    in_tx(|tx| {
        let count = CounterKey::named("partition");
        let counted = |tx: &Tx<'_>| tx.get::<Counter>(&count).unwrap().unwrap().0;
        let wide = |name: &str| NewTopic { partitions: 3, ..new(name) };
        let first = topic::create(tx, &wide("first")).unwrap();
        tx.delete::<Counter>(&count);
        topic::create(tx, &wide("second")).unwrap();
        assert_eq!(counted(tx), 6);

        tx.put(&count, &Counter(topic::PARTITIONS_TOTAL_MAX - 2));
        let full = Err(TopicError::TooManyPartitions(topic::PARTITIONS_TOTAL_MAX - 2));
        assert_eq!(topic::create(tx, &wide("third")), full);
        topic::delete(tx, first.id).unwrap();
        topic::create(tx, &wide("third")).unwrap();
        assert_eq!(counted(tx), topic::PARTITIONS_TOTAL_MAX - 2);
    });
}

#[test]
fn settings_are_kept_under_canonical_names() {
    in_tx(|tx| {
        let configs = BTreeMap::from([("floe.table".to_owned(), "json".to_owned())]);
        let made = topic::create(tx, &NewTopic { configs: configs.clone(), ..new("t") }).unwrap();
        assert_eq!(made.configs, configs);
        let cleared = topic::configure(tx, made.id, &BTreeMap::new()).unwrap();
        assert!(cleared.configs.is_empty());
        assert_eq!(by_name(tx, "t").unwrap(), Some(cleared));
    });
}

#[test]
fn a_deleted_topic_frees_its_objects_and_its_name() {
    in_tx(|tx| {
        lease(tx, 1, 10);
        let (kept, gone) = (create(tx, "kept", 1), create(tx, "gone", 2));
        let writer = Writer::new("User:a", "c");
        let kept_0 = PartitionId::new(kept.id, 0);
        let [gone_0, gone_1] = [0, 1].map(|index| PartitionId::new(gone.id, index));
        let bytes = plain(1, 1);
        let shared =
            uploaded(1, &[(kept_0, &writer, &bytes), (gone_0, &writer, &bytes), (gone_1, &writer, &bytes)]);
        let alone = uploaded(2, &[(gone_0, &writer, &idempotent(5, 0, 0, 2))]);
        for object in [&shared, &alone] {
            assert!(sequence(tx, object).iter().all(Result::is_ok));
        }
        assert_eq!(tx.get::<Object>(&ObjectId(1)).unwrap().unwrap().extents, 3);
        assert_eq!(tx.range::<Producer>(..).count(), 1);

        topic::delete(tx, gone.id).unwrap();
        assert_eq!(topic::delete(tx, gone.id), Err(TopicError::NotFound));
        assert_eq!(by_name(tx, "gone").unwrap(), None);
        assert_eq!(by_id(tx, gone.id).unwrap(), None);
        assert_eq!(partition::head(tx, gone_1).unwrap(), None);
        assert_eq!(tx.range::<Producer>(..).count(), 0);
        let extents: Vec<_> = tx.range::<Extent>(..).map(Result::unwrap).collect();
        assert_eq!(extents.len(), 1);
        assert_eq!(extents[0].0.partition, kept_0);
        assert_eq!(tx.get::<Object>(&ObjectId(1)).unwrap().unwrap().extents, 1, "still holds the kept topic");
        assert_eq!(tx.get::<Object>(&ObjectId(2)).unwrap(), None);
        let trash = tx.get::<Trash>(&ObjectId(2)).unwrap().unwrap();
        assert_eq!((trash.since, trash.size), (tx.now(), alone.size));

        let again = create(tx, "gone", 1);
        assert_ne!(again.id, gone.id, "numbers are never used again");
        assert_eq!(partition::head(tx, PartitionId::new(again.id, 0)).unwrap(), Some(Head::default()));
    });
}

#[test]
fn a_large_topic_is_freed_in_steps() {
    in_tx(|tx| {
        lease(tx, 1, 10_000);
        let gone = create(tx, "gone", 1);
        let kept = create(tx, "kept", 1);
        let [gone_0, kept_0] = [&gone, &kept].map(|topic| PartitionId::new(topic.id, 0));
        let writer = Writer::new("User:a", "c");
        // Batches of other partitions in between keep the extents apart.
        let bytes = plain(1, 0);
        let objects = 11;
        let pairs = SWEEP_RECORDS_MAX / 10;
        for object in 1..=objects {
            let one = uploaded(
                object,
                &vec![[(gone_0, &writer, &bytes), (kept_0, &writer, &bytes)]; pairs].concat(),
            );
            assert!(sequence(tx, &one).iter().all(Result::is_ok));
        }
        let object = uploaded(objects + 1, &[(gone_0, &writer, &idempotent(5, 0, 0, 1))]);
        assert!(sequence(tx, &object)[0].is_ok());

        topic::delete(tx, gone.id).unwrap();
        assert!(remains::any(tx));
        assert_eq!(partition::head(tx, gone_0).unwrap(), None, "nobody sees what is left");
        let left = |tx: &Tx<'_>| tx.prefix::<Extent>(|out| gone_0.put(out)).count();
        assert_eq!(left(tx), pairs + 1);
        assert!(sweep(tx, pairs + 1).unwrap(), "its producer is left");
        assert_eq!(left(tx), 0);
        assert_eq!(tx.get::<Object>(&ObjectId(1)).unwrap().unwrap().extents as usize, pairs);
        assert!(tx.get::<Trash>(&ObjectId(objects + 1)).unwrap().is_some());
        assert!(!sweep(tx, 10).unwrap());
        assert!(!remains::any(tx));
        assert_eq!(tx.range::<Producer>(..).count(), 0);
        assert!(!sweep(tx, 10).unwrap(), "nothing left to do");
    });
}
