//! Readers that hold a snapshot for long, the sessions that tell of them, and the cleaner that waits.

use std::sync::Arc;
use std::time::Duration;

use floe_env::Env;
use floe_log::extent::{Data, Extent, Place};
use floe_log::object::{Object, Trash, object_key};
use floe_log::walk::ReadError;
use floe_log::{Capacity, Config, Log, Offset, PartitionId, Times, session};
use floe_meta::{DecodeError, Envelope, Journal, MemoryJournal, Tx};
use floe_store::{MemoryStore, Store as _};

use crate::world::{World, append, config, open, topic, writer};

const HOUR: Duration = Duration::from_secs(3_600);

/// A log that keeps nothing in memory: what it reads comes from the store.
fn bare() -> Config {
    Config { cache: Capacity { tail: 1, cold: 1, reads: 1 << 20 }, ..config() }
}

/// The same, and it cleans only when told to.
fn told() -> Config {
    let never = Duration::from_secs(1_000_000_000);
    Config { times: Times { cleaner_pause: never, retention_pause: never, ..bare().times }, ..bare() }
}

async fn partition_of(log: &Log) -> PartitionId {
    PartitionId::new(topic(log, "t", 1).await.id, 0)
}

/// Deletes all records of a partition.
async fn empty(log: &Log, partition: PartitionId) {
    let below = floe_log::Below { partition, offset: None };
    for deleted in log.delete_records(&writer(), &[below]).await {
        deleted.expect("deleted");
    }
}

fn objects(memory: &MemoryStore) -> usize {
    memory.keys().iter().filter(|key| key.starts_with("wal/")).count()
}

/// A statement that runs for an hour, under retention and a cleaner, sees its cut.
#[tokio::test(start_paused = true)]
async fn a_pinned_snapshot_is_read_for_an_hour_and_then_cleaned() {
    let World { log, memory, .. } = World::with(1, bare()).await;
    let partition = partition_of(&log).await;
    for value in ["a", "b", "c"] {
        append(&log, partition, &[value]).await.expect("appended");
    }
    let cut = log.pin();
    empty(&log, partition).await;
    for value in ["d", "e"] {
        append(&log, partition, &[value]).await.expect("appended");
        tokio::time::sleep(HOUR / 2).await;
    }
    for from in 0..3 {
        let read = log.read(&cut, partition, Offset(from), 1).await.expect("the cut is whole");
        assert_eq!(read.batches[0].base_offset, Offset(from));
    }
    assert_eq!(objects(&memory), 5);
    let clone = cut.clone();
    drop(cut);
    tokio::time::sleep(HOUR).await;
    assert_eq!(objects(&memory), 5, "the clone is in use");
    drop(clone);
    tokio::time::sleep(HOUR).await;
    assert_eq!(objects(&memory), 2);
}

/// What nobody has pinned goes after its grace, and such a reader is told so.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_nobody_pinned_loses_its_objects_and_is_not_damaged() {
    let World { log, memory, .. } = World::with(2, bare()).await;
    let partition = partition_of(&log).await;
    append(&log, partition, &["a"]).await.expect("appended");
    append(&log, partition, &["b"]).await.expect("appended");
    let old = log.meta().snapshot();
    // A merge that does not exist yet: the records move to another object.
    let (moved, bytes) = move_all(&log, partition).await;
    memory.put(&object_key(moved), vec![bytes.into()]).await.expect("put");
    tokio::time::sleep(HOUR).await;
    assert_eq!(objects(&memory), 1);
    let gone = log.read(&old, partition, Offset(1), 1).await.expect_err("the object is deleted");
    assert_eq!(gone, ReadError::Gone { partition, at: Offset(1) });
    let read = log.read(&log.pin(), partition, Offset(1), 1).await.expect("a newer snapshot has it");
    assert_eq!(read.batches[0].base_offset, Offset(1));
    // An object that the newest map names and the store has not is damage.
    memory.delete(&object_key(moved)).await.expect("deleted");
    let damaged = log.read(&log.pin(), partition, Offset(1), 1).await;
    assert!(matches!(damaged, Err(ReadError::Corrupt(_))), "{damaged:?}");
    // And records that retention removed meanwhile are out of range, at whatever snapshot.
    empty(&log, partition).await;
    let removed = log.read(&old, partition, Offset(0), 1).await;
    assert!(matches!(removed, Err(ReadError::OutOfRange { .. })), "{removed:?}");
}

/// Moves the extents of a partition to one object. Returns it with the bytes that it should have.
async fn move_all(log: &Log, partition: PartitionId) -> (floe_log::ObjectId, Vec<u8>) {
    let snapshot = log.pin();
    let mut bytes = Vec::new();
    for at in 0.. {
        let read = log.read(&snapshot, partition, Offset(at), 1).await.expect("read");
        let Some(batch) = read.batches.first() else { break };
        bytes.extend_from_slice(&batch.bytes);
    }
    let (size, id) = (bytes.len() as u64, floe_log::ObjectId(900));
    let swap = move |tx: &mut Tx<'_>| -> Result<(), DecodeError> {
        let extents = tx.range::<Extent>(..).collect::<Result<Vec<_>, _>>()?;
        let mut position = 0;
        for (key, extent) in &extents {
            let data = *extent.data().expect("records");
            floe_log::object::release(tx, extent.object().expect("in an object"), 1)?;
            tx.put(key, &Extent::Data(Data { place: Place::Object(id), position, ..data }));
            position += data.bytes;
        }
        tx.put(&id, &Object::raw(size, 2));
        Ok(())
    };
    log.meta().commit(Envelope::broker("merge"), swap).await.expect("committed");
    (id, bytes)
}

/// The cleaner of one broker waits for the readers of another, as long as that one lives.
#[tokio::test(start_paused = true)]
async fn a_cleaner_waits_for_the_readers_of_other_brokers_while_they_live() {
    for dies in [false, true] {
        let env = Env::simulated(3);
        let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
        let cleaner = open(&env.scope(), &journal, Arc::new(memory.clone()), bare()).await;
        let other = env.scope();
        let reader =
            open(&other, &journal, Arc::new(memory.clone()), Config { cleaner: false, ..bare() }).await;
        let partition = partition_of(&cleaner).await;
        append(&cleaner, partition, &["a"]).await.expect("appended");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let cut = reader.pin();
        empty(&cleaner, partition).await;
        if dies {
            other.abort_all();
        }
        tokio::time::sleep(HOUR).await;
        assert_eq!(objects(&memory), usize::from(!dies));
        if dies {
            assert_eq!(session::all(&cleaner.meta().snapshot()).expect("readable").len(), 1);
            continue;
        }
        let read = reader.read(&cut, partition, Offset(0), 1).await.expect("the cut is whole");
        assert_eq!(read.batches.len(), 1);
        drop(cut);
        tokio::time::sleep(HOUR).await;
        assert_eq!(objects(&memory), 0);
        let trash = cleaner.meta().snapshot().range::<Trash>(..).count();
        assert_eq!(trash, 0);
    }
}

/// A lone broker without work writes nothing, and neither does its session. Two of them tell each other that they live.
#[tokio::test(start_paused = true)]
async fn an_idle_broker_writes_no_heartbeat_unless_others_watch() {
    let World { log, env, journal, memory } = World::with(4, told()).await;
    let lsn = |log: &Log| log.meta().snapshot().lsn().0;
    // It leases object ids ahead of use, and its cleaner has its only round.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = lsn(&log);
    tokio::time::sleep(24 * HOUR).await;
    assert_eq!(lsn(&log), before);
    let second = open(&env.scope(), &journal, Arc::new(memory), told()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = lsn(&second);
    tokio::time::sleep(HOUR).await;
    let beats = lsn(&second) - before;
    let most = 2 * 4 * HOUR.as_secs() / told().times.session_ttl.as_secs();
    assert!(beats > most / 2 && beats <= most, "{beats} heartbeats of two brokers in an hour");
    assert_eq!(session::all(&second.meta().snapshot()).expect("readable").len(), 2);
}

/// Renewals ride on commits that happen anyway, at most one in a while.
#[tokio::test(start_paused = true)]
async fn a_busy_broker_renews_in_its_commits() {
    let World { log, .. } = World::with(5, told()).await;
    let partition = partition_of(&log).await;
    let before = session::all(&log.meta().snapshot()).expect("readable");
    let begun = log.meta().snapshot().lsn();
    let ttl = told().times.session_ttl;
    for _ in 0..8 {
        for value in ["a", "b"] {
            append(&log, partition, &[value]).await.expect("appended");
        }
        tokio::time::sleep(ttl / 4).await;
    }
    let after = session::all(&log.meta().snapshot()).expect("readable");
    assert!(after[0].1.oldest > before[0].1.oldest);
    let entries = log.meta().history(begun, usize::MAX).await.expect("readable");
    let renewals = entries.iter().filter(|entry| entry.changes.iter().any(|change| change.key[0] == 23));
    let causes: Vec<_> = renewals.map(|entry| entry.envelope.cause.clone()).collect();
    assert!((6..=8).contains(&causes.len()), "{causes:?}");
    assert!(causes.iter().all(|cause| cause.as_deref() != Some("session")), "{causes:?}");
}

/// A broker that slept for so long that others ended its session begins it anew.
#[tokio::test(start_paused = true)]
async fn a_session_that_was_ended_begins_anew() {
    let World { log, .. } = World::with(6, told()).await;
    let number = log.writer_number();
    let end = move |tx: &mut Tx<'_>| -> Result<(), DecodeError> {
        tx.delete::<session::Session>(&number);
        Ok(())
    };
    log.meta().commit(Envelope::broker("test"), end).await.expect("committed");
    tokio::time::sleep(told().times.session_ttl).await;
    let sessions = session::all(&log.meta().snapshot()).expect("readable");
    assert_eq!(sessions.iter().map(|(n, s)| (*n, s.epoch)).collect::<Vec<_>>(), [(number, 2)]);
    let before = sessions[0].1.oldest;
    let partition = partition_of(&log).await;
    append(&log, partition, &["a"]).await.expect("appended");
    tokio::time::sleep(told().times.session_ttl).await;
    append(&log, partition, &["b"]).await.expect("appended");
    assert!(session::all(&log.meta().snapshot()).expect("readable")[0].1.oldest > before, "its word counts");
    log.clone().close().await;
    assert_eq!(session::all(&log.meta().snapshot()).expect("readable").len(), 0);
}

/// A reader that never ends does not keep trash for ever.
#[tokio::test(start_paused = true)]
async fn a_pin_ends_after_its_time() {
    let World { log, memory, .. } = World::with(7, bare()).await;
    let partition = partition_of(&log).await;
    append(&log, partition, &["a"]).await.expect("appended");
    let cut = log.pin();
    empty(&log, partition).await;
    tokio::time::sleep(floe_log::limits::PINNED_TIME_MAX - HOUR).await;
    assert_eq!(objects(&memory), 1);
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(objects(&memory), 0);
    drop(cut);
}
