//! The session of a statement, and the base that all sessions share. No file system, no object store, no writes.

use std::sync::Arc;

use chrono::DateTime;
use datafusion::common::{Result, exec_err};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::object_store::ObjectStore;
use datafusion::object_store::memory::InMemory;
use datafusion::prelude::SessionConfig;

use floe_env::Timestamp;

use crate::catalog::{CATALOG, Cut, SCHEMA, catalogs};
use crate::config::Config;
use crate::correct;
use crate::files::LAKE_URL;
use crate::functions;
use crate::give_way::GiveWay;
use crate::limits::PARSER_RECURSION_MAX;

/// The base of all sessions.
pub(crate) fn base(config: &Config) -> Result<SessionState> {
    let mut session = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        // The catalog has its own, which reads no table.
        .with_information_schema(false)
        .with_target_partitions(config.threads.max(1));
    let options = session.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.recursion_limit = PARSER_RECURSION_MAX;
    // Of all types, clients of the Arrow stream support view types least.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.optimizer.expand_views_at_output = true;
    correct::configure(&mut session);
    let state = SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime(config)?)
        .with_default_features()
        .with_table_function_list(correct::table_functions());
    let mut state = correct::rules(state).with_physical_optimizer_rule(Arc::new(GiveWay)).build();
    correct::functions(&mut state)?;
    functions::bound(&mut state)?;
    Ok(state)
}

/// The session of one statement. Its `now()` and `current_date()` return the time `now`.
pub(crate) fn session(base: &SessionState, cut: Arc<Cut>, now: Timestamp) -> SessionState {
    let mut properties = ExecutionProps::new();
    properties.query_execution_start_time = DateTime::from_timestamp_millis(now.0);
    SessionStateBuilder::new_from_existing(base.clone())
        .with_execution_props(properties)
        .with_catalog_list(catalogs(cut))
        .build()
}

fn runtime(config: &Config) -> Result<Arc<RuntimeEnv>> {
    let top = std::num::NonZero::new(3).expect("three is not zero");
    // A fair pool is for operators that can spill. Each operator gets its share and no more, even if others are idle.
    let pool: Arc<dyn MemoryPool> = match config.spill_directory {
        Some(_) => Arc::new(TrackConsumersPool::new(FairSpillPool::new(config.memory_bytes), top)),
        None => Arc::new(TrackConsumersPool::new(GreedyMemoryPool::new(config.memory_bytes), top)),
    };
    let mode = match &config.spill_directory {
        Some(directory) => DiskManagerMode::Directories(vec![directory.clone()]),
        None => DiskManagerMode::Disabled,
    };
    let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(config.spill_bytes);
    RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .with_disk_manager_builder(disk)
        .with_object_store_registry(Arc::new(NoStores(Arc::new(InMemory::new()))))
        .build_arc()
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
