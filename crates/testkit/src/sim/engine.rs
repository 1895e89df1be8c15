//! The query engine that the caller of a run hands in.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use floe_env::Env;
use floe_lake::Lake;
use floe_log::Log;

/// Answers statements inside a broker.
#[async_trait]
pub trait Engine: Send + Sync {
    /// All rows of a statement.
    async fn rows(&self, statement: &str) -> Result<Vec<RecordBatch>, Refused>;
}

/// Opens the engine of a broker over its log and its lake. The engine's tasks belong to the broker's [`Env`].
pub type Opener = fn(Env, Log, Lake) -> Arc<dyn Engine>;

/// Why a statement has no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Something below the engine fails now, as it may in a simulation.
    Later(String),
    /// The engine is wrong about a right statement.
    Wrong(String),
}
