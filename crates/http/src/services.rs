//! What the binary hands to the routes.

use std::sync::Arc;

use floe_env::Env;

use crate::health::Ready;
use crate::iceberg::CatalogService;
use crate::query::QueryService;
use crate::telemetry::Metrics;

/// What the routes answer from.
#[derive(Clone)]
pub struct Services {
    /// The seam to clock and tasks.
    pub env: Env,
    /// Whether the broker can serve.
    pub ready: Ready,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What answers statements.
    pub query: Arc<dyn QueryService>,
    /// What holds the catalog's documents.
    pub catalog: Arc<dyn CatalogService>,
}
