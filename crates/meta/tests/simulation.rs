//! Brokers in a simulation. The same seed gives the same run, and a crash at any await loses nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use floe_env::*;
use floe_meta::*;

fn simulate<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread").block_on(run)
}

/// A slow journal that sometimes loses a call or an answer.
struct Shaky {
    env: Env,
    journal: MemoryJournal,
}

#[async_trait]
impl Journal for Shaky {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.journal.load().await
    }
    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        self.pause().await;
        match self.env.random_u64() % 10 {
            0 => return Err(JournalError::NotApplied("shaken".into())),
            1 => return Err(JournalError::Unknown("lost call".into())),
            _ => {}
        }
        let outcome = self.journal.commit(expected, attempt, commits).await?;
        self.pause().await;
        if self.env.random_u64().is_multiple_of(10) {
            return Err(JournalError::Unknown("lost answer".into()));
        }
        Ok(outcome)
    }
    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        let entries = self.journal.follow(from).await?;
        self.pause().await;
        Ok(entries)
    }
    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.journal.history(from, count).await
    }
    fn forget(&self, upto: Lsn) {
        self.journal.forget(upto);
    }
}

impl Shaky {
    async fn pause(&self) {
        tokio::time::sleep(Duration::from_micros(self.env.random_u64() % 3_000)).await;
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Mark(u64);
postcard_record!(Mark, 200, 1, u64);

/// What clients were told: for each mark that they wrote, its commit, or `None` for unknown.
type Told = Arc<Mutex<BTreeMap<u64, Option<Lsn>>>>;

/// A client of one broker. It writes marks one after another that nobody else writes.
async fn write_marks(env: Env, meta: Meta, first: u64, count: u64, told: Told) {
    for mark in first..first + count {
        told.lock().unwrap().insert(mark, None);
        loop {
            let number = mark;
            let command = move |tx: &mut Tx<'_>| {
                let order = tx.next_counter(&CounterKey::named("mark"))?;
                assert!(tx.get::<Mark>(&number)?.is_none(), "a mark is written twice");
                tx.put(&number, &Mark(order));
                Ok::<_, DecodeError>(order)
            };
            match meta.commit(Envelope::broker("marks"), command).await {
                Ok(done) => {
                    told.lock().unwrap().insert(mark, Some(done.lsn));
                    break;
                }
                Err(CommitError::NotApplied(_)) => {}
                Err(CommitError::Unknown(_) | CommitError::Closed) => break,
                Err(CommitError::Refused(error)) => panic!("{error}"),
            }
        }
        tokio::time::sleep(Duration::from_micros(env.random_u64() % 2_000)).await;
    }
}

async fn start_broker(env: &Env, journal: &MemoryJournal, first: u64, count: u64, told: &Told) -> Env {
    let scope = env.scope();
    let shaky = Shaky { env: scope.clone(), journal: journal.clone() };
    let meta =
        Meta::open(scope.clone(), Arc::new(shaky), Options::default()).await.expect("the journal loads");
    for client in 0..2 {
        let first = first + client * count;
        scope.spawn("client", write_marks(scope.clone(), meta.clone(), first, count, told.clone()));
    }
    scope
}

/// Checks the journal against what clients were told, and returns its history.
async fn check(journal: &MemoryJournal, told: &Told) -> Vec<Entry> {
    let history = journal.everything();
    let snapshot = Meta::open(Env::simulated(0), Arc::new(journal.clone()), Options::default())
        .await
        .expect("the journal loads")
        .snapshot();
    let marks: BTreeMap<u64, Mark> =
        snapshot.range::<Mark>(..).collect::<Result<_, _>>().expect("this build wrote them");
    for (mark, lsn) in &*told.lock().unwrap() {
        let Some(lsn) = lsn else { continue };
        let order = marks.get(mark).unwrap_or_else(|| panic!("mark {mark} was acknowledged and is lost"));
        assert_eq!(order.0, lsn.0, "every commit is one mark, so orders are LSNs");
    }
    let mut orders: Vec<u64> = marks.values().map(|mark| mark.0).collect();
    orders.sort_unstable();
    assert!(orders.iter().copied().eq(1..=history.len() as u64), "each commit wrote one mark once");
    history
}

/// Lets the journal forget all it may, again and again, although brokers have not seen it.
async fn forget(env: Env, journal: MemoryJournal) {
    loop {
        journal.forget(journal.lsn());
        tokio::time::sleep(Duration::from_micros(env.random_u64() % 20_000)).await;
    }
}

async fn run(seed: u64, crash: Option<u64>) -> (Vec<Entry>, u64) {
    run_with(seed, crash, false).await
}

async fn run_with(seed: u64, crash: Option<u64>, forgets: bool) -> (Vec<Entry>, u64) {
    let env = Env::simulated(seed);
    let (journal, told) = (MemoryJournal::new(), Told::default());
    if forgets {
        env.spawn("forget", forget(env.clone(), journal.clone()));
    }
    let first = start_broker(&env, &journal, 0, 4, &told).await;
    let second = start_broker(&env, &journal, 100, 4, &told).await;
    if let Some(poll) = crash {
        first.crash_at_poll(poll);
        first.crashed().await;
        first.abort_all();
        start_broker(&env, &journal, 200, 4, &told).await;
    }
    // Simulated time, far more than the clients need.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let polls = first.polls();
    for scope in [first, second] {
        scope.abort_all();
    }
    let acknowledged = told.lock().unwrap().values().flatten().count();
    assert!(
        // A commit stays unknown if the journal has let go of what would tell.
        acknowledged >= if crash.is_some() || forgets { 8 } else { 16 },
        "only {acknowledged} marks were acknowledged"
    );
    (check(&journal, &told).await, polls)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let runs: Vec<_> = [7, 7, 8].map(|seed| simulate(run(seed, None))).into();
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[test]
fn many_seeds() {
    for seed in 0..100 {
        simulate(run(seed, None));
    }
}

#[test]
fn a_crash_at_any_poll_loses_nothing() {
    for seed in 0..3 {
        let (_, polls) = simulate(run(seed, None));
        assert!(polls > 20, "the run has awaits to crash at");
        for poll in 1..=polls {
            simulate(run(seed, Some(poll)));
        }
    }
}

/// Commits that a broker missed leave the journal. It takes the map, and nothing is lost or done twice.
#[test]
fn brokers_that_are_left_behind_take_the_map() {
    for seed in 0..40 {
        simulate(run_with(seed, None, true));
    }
    for seed in 0..2 {
        let (_, polls) = simulate(run_with(seed, None, true));
        for poll in (1..=polls).step_by(17) {
            simulate(run_with(seed, Some(poll), true));
        }
    }
}

#[test]
fn randomness_and_time_follow_the_seed() {
    let draw = |seed| {
        simulate(async move {
            let env = Env::simulated(seed);
            let other = env.scope();
            assert_eq!(env.now(), SIMULATION_EPOCH);
            tokio::time::sleep(Duration::from_secs(90)).await;
            assert_eq!(other.now().since(SIMULATION_EPOCH), Duration::from_secs(90));
            (env.random_u128(), other.random_u64(), env.random_u64())
        })
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

/// Records that it was dropped.
struct Guard(Arc<Mutex<Vec<&'static str>>>, &'static str);
impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(self.1);
    }
}

#[test]
fn a_scope_ends_as_a_whole() {
    simulate(async {
        let env = Env::simulated(3);
        let (one, two) = (env.scope(), env.scope());
        let log = Arc::new(Mutex::new(Vec::new()));
        let hold = |name| {
            let guard = Guard(log.clone(), name);
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }
        };
        let task = one.spawn("first", hold("first"));
        one.spawn("second", hold("second"));
        let other = two.spawn("other", hold("other"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        one.abort_all();
        assert_eq!(task.await, Err(TaskEnded::Aborted("first")));
        assert_eq!(*log.lock().unwrap(), ["first", "second"]);
        assert_eq!(one.spawn("late", hold("late")).await, Err(TaskEnded::Aborted("late")));
        assert!(!other.is_finished());
        let failing = two.spawn("failing", async { assert_eq!(1, 2) });
        assert_eq!(failing.await, Err(TaskEnded::Panicked("failing")));
        assert_eq!(two.blocking(|| 5).await, 5);

        // After the crash nothing of the scope continues, although time does.
        let crashing = env.scope();
        let ticks = Arc::new(Mutex::new(0));
        let counted = ticks.clone();
        crashing.spawn("ticks", async move {
            loop {
                *counted.lock().unwrap() += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        crashing.crash_at_poll(10);
        crashing.crashed().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((*ticks.lock().unwrap(), crashing.polls()), (10, 10));
    });
}
