//! SQL as the simulation wants it: inside a simulated broker.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use floe_env::Env;
use floe_lake::Lake;
use floe_log::Log;
use floe_sql::{Config, Kind, Sql, SqlError};
use floe_testkit::sim::{Engine, Refused};
use futures::TryStreamExt;

/// Opens the engine of a broker. One thread is one partition of a plan: to share rows among several, DataFusion walks
/// maps whose order no seed controls, and the same seed would be another run.
pub(crate) fn open(env: Env, log: Log, lake: Lake) -> Arc<dyn Engine> {
    let config = Config { threads: 1, ..Config::default() };
    Arc::new(Simulated(
        Sql::new(env, log, lake, config).expect("the engine starts without files and threads"),
    ))
}

struct Simulated(Sql);

#[async_trait]
impl Engine for Simulated {
    async fn rows(&self, statement: &str) -> Result<Vec<RecordBatch>, Refused> {
        let batches = self.0.query(statement).await.map_err(refused)?.batches;
        batches.try_collect().await.map_err(refused)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn refused(error: SqlError) -> Refused {
    match error.kind {
        Kind::Unavailable | Kind::Busy => Refused::Later(error.to_string()),
        Kind::Invalid | Kind::Limit | Kind::Internal => Refused::Wrong(format!("{:?}: {error}", error.kind)),
    }
}
