//! The services that the binary hands to the routes.

use std::sync::Arc;

use floe_env::Env;

use crate::damage::DamageService;
use crate::health::Ready;
use crate::hosts::Hosts;
use crate::iceberg::CatalogService;
use crate::query::QueryService;
use crate::tables::TableService;
use crate::telemetry::Metrics;
use crate::trash::TrashService;

/// Everything that the routes need for their answers.
#[derive(Clone)]
pub struct Services {
    /// Clock and tasks.
    pub env: Env,
    /// Connections served at once, see [`limits::CONNECTIONS_MAX`](crate::limits::CONNECTIONS_MAX).
    pub connections: usize,
    /// The names under which the server answers.
    pub hosts: Hosts,
    /// The source of `/ready`.
    pub ready: Ready,
    /// The source of `/metrics`.
    pub metrics: Metrics,
    /// The source of `/api/v1/sql`.
    pub query: Arc<dyn QueryService>,
    /// The source of `/api/v1/tables`.
    pub tables: Arc<dyn TableService>,
    /// The source of `/api/v1/trash`.
    pub trash: Arc<dyn TrashService>,
    /// The source of `/api/v1/topics/{topic}/damage`.
    pub damage: Arc<dyn DamageService>,
    /// The source of `/iceberg/v1`.
    pub catalog: Arc<dyn CatalogService>,
}
