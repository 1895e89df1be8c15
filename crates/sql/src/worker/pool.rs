//! The workers of a broker: at most one for each turn, one ahead of need, and the one that was used last first.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use floe_env::{Backoff, DiskReserve, Env, lock};
use floe_lake::Lake;
use floe_log::Log;
use floe_query::{Format, Kind, QueryError};

use super::answers::{Answers, room};
use super::link::Link;
use super::message::{FromWorker, Setup, Start, ToWorker};
use super::process::{Process, Program};
use super::spill::Spill;
use super::statement::{Needs, Reader, run};
use super::watch::{Member, Watch};
use crate::config::Config;
use crate::limits::{
    WORKER_IDLE_SECONDS, WORKER_KEPT_BYTES_MAX, WORKER_LATE_GRACE, WORKER_START_SECONDS_MAX,
    WORKER_STATEMENTS_MAX, WORKER_TEND_INTERVAL,
};
use crate::source::Source;
use crate::source::here::Here;
use crate::turns::Turns;
use crate::{fault, guard, results, told};

/// SQL in processes of its own. A clone is the same engine. With the last one, its workers end.
#[derive(Clone)]
pub struct Workers {
    handle: Arc<Handle>,
}

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Shared {
    env: Env,
    here: Here,
    config: Config,
    program: Program,
    answers: Answers,
    turns: Turns,
    watch: Watch,
    spill: Spill,
    state: Mutex<State>,
    stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// The one that was used last is the last.
    idle: Vec<Worker>,
    /// Workers that run statements or start.
    busy: usize,
    /// Whether one starts ahead of need.
    is_starting_ahead: bool,
    /// Workers so far, for their names.
    started: u64,
    /// Failed starts, one after the other.
    failures: Option<Failures>,
    closed: bool,
}

struct Failures {
    backoff: Backoff,
    /// No start before this.
    until: Instant,
    why: String,
}

/// A worker that runs no statement.
struct Worker {
    process: Arc<Process>,
    link: Link,
    member: Member,
    /// Its own part of the spill directory.
    directory: Option<PathBuf>,
    statements: u32,
    idle_since: Instant,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// Why the workers cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("SQL cannot start: {0}")]
pub struct WorkersError(#[from] io::Error);

impl Workers {
    /// Takes the spill directory and starts the first worker in the background. Workers start `program`.
    ///
    /// # Errors
    /// The spill directory cannot be emptied, or the system refuses a thread.
    #[expect(clippy::needless_pass_by_value, reason = "an engine keeps its environment, as all parts do")]
    pub fn start(
        env: Env,
        log: Log,
        lake: Lake,
        config: Config,
        program: Program,
    ) -> Result<Workers, WorkersError> {
        let mut config = config;
        let (mut spill_bytes, mut disk) = (0, None);
        if let Some(directory) = config.spill_directory.as_mut().filter(|_| config.spill_bytes > 0) {
            crate::spill::empty(directory)?;
            // A worker has another working directory.
            *directory = directory.canonicalize()?;
            // Half of the room is for the records that arrive meanwhile.
            let reserve = DiskReserve::new(directory.clone(), config.disk_reserve_bytes);
            spill_bytes = config.spill_bytes.min(reserve.room()?.beside() / 2);
            disk = Some(reserve);
        }
        let watch = Watch::start(&env, config.memory_bytes as u64)?;
        let here = Here::new(env.clone(), log, lake);
        let answers = Answers { store: here.store(), room: room() };
        let (turns, spill) = (Turns::new(config.queries_max), Spill::new(spill_bytes, disk));
        let (state, stopping) = (Mutex::default(), watch::Sender::new(false));
        let shared =
            Shared { env: env.clone(), here, config, program, answers, turns, watch, spill, state, stopping };
        let shared = Arc::new(shared);
        let tended = shared.clone();
        drop(env.spawn("sql workers", async move { tended.tend().await }));
        Ok(Workers { handle: Arc::new(Handle(shared)) })
    }

    /// Runs one statement. It sees everything that was acknowledged before the call. Returns when the statement is
    /// planned. The rows arrive encoded.
    ///
    /// # Errors
    /// See [`Kind`]. An error in the statement names its place in `text`.
    pub async fn query_as(
        &self,
        text: &str,
        format: Format,
    ) -> Result<BoxStream<'static, Result<Bytes, QueryError>>, QueryError> {
        let shared = &self.handle.0;
        let env = &shared.env;
        let started = env.monotonic();
        let result = shared.start(text, format, started).await;
        told::planned(result.as_ref().err(), env.monotonic() - started);
        result
    }

    /// Takes no statements any more, and ends all workers, with the statements that they run.
    pub fn close(&self) {
        self.handle.0.close();
    }
}

impl Shared {
    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
        self.stopping.send_replace(true);
        self.watch.close();
    }

    async fn start(
        self: &Arc<Shared>,
        text: &str,
        format: Format,
        started: Instant,
    ) -> Result<BoxStream<'static, Result<Bytes, QueryError>>, QueryError> {
        // A longer text would not fit into a message to a worker.
        guard::check_length(text)?;
        let turn = self.turns.next().await?;
        let (planned, plan) = oneshot::channel();
        let (rows, pieces) = results::queue();
        let reader = Reader { planned: Some(planned), rows: Arc::new(rows) };
        let deadline = started + self.config.query_time_max;
        let (shared, text) = (self.clone(), text.to_owned());
        let running = async move { shared.run(text, format, deadline, reader, turn).await };
        drop(self.env.spawn("sql statement", running));
        let late = told::too_late(self.config.query_time_max);
        // The worker itself says that it is late. If it does not, it is killed in this time.
        match timeout_at(deadline + 2 * WORKER_LATE_GRACE, plan).await {
            Ok(Ok(planned)) => planned?,
            Ok(Err(_)) => return Err(fault::ended()),
            Err(_) => return Err(late),
        }
        Ok(pieces.until(deadline + WORKER_LATE_GRACE, self.env.clone(), late, fault::ended()))
    }

    /// Runs a statement to its end. The turn becomes free when the statement has ended, not when its reader has left.
    async fn run(
        self: Arc<Shared>,
        text: String,
        format: Format,
        deadline: Instant,
        mut reader: Reader,
        turn: OwnedSemaphorePermit,
    ) {
        let _running = told::Running::new(&self.env);
        let mut worker = match self.take(deadline).await {
            Ok(worker) => worker,
            Err(error) => return reader.end(Err(error)),
        };
        self.clone().start_ahead();
        let cut = self.here.cut_now();
        let grant = self.spill.grant();
        let start = Start {
            number: worker.statements + 1,
            text,
            format,
            cut: cut.lsn(),
            now: cut.now(),
            left: deadline.saturating_duration_since(self.env.monotonic()),
            before_spilling: self.watch.before_spilling(),
            spill_bytes: grant.bytes(),
        };
        worker.statements += 1;
        let Worker { process, link, member, .. } = &mut worker;
        let needs = Needs {
            env: &self.env,
            answers: &self.answers,
            process,
            member,
            cut,
            kill_at: deadline + WORKER_LATE_GRACE,
            time_max: self.config.query_time_max,
            memory_max: self.config.memory_bytes as u64,
            grant,
            stopping: self.stopping.subscribe(),
        };
        let is_free = run(needs, link, start, &mut reader).await;
        self.give_back(worker, is_free).await;
        drop(turn);
    }

    /// An idle worker, or a new one.
    async fn take(&self, deadline: Instant) -> Result<Worker, QueryError> {
        loop {
            let idle = {
                let mut state = lock(&self.state);
                let idle = state.idle.pop();
                state.busy += 1;
                idle
            };
            match idle {
                Some(worker) if worker.member.claim() => {
                    self.count();
                    return Ok(worker);
                }
                Some(dead) => {
                    lock(&self.state).busy -= 1;
                    self.bury(dead).await;
                }
                None => break,
            }
        }
        self.count();
        if lock(&self.state).closed {
            lock(&self.state).busy -= 1;
            return Err(told::stopping());
        }
        let started = match timeout_at(deadline, self.start_worker()).await {
            Ok(started) => started,
            Err(_) => Err(told::too_late(self.config.query_time_max)),
        };
        if started.is_err() {
            lock(&self.state).busy -= 1;
            self.count();
        }
        started
    }

    async fn give_back(&self, mut worker: Worker, is_free: bool) {
        worker.idle_since = self.env.monotonic();
        let is_used_up = worker.statements >= WORKER_STATEMENTS_MAX;
        let kept = {
            let mut state = lock(&self.state);
            state.busy -= 1;
            match is_free && !is_used_up && !state.closed && worker.process.is_alive() {
                true => {
                    state.idle.push(worker);
                    None
                }
                false => Some(worker),
            }
        };
        self.count();
        if let Some(worker) = kept {
            self.bury(worker).await;
        }
    }

    /// Starts a worker before it is needed, if none is idle.
    fn start_ahead(self: Arc<Shared>) {
        let shared = self.clone();
        {
            let mut state = lock(&self.state);
            let is_enough = state.is_starting_ahead || !state.idle.is_empty();
            if state.closed || is_enough || state.busy >= self.config.queries_max.max(1) {
                return;
            }
            state.busy += 1;
            state.is_starting_ahead = true;
        }
        let starting = async move {
            let started = shared.start_worker().await;
            lock(&shared.state).is_starting_ahead = false;
            match started {
                Ok(worker) => shared.give_back(worker, true).await,
                // The next statement tries, and tells.
                Err(_) => lock(&shared.state).busy -= 1,
            }
        };
        drop(self.env.spawn("sql worker starts", starting));
    }

    async fn start_worker(&self) -> Result<Worker, QueryError> {
        let number = {
            let mut state = lock(&self.state);
            if let Some(failures) = &state.failures
                && self.env.monotonic() < failures.until
            {
                return Err(not_started(&failures.why));
            }
            state.started += 1;
            state.started
        };
        let started = self.env.monotonic();
        let worker = timeout(WORKER_START_SECONDS_MAX, self.try_start(number)).await;
        let worker = worker.unwrap_or_else(|_| Err("it did not become ready in time".to_owned()));
        let mut state = lock(&self.state);
        match worker {
            Ok(worker) => {
                state.failures = None;
                metrics::counter!("floe_sql_workers_started_total").increment(1);
                let seconds = (self.env.monotonic() - started).as_secs_f64();
                metrics::histogram!("floe_sql_worker_start_seconds").record(seconds);
                Ok(worker)
            }
            Err(why) => {
                metrics::counter!("floe_sql_workers_not_started_total").increment(1);
                tracing::error!(why, "a worker for SQL statements did not start");
                let error = not_started(&why);
                let before = state.failures.take().map(|failures| failures.backoff);
                let new = || Backoff::new(&self.env, START_PAUSE, START_PAUSE_MAX);
                let mut backoff = before.unwrap_or_else(new);
                let until = self.env.monotonic() + backoff.next_pause();
                state.failures = Some(Failures { backoff, until, why });
                Err(error)
            }
        }
    }

    async fn try_start(&self, number: u64) -> Result<Worker, String> {
        let (env, program) = (self.env.clone(), self.program.clone());
        let started = self.env.blocking(move || Process::start(&env, &program)).await;
        let (process, socket) = started.map_err(|error| format!("the system does not start it: {error}"))?;
        let spills = self.config.spill_directory.as_ref().filter(|_| self.config.spill_bytes > 0);
        let directory = spills.map(|directory| directory.join(format!("worker-{number}")));
        let setup = Setup::of(&self.config, directory.clone(), self.program.faults);
        let link = Link::new(&self.env, socket);
        let ready = match link {
            Ok(mut link) => ready(&mut link, setup).await.then_some(link),
            Err(_) => None,
        };
        let Some(link) = ready else {
            process.kill();
            let ending = process.ended().await;
            self.remove(directory).await;
            return Err(format!("it ended: {ending}"));
        };
        process.ready();
        let (member, idle_since) = (self.watch.add(&process), self.env.monotonic());
        Ok(Worker { process, link, member, directory, statements: 0, idle_since })
    }

    /// Ends a worker, waits until it is gone, and removes what it has spilled.
    async fn bury(&self, worker: Worker) {
        worker.process.kill();
        worker.process.ended().await;
        let directory = worker.directory.clone();
        drop(worker);
        self.remove(directory).await;
    }

    async fn remove(&self, directory: Option<PathBuf>) {
        let Some(directory) = directory else { return };
        let removed = self.env.blocking(move || std::fs::remove_dir_all(directory)).await;
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "what a worker has spilled was not removed; the next start removes it");
        }
    }

    /// Keeps one worker ahead of need, and ends those that are idle for long or keep much memory.
    async fn tend(self: Arc<Shared>) {
        loop {
            let ends = self.ends();
            if lock(&self.state).closed {
                return;
            }
            for worker in ends {
                self.bury(worker).await;
            }
            self.clone().start_ahead();
            self.count();
            tokio::time::sleep(WORKER_TEND_INTERVAL).await;
        }
    }

    /// Takes the idle workers that have to end.
    fn ends(&self) -> Vec<Worker> {
        let (now, most) =
            (self.env.monotonic(), WORKER_KEPT_BYTES_MAX.min(self.config.memory_bytes as u64 / 4));
        let mut state = lock(&self.state);
        let mut left = state.idle.len();
        let mut ends = Vec::new();
        // The first ones were idle for longest.
        let mut kept = Vec::with_capacity(left);
        for worker in std::mem::take(&mut state.idle) {
            let is_old = now.saturating_duration_since(worker.idle_since) >= WORKER_IDLE_SECONDS && left > 1;
            if is_old || !worker.process.is_alive() || worker.process.grown_bytes() > most {
                left -= 1;
                ends.push(worker);
            } else {
                kept.push(worker);
            }
        }
        state.idle = kept;
        ends
    }

    fn count(&self) {
        let state = lock(&self.state);
        metrics::gauge!("floe_sql_workers", "state" => "busy").set(state.busy as f64);
        metrics::gauge!("floe_sql_workers", "state" => "idle").set(state.idle.len() as f64);
    }
}

/// Whether a new worker takes its settings and is ready.
async fn ready(link: &mut Link, setup: Setup) -> bool {
    link.out.send(&ToWorker::Setup(setup), Bytes::new()).await.is_ok()
        && matches!(link.next().await, Some(Ok((FromWorker::Ready, _))))
}

/// The first pause after a failed start, and the longest.
const START_PAUSE: Duration = Duration::from_millis(200);
const START_PAUSE_MAX: Duration = Duration::from_secs(10);

fn not_started(why: &str) -> QueryError {
    let message = format!("no process for the statement could be started, try again: {why}");
    QueryError::new(Kind::Unavailable, message)
}
