//! Brokers that live, die and come back over one store and one journal, and the state that the clients of a run share.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use floe_env::watch;
use floe_env::{Env, Task};
use floe_kafka::Broker;
use floe_lake::Lake;
use floe_log::Log;
use floe_meta::{Meta, Options as MetaOptions};
use floe_store::Store;
use tokio::io::DuplexStream;
use tokio::time::{sleep, timeout};

use super::engine::{Engine, Opener};
use super::journal::SimJournal;
use super::log_front::LogFront;
use super::plan::{Options, Plan};
use super::remote::RemoteStore;
use super::store::SimStore;
use crate::bug::Bug;
use crate::client::{Cut, Front, Harness, KafkaFront, Stream};
use crate::dice::Dice;
use crate::history::Event;
use crate::recorder::Recorder;
use crate::trace::Trace;

/// A broker that does not open in this time is killed and started again.
const OPEN_MAX: Duration = Duration::from_secs(60);

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
        }))
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

    /// The number of crashes so far.
    pub(crate) fn crashes(&self) -> u64 {
        self.0.crashes.load(Ordering::SeqCst)
    }

    /// The number of tries at a remote store that took too long.
    pub(crate) fn late_tries(&self) -> u64 {
        self.0.late_tries.load(Ordering::SeqCst)
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
            if let Some(log) = self.open(&env).await {
                let broker = Broker::new(env.clone(), log.clone(), self.plan().kafka_config());
                let lake = Lake::start(env.clone(), log.clone(), self.plan().lake);
                let open = |open: Opener| open(env.clone(), log.clone(), lake.clone());
                let sql = self.0.options.sql.map(open);
                let running = Arc::new(Running { number, env: env.clone(), log, broker, lake, sql });
                if self.healed() {
                    env.crash_at_poll(u64::MAX);
                }
                if self.bug() == Some(Bug::TaskPanics) {
                    drop(env.spawn("doomed", async { panic!("planted") }));
                }
                self.0.running.send_modify(|map| drop(map.insert(number, running)));
                env.crashed().await;
                self.0.running.send_modify(|map| drop(map.remove(&number)));
            }
            env.abort_all();
            self.0.crashes.fetch_add(1, Ordering::SeqCst);
            self.recorder().note(number, Event::Crashed);
            sleep(dice.wait(self.plan().down_max)).await;
        }
    }

    /// Opens the parts of a broker in a task of its own, so that the broker may die while it opens.
    async fn open(&self, env: &Env) -> Option<Log> {
        let journal = Arc::new(self.0.journal.clone());
        let store: Arc<dyn Store> = match self.plan().remote {
            true => Arc::new(RemoteStore::new(self.0.store.clone(), self.0.late_tries.clone())),
            false => Arc::new(self.0.store.clone()),
        };
        let (inside, config) = (env.clone(), self.plan().log);
        let opening = env.spawn("open", async move {
            let options = MetaOptions::default();
            let meta =
                Meta::open(inside.clone(), journal, options).await.map_err(|error| error.to_string())?;
            Log::open(inside, meta, store, config).await.map_err(|error| error.to_string())
        });
        tokio::select! {
            biased;
            () = env.crashed() => None,
            opened = timeout(OPEN_MAX, opening) => opened.ok()?.ok()?.ok(),
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

    fn healed(&self) -> bool {
        self.0.healed.load(Ordering::SeqCst)
    }

    fn pause_max(&self) -> Duration {
        self.0.plan.pause_max
    }

    fn bug(&self) -> Option<Bug> {
        self.0.options.bug
    }
}
