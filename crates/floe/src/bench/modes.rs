//! The four modes: connections first, then the clock, then the load, then the figures.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Result, bail};
use floe_client::LATEST;
use floe_env::Env;
use serde_json::{Map, Value, json};
use tokio::time::{sleep, sleep_until, timeout};

use crate::bench::args::Begin;
use crate::bench::cluster::{CLIENT_ID, Cluster};
use crate::bench::consume::{self, Purpose, Read, Reader, Reading, Until};
use crate::bench::content::{Batches, Marked, Source};
use crate::bench::load::Load;
use crate::bench::plan::{ConsumePlan, LatencyPlan, ProducePlan, ReadPlan, Window, WritePlan};
use crate::bench::produce::{self, Writing};
use crate::bench::progress::{Goal, show};
use crate::bench::report::{Part, Report, Side};
use crate::bench::run::{Ended, Run};
use crate::bench::tally::Tally;
use crate::bench::turns::Turns;
use crate::bootstrap::bootstrap;
use crate::serve::StopSignal;

/// How often the end of `latency` looks whether the last records have come.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What all modes share.
pub(super) struct Bench {
    pub(super) env: Env,
    pub(super) bootstrap: String,
    pub(super) timeout: Duration,
}

impl Bench {
    /// `floe bench produce`; with readers in the plan, `floe bench mixed`.
    pub(super) async fn produce(&self, mode: &'static str, plan: ProducePlan) -> Result<Report> {
        let mut client = bootstrap(&self.bootstrap, CLIENT_ID).await?;
        let cluster = Cluster::find_or_create(&self.env, &mut client, &plan.topic).await?;
        let (write, rest) = (plan.write, Load::new(&plan.write, &plan.window).rest());
        let source = self.env.blocking(move || Source::Made(Batches::new(&write, rest))).await;
        let readers = match &plan.read {
            Some(read) => consume::connect(&cluster, read, Until::EndOfRun).await?,
            None => Vec::new(),
        };
        let writers = produce::connect(&self.env, &cluster, &plan.write).await?;

        let mut asked = StopSignal::listen()?;
        let run = self.begin();
        let beside = |read| reading(&run, &cluster, read, plan.window, Purpose::CountBesideWriters);
        let reading = plan.read.map(beside);
        let writing = writing(&run, &cluster, plan.write, &plan.window, source)?;
        let work = async {
            let write = async {
                let written = produce::write(&writing, writers).await;
                run.end(Ended::Done);
                written
            };
            tokio::join!(write, read_beside(reading.as_ref(), readers))
        };
        let (written, read) = watch(&run, mode, Goal::of(&plan.window, 0), &mut asked, work).await?;

        let mut parts = vec![produced(&writing, written?, &plan.window)];
        if plan.read.is_some() {
            let Read { tally, positions } = read?;
            let behind = cluster.offsets(LATEST).await.ok();
            let behind = behind.map(|next| consume::records_between(&positions, &next));
            parts.push(Part { side: Side::Consume { behind }, tally, measured_from: plan.window.warm_up });
        }
        Ok(self.report(mode, &cluster, plan.settings(), parts, &run))
    }

    /// `floe bench consume`.
    pub(super) async fn consume(&self, plan: ConsumePlan) -> Result<Report> {
        let mut client = bootstrap(&self.bootstrap, CLIENT_ID).await?;
        let cluster = Cluster::find(&self.env, &mut client, &plan.topic).await?;
        let until = match plan.read.from {
            Begin::Start => Until::EndOfTopic,
            Begin::Latest => Until::EndOfRun,
        };
        let readers = consume::connect(&cluster, &plan.read, until).await?;
        let goal = Goal::of(&plan.window, readers.iter().map(Reader::records_ahead).sum());

        let mut asked = StopSignal::listen()?;
        let run = self.begin();
        let reading = reading(&run, &cluster, plan.read, plan.window, Purpose::Count);
        let work = async {
            tokio::select! {
                biased;
                read = consume::read(&reading, readers) => read,
                never = end_in_time(&run, &plan.window) => never,
            }
        };
        let read = watch(&run, "consume", goal, &mut asked, work).await??;
        run.end(Ended::Done);

        let (side, measured_from) = (Side::Consume { behind: None }, plan.window.warm_up);
        let parts = vec![Part { side, tally: read.tally, measured_from }];
        Ok(self.report("consume", &cluster, plan.settings(), parts, &run))
    }

    /// `floe bench latency`.
    pub(super) async fn latency(&self, mut plan: LatencyPlan) -> Result<Report> {
        let mut client = bootstrap(&self.bootstrap, CLIENT_ID).await?;
        let cluster = Cluster::find_or_create(&self.env, &mut client, &plan.topic).await?;
        plan.read.connections = plan.read.connections.min(usize::try_from(cluster.partitions())?);
        let readers = consume::connect(&cluster, &plan.read, Until::EndOfRun).await?;
        let writers = produce::connect(&self.env, &cluster, &plan.write).await?;
        let number = self.env.random_u64();
        let source = Source::Marked(Marked::new(&plan.write, number));

        let mut asked = StopSignal::listen()?;
        let run = self.begin();
        let purpose = Purpose::Marks { run: number, seen: AtomicU64::new(0) };
        let reading = reading(&run, &cluster, plan.read, plan.window, purpose);
        let writing = writing(&run, &cluster, plan.write, &plan.window, source)?;
        let work = async {
            let write = async {
                let written = produce::write(&writing, writers).await;
                if let Ok(tally) = &written {
                    wait_for(&reading, acknowledged(tally)).await;
                }
                run.end(Ended::Done);
                written
            };
            tokio::join!(write, consume::read(&reading, readers))
        };
        let (written, read) = watch(&run, "latency", Goal::of(&plan.window, 0), &mut asked, work).await?;

        let written = written?;
        let missing = acknowledged(&written).saturating_sub(reading.seen());
        let side = Side::EndToEnd { missing };
        let came = Part { side, tally: read?.tally, measured_from: plan.window.warm_up };
        let parts = vec![produced(&writing, written, &plan.window), came];
        Ok(self.report("latency", &cluster, plan.settings(), parts, &run))
    }

    fn begin(&self) -> Arc<Run> {
        Arc::new(Run::begin(&self.env, self.timeout))
    }

    fn report(
        &self,
        mode: &'static str,
        cluster: &Cluster,
        mut settings: Map<String, Value>,
        parts: Vec<Part>,
        run: &Run,
    ) -> Report {
        settings.insert("bootstrap".into(), json!(self.bootstrap));
        settings.insert("timeout_seconds".into(), json!(self.timeout.as_secs()));
        settings.insert("partitions".into(), json!(cluster.partitions()));
        settings.insert("leading_brokers".into(), json!(cluster.leaders()));
        let ended = run.ended().map_or(Ended::Done, |(why, _)| why);
        Report { mode, settings, parts, ended }
    }
}

fn reading(
    run: &Arc<Run>,
    cluster: &Cluster,
    plan: ReadPlan,
    window: Window,
    purpose: Purpose,
) -> Arc<Reading> {
    Arc::new(Reading { run: run.clone(), topic: cluster.topic().to_owned(), plan, window, purpose })
}

fn writing(
    run: &Arc<Run>,
    cluster: &Cluster,
    plan: WritePlan,
    window: &Window,
    source: Source,
) -> Result<Arc<Writing>> {
    let turns = Turns::start(run, Load::new(&plan, window), plan.connections)?;
    Ok(Arc::new(Writing { run: run.clone(), topic: cluster.topic().to_owned(), plan, source, turns }))
}

async fn read_beside(reading: Option<&Arc<Reading>>, readers: Vec<Reader>) -> Result<Read> {
    match reading {
        Some(reading) => consume::read(reading, readers).await,
        None => Ok(Read::default()),
    }
}

/// The figures of writers.
fn produced(writing: &Writing, tally: Tally, window: &Window) -> Part {
    let run = &writing.run;
    let ended_at = run.ended().map_or(run.now(), |(_, at)| at);
    let due = writing.turns.measured_due_before(ended_at);
    let unsent = writing.turns.is_paced().then(|| due.saturating_sub(tally.requests));
    let side = Side::Produce { record_bytes: writing.plan.record_bytes as u64, unsent };
    Part { side, tally, measured_from: window.warm_up }
}

fn acknowledged(tally: &Tally) -> u64 {
    tally.records + tally.warm_up_records
}

/// Waits until so many marked records have come to the consumers, no longer than a request may take.
async fn wait_for(reading: &Reading, records: u64) {
    let run = &reading.run;
    let coming = async {
        while reading.seen() < records {
            sleep(LOOK_EVERY).await;
        }
    };
    // Those that do not come in time are counted as missing.
    let _ = run.unless_over(timeout(run.timeout, coming)).await;
}

/// Ends the run when its time is over. Never returns: the readers do, when the run has ended.
async fn end_in_time<T>(run: &Run, window: &Window) -> T {
    if let Some(end) = window.end() {
        sleep_until(run.at(end)).await;
        run.end(Ended::Done);
    }
    std::future::pending().await
}

/// Does the work of a run under a progress bar. The first signal ends the run in order, the second at once.
async fn watch<T>(
    run: &Run,
    mode: &'static str,
    goal: Goal,
    asked: &mut StopSignal,
    work: impl Future<Output = T>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return Ok(done),
        () = asked.received() => run.end(Ended::Interrupted),
        never = show(run, mode, goal) => match never? {},
    }
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = asked.received() => bail!("stopped while requests were without an answer; there are no figures"),
    }
}
