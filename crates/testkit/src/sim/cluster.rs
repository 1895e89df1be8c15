//! Brokers that live, die and come back over one store and one journal, and the state that the clients of a run share.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use floe_env::watch;
use floe_env::{Env, Task};
use floe_history::History;
use floe_kafka::Broker;
use floe_lake::Lake;
use floe_log::{Append, Log, OpenError, Writer};
use floe_meta::{Entry, Meta, Options as MetaOptions};
use floe_store::Store;
use tokio::io::DuplexStream;
use tokio::time::{sleep, timeout};

use super::engine::{Engine, Opener};
use super::journal::SimJournal;
use super::log_front::LogFront;
use super::plan::{Options, Plan};
use super::remote::RemoteStore;
use super::store::SimStore;
use super::undeleting;
use crate::bug::Bug;
use crate::client::{Cut, Front, Harness, KafkaFront, Stream, values};
use crate::dice::Dice;
use crate::history::Event;
use crate::recorder::Recorder;
use crate::trace::Trace;

/// A broker that does not open in this time is killed and started again.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// Shares in a thousand: starts on a journal from a backup, and brokers whose data directory is copied.
const RESTORED: u64 = 200;
const COPIED: u64 = 300;
/// Longest time until a data directory is copied.
const COPIED_AFTER: Duration = Duration::from_secs(3);
/// In this time a broker must see that a copy has started, in any weather.
const FENCED_MAX: Duration = Duration::from_secs(60);
/// Longest time for one record of a copy.
const COPY_WRITES_MAX: Duration = Duration::from_secs(2);
/// Longest time until everything that was sent has landed.
const LANDED_MAX: Duration = Duration::from_secs(10);

/// What was done to the data directory in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Harm {
    /// Starts that were refused because the journal was older than the store.
    pub refused: u64,
    /// Loads of the journal that were refused because of a rotten bit.
    pub rotten: u64,
    /// Copies of the data directory that ran beside the original.
    pub copies: u64,
}

/// Bytes in flight on a connection, in one direction.
const CONNECTION_BYTES: usize = 16 << 10;

/// One incarnation of a broker.
pub(crate) struct Running {
    /// Counted from one over the whole run.
    pub(crate) number: u32,
    /// Its tasks.
    pub(crate) env: Env,
    /// Its log.
    pub(crate) log: Log,
    /// Its Kafka front.
    pub(crate) broker: Broker,
    /// Its views.
    pub(crate) lake: Lake,
    /// Its SQL engine, if the run has statements.
    pub(crate) sql: Option<Arc<dyn Engine>>,
}

impl Running {
    /// Runs something as a task of this broker. Returns none if the broker died first. Returns none after a panic too,
    /// and then the run fails: [`Env::panics`] has the panic.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let task: Task<T> = self.env.spawn("request", work);
        tokio::select! {
            biased;
            ended = task => ended.ok(),
            () = self.env.crashed() => None,
        }
    }
}

/// The world of a run. A clone is the same world.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Inner>);

struct Inner {
    env: Env,
    options: Options,
    plan: Plan,
    store: SimStore,
    journal: SimJournal,
    recorder: Recorder,
    trace: Trace,
    running: watch::Sender<BTreeMap<u32, Arc<Running>>>,
    healed: AtomicBool,
    numbers: AtomicU32,
    crashes: AtomicU64,
    late_tries: Arc<AtomicU64>,
    refused: AtomicU64,
    copies: AtomicU64,
}

impl Cluster {
    /// A world without brokers.
    pub(crate) fn new(
        env: &Env,
        options: Options,
        plan: Plan,
        store: SimStore,
        journal: SimJournal,
        trace: &Trace,
    ) -> Cluster {
        Cluster(Arc::new(Inner {
            env: env.clone(),
            options,
            plan,
            store,
            journal,
            recorder: Recorder::new(trace),
            trace: trace.clone(),
            running: watch::Sender::default(),
            healed: AtomicBool::new(false),
            numbers: AtomicU32::new(0),
            crashes: AtomicU64::new(0),
            late_tries: Arc::default(),
            refused: AtomicU64::new(0),
            copies: AtomicU64::new(0),
        }))
    }

    /// The numbers of starts that were refused because the journal was old, of loads that found a rotten bit, and of
    /// copies of the data directory.
    pub(crate) fn harm(&self) -> Harm {
        Harm {
            refused: self.0.refused.load(Ordering::SeqCst),
            rotten: self.0.journal.rotten(),
            copies: self.0.copies.load(Ordering::SeqCst),
        }
    }

    /// The plan of this run.
    pub(crate) fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// Whether brokers answer statements in this run.
    pub(crate) fn asks(&self) -> bool {
        self.0.options.sql.is_some()
    }

    /// Dice of this run.
    pub(crate) fn dice(&self) -> Dice {
        Dice::new(&self.0.env)
    }

    /// The store of this run.
    pub(crate) fn store(&self) -> &SimStore {
        &self.0.store
    }

    /// The journal of the run.
    pub(crate) fn journal(&self) -> &SimJournal {
        &self.0.journal
    }

    /// All commits of this run's journal.
    pub(crate) async fn commits(&self) -> Vec<Entry> {
        self.0.journal.commits().await
    }

    /// The number of crashes so far.
    pub(crate) fn crashes(&self) -> u64 {
        self.0.crashes.load(Ordering::SeqCst)
    }

    /// The number of tries at a remote store that took too long.
    pub(crate) fn late_tries(&self) -> u64 {
        self.0.late_tries.load(Ordering::SeqCst)
    }

    /// From now on, the store gives the files that it is asked for.
    pub(crate) fn audit(&self) {
        self.0.store.audit();
    }

    /// Ends all faults: the weather is calm, and no broker dies any more.
    pub(crate) fn heal(&self) {
        let now = self.0.env.monotonic();
        for (from, to) in self.0.journal.full().into_iter().filter(|(from, _)| *from < now) {
            let (from, to) = (self.0.trace.at_of(from), self.0.trace.at_of(to.min(now)));
            self.recorder().note(0, Event::JournalFull { from, to });
        }
        self.0.healed.store(true, Ordering::SeqCst);
        self.0.store.heal();
        self.0.journal.heal();
        for running in self.0.running.borrow().values() {
            running.env.crash_at_poll(u64::MAX);
        }
    }

    /// A connection of this run: one that lasts, or one that will be cut somewhere.
    fn stream(&self, near: DuplexStream) -> Stream {
        let cut = self.plan().cuts && !self.healed() && self.dice().chance(700);
        if !cut {
            return Box::new(near);
        }
        let dice = self.dice();
        let bytes = |dice: &Dice| dice.within(1..*dice.pick(&[300, 3_000, 30_000]));
        Box::new(Cut::new(Box::new(near), bytes(&dice), bytes(&dice)))
    }

    /// A broker that takes requests. Waits for one.
    pub(crate) async fn broker(&self) -> Arc<Running> {
        let mut running = self.0.running.subscribe();
        let found = running
            .wait_for(|running| !running.is_empty())
            .await
            .expect("the world holds the sender")
            .clone();
        let all: Vec<_> = found.values().cloned().collect();
        self.dice().pick(&all).clone()
    }

    /// Whether a broker has died.
    pub(crate) fn is_gone(&self, running: &Running) -> bool {
        !self.0.running.borrow().contains_key(&running.number)
    }

    /// Kills every broker once. Their keepers start new ones.
    pub(crate) async fn restart(&self) {
        let old: Vec<_> = self.0.running.borrow().values().cloned().collect();
        for running in &old {
            running.env.abort_all();
        }
        let mut running = self.0.running.subscribe();
        let fresh = |map: &BTreeMap<u32, Arc<Running>>| {
            !map.is_empty() && old.iter().all(|o| !map.contains_key(&o.number))
        };
        running.wait_for(fresh).await.expect("the world holds the sender");
    }

    /// Keeps one broker alive for ever: starts it, waits for its death, starts the next one.
    pub(crate) async fn keep(self) {
        let dice = self.dice();
        loop {
            let number = self.0.numbers.fetch_add(1, Ordering::SeqCst) + 1;
            let env = self.0.env.scope();
            if let Some(polls) = self.plan().crash_polls_max.filter(|_| !self.healed()) {
                env.crash_at_poll(dice.within(1..polls));
            }
            // This line comes before the broker loads, so the broker sees everything that was acknowledged before the
            // line.
            self.recorder().note(number, Event::Started);
            let journal = self.found_journal(&dice).await;
            if let Some(log) = self.open(&env, journal, self.plan().log).await {
                let broker = Broker::new(env.clone(), log.clone(), self.plan().kafka_config());
                let lake = Lake::start(env.clone(), log.clone(), self.plan().lake);
                let history = History::new(log.clone(), self.plan().history(self.0.options.seed));
                drop(env.spawn("history", history.run()));
                log.enforce_retention(vec![floe_lake::unread, floe_lake::unread_by_rebuild]);
                let open = |open: Opener| open(env.clone(), log.clone(), lake.clone());
                let sql = self.0.options.sql.map(open);
                let running = Arc::new(Running { number, env: env.clone(), log, broker, lake, sql });
                if self.healed() {
                    env.crash_at_poll(u64::MAX);
                }
                if self.bug() == Some(Bug::TaskPanics) {
                    drop(env.spawn("doomed", async { panic!("planted") }));
                }
                if self.plan().harm && !self.plan().remote && !self.healed() && dice.chance(self.copied()) {
                    self.0.env.spawn("copy", self.clone().copy(running.clone()));
                }
                let fenced = running.log.clone();
                self.0.running.send_modify(|map| drop(map.insert(number, running)));
                tokio::select! {
                    biased;
                    () = env.crashed() => {}
                    // The binary ends its process.
                    _ = fenced.fenced() => env.abort_all(),
                }
                drop(fenced);
                self.0.running.send_modify(|map| drop(map.remove(&number)));
            }
            env.abort_all();
            self.0.crashes.fetch_add(1, Ordering::SeqCst);
            self.recorder().note(number, Event::Crashed);
            sleep(dice.wait(self.plan().down_max)).await;
        }
    }

    /// Opens the parts of a broker in a task of its own, so that the broker may die while it opens.
    async fn open(&self, env: &Env, journal: SimJournal, config: floe_log::Config) -> Option<Log> {
        let journal = Arc::new(journal);
        let store: Arc<dyn Store> = match self.plan().remote {
            true => Arc::new(RemoteStore::new(self.0.store.clone(), self.0.late_tries.clone())),
            false => Arc::new(self.0.store.clone()),
        };
        let inside = env.clone();
        let opening = env.spawn("open", async move {
            let options = MetaOptions::default();
            let meta =
                Meta::open(inside.clone(), journal, options).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(Log::open(inside, meta, store, config).await)
        });
        let opened = tokio::select! {
            biased;
            () = env.crashed() => return None,
            opened = timeout(OPEN_MAX, opening) => opened.ok()?.ok()?.ok()?,
        };
        if matches!(opened, Err(OpenError::Older { .. })) {
            self.0.refused.fetch_add(1, Ordering::SeqCst);
        }
        opened.ok()
    }

    /// The journal that the next broker finds in its data directory: in some runs now and then one from a backup.
    async fn found_journal(&self, dice: &Dice) -> SimJournal {
        let restored = self.plan().harm && !self.healed() && dice.chance(self.restored());
        let old = if restored { self.0.journal.restored().await } else { None };
        old.unwrap_or_else(|| self.0.journal.clone())
    }

    /// Share of starts on a journal from a backup, in a thousand.
    fn restored(&self) -> u64 {
        if self.bug() == Some(Bug::OldJournalIsContinued) { 600 } else { RESTORED }
    }

    /// Share of brokers whose data directory is copied, in a thousand.
    fn copied(&self) -> u64 {
        if self.bug() == Some(Bug::StoreHidesWriters) { 1_000 } else { COPIED }
    }

    /// Somebody starts a copy of the data directory while this broker runs. The copy writes a little and dies. Then
    /// somebody decides for this broker, and removes what the copy left in the store.
    async fn copy(self, original: Arc<Running>) {
        let dice = self.dice();
        sleep(dice.wait(COPIED_AFTER)).await;
        if self.healed() {
            return;
        }
        let env = self.0.env.scope();
        let config = floe_log::Config { cleaner: false, ..self.plan().log };
        let Some(copy) = self.open(&env, self.0.journal.copied(), config).await else {
            return env.abort_all();
        };
        let number = copy.writer_number();
        self.0.trace.fold(&format!("copy {} runs as writer {}", original.number, number.0));
        self.0.copies.fetch_add(1, Ordering::SeqCst);
        self.write_as_copy(&env, &copy).await;
        let fenced = original.log.clone();
        let stops = async {
            tokio::select! {
                biased;
                () = original.env.crashed() => {}
                _ = fenced.fenced() => {}
            }
        };
        if timeout(FENCED_MAX, stops).await.is_err() {
            let what = format!("broker {} goes on beside writer {}", original.number, number.0);
            self.recorder().stuck(what);
        }
        original.env.abort_all();
        env.abort_all();
        // What the copy sent lands before the store is tidied up.
        sleep(LANDED_MAX).await;
        self.0.store.forget_writer(number);
    }

    async fn write_as_copy(&self, env: &Env, copy: &Log) {
        let snapshot = copy.meta().snapshot();
        let Ok(Some(topic)) = floe_log::topic::by_name(&snapshot, super::plan::PLAIN_TOPIC) else { return };
        let partition = floe_log::PartitionId::new(topic.id, 0);
        for number in 0..self.dice().within(1..6) {
            let batch = values::batch(&self.dice(), 0, &[format!("of the copy {number}")], None);
            let writer = Writer { principal: "copy".into(), client_id: "copy".into() };
            let ticket = copy.append(Append { writer, batches: vec![(partition, batch)] });
            let appended = env.spawn("append of the copy", ticket);
            drop(timeout(COPY_WRITES_MAX, appended).await);
        }
    }
}

#[async_trait]
impl Harness for Cluster {
    fn env(&self) -> &Env {
        &self.0.env
    }

    fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    async fn dial(&self, process: u32) -> KafkaFront {
        let running = self.broker().await;
        let (near, far) = tokio::io::duplex(CONNECTION_BYTES);
        let (broker, peer) = (running.broker.clone(), format!("client-{process}"));
        running.env.spawn("connection", async move { broker.serve_connection(far, peer).await });
        KafkaFront::new(self.stream(near), running.number, process)
    }

    async fn connect(&self, process: u32) -> Box<dyn Front> {
        if self.dice().chance(self.plan().kafka) {
            return Box::new(self.dial(process).await);
        }
        let running = self.broker().await;
        Box::new(LogFront::new(self, running, process))
    }

    async fn undelete(&self, process: u32, topic: &'static str) -> bool {
        undeleting::undelete(self, process, topic).await
    }

    async fn purge(&self, process: u32) {
        undeleting::purge(self, process).await;
    }

    fn healed(&self) -> bool {
        self.0.healed.load(Ordering::SeqCst)
    }

    fn pause_max(&self) -> Duration {
        self.0.plan.pause_max
    }

    fn forgets(&self) -> bool {
        self.0.plan.forgets()
    }

    fn bug(&self) -> Option<Bug> {
        self.0.options.bug
    }
}
