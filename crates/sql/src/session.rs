//! The session of a statement, and the base of all sessions. No file system, no object store, no writes.

use std::sync::{Arc, Mutex};

use chrono::DateTime;
use datafusion::catalog::{CatalogProviderList, MemoryCatalogProviderList};
use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::common::{Result, exec_err};
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::object_store::ObjectStore;
use datafusion::object_store::memory::InMemory;
use datafusion::prelude::SessionConfig;

use floe_engine::functions::{self, Meter, MeteredFunctions};
use floe_engine::{CountHeldRows, GiveWay, LookAtWidths, Widths, correct};
use floe_env::lock;

use crate::catalog::{CATALOG, Inputs, SCHEMA, catalogs};
use crate::config::Config;
use crate::files::LAKE_URL;
use crate::limits::{PARSER_RECURSION_MAX, SORT_MERGE_BYTES};
use crate::spill::Runtimes;

/// What sessions are copied from, for each runtime, and sessions that no statement uses. To build a session anew means
/// to register several hundred functions for each statement, and a copy still has its own list of them.
pub(crate) struct Bases(Vec<Base>);

struct Base {
    state: SessionState,
    idle: Arc<Idle>,
}

/// Sessions between two statements, at most as many as have run at once.
type Idle = Mutex<Vec<(SessionState, Arc<MeteredFunctions>)>>;

impl Bases {
    pub(crate) fn new(config: &Config, runtimes: &Runtimes) -> Result<Bases> {
        let base = |runtime| Ok(Base { state: base(config, runtime)?, idle: Arc::default() });
        runtimes.all().map(base).collect::<Result<_>>().map(Bases)
    }

    /// A base, for what is alike in all.
    pub(crate) fn any(&self) -> &SessionState {
        &self.0.first().expect("there is a runtime").state
    }

    /// The session of one statement. Its `now()` and `current_date()` return the time of its cut. Its functions stand
    /// behind `meter`.
    pub(crate) fn session(
        &self,
        runtime: &Arc<RuntimeEnv>,
        inputs: Arc<Inputs>,
        meter: Arc<Meter>,
    ) -> Session {
        let base = self.0.iter().find(|base| Arc::ptr_eq(base.state.runtime_env(), runtime));
        let base = base.expect("every runtime has a base");
        let idle = lock(&base.idle).pop();
        let (mut state, functions) = idle.unwrap_or_else(|| {
            let (mut state, functions) = (base.state.clone(), Arc::<MeteredFunctions>::default());
            state.add_analyzer_rule(functions.clone());
            (state, functions)
        });
        functions.set(Some(meter));
        state.execution_props_mut().query_execution_start_time =
            DateTime::from_timestamp_millis(inputs.source.now().0);
        state.register_catalog_list(catalogs(inputs));
        Session { inner: Some((state, functions)), idle: base.idle.clone() }
    }
}

/// The session of one statement. Another statement gets it afterwards, without anything of this one.
pub(crate) struct Session {
    /// `None` only while it is dropped.
    inner: Option<(SessionState, Arc<MeteredFunctions>)>,
    idle: Arc<Idle>,
}

impl Session {
    pub(crate) fn state(&self) -> &SessionState {
        &self.inner.as_ref().expect("it is there until it is dropped").0
    }

    /// Sets what differs between two starts of a statement: the rows of a batch, and how wide they may be.
    pub(crate) fn set_batches(&mut self, rows: usize, widths: Arc<Widths>) -> Result<()> {
        let (state, _) = self.inner.as_mut().expect("it is there until it is dropped");
        let (config, rows) = (state.config_mut(), ConfigNonZeroUsize::try_new(rows.max(1))?);
        // To change an option that others share copies all options.
        if config.options().execution.batch_size != rows {
            config.options_mut().execution.batch_size = rows;
        }
        config.set_extension(widths);
        Ok(())
    }

    /// What operators run with. A plan has its functions. By name, the engine looks for them only when it reads a plan
    /// that another process wrote.
    pub(crate) fn task(&self) -> Arc<TaskContext> {
        let state = self.state();
        let (id, config, runtime) =
            (state.session_id().to_owned(), state.config().clone(), state.runtime_env().clone());
        let (scalar, higher_order, aggregate, window) = Default::default();
        Arc::new(TaskContext::new(None, id, config, scalar, higher_order, aggregate, window, runtime))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some((mut state, functions)) = self.inner.take() else { return };
        // A statement that panicked may have left anything behind.
        if std::thread::panicking() {
            return;
        }
        functions.set(None);
        state.execution_props_mut().query_execution_start_time = None;
        state.register_catalog_list(no_catalogs());
        lock(&self.idle).push((state, functions));
    }
}

fn no_catalogs() -> Arc<dyn CatalogProviderList> {
    Arc::new(MemoryCatalogProviderList::new())
}

fn base(config: &Config, runtime: &Arc<RuntimeEnv>) -> Result<SessionState> {
    let mut session = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        // The catalog has its own, which reads no table.
        .with_information_schema(false)
        .with_target_partitions(config.threads.max(1));
    let options = session.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.recursion_limit = ConfigNonZeroUsize::try_new(PARSER_RECURSION_MAX)?;
    // Of all types, clients of the Arrow stream support view types least (`views.rs`). The engine's own way to do
    // without is a projection above the last sort, which it then runs in two partitions: the order is lost.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.optimizer.expand_views_at_output = false;
    // Each sort keeps this much for the end, when it merges what it has spilled.
    options.execution.sort_spill_reservation_bytes = SORT_MERGE_BYTES.min(config.memory_bytes / 64);
    correct::configure(&mut session);
    let state = SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime.clone())
        .with_default_features()
        .with_table_function_list(correct::table_functions());
    let mut state = correct::rules(state)
        .with_physical_optimizer_rule(Arc::new(GiveWay))
        .with_physical_optimizer_rule(Arc::new(CountHeldRows))
        .with_physical_optimizer_rule(Arc::new(LookAtWidths))
        .build();
    correct::functions(&mut state)?;
    functions::bound(&mut state)?;
    Ok(state)
}

/// The object stores of every runtime.
pub(crate) fn stores() -> Arc<dyn ObjectStoreRegistry> {
    Arc::new(NoStores(Arc::new(InMemory::new())))
}

/// The engine's object stores. The only one is empty and has the URL of the lake. So no statement and no mistake of
/// ours reaches a file or a bucket.
#[derive(Debug)]
struct NoStores(Arc<InMemory>);

impl ObjectStoreRegistry for NoStores {
    fn register_store(&self, _: &url::Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &url::Url) -> Result<Arc<dyn ObjectStore>> {
        match url.as_str().starts_with(LAKE_URL) {
            true => Ok(self.0.clone()),
            false => exec_err!("files and buckets cannot be read by SQL: {url}"),
        }
    }
}
