//! The services of the HTTP front: SQL and the lake. Fronts do not know each other, so the binary joins them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use arrow::temporal_conversions::timestamp_ms_to_datetime;
use floe_env::{Env, Timestamp};
use floe_history::table;
use floe_http::{
    CatalogReply, CatalogRequest, CatalogService, QueryReply, QueryRequest, QueryService, Rebuilding,
    StandsStill, TableFailure, TableService, TableStatus,
};
use floe_lake::catalog::Answer;
use floe_lake::{Lake, LakeError, TableRef, catalog};
use floe_log::Log;
use floe_meta::Snapshot;
use floe_query::QueryError;
use floe_sql::{Program, Sql, Workers};
use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::Level;

use crate::term;

/// SQL behind HTTP.
pub(crate) enum Query {
    /// Each statement is a matter of this process.
    InProcess(Sql),
    /// Each statement runs in a process of its own.
    Workers(Workers),
}

/// The name of the command that a worker runs.
const WORKER: &str = "sql-worker";

/// If this variable is there, tests may tell workers to misbehave.
const FAULTS: &str = "FLOE_SQL_FAULTS";

impl Query {
    /// Starts SQL.
    ///
    /// # Errors
    /// The spill directory cannot be used, or the system refuses threads.
    pub(crate) fn start(
        env: &Env,
        log: &Log,
        lake: &Lake,
        config: floe_sql::Config,
        in_process: bool,
    ) -> Result<Query> {
        let (env, log, lake) = (env.clone(), log.clone(), lake.clone());
        let is_watched = cfg!(target_os = "linux");
        if !is_watched {
            tracing::warn!(
                "this system does not tell the memory of processes: SQL runs in this one, without a limit"
            );
        }
        if in_process || !is_watched {
            return Ok(Query::InProcess(Sql::new(env, log, lake, config)?));
        }
        let program = Program {
            // This very program, also if another one has taken the place of its file.
            path: "/proc/self/exe".into(),
            arguments: vec![WORKER.to_owned()],
            // What a batch had goes back to the system at once. By default the allocator keeps it for a tenth of a
            // second, in which a sort frees as much as all statements may have.
            environment: vec![("MIMALLOC_PURGE_DELAY".to_owned(), "0".to_owned())],
            faults: std::env::var_os(FAULTS).is_some(),
        };
        Ok(Query::Workers(Workers::start(env, log, lake, config, program)?))
    }

    /// Ends what runs in other processes. Statements that run there end with an error.
    pub(crate) fn close(&self) {
        if let Query::Workers(workers) = self {
            workers.close();
        }
    }
}

/// Runs the statements of the broker that has started this process.
pub(crate) fn work() -> ExitCode {
    // The broker reads these lines, and adds the time.
    let lines = tracing_subscriber::fmt().with_max_level(Level::WARN).with_writer(std::io::stderr);
    lines.with_ansi(false).without_time().with_target(false).init();
    match floe_sql::work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => term::fail(&error.into()),
    }
}

impl QueryService for Query {
    fn query(&self, request: QueryRequest) -> BoxFuture<'_, Result<QueryReply, QueryError>> {
        async move {
            let (text, format) = (&request.text, request.format);
            let body = match self {
                Query::InProcess(sql) => sql.query_as(text, format).await?,
                Query::Workers(workers) => workers.query_as(text, format).await?,
            };
            Ok(QueryReply { body })
        }
        .boxed()
    }
}

/// The documents of the lake and of the history behind HTTP.
pub(crate) struct Catalog(pub(crate) Lake);

impl CatalogService for Catalog {
    fn respond(&self, request: CatalogRequest) -> BoxFuture<'_, CatalogReply> {
        async move {
            let snapshot = self.0.log().meta().snapshot();
            let answer = match request {
                CatalogRequest::Config { .. } => catalog::config(),
                CatalogRequest::Namespaces { parent } => catalog::namespaces(parent.as_deref()),
                CatalogRequest::Namespace { namespace } => catalog::namespace(&namespace),
                CatalogRequest::Tables { namespace } if namespace == catalog::SYSTEM => {
                    system_tables(&snapshot)
                }
                CatalogRequest::Tables { namespace } => catalog::tables(&self.0, &snapshot, &namespace),
                CatalogRequest::Table { namespace, table, snapshots } if namespace == catalog::SYSTEM => {
                    self.system_table(&snapshot, &table, snapshots.as_deref()).await
                }
                CatalogRequest::Table { namespace, table, snapshots } => {
                    catalog::table(&self.0, &snapshot, &namespace, &table, snapshots.as_deref()).await
                }
            };
            CatalogReply { status: answer.status, body: answer.body }
        }
        .boxed()
    }
}

impl Catalog {
    /// A table that Floe keeps of itself: the history of commits is the only one.
    async fn system_table(&self, snapshot: &Snapshot, name: &str, snapshots: Option<&str>) -> Answer {
        if name != table::NAME {
            return catalog::no_table(catalog::SYSTEM, name);
        }
        match table::metadata(self.0.log().store(), snapshot).await {
            Ok(Some((location, metadata))) => catalog::loaded(&location, &metadata, snapshots),
            Ok(None) => catalog::no_table(catalog::SYSTEM, name),
            Err(error) => catalog::failed(&error),
        }
    }
}

fn system_tables(snapshot: &Snapshot) -> Answer {
    match floe_history::map::table(snapshot) {
        Ok(found) => catalog::listed(catalog::SYSTEM, found.iter().map(|_| table::NAME)),
        Err(error) => catalog::failed(&error),
    }
}

/// The state of the lake's tables behind HTTP.
pub(crate) struct Tables(pub(crate) Lake);

impl TableService for Tables {
    fn standing_still(&self, count: usize) -> (Vec<StandsStill>, usize) {
        let still: BTreeMap<_, _> =
            self.0.status().into_iter().filter_map(|view| Some((view.name, view.error?))).collect();
        let all = still.len();
        (still.into_iter().take(count).map(|(table, error)| stands_still(table, error)).collect(), all)
    }

    fn table(&self, name: &str) -> Result<Option<TableStatus>, TableFailure> {
        let Some(table) = self.find(name)? else { return Ok(None) };
        let view = self.0.status().into_iter().find(|view| view.topic == table.topic.id);
        let job_error = view.as_ref().and_then(|view| view.job_error.clone());
        Ok(Some(TableStatus {
            rows: table.rows,
            files: table.files,
            bytes: table.bytes,
            bad_records: table.bad_records,
            lag: view.as_ref().map_or(0, |view| view.lag),
            lost_records: view.as_ref().map_or(0, |view| view.lost),
            columns: table.schema.columns_used(),
            columns_max: floe_schema::limits::COLUMNS_MAX,
            job: view.as_ref().and_then(|view| view.job),
            job_fails: job_error.map(|error| stands_still(table.name.clone(), error)),
            stands_still: view
                .and_then(|view| view.error)
                .map(|error| stands_still(table.name.clone(), error)),
            rebuild: self.0.rebuilding(&table).map_err(|error| unavailable(&error))?.map(|view| Rebuilding {
                lag: view.lag,
                stands_still: view.error.map(|error| stands_still(table.name.clone(), error)),
            }),
            table: table.name,
        }))
    }

    fn drop_columns(&self, name: String, keys: Vec<String>) -> BoxFuture<'_, Result<u64, TableFailure>> {
        async move {
            if keys.is_empty() {
                return Err(TableFailure::Wrong(
                    "name at least one key, or a pattern such as id_*".to_owned(),
                ));
            }
            let table = self.find(&name)?.ok_or(TableFailure::Missing)?;
            self.0.drop_columns(&table, keys).await.map_err(|error| unavailable(&error))
        }
        .boxed()
    }

    fn rebuild(&self, name: String, lose: bool) -> BoxFuture<'_, Result<u64, TableFailure>> {
        async move { self.begin_rebuild(&name, lose).await }.boxed()
    }
}

impl Tables {
    async fn begin_rebuild(&self, name: &str, lose: bool) -> Result<u64, TableFailure> {
        let table = self.find(name)?.ok_or(TableFailure::Missing)?;
        self.0.rebuild(&table, lose).await.map_err(|error| match error {
            LakeError::WouldLose { .. } => TableFailure::Refused(error.to_string()),
            other => unavailable(&other),
        })
    }

    fn find(&self, name: &str) -> Result<Option<TableRef>, TableFailure> {
        self.0.table(&self.0.log().meta().snapshot(), name).map_err(|error| unavailable(&error))
    }
}

fn unavailable(error: &LakeError) -> TableFailure {
    TableFailure::Unavailable(error.to_string())
}

fn stands_still(table: String, (why, since): (String, Timestamp)) -> StandsStill {
    StandsStill { table, since: rfc3339(since), why }
}

pub(crate) fn rfc3339(at: Timestamp) -> String {
    match timestamp_ms_to_datetime(at.0) {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        None => format!("{} ms since 1970", at.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_people_read_them() {
        assert_eq!(rfc3339(Timestamp(1_767_225_600_007)), "2026-01-01T00:00:00.007Z");
        assert_eq!(rfc3339(Timestamp(i64::MAX)), "9223372036854775807 ms since 1970");
    }
}
