//! A full store, and a journal with room for deletions only: topics can be deleted, the cleaner gives room back, and
//! service resumes by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use floe_env::Env;
use floe_log::sequencer::AppendError;
use floe_log::topic::{NewTopic, TopicError};
use floe_log::{Config, Log, PartitionId};
use floe_meta::{Commit, Entry, Journal, JournalError, Loaded, Lsn, MemoryJournal, Meta, Options, Outcome};
use floe_store::faulty::{Fault, FaultyStore, Operation};
use floe_store::{CLUSTER_FOLDER, MemoryStore, Store};

use crate::faults::{long_after, nothing_is_orphaned};
use crate::world::{append, config, topic, values, writer};

/// A disk that is nearly full or not, with a journal on it.
#[derive(Clone, Default)]
struct Disk {
    full: Arc<AtomicBool>,
    journal: MemoryJournal,
}

impl Disk {
    fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    fn fill(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn store(&self, memory: &MemoryStore) -> Arc<dyn Store> {
        let disk = self.clone();
        // What the cluster notes is taken from the reserve, as on a local disk.
        let plan = move |operation, key: &str| match operation {
            _ if key.starts_with(CLUSTER_FOLDER) => Fault::None,
            Operation::Put | Operation::PutIfAbsent if disk.is_full() => Fault::Full,
            _ => Fault::None,
        };
        Arc::new(FaultyStore::new(memory.clone(), plan))
    }

    async fn open(&self, env: &Env, memory: &MemoryStore) -> Log {
        let meta = Meta::open(env.clone(), Arc::new(self.clone()), Options::default()).await.expect("opens");
        let config = Config { sole: true, ..config() };
        Log::open(env.clone(), meta, self.store(memory), config).await.expect("the log opens")
    }
}

#[async_trait]
impl Journal for Disk {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.journal.load().await
    }
    async fn commit(&self, expected: Lsn, attempt: u128, all: &[Commit]) -> Result<Outcome, JournalError> {
        self.journal.commit(expected, attempt, all).await
    }
    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.journal.follow(from).await
    }
    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.journal.history(from, count).await
    }
    fn only_deletions(&self) -> Option<String> {
        self.is_full().then(|| "only deletions".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_no_trap() {
    let (env, disk, memory) = (Env::simulated(11), Disk::default(), MemoryStore::new());
    let first = env.scope();
    let log = disk.open(&first, &memory).await;
    let (gone, kept) = (topic(&log, "gone", 1).await, topic(&log, "kept", 1).await);
    let (of_gone, of_kept) = (PartitionId::new(gone.id, 0), PartitionId::new(kept.id, 0));
    for number in 0..20 {
        append(&log, of_gone, &[&number.to_string()]).await.expect("there is room");
    }
    append(&log, of_kept, &["kept"]).await.expect("there is room");
    let before = memory.keys().len();

    disk.fill(true);
    let refused = append(&log, of_kept, &["refused"]).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    let said = log.writable().expect_err("the broker is not ready");
    assert!(said.contains("full"), "{said}");
    let new = NewTopic { name: "new".into(), partitions: 1, configs: Default::default() };
    let refused = log.create_topic(&writer(), new, false).await;
    assert_eq!(refused.err(), Some(TopicError::Unavailable("only deletions".into())));
    // A broker that starts on the full disk can do as much.
    first.abort_all();
    let log = disk.open(&env.scope(), &memory).await;
    log.delete_topic(&writer(), gone.id).await.expect("a deletion is taken");
    long_after().await;
    assert!(memory.keys().len() + 20 <= before, "its objects are gone: {:?}", memory.keys());
    assert_eq!(values(&log, of_kept).await, [(0, "kept".into())]);

    disk.fill(false);
    append(&log, of_kept, &["there is room again"]).await.expect("there is room");
    assert_eq!(log.writable(), Ok(()));
    long_after().await;
    nothing_is_orphaned(&log, &memory).expect("clean");
}
