//! SQL inside a simulated broker, for the simulation.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use floe_env::Env;
use floe_lake::Lake;
use floe_log::Log;
use floe_query::{Kind, QueryError};
use floe_sql::{Config, Sql};
use floe_testkit::sim::{Engine, Refused};
use futures::TryStreamExt;

/// Opens the engine of a broker with one thread, and so with one partition in each plan. To share rows among several
/// partitions, DataFusion walks maps whose order no seed controls. The same seed would then give another run.
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
fn refused(error: QueryError) -> Refused {
    match error.kind {
        Kind::Unavailable | Kind::Busy => Refused::Later(error.to_string()),
        Kind::Invalid | Kind::Limit | Kind::Internal => Refused::Wrong(format!("{:?}: {error}", error.kind)),
    }
}
