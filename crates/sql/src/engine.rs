//! The engine's handle. It takes a statement, bounds its time, memory and rows, and runs it on the engine's threads.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::execute_stream;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use floe_env::Env;
use floe_lake::Lake;
use floe_log::Log;
use floe_meta::{Lsn, Snapshot};
use floe_query::{Format, Kind, QueryError};

use crate::catalog::{Cut, Tails};
use crate::config::Config;
use crate::files::Files;
use crate::format::Encoder;
use crate::functions::Meter;
use crate::limits::{TAIL_SCHEMAS_BYTES, THREAD_STACK_BYTES, TURN_SECONDS_MAX};
use crate::results::Rows;
use crate::spill::Runtimes;

use crate::{arguments, constants, correct, error, fault, format, pieces, results, session, statement};

/// SQL over the unified tables of a log and its lake. A clone is the same engine.
#[derive(Clone)]
pub struct Sql {
    inner: Arc<Inner>,
}

struct Inner {
    /// Its tasks run on the engine's threads: sorting must not delay those that answer producers, and they have a stack
    /// that is deep enough for every statement within the limits. What statements ask of the log and of the store runs
    /// on the broker's, because others wait for it as well.
    env: Env,
    log: Log,
    lake: Lake,
    config: Config,
    base: SessionState,
    runtimes: Runtimes,
    files: Arc<Files>,
    tails: Arc<Tails>,
    turns: Arc<Semaphore>,
    /// `None` in a simulation, which has one thread. There a statement runs in the only runtime.
    _threads: Option<Threads>,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
#[error("the SQL engine cannot start: {0}")]
pub struct OpenError(String);

/// A planned statement and its rows as they arrive.
pub struct QueryResult {
    /// The columns of the rows.
    pub schema: SchemaRef,
    /// The cut. The result includes every commit up to this one and none after it.
    pub cut: Lsn,
    /// The rows. Dropping the stream ends the statement.
    pub batches: BoxStream<'static, Result<RecordBatch, QueryError>>,
}

impl std::fmt::Debug for QueryResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryResult")
            .field("schema", &self.schema)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

impl Sql {
    /// Starts the engine and its threads.
    ///
    /// # Errors
    /// The system refuses the threads, or the engine cannot use the spill directory.
    #[expect(clippy::needless_pass_by_value, reason = "an engine keeps its environment, as all parts do")]
    pub fn new(env: Env, log: Log, lake: Lake, config: Config) -> Result<Sql, OpenError> {
        let failed = |error: DataFusionError| OpenError(error.to_string());
        let runtimes = Runtimes::open(&config, &session::stores()).map_err(failed)?;
        let base = session::base(&config, &runtimes).map_err(failed)?;
        let start = || Threads::start(config.threads.max(1)).map_err(|error| OpenError(error.to_string()));
        let threads = if env.is_simulated() { None } else { Some(start()?) };
        let env = threads.as_ref().map_or_else(|| env.clone(), |threads| env.on(threads.handle()));
        let files = Files::new(log.store().clone());
        let tails = Arc::new(Tails::new(TAIL_SCHEMAS_BYTES));
        let turns = Arc::new(Semaphore::new(config.queries_max.max(1)));
        Ok(Sql {
            inner: Arc::new(Inner {
                env,
                log,
                lake,
                config,
                base,
                runtimes,
                files,
                tails,
                turns,
                _threads: threads,
            }),
        })
    }

    /// Runs one statement. It sees everything that was acknowledged before the call. Returns when the statement is
    /// planned. The rows arrive through the result.
    ///
    /// # Errors
    /// See [`Kind`]. An error in the statement names its place in `text`.
    pub async fn query(&self, text: &str) -> Result<QueryResult, QueryError> {
        let started = self.inner.env.monotonic();
        let result = self.start(text, started).await;
        let outcome = match &result {
            Ok(_) => "planned",
            Err(error) => outcome(error.kind),
        };
        metrics::counter!("floe_sql_queries_total", "outcome" => outcome).increment(1);
        let seconds = (self.inner.env.monotonic() - started).as_secs_f64();
        metrics::histogram!("floe_sql_plan_seconds").record(seconds);
        result
    }

    /// [`Sql::query`] with the rows encoded in `format`.
    ///
    /// # Errors
    /// Those of [`Sql::query`], and an error for columns that the format cannot hold.
    pub async fn query_as(
        &self,
        text: &str,
        format: Format,
    ) -> Result<BoxStream<'static, Result<Bytes, QueryError>>, QueryError> {
        let result = self.query(text).await?;
        let encoder = Encoder::new(format, &result.schema).map_err(pieces::not_encoded)?;
        let memory = MemoryConsumer::new("the encoded result").register(&self.inner.memory());
        Ok(pieces::pieces(encoder, result.batches, memory))
    }

    async fn start(&self, text: &str, started: Instant) -> Result<QueryResult, QueryError> {
        let turn = self.turn().await?;
        let deadline = started + self.inner.config.query_time_max;
        let (planned, plan) = oneshot::channel();
        let (rows, reader) = results::queue();
        let rows = Arc::new(rows);
        let run = Run { inner: self.inner.clone(), text: text.to_owned(), deadline, rows, _turn: turn };
        self.inner.env.spawn("sql statement", run.guarded(planned));
        let late = || self.inner.too_late();
        let (schema, cut) = match timeout_at(deadline, plan).await {
            Ok(Ok(planned)) => planned?,
            Ok(Err(_)) => return Err(ended()),
            Err(_) => return Err(late()),
        };
        let (late, env) = (late(), self.inner.env.clone());
        let batches = stream::unfold(Some(reader), move |reader| {
            let (late, env) = (late.clone(), env.clone());
            async move {
                let mut reader = reader?;
                match timeout_at(deadline, reader.next()).await {
                    Ok(Ok(Some(batch))) => Some((Ok(batch), Some(reader))),
                    Ok(Ok(None)) => None,
                    Ok(Err(Some(error))) => Some((Err(error), None)),
                    Ok(Err(None)) if env.monotonic() >= deadline => Some((Err(late), None)),
                    Ok(Err(None)) => Some((Err(ended()), None)),
                    Err(_) => Some((Err(late), None)),
                }
            }
        });
        Ok(QueryResult { schema, cut, batches: batches.boxed() })
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        let turn = timeout(TURN_SECONDS_MAX, self.inner.turns.clone().acquire_owned()).await;
        match turn {
            Ok(turn) => Ok(turn.expect("the semaphore is never closed")),
            Err(_) => {
                let message = format!(
                    "{} statements are running, which is the limit, and none ended within {} s; try again",
                    self.inner.config.queries_max,
                    TURN_SECONDS_MAX.as_secs()
                );
                Err(QueryError::new(Kind::Busy, message))
            }
        }
    }
}

impl Inner {
    fn too_late(&self) -> QueryError {
        let seconds = self.config.query_time_max.as_secs_f64();
        QueryError::new(
            Kind::Limit,
            format!("the statement took longer than {seconds} s, which is the limit"),
        )
    }

    fn memory(&self) -> Arc<dyn MemoryPool> {
        self.runtimes.plain().memory_pool.clone()
    }

    fn cut(&self, snapshot: Snapshot) -> Arc<Cut> {
        Arc::new(Cut {
            snapshot,
            lake: self.lake.clone(),
            files: self.files.clone(),
            memory: self.memory(),
            tail_held_bytes: self.config.tail_held_bytes,
            tails: self.tails.clone(),
        })
    }
}

type Planned = Result<(SchemaRef, Lsn), QueryError>;

/// One statement in progress.
struct Run {
    inner: Arc<Inner>,
    text: String,
    deadline: Instant,
    rows: Arc<Rows>,
    /// The turn becomes free when the statement has ended, not when its reader has left.
    _turn: OwnedSemaphorePermit,
}

impl Run {
    /// Runs the statement. A panic of the engine becomes an error of this statement alone.
    async fn guarded(self, planned: oneshot::Sender<Planned>) {
        let running = metrics::gauge!("floe_sql_running");
        running.increment(1.0);
        let (env, started) = (self.inner.env.clone(), self.inner.env.monotonic());
        let rows = self.rows.clone();
        if let Err(panic) = AssertUnwindSafe(self.run(planned)).catch_unwind().await {
            let error = fault::logged(&env, &fault::panicked(panic.as_ref()));
            rows.end(Err(error));
        }
        running.decrement(1.0);
        let seconds = (env.monotonic() - started).as_secs_f64();
        metrics::histogram!("floe_sql_statement_seconds").record(seconds);
    }

    async fn run(self, mut planned: oneshot::Sender<Planned>) {
        let run = Arc::new(self);
        let plan = tokio::select! {
            biased;
            () = planned.closed() => return,
            plan = timeout_at(run.deadline, run.plan_apart()) => plan,
        };
        let plan = plan.unwrap_or_else(|_| Err(run.inner.too_late()));
        let (rows, told) = match plan {
            Ok((rows, cut)) => {
                let schema = rows.schema();
                (Some(rows), Ok((schema, cut)))
            }
            Err(error) => (None, Err(error)),
        };
        // The caller may have left.
        if planned.send(told).is_err() {
            return;
        }
        let Some(rows) = rows else { return };
        let end = tokio::select! {
            biased;
            () = run.rows.closed() => return,
            end = timeout_at(run.deadline, run.pump(rows)) => end,
        };
        // A slow reader does not keep the turn: it finds the end beside the queue.
        run.rows.end(end.unwrap_or_else(|_| Err(run.inner.too_late())));
    }

    /// Plans on a thread of its own. Nothing can stop the optimizer, and a long run of it must not delay other
    /// statements. The thread keeps the turn until it ends.
    async fn plan_apart(self: &Arc<Run>) -> Result<(SendableRecordBatchStream, Lsn), QueryError> {
        if self.inner.env.is_simulated() {
            return self.plan().await;
        }
        let (run, engine) = (self.clone(), tokio::runtime::Handle::current());
        let env = self.inner.env.clone();
        // Nobody awaits this thread once the statement is late or its reader has left. So the thread checks for both
        // at every await of planning: planning awaits reads of footers and tails.
        let planned = async move {
            tokio::select! {
                biased;
                () = run.rows.closed() => Err(ended()),
                plan = timeout_at(run.deadline, run.plan()) => plan.unwrap_or_else(|_| Err(run.inner.too_late())),
            }
        };
        let plan = move || {
            let plan = AssertUnwindSafe(|| engine.block_on(planned));
            std::panic::catch_unwind(plan)
                .unwrap_or_else(|panic| Err(fault::logged(&env, &fault::panicked(panic.as_ref()))))
        };
        self.inner.env.blocking(plan).await
    }

    /// Plans the text. Returns the stream of its rows and the LSN of its cut.
    async fn plan(&self) -> Result<(SendableRecordBatchStream, Lsn), QueryError> {
        let text = &self.text;
        let parsed = statement::parse(&self.inner.base, text)?;
        let snapshot = self.inner.log.meta().snapshot();
        let (lsn, cut) = (snapshot.lsn(), self.inner.cut(snapshot));
        let now = self.inner.env.now();
        let runtime = self.inner.runtimes.next();
        let mut state = session::session(&self.inner.base, runtime, cut, now, Arc::new(self.meter()));
        let failed = |error| self.failed(&error);
        let plan = correct::plan(&state, parsed).await.map_err(failed)?;
        // `statement::parse` has checked the statement against an allow-list. This is the engine's own check.
        let reading =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(failed)?;
        let plan = state.optimize(&plan).map_err(failed)?;
        let rows = ConfigNonZeroUsize::try_new(constants::check(&plan)?).map_err(failed)?;
        state.config_mut().options_mut().execution.batch_size = rows;
        arguments::check(&plan)?;
        let plan = state.query_planner().create_physical_plan(&plan, &state).await.map_err(failed)?;
        Ok((execute_stream(plan, state.task_ctx()).map_err(failed)?, lsn))
    }

    /// Functions end with the statement: at its deadline, and when its reader has left.
    fn meter(&self) -> Meter {
        let (inner, rows, deadline) = (self.inner.clone(), Arc::downgrade(&self.rows), self.deadline);
        let why = move || match rows.upgrade().is_none_or(|rows| rows.is_closed()) {
            true => Some(ended()),
            false => (inner.env.monotonic() >= deadline).then(|| inner.too_late()),
        };
        Meter::new(self.inner.memory(), Box::new(why))
    }

    /// The error for the client. A fault of the engine goes to the log.
    fn failed(&self, error: &DataFusionError) -> QueryError {
        let failed = error::of(error, &self.text);
        match failed.kind {
            Kind::Internal => fault::logged(&self.inner.env, &error.to_string()),
            _ => failed,
        }
    }

    async fn pump(&self, mut batches: SendableRecordBatchStream) -> Result<(), QueryError> {
        let (mut rows, schema) = (0, batches.schema());
        while let Some(batch) = batches.next().await {
            let batch = batch.and_then(|batch| Ok(format::renamed(&batch, &schema)?));
            let batch = batch.map_err(|error| self.failed(&error))?;
            rows += batch.num_rows() as u64;
            if rows > self.inner.config.result_rows_max {
                let message = format!(
                    "the result has more than {} rows, which is the limit; add a LIMIT, a filter or a GROUP BY",
                    self.inner.config.result_rows_max
                );
                return Err(QueryError::new(Kind::Limit, message));
            }
            metrics::counter!("floe_sql_rows_total").increment(batch.num_rows() as u64);
            if batch.num_rows() > 0 && !self.rows.send(batch).await? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A runtime whose threads have a deep stack. It ends with the engine and does not wait for a long plan.
struct Threads(Option<tokio::runtime::Runtime>);

impl Threads {
    fn start(count: usize) -> std::io::Result<Threads> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(count)
            .thread_stack_size(THREAD_STACK_BYTES)
            .thread_name("floe-sql")
            .enable_all()
            .build()?;
        Ok(Threads(Some(runtime)))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().expect("the threads are there until they are dropped").handle().clone()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Asynchronous code may drop us, and it must not block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn outcome(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid",
        Kind::Limit => "limit",
        Kind::Busy => "busy",
        Kind::Unavailable => "unavailable",
        Kind::Internal => "internal",
    }
}

fn ended() -> QueryError {
    let message = "the SQL engine gave the statement up because of a bug; see the server's log";
    QueryError::new(Kind::Internal, message)
}
