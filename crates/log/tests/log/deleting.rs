//! Topics that are deleted and come back, with their objects.

use std::sync::Arc;
use std::time::Duration;

use floe_log::Config;
use floe_log::PartitionId;
use floe_log::Times;
use floe_log::deleted::{self, Trash, Which};
use floe_log::object::{Object, object_key};
use floe_log::topic::{self, Topic, TopicError};

use crate::faults::{long_after, nothing_is_orphaned};
use crate::world::{World, append, config, offset, open, values, writer};

/// How long deleted topics can come back here.
const KEPT: Duration = Duration::from_secs(3_600);

/// A log that cleans only when told to, with a trash for topics.
fn told() -> Config {
    let never = Duration::from_secs(1_000_000);
    Config { times: Times { cleaner_pause: never, ..config().times }, ..kept() }
}

fn kept() -> Config {
    let ms = u64::try_from(KEPT.as_millis()).expect("an hour");
    Config { trash: Trash { ms, ..Trash::default() }, ..config() }
}

fn named(name: &str) -> Which {
    Which::Name(name.to_owned())
}

/// A topic with two objects of its own.
async fn filled(world: &World, name: &str) -> (Topic, PartitionId) {
    let topic = world.topic(name, 1).await;
    let partition = PartitionId::new(topic.id, 0);
    for value in ["a", "b"] {
        append(&world.log, partition, &[value]).await.expect("appended");
    }
    (topic, partition)
}

#[tokio::test(start_paused = true)]
async fn a_topic_comes_back_after_rounds_of_the_cleaner_and_a_restart() {
    let world = World::with(1, kept()).await;
    let (made, partition) = filled(&world, "t").await;
    world.log.delete_topic(&writer(), made.id).await.expect("deleted");
    let other = world.topic("t", 1).await;
    assert_ne!(other.id, made.id);
    long_after().await;
    nothing_is_orphaned(&world.log, &world.memory).expect("nothing is left over");
    let store = Arc::new(world.memory.clone());
    let second = open(&world.env.scope(), &world.journal, store, kept()).await;
    let taken = second.undelete_topic(&writer(), named("t"), None).await;
    assert_eq!(taken, Err(TopicError::NameTaken("t".to_owned())));
    let back = second.undelete_topic(&writer(), named("t"), Some("u".to_owned())).await.expect("it is there");
    assert_eq!((back.name.as_str(), back.uuid(), back.configs), ("u", made.uuid(), made.configs));
    let expected = [(0, "a".to_owned()), (1, "b".to_owned())];
    assert_eq!(values(&second, partition).await, expected);
    assert_eq!(append(&second, partition, &["c"]).await.expect("appended").base_offset.0, 2);
    let none = second.undelete_topic(&writer(), named("t"), None).await;
    assert!(matches!(none, Err(TopicError::NothingDeleted(_))), "{none:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_topics_with_one_name_the_last_deleted_comes_back() {
    let world = World::with(2, told()).await;
    let first = filled(&world, "a").await.0;
    let second = filled(&world, "b").await.0;
    world.log.delete_topic(&writer(), second.id).await.expect("deleted");
    world.log.undelete_topic(&writer(), named("b"), Some("a-2".to_owned())).await.expect("it is there");
    world.log.delete_topic(&writer(), second.id).await.expect("deleted");
    world.log.delete_topic(&writer(), first.id).await.expect("deleted");
    world.log.undelete_topic(&writer(), named("a"), Some("a-2".to_owned())).await.expect("it is there");
    world.log.delete_topic(&writer(), first.id).await.expect("deleted");
    let all = deleted::all(&world.log.meta().snapshot()).expect("readable");
    assert_eq!(all.iter().map(|one| one.topic.id).collect::<Vec<_>>(), [second.id, first.id]);
    let back = world.log.undelete_topic(&writer(), named("a-2"), None).await.expect("it is there");
    assert_eq!(back.id, first.id, "the order is that of the deletions, not of the ids");
}

#[tokio::test(start_paused = true)]
async fn objects_of_a_purged_topic_wait_for_the_grace_and_for_readers() {
    let world = World::with(3, told()).await;
    let (made, partition) = filled(&world, "t").await;
    let objects: Vec<_> =
        world.log.meta().snapshot().range::<Object>(..).map(|pair| pair.expect("readable").0).collect();
    assert_eq!(objects.len(), 2);
    let held = || objects.iter().filter(|id| world.memory.keys().contains(&object_key(**id))).count();
    world.log.delete_topic(&writer(), made.id).await.expect("deleted");
    let pinned = world.log.pin();
    tokio::time::sleep(KEPT / 2).await;
    world.log.clean().await.expect("a round");
    let purged = world.log.purge_topics(&writer(), Which::All).await.expect("purged");
    assert_eq!((purged.topics, purged.more), (1, false));
    assert!(purged.bytes > 0);
    for _ in 0..3 {
        world.log.clean().await.expect("a round");
        assert_eq!(held(), 2, "the grace, and a reader");
        tokio::time::sleep(config().times.trash_grace).await;
    }
    drop(pinned);
    for _ in 0..3 {
        tokio::time::sleep(config().times.trash_grace).await;
        world.log.clean().await.expect("a round");
    }
    assert_eq!(held(), 0);
    let again = world.log.purge_topics(&writer(), named("t")).await;
    assert!(matches!(again, Err(TopicError::NothingDeleted(_))), "{again:?}");
    assert_eq!(topic::all(&world.log.meta().snapshot()), Ok(Vec::new()));
    assert!(world.log.read(&world.log.meta().snapshot(), partition, offset(0), 1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn time_and_bytes_let_deleted_topics_go() {
    let world = World::with(4, told()).await;
    let (first, _) = filled(&world, "first").await;
    world.log.delete_topic(&writer(), first.id).await.expect("deleted");
    tokio::time::sleep(KEPT / 2).await;
    let (second, _) = filled(&world, "second").await;
    world.log.delete_topic(&writer(), second.id).await.expect("deleted");
    let left = || deleted::all(&world.log.meta().snapshot()).expect("readable").len();
    world.log.clean().await.expect("a round");
    assert_eq!(left(), 2);
    tokio::time::sleep(KEPT / 2).await;
    world.log.clean().await.expect("a round");
    assert_eq!(left(), 1, "the time of the first is over");
    tokio::time::sleep(KEPT / 2).await;
    world.log.clean().await.expect("a round");
    assert_eq!(left(), 0);

    let trash = Trash { ms: u64::MAX, bytes: 200 };
    let world = World::with(5, Config { trash, ..told() }).await;
    for name in ["a", "b", "c"] {
        let (topic, _) = filled(&world, name).await;
        world.log.delete_topic(&writer(), topic.id).await.expect("deleted");
    }
    let names = || -> Vec<String> {
        let all = deleted::all(&world.log.meta().snapshot()).expect("readable");
        assert!(all.iter().map(|one| one.bytes).sum::<u64>() <= 500, "{all:?}");
        all.into_iter().map(|one| one.topic.name).collect()
    };
    assert_eq!(names(), ["a", "b", "c"]);
    world.log.clean().await.expect("a round");
    assert_eq!(names(), ["c"], "of two batches of 69 bytes each, one topic fits");
}
