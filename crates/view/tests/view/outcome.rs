//! Commits whose answer is lost. The runner asks the journal what became of them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{Env, lock};
use floe_meta::{
    Change, Commit, Entry, Envelope, Journal, JournalError, Loaded, Lsn, MapRecord, MemoryJournal, Options,
    Outcome,
};
use floe_view::{Progress, limits::LEASE_TTL};
use tokio::time::sleep;

use crate::{
    metrics::Metrics,
    world::{Broker, Ground},
};

/// What becomes of the next commit of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It is applied and its answer is lost.
    Applied,
    /// It is lost, and another process commits first, so it is never applied.
    NotApplied,
}

/// A journal that loses the answer of one commit of the view.
#[derive(Clone)]
struct Lossy {
    journal: MemoryJournal,
    fate: Arc<Mutex<Fate>>,
    /// While set, it answers no commit at all.
    silent: Arc<AtomicBool>,
}

fn lost() -> JournalError {
    JournalError::Unknown("planted".to_owned())
}

#[async_trait]
impl Journal for Lossy {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.journal.load().await
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        if self.silent.load(Ordering::SeqCst) {
            return Err(lost());
        }
        let moves_on = |change: &Change| change.key.first() == Some(&Progress::<201>::KIND);
        if !commits.iter().any(|commit| commit.changes.iter().any(moves_on)) {
            return self.journal.commit(expected, attempt, commits).await;
        }
        let fate = std::mem::replace(&mut *lock(&self.fate), Fate::Answered);
        match fate {
            Fate::Answered => self.journal.commit(expected, attempt, commits).await,
            Fate::Applied => self.journal.commit(expected, attempt, commits).await.and_then(|_| Err(lost())),
            Fate::NotApplied => {
                let change =
                    Change { key: Bytes::from_static(&[250]), value: Some(Bytes::from_static(&[1])) };
                let other = Commit { envelope: Envelope::broker("another"), changes: vec![change] };
                self.journal.commit(expected, 1, &[other]).await.and_then(|_| Err(lost()))
            }
        }
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.journal.follow(from).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.journal.history(from, count).await
    }
}

impl Lossy {
    fn over(ground: &Ground) -> Lossy {
        let journal = ground.journal.clone();
        Lossy { journal, fate: Arc::new(Mutex::new(Fate::Answered)), silent: Arc::default() }
    }

    /// A broker that waits for no answer twice: a lost answer reaches the runner.
    async fn broker(&self, ground: &Ground, env: Env) -> Broker {
        let options = Options { resolve_timeout: Duration::ZERO, ..Options::default() };
        ground.broker_over(env, Arc::new(self.clone()), options).await
    }
}

/// The answer of one commit is lost; the view goes on, knowing what became of it.
async fn lose(fate: Fate) {
    let metrics = Metrics::default();
    let _recording = metrics.record();
    let ground = Ground::default();
    let journal = Lossy::over(&ground);
    let broker = journal.broker(&ground, Env::simulated(1)).await;
    let topic = broker.topic("t", 2).await;
    for n in 0..12_u32 {
        if n == 4 {
            *lock(&journal.fate) = fate;
        }
        let value = if n == 5 { "bad".to_owned() } else { format!("value {n}") };
        broker.produce(&topic, n % 2, &[value]).await;
        broker.produce(&topic, (n + 1) % 2, &["x"]).await;
        sleep(Duration::from_secs(2)).await;
    }
    broker.settled(&topic).await;
    assert_eq!(*lock(&journal.fate), Fate::Answered, "the answer was lost");
    broker.check_every_moment(&topic).await;
    broker.check_letters(&topic).await;
    // It was told apart: what was applied is no failure, and the owner stays the owner either way.
    let failed = if fate == Fate::NotApplied { 1 } else { 0 };
    assert_eq!(metrics.counter("test_errors_total", "t"), failed, "{fate:?}");
    let commits = broker.knobs.commits.load(Ordering::SeqCst);
    assert_eq!(metrics.counter("test_commits_total", "t"), commits);
    assert_eq!(broker.lease(&topic).expect("it is held").epoch, 1, "{fate:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_an_applied_commit_is_found() {
    lose(Fate::Applied).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_that_was_not_applied_is_made_again() {
    lose(Fate::NotApplied).await;
}

/// While one process waits for the answer, another takes the view over.
#[tokio::test(start_paused = true)]
async fn a_commit_in_doubt_of_a_fenced_owner_changes_nothing() {
    for fate in [Fate::Applied, Fate::NotApplied] {
        let (ground, world) = (Ground::default(), Env::simulated(2));
        let journal = Lossy::over(&ground);
        let first = journal.broker(&ground, world.scope()).await;
        let topic = first.topic("t", 1).await;
        first.produce(&topic, 0, &["one"]).await;
        first.settled(&topic).await;
        let second = ground.broker(world.scope()).await;
        *lock(&journal.fate) = fate;
        second.produce(&topic, 0, &["two"]).await;
        while *lock(&journal.fate) == fate {
            sleep(Duration::from_millis(1)).await;
        }
        journal.silent.store(true, Ordering::SeqCst);
        for n in 0..30 {
            second.produce(&topic, 0, &[format!("value {n}")]).await;
            sleep(LEASE_TTL / 10).await;
        }
        second.settled(&topic).await;
        let commits = first.knobs.commits.load(Ordering::SeqCst);
        journal.silent.store(false, Ordering::SeqCst);
        second.produce(&topic, 0, &["last"]).await;
        sleep(LEASE_TTL / 2).await;
        second.settled(&topic).await;
        assert_eq!(first.knobs.commits.load(Ordering::SeqCst), commits, "{fate:?}");
        assert_eq!(second.lease(&topic).expect("it is held").owner.as_deref(), Some(second.views.owner()));
        second.check_every_moment(&topic).await;
    }
}
