//! One run: faults, then healing, then an audit of everything that is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use floe_env::{Env, Task};
use floe_log::{Writer, topic::NewTopic};
use tokio::time::{sleep, timeout, timeout_at};

use super::audit;
use super::cluster::{Cluster, Harm};
use super::compacting;
use super::holding;
use super::journal::SimJournal;
use super::marking;
use super::plan::{
    COMPACTED_TOPIC, Compacted, FLEETING_TOPIC, Options, PARTITIONS, PLAIN_TOPIC, Plan, TABLE_TOPIC,
};
use super::restoring;
use super::sql;
use super::store::SimStore;
use super::tally::{self, Tally, add};
use super::weather::Weather;
use crate::bug::Bug;
use crate::check::{self, Finding};
use crate::client::{Administrator, Consumer, Deleter, Follower, Harness, Member, Producer};
use crate::history::{Event, History, Phase};
use crate::trace::Trace;

/// After the faults have ended, every client and view must finish within this time.
const HEALING_MAX: Duration = Duration::from_secs(180);

/// Longest time of the audit.
const AUDIT_MAX: Duration = Duration::from_secs(900);

/// The outcome of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash over every event.
    pub hash: u128,
    /// The number of events in the hash.
    pub events: u64,
    /// The lines that the clients wrote.
    pub history: History,
    /// The findings of the checkers.
    pub findings: Vec<Finding>,
    /// The time of the run on its own clock.
    pub virtual_time: Duration,
    /// The number of records whose append was acknowledged.
    pub acknowledged: u64,
    /// The number of crashes of brokers.
    pub crashes: u64,
    /// The number of tries at a remote store that took too long.
    pub late_tries: u64,
    /// What was done to the data directory.
    pub harm: Harm,
    /// What happened, in numbers.
    pub tally: Tally,
    /// The text of every event, if [`Options::keep_trace`] is set.
    pub trace: Option<String>,
}

/// Runs a whole world in this thread, from the first broker to the last checker.
///
/// A panic of a task, of a client or of a broker, is a finding of the checker `live`.
///
/// # Panics
/// The runtime cannot be built. A panic of a vital task ends the process with a line that names the seed.
pub fn run(options: &Options) -> Report {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime in one thread");
    runtime.block_on(live(options))
}

async fn live(options: &Options) -> Report {
    let env = Env::simulated(options.seed);
    let trace = Trace::new(&env, options.keep_trace);
    let begin = env.monotonic();
    let mut plan = Plan::draw(&env).with(options.bug).carrying(options.seed, options.bug);
    plan = plan.compacting(options.seed, options.bug);
    plan.keeps = plan.keeps.or(plan.keeping(options.seed, options.bug));
    plan.table |= options.sql.is_some();
    // A statement shows all records of its time, and the checkers know those of the end.
    plan.retains_table &= options.sql.is_none();
    trace.fold(&format!("{plan:?}"));
    let store_weather = Weather::draw(&env, plan.chaos, plan.rough_store);
    let store_weather = if plan.remote { store_weather.hanging(plan.chaos) } else { store_weather };
    let journal_weather = Weather::draw(&env, plan.chaos, plan.rough_journal);
    let store = SimStore::new(&env, store_weather, &trace, options.bug);
    let journal = SimJournal::new(&env, journal_weather, &trace, options.bug)
        .carrying(plan.carries)
        .crowding(options.seed.is_multiple_of(2))
        .rotting(plan.harm);
    let cluster = Cluster::new(&env, options.clone(), plan, store, journal, &trace);
    put_clock_right(&env, options.seed, cluster.plan().chaos);

    for _ in 0..cluster.plan().brokers {
        env.spawn("keeper", cluster.clone().keep());
    }
    create_topics(&cluster).await;
    let clients = start_clients(&cluster);
    sleep(cluster.plan().chaos).await;
    cluster.heal();
    let deadline = env.monotonic() + HEALING_MAX;
    for (name, client) in clients {
        match timeout_at(deadline, client).await {
            Ok(Ok(())) => {}
            Ok(Err(ended)) => cluster.recorder().stuck(format!("{name}: {ended}")),
            Err(_) => {
                cluster.recorder().stuck(format!("{name} did not finish in {} s", HEALING_MAX.as_secs()));
            }
        }
    }
    if timeout(AUDIT_MAX, audit::run(&cluster)).await.is_err() {
        cluster.recorder().stuck("the final reads did not finish".to_owned());
    }
    env.panics().into_iter().for_each(|panic| cluster.recorder().stuck(panic));
    let history = cluster.recorder().history();
    let findings = check::all(&history);
    let tally = tally(&cluster, &history).await;
    Report {
        seed: options.seed,
        hash: trace.hash(),
        events: trace.events(),
        acknowledged: acknowledged(&history),
        history,
        findings,
        virtual_time: env.monotonic() - begin,
        crashes: cluster.crashes(),
        late_tries: cluster.late_tries(),
        harm: cluster.harm(),
        tally,
        trace: trace.text(),
    }
}

/// Everything that is counted of a run.
async fn tally(cluster: &Cluster, history: &History) -> Tally {
    let mut tally = tally::of_commits(&cluster.commits().await);
    add(&mut tally, &tally::of_history(history));
    let harm = cluster.harm();
    let more = [
        ("requests of the store with a fault", cluster.store().harmed()),
        ("requests of the journal with a fault", cluster.journal().harmed()),
        ("tries at a remote store that came late", cluster.late_tries()),
        ("starts on an older journal, refused", harm.refused),
        ("rotten values and entries, refused", harm.rotten),
        ("copied data directories", harm.copies),
    ];
    add(&mut tally, &Tally::from(more));
    tally
}

/// How far the wall clock is ahead at first, in every third run. It is far longer than every lease and every grace.
const CLOCK_AHEAD_MS: i64 = 3_600_000;

/// Begins some runs with a wall clock that is ahead, and puts it right in the middle of the chaos. The seed decides,
/// not the dice, so that the other runs stay as they are.
fn put_clock_right(env: &Env, seed: u64, chaos: Duration) {
    if seed % 3 == 1 {
        env.set_wall_clock_ahead(CLOCK_AHEAD_MS);
        let clock = env.clone();
        env.spawn("clock", async move {
            sleep(chaos / 2).await;
            clock.set_wall_clock_ahead(0);
        });
    }
}

/// Creates the topics and tries as often as it takes.
pub(super) async fn create_topics(cluster: &Cluster) {
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let compacted = cluster.plan().compacted;
    if let Some(compacted) = compacted {
        let delete_retention_ms = compacted.delete_retention_ms.parse().expect("a number");
        let event = Event::CompactedTopic { delete_retention_ms, waits: compacted.waits() };
        cluster.recorder().note(0, event);
    }
    for name in [TABLE_TOPIC, PLAIN_TOPIC].into_iter().chain(compacted.map(|_| COMPACTED_TOPIC)) {
        let (settings, partitions) = match compacted {
            Some(compacted) if name == COMPACTED_TOPIC => (compacted.configs(), 1),
            _ => (cluster.plan().configs(name), PARTITIONS),
        };
        let mut configs: BTreeMap<_, _> = settings.into_iter().map(own).collect();
        if cluster.bug() == Some(Bug::RetentionIsHasty) {
            configs.entry("retention.bytes".to_owned()).and_modify(|bytes| "0".clone_into(bytes));
        }
        if name == COMPACTED_TOPIC && cluster.bug() == Some(Bug::CompactionWaitsForNobody) {
            configs.remove("floe.retention.wait.for.views");
        }
        loop {
            let running = cluster.broker().await;
            let log = running.log.clone();
            let new = NewTopic { name: name.to_owned(), partitions, configs: configs.clone() };
            let who = Writer { principal: "admin".into(), client_id: "sim".into() };
            running.run(async move { log.create_topic(&who, new, false).await.is_ok() }).await;
            let log = running.log.clone();
            if floe_log::topic::by_name(&log.meta().snapshot(), name).ok().flatten().is_some() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn start_clients(cluster: &Cluster) -> Vec<(String, Task<()>)> {
    let env = cluster.env();
    let places = Plan::places();
    let mut clients = Vec::new();
    let (idempotent, plain) = cluster.plan().producers;
    for process in 1..=idempotent + plain {
        let producer =
            Producer::new(Arc::new(cluster.clone()), process, places.clone(), process <= idempotent)
                .with_fleeting(cluster.plan().fleeting_places());
        clients.push((format!("producer {process}"), env.spawn("producer", producer.run())));
    }
    for (number, place) in (100..).zip(&places) {
        let consumer = Consumer::new(Arc::new(cluster.clone()), number, *place, number % 3 != 0);
        clients.push((format!("consumer of {}", place.name()), env.spawn("consumer", consumer.run())));
    }
    clients.extend(start_fleeting(cluster));
    if cluster.plan().deletes {
        let places = places.iter().filter(|place| place.topic == PLAIN_TOPIC).copied().collect();
        let deleter = Deleter::new(Arc::new(cluster.clone()), 400, places);
        clients.push(("deleter".to_owned(), env.spawn("deleter", deleter.run())));
    }
    if cluster.plan().keeps.is_some() {
        clients.push(("the restorer".to_owned(), env.spawn("restorer", restoring::run(cluster.clone()))));
    }
    if cluster.plan().marks {
        clients.push(("the marker".to_owned(), env.spawn("marker", marking::run(cluster.clone()))));
    }
    clients.extend(start_compacting(cluster));
    if cluster.plan().holds {
        clients.push(("the holder".to_owned(), env.spawn("holder", holding::run(cluster.clone()))));
    }
    // A group lives in one broker. Several brokers cannot share a group until groups have an owner.
    let members = if cluster.plan().brokers == 1 { 2 } else { 0 };
    for process in 200..200 + members {
        let member = Member::new(Arc::new(cluster.clone()), process, places.clone());
        clients.push((format!("member {process}"), env.spawn("member", member.run())));
    }
    if cluster.asks() {
        clients.push(("the asker".to_owned(), env.spawn("asker", sql::ask(cluster.clone()))));
    }
    clients
}

/// Starts the clients of the compacted topic.
fn start_compacting(cluster: &Cluster) -> Vec<(String, Task<()>)> {
    let Some(compacted) = cluster.plan().compacted else { return Vec::new() };
    let env = cluster.env();
    let mut clients = vec![
        ("the compacter".to_owned(), env.spawn("compacter", compacting::run(cluster.clone()))),
        ("the reader of keys".to_owned(), env.spawn("reader of keys", compacting::follow(cluster.clone()))),
    ];
    if compacted.deletes {
        let deleter = Deleter::new(Arc::new(cluster.clone()), 401, vec![Compacted::PLACE]);
        clients.push(("the deleter of keys".to_owned(), env.spawn("deleter of keys", deleter.run())));
    }
    clients
}

/// Starts the clients of the topic that is deleted and created again.
fn start_fleeting(cluster: &Cluster) -> Vec<(String, Task<()>)> {
    let Some(table) = cluster.plan().fleeting else { return Vec::new() };
    let env = cluster.env();
    let harness = || Arc::new(cluster.clone());
    let configs = cluster.plan().fleeting_configs(table);
    let administrator = Administrator::new(harness(), 300, FLEETING_TOPIC, PARTITIONS, configs);
    let mut clients = vec![("administrator".to_owned(), env.spawn("administrator", administrator.run()))];
    for (number, place) in (301..).zip(cluster.plan().fleeting_places()) {
        let follower = Follower::new(harness(), number, place, cluster.plan().brokers == 1);
        clients.push((format!("follower of {}", place.name()), env.spawn("follower", follower.run())));
    }
    clients
}

fn acknowledged(history: &History) -> u64 {
    let produced = history.lines.iter().map(|line| match (&line.event, line.phase) {
        (Event::Produce { values, .. }, Phase::Ok) => values.len() as u64,
        _ => 0,
    });
    produced.sum()
}
