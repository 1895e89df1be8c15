//! Starts on journals that are older than their store, on copies, and on stores with holes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use floe_env::Env;
use floe_log::extent::Extent;
use floe_log::limits::{UNEXPLAINED_OBJECTS_MAX, WATCH_PAUSE};
use floe_log::object::{Object, Trash, object_key};
use floe_log::walk::ReadError;
use floe_log::{Config, Log, OpenError, PartitionId, Times, WriterNumber, sequencer::AppendError};
use floe_meta::{Commit, Envelope, Journal, Lsn, MemoryJournal, Meta, Options};
use floe_store::faulty::{Fault, FaultyStore, Operation};
use floe_store::{MemoryStore, Store};

use crate::world::{append, config, offset, open, topic, values};

/// The settings of a process that has its journal for itself, with long leases.
fn sole() -> Config {
    Config {
        sole: true,
        linger: Some(Duration::ZERO),
        times: Times { lease_ids: 1_000, ..config().times },
        ..config()
    }
}

/// A copy of a journal up to a commit, as a backup has it.
async fn copy(journal: &Arc<dyn Journal>, upto: Lsn) -> Arc<dyn Journal> {
    let copy = MemoryJournal::new();
    let entries = journal.history(Lsn(0), usize::MAX).await.expect("readable");
    for entry in entries.into_iter().filter(|entry| entry.lsn <= upto) {
        let commit = Commit { envelope: entry.envelope, changes: entry.changes };
        copy.commit(Lsn(entry.lsn.0 - 1), entry.attempt, &[commit]).await.expect("copied");
    }
    Arc::new(copy)
}

async fn last(journal: &Arc<dyn Journal>) -> Lsn {
    journal.history(Lsn(0), usize::MAX).await.expect("readable").last().expect("not empty").lsn
}

async fn start(
    env: &Env,
    journal: &Arc<dyn Journal>,
    store: &MemoryStore,
    config: Config,
) -> Result<Log, OpenError> {
    let meta = Meta::open(env.clone(), Arc::clone(journal), Options::default()).await.expect("it opens");
    Log::open(env.clone(), meta, Arc::new(store.clone()), config).await
}

/// A broker that has appended so many records, each in an object of its own.
async fn world(records: usize, config: Config) -> (Env, Arc<dyn Journal>, MemoryStore, Log, PartitionId) {
    let env = Env::simulated(1);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let broker = env.scope();
    let log = start(&broker, &journal, &memory, config).await.expect("it opens");
    let partition = PartitionId::new(topic(&log, "t", 1).await.id, 0);
    for number in 0..records {
        append(&log, partition, &[&number.to_string()]).await.expect("appended");
    }
    (broker, journal, memory, log, partition)
}

fn refused(outcome: Result<Log, OpenError>, reason: &str) {
    match outcome {
        Err(error @ OpenError::Older { .. }) => {
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains("floe check"), "{text}");
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it went on with a journal that is older than its store"),
    }
}

/// Killed, and started again on what it left.
#[tokio::test(start_paused = true)]
async fn a_journal_that_lost_nothing_is_continued() {
    let (broker, journal, memory, log, partition) = world(20, sole()).await;
    assert_eq!(log.writer_number(), WriterNumber(1));
    broker.abort_all();
    let env = Env::simulated(2);
    for number in 2..5 {
        let broker = env.scope();
        let log = start(&broker, &journal, &memory, sole()).await.expect("it opens");
        assert_eq!(log.writer_number(), WriterNumber(number));
        append(&log, partition, &["more"]).await.expect("appended");
        broker.abort_all();
    }
    let log = start(&env.scope(), &journal, &memory, sole()).await.expect("it opens");
    assert_eq!(values(&log, partition).await.len(), 23);
}

#[tokio::test(start_paused = true)]
async fn a_restored_journal_without_a_lease_is_refused() {
    let config = Config { times: Times { lease_ids: 4, ..config().times }, ..sole() };
    let (broker, journal, memory, _log, _) = world(20, config).await;
    broker.abort_all();
    let env = Env::simulated(2);
    let end = last(&journal).await;
    // Every four objects the store learns how far the journal is.
    for lost in [14, 20, end.0 - 3] {
        let restored = copy(&journal, Lsn(end.0 - lost)).await;
        refused(start(&env.scope(), &restored, &memory, config).await, "this metadata");
    }
    assert!(start(&env.scope(), &journal, &memory, config).await.is_ok());
}

/// Within one lease, the objects that nobody names show it.
#[tokio::test(start_paused = true)]
async fn a_restored_journal_that_lost_many_objects_is_refused() {
    let (broker, journal, memory, _log, _) = world(UNEXPLAINED_OBJECTS_MAX + 10, sole()).await;
    broker.abort_all();
    let env = Env::simulated(2);
    let end = last(&journal).await;
    let restored = copy(&journal, Lsn(end.0 - UNEXPLAINED_OBJECTS_MAX as u64 - 1)).await;
    refused(start(&env.scope(), &restored, &memory, sole()).await, "in flight");
    assert!(start(&env.scope(), &journal, &memory, sole()).await.is_ok());
}

/// After a stop in order, one lost commit is enough.
#[tokio::test(start_paused = true)]
async fn after_a_stop_in_order_every_lost_commit_shows() {
    let (broker, journal, memory, log, _) = world(20, sole()).await;
    log.close().await;
    broker.abort_all();
    let env = Env::simulated(2);
    let restored = copy(&journal, Lsn(last(&journal).await.0 - 1)).await;
    refused(start(&env.scope(), &restored, &memory, sole()).await, "had commit");
    assert!(start(&env.scope(), &journal, &memory, sole()).await.is_ok());
}

/// Two processes with copies of one journal never write to the same name, and the older one stops.
#[tokio::test(start_paused = true)]
async fn of_two_processes_with_copies_of_one_journal_the_older_stops() {
    let (broker, journal, memory, log, partition) = world(20, sole()).await;
    let copied = copy(&journal, last(&journal).await).await;
    let env = Env::simulated(2);
    let second = start(&env.scope(), &copied, &memory, sole()).await.expect("nothing shows yet");
    assert_eq!(second.writer_number(), WriterNumber(2));
    let before = memory.keys().len();
    for n in 0..10 {
        append(&log, partition, &[&format!("first {n}")]).await.expect("appended");
        append(&second, partition, &[&format!("second {n}")]).await.expect("appended");
    }
    assert_eq!(memory.keys().len(), before + 20, "each record has an object of its own");
    for (log, name) in [(&log, "first"), (&second, "second")] {
        let values = values(log, partition).await;
        let own = values.iter().filter(|(_, value)| value.starts_with(name)).count();
        assert_eq!((values.len(), own), (30, 10), "each process reads what it acknowledged");
    }
    tokio::time::sleep(WATCH_PAUSE * 2).await;
    assert_eq!(log.fenced().await, WriterNumber(2));
    let late = append(&log, partition, &["late"]).await;
    assert!(matches!(late, Err(AppendError::Unavailable(_))), "{late:?}");
    append(&second, partition, &["goes on"]).await.expect("appended");
    broker.abort_all();
    refused(start(&env.scope(), &journal, &memory, sole()).await, "that this metadata never gave");
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_is_known_from_the_start_and_others_are_served() {
    let (broker, journal, memory, _log, partition) = world(6, sole()).await;
    broker.abort_all();
    let meta = Meta::open(Env::simulated(3), Arc::clone(&journal), Options::default()).await.expect("opens");
    let third = meta.snapshot().range::<Object>(..).nth(2).expect("there").expect("readable").0;
    memory.delete(&object_key(third)).await.expect("deleted");
    let log = start(&Env::simulated(2), &journal, &memory, sole()).await.expect("it opens");
    let snapshot = log.meta().snapshot();
    let read = log.read(&snapshot, partition, offset(2), 10).await;
    assert!(matches!(&read, Err(ReadError::Corrupt(what)) if what.contains(&third.to_string())), "{read:?}");
    let read = log.read(&snapshot, partition, offset(3), 1_000_000).await.expect("the others are served");
    assert_eq!(read.batches.len(), 3);
    let read = log.read(&snapshot, partition, offset(0), 1_000_000).await.expect("so is what lies before it");
    assert_eq!(read.batches.len(), 2);
}

/// Between the log start and the high watermark every offset has a record. A reader that went on behind a hole would
/// lose records silently.
#[tokio::test(start_paused = true)]
async fn a_gap_in_the_extents_is_not_skipped() {
    let (_broker, _journal, _memory, log, partition) = world(6, config()).await;
    let snapshot = log.meta().snapshot();
    let keys: Vec<_> = snapshot.range::<Extent>(..).map(|pair| pair.expect("readable").0).collect();
    let (first, third, last) = (keys[0], keys[2], keys[5]);
    let lose = move |tx: &mut floe_meta::Tx<'_>| {
        for key in [first, third, last] {
            tx.delete::<Extent>(&key);
        }
        Ok::<_, std::convert::Infallible>(())
    };
    log.meta().commit(Envelope::broker("test"), lose).await.expect("committed");
    let snapshot = log.meta().snapshot();
    for (from, expected) in [(0, None), (1, Some(1)), (2, None), (3, Some(2)), (5, None)] {
        let read = log.read(&snapshot, partition, offset(from), 1_000_000).await;
        match expected {
            Some(batches) => assert_eq!(read.expect("readable").batches.len(), batches, "from {from}"),
            None => {
                let named = format!("no record at offset {from}");
                assert!(matches!(&read, Err(ReadError::Corrupt(what)) if what.contains(&named)), "{read:?}");
            }
        }
    }
    assert!(log.read(&snapshot, partition, offset(6), 10).await.expect("the end").batches.is_empty());
}

/// Uploads that fail leave few objects that no record names, however many fail.
#[tokio::test(start_paused = true)]
async fn failed_uploads_are_named_soon() {
    let env = Env::simulated(1);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let lost = |operation, key: &str| match operation {
        Operation::Put if key.starts_with("wal/") => Fault::LostAnswer,
        _ => Fault::None,
    };
    let store = Arc::new(FaultyStore::new(memory.clone(), lost));
    let log = open(&env, &journal, store, sole()).await;
    let partition = PartitionId::new(topic(&log, "t", 1).await.id, 0);
    for _ in 0..2 * UNEXPLAINED_OBJECTS_MAX {
        append(&log, partition, &["lost"]).await.expect_err("its outcome was lost");
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let trash = log.meta().snapshot().range::<Trash>(..).count();
    assert_eq!((memory.keys().len(), trash), (2 * UNEXPLAINED_OBJECTS_MAX, 2 * UNEXPLAINED_OBJECTS_MAX));
    env.abort_all();
    start(&Env::simulated(2), &journal, &memory, sole()).await.expect("nothing is lost");
}

/// The high water is written for each lease, not for each produce.
#[tokio::test(start_paused = true)]
async fn a_produce_is_one_request() {
    let env = Env::simulated(1);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let (wal, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (of_wal, of_others) = (Arc::clone(&wal), Arc::clone(&others));
    let count = move |_, key: &str| {
        if key.starts_with("wal/") { &of_wal } else { &of_others }.fetch_add(1, Ordering::SeqCst);
        Fault::None
    };
    let config =
        Config { times: Times { lease_ids: floe_log::limits::LEASE_IDS, ..config().times }, ..sole() };
    let log = open(&env, &journal, Arc::new(FaultyStore::new(memory, count)), config).await;
    let partition = PartitionId::new(topic(&log, "t", 1).await.id, 0);
    let listed = wal.load(Ordering::SeqCst);
    others.store(0, Ordering::SeqCst);
    for _ in 0..1_000 {
        append(&log, partition, &["v"]).await.expect("appended");
    }
    assert_eq!(wal.load(Ordering::SeqCst) - listed, 1_000);
    let leases = 1_000 / floe_log::limits::LEASE_IDS as usize + 2;
    assert!(
        others.load(Ordering::SeqCst) <= leases,
        "{} requests for {leases} leases",
        others.load(Ordering::SeqCst)
    );
}

/// The newer of two processes deletes nothing that the older one may have acknowledged since.
#[tokio::test(start_paused = true)]
async fn what_a_process_wrote_that_lived_on_is_not_deleted() {
    for lives_on in [true, false] {
        let (broker, journal, memory, log, partition) = world(5, sole()).await;
        let copied = copy(&journal, last(&journal).await).await;
        let second = start(&Env::simulated(2), &copied, &memory, sole()).await.expect("nothing shows yet");
        if lives_on {
            for _ in 0..5 {
                append(&log, partition, &["acknowledged"]).await.expect("appended");
            }
        } else {
            broker.abort_all();
        }
        let objects = memory.keys();
        tokio::time::sleep(config().times.trash_grace * 3).await;
        assert_eq!(second.former_lived_on().await.expect("the store answers"), lives_on);
        assert_eq!(memory.keys(), objects);
        let trash = second.meta().snapshot().range::<Trash>(..).count();
        assert_eq!(trash > 0, lives_on, "{trash} ids wait for ever, or none");
    }
}
