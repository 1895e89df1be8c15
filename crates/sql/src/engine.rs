//! The engine's handle. It takes a statement, bounds its time, memory and rows, and runs it on the engine's threads.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout_at};

use floe_engine::functions::Meter;
use floe_engine::{Widths, correct};
use floe_env::Env;
use floe_lake::Lake;
use floe_log::Log;
use floe_meta::Lsn;
use floe_query::{Format, Kind, QueryError};

use crate::catalog::Inputs;
use crate::config::Config;
use crate::files::Files;
use crate::format::Encoder;
use crate::limits::{
    BATCH_MEMORY_SHARE, BATCH_ROW_MEMORY, FOOTER_CACHE_BYTES, FOOTER_CACHE_SHARE, STARTS_MAX,
    THREAD_STACK_BYTES,
};
use crate::results::Rows;
use crate::session::{self, Bases, Session};
use crate::source::Sources;
use crate::source::here::Here;
use crate::spill::{Runtimes, shared_memory};
use crate::turns::Turns;

use crate::{arguments, constants, error, fault, format, pieces, results, statement, told, views};

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
    sources: Arc<dyn Sources>,
    config: Config,
    bases: Bases,
    runtimes: Runtimes,
    files: Arc<Files>,
    turns: Turns,
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
    pub fn new(env: Env, log: Log, lake: Lake, config: Config) -> Result<Sql, OpenError> {
        let here = Arc::new(Here::new(env.clone(), log, lake));
        let memory = shared_memory(&config);
        Sql::over(env, here, memory, config)
    }

    /// An engine over `sources` that counts what it holds in `memory`.
    ///
    /// # Errors
    /// Those of [`Sql::new`].
    #[expect(clippy::needless_pass_by_value, reason = "an engine keeps its environment, as all parts do")]
    pub(crate) fn over(
        env: Env,
        sources: Arc<dyn Sources>,
        memory: Arc<dyn MemoryPool>,
        config: Config,
    ) -> Result<Sql, OpenError> {
        let failed = |error: DataFusionError| OpenError(error.to_string());
        let runtimes = Runtimes::open(&config, &memory, &session::stores()).map_err(failed)?;
        let bases = Bases::new(&config, &runtimes).map_err(failed)?;
        let start = || Threads::start(config.threads.max(1)).map_err(|error| OpenError(error.to_string()));
        let threads = if env.is_simulated() { None } else { Some(start()?) };
        let env = threads.as_ref().map_or_else(|| env.clone(), |threads| env.on(threads.handle()));
        let footers_max = FOOTER_CACHE_BYTES.min(config.memory_bytes / FOOTER_CACHE_SHARE);
        let files = Files::new(sources.files(), footers_max);
        let turns = Turns::new(config.queries_max);
        Ok(Sql {
            inner: Arc::new(Inner { env, sources, config, bases, runtimes, files, turns, _threads: threads }),
        })
    }

    /// Runs one statement. It sees everything that was acknowledged before the call. Returns when the statement is
    /// planned. The rows arrive through the result.
    ///
    /// # Errors
    /// See [`Kind`]. An error in the statement names its place in `text`.
    pub async fn query(&self, text: &str) -> Result<QueryResult, QueryError> {
        let started = self.inner.env.monotonic();
        let result = self.start(text, started + self.inner.config.query_time_max).await;
        told::planned(result.as_ref().err(), self.inner.env.monotonic() - started);
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
        let started = self.inner.env.monotonic();
        let result = self.query_until(text, format, started + self.inner.config.query_time_max).await;
        told::planned(result.as_ref().err(), self.inner.env.monotonic() - started);
        result
    }

    /// [`Sql::query_as`] with a deadline of its own, uncounted.
    pub(crate) async fn query_until(
        &self,
        text: &str,
        format: Format,
        deadline: Instant,
    ) -> Result<BoxStream<'static, Result<Bytes, QueryError>>, QueryError> {
        let result = self.start(text, deadline).await?;
        let encoder = Encoder::new(format, &result.schema).map_err(pieces::not_encoded)?;
        let memory = MemoryConsumer::new("the encoded result").register(&self.inner.memory());
        Ok(pieces::pieces(encoder, result.batches, memory))
    }

    /// Returns when no statement runs.
    pub(crate) async fn idle(&self) {
        self.inner.turns.all().await;
    }

    /// Sets how much statements may spill from now on, and returns how much they have spilled.
    pub(crate) fn allow_spill(&self, bytes: u64) -> Result<u64, DataFusionError> {
        self.inner.runtimes.allow_spill(bytes)
    }

    /// The environment of the engine's threads.
    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }

    async fn start(&self, text: &str, deadline: Instant) -> Result<QueryResult, QueryError> {
        let turn = self.inner.turns.next().await?;
        let (planned, plan) = oneshot::channel();
        let (rows, reader) = results::queue();
        let rows = Arc::new(rows);
        let run = Run { inner: self.inner.clone(), text: text.to_owned(), deadline, rows, _turn: turn };
        self.inner.env.spawn("sql statement", run.guarded(planned));
        let late = self.inner.too_late();
        let (schema, cut) = match timeout_at(deadline, plan).await {
            Ok(Ok(planned)) => planned?,
            Ok(Err(_)) => return Err(fault::ended()),
            Err(_) => return Err(late),
        };
        let batches = reader.until(deadline, self.inner.env.clone(), late, fault::ended());
        Ok(QueryResult { schema, cut, batches })
    }
}

impl Inner {
    fn too_late(&self) -> QueryError {
        told::too_late(self.config.query_time_max)
    }

    fn memory(&self) -> Arc<dyn MemoryPool> {
        self.runtimes.plain().memory_pool.clone()
    }

    fn inputs(&self) -> Arc<Inputs> {
        Arc::new(Inputs {
            source: self.sources.cut(),
            files: self.files.clone(),
            memory: self.memory(),
            tail_held_bytes: self.config.tail_held_bytes,
        })
    }
}

type Planned = Result<(SchemaRef, Lsn), QueryError>;

/// One statement in progress.
struct Run {
    inner: Arc<Inner>,
    text: String,
    deadline: Instant,
    rows: Arc<Rows<RecordBatch>>,
    /// The turn becomes free when the statement has ended, not when its reader has left.
    _turn: OwnedSemaphorePermit,
}

impl Run {
    /// Runs the statement. A panic of the engine becomes an error of this statement alone.
    async fn guarded(self, planned: oneshot::Sender<Planned>) {
        let (env, rows) = (self.inner.env.clone(), self.rows.clone());
        let _running = told::Running::new(&env);
        if let Err(panic) = AssertUnwindSafe(self.run(planned)).catch_unwind().await {
            let error = fault::caught(&env, panic.as_ref());
            rows.end(Err(error));
        }
    }

    async fn run(self, mut planned: oneshot::Sender<Planned>) {
        let run = Arc::new(self);
        let plan = tokio::select! {
            biased;
            () = planned.closed() => return,
            plan = timeout_at(run.deadline, run.apart(run.clone().plan())) => plan,
        };
        let plan = plan.unwrap_or_else(|_| Err(run.inner.too_late()));
        let (plan, told) = match plan {
            Ok((plan, started)) => {
                let told = Ok((started.rows.schema(), plan.cut));
                (Some((plan, started)), told)
            }
            Err(error) => (None, Err(error)),
        };
        // The caller may have left.
        if planned.send(told).is_err() {
            return;
        }
        let Some((plan, started)) = plan else { return };
        let end = tokio::select! {
            biased;
            () = run.rows.closed() => return,
            end = timeout_at(run.deadline, run.pump(plan, started)) => end,
        };
        // A slow reader does not keep the turn: it finds the end beside the queue.
        run.rows.end(end.unwrap_or_else(|_| Err(run.inner.too_late())));
    }

    /// Plans on a thread of its own. Nothing can stop the optimizer, and a long run of it must not delay other
    /// statements. The thread keeps the turn until it ends.
    async fn apart<T: Send + 'static>(
        self: &Arc<Run>,
        plan: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        if self.inner.env.is_simulated() {
            return plan.await;
        }
        let (run, engine) = (self.clone(), tokio::runtime::Handle::current());
        let env = self.inner.env.clone();
        // Nobody awaits this thread once the statement is late or its reader has left. So the thread checks for both
        // at every await of planning: planning awaits reads of footers and tails.
        let planned = async move {
            tokio::select! {
                biased;
                () = run.rows.closed() => Err(fault::ended()),
                plan = timeout_at(run.deadline, plan) => plan.unwrap_or_else(|_| Err(run.inner.too_late())),
            }
        };
        let plan = move || {
            let plan = AssertUnwindSafe(|| engine.block_on(planned));
            std::panic::catch_unwind(plan).unwrap_or_else(|panic| Err(fault::caught(&env, panic.as_ref())))
        };
        self.inner.env.blocking(plan).await
    }

    /// Plans the text and starts it.
    async fn plan(self: Arc<Run>) -> Result<(Plan, Started), QueryError> {
        let text = &self.text;
        let parsed = statement::parse(self.inner.bases.any(), text)?;
        let inputs = self.inner.inputs();
        let cut = inputs.source.lsn();
        let runtime = self.inner.runtimes.next();
        let session = self.inner.bases.session(runtime, inputs, Arc::new(self.meter()));
        let state = session.state();
        let failed = |error| self.failed(&error);
        let plan = correct::plan(state, parsed).await.map_err(failed)?;
        // `statement::parse` has checked the statement against an allow-list. This is the engine's own check.
        let reading =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(failed)?;
        let optimized = state.optimize(&plan).map_err(failed)?;
        let rows = constants::check(&optimized)?.min(self.inner.config.memory_bytes / BATCH_ROW_MEMORY);
        arguments::check(&optimized)?;
        let mut plan = Plan { session, optimized, cut, starts: 0 };
        let started = plan.start(&self.inner.config, rows).await.map_err(failed)?;
        Ok((plan, started))
    }

    /// Functions end with the statement: at its deadline, and when its reader has left.
    fn meter(&self) -> Meter {
        let (inner, rows, deadline) = (self.inner.clone(), Arc::downgrade(&self.rows), self.deadline);
        let why = move || match rows.upgrade().is_none_or(|rows| rows.is_closed()) {
            true => Some(fault::ended()),
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

    /// Hands on the rows of a statement. Begins anew, with batches of fewer rows, when its rows turn out to be wide
    /// before the first is handed on.
    async fn pump(self: &Arc<Run>, mut plan: Plan, mut started: Started) -> Result<(), QueryError> {
        while let Some(rows) = self.hand_on(started).await? {
            metrics::counter!("floe_sql_begun_again_total").increment(1);
            let run = self.clone();
            let again = async move {
                let started = plan.start(&run.inner.config, rows).await;
                started.map(|started| (plan, started)).map_err(|error| run.failed(&error))
            };
            (plan, started) = self.apart(again).await?;
        }
        Ok(())
    }

    /// Hands on the rows of one start. Returns how many rows a batch should have if none was handed on because they are
    /// wide.
    async fn hand_on(
        &self,
        Started { rows: mut batches, widths }: Started,
    ) -> Result<Option<usize>, QueryError> {
        let (mut rows, schema) = (0, batches.schema());
        while let Some(batch) = batches.next().await {
            if let Some(fewer) = widths.fewer_rows() {
                return Ok(Some(fewer));
            }
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
            if batch.num_rows() == 0 {
                continue;
            }
            // Another partition may have found wide rows between these two lines.
            if !widths.hand_on() {
                return Ok(widths.fewer_rows());
            }
            metrics::counter!("floe_sql_rows_total").increment(batch.num_rows() as u64);
            if !self.rows.send(batch).await? {
                return Ok(None);
            }
        }
        Ok(widths.fewer_rows())
    }
}

/// An optimized plan, which can be started more than once.
struct Plan {
    session: Session,
    optimized: LogicalPlan,
    cut: Lsn,
    starts: usize,
}

/// A plan that runs.
struct Started {
    rows: SendableRecordBatchStream,
    widths: Arc<Widths>,
}

impl Plan {
    /// Starts the plan with batches of at most `batch_rows`. The last of [`STARTS_MAX`] takes rows however wide they
    /// are.
    async fn start(&mut self, config: &Config, batch_rows: usize) -> Result<Started, DataFusionError> {
        let widths = Arc::new(Widths::new(config.memory_bytes / BATCH_MEMORY_SHARE));
        self.starts += 1;
        if self.starts == STARTS_MAX {
            widths.hand_on();
        }
        self.session.set_batches(batch_rows, widths.clone())?;
        let state = self.session.state();
        let plan = state.query_planner().create_physical_plan(&self.optimized, state).await?;
        let rows = execute_stream(plan, self.session.task())?;
        Ok(Started { rows: views::without(rows), widths })
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
