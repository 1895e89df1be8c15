//! The HTTP front: health, metrics, SQL, and the read side of the Iceberg REST catalog.
//!
//! # What it is not
//! It holds no state and takes no decision about data: SQL is answered by a [`QueryService`], catalog documents
//! by a [`CatalogService`], both handed in by the binary. It knows no SQL engine, no Arrow and no Kafka.
//!
//! # A request, file by file
//! ```text
//! server.rs     serve        accepts within the limit of connections, one task each, drains on shutdown
//! stall.rs      StallGuard   ends a connection whose client reads next to nothing
//! routes.rs     router       path -> handler; counts, times, turns a panic into an answer
//! health.rs     /health /ready         alive, and able to serve
//! telemetry.rs  /metrics               Prometheus text
//! query.rs      /api/v1/sql            statement in; Arrow stream, JSON, JSON lines or CSV out
//! iceberg.rs    /iceberg/v1/...        the catalog's documents
//! failure.rs    Failure                every error has the one JSON shape below
//! ```
//! # Formats
//! ```text
//! request   POST /api/v1/sql   {"query": "select 1"}
//! error     {"error": {"code": 400, "type": "InvalidStatement", "message": "...", "line": 1, "column": 8}}
//! ```
//! `line` and `column` (from 1, in characters) are there when the error is at a place in the statement. The shape
//! is that of the Iceberg REST specification (`ErrorModel`), so one reader serves both.

pub mod failure;
pub mod health;
pub mod iceberg;
pub mod limits;
pub mod query;
mod routes;
mod server;
mod services;
mod stall;
pub mod telemetry;

pub use failure::Place;
pub use health::Ready;
pub use iceberg::{CatalogReply, CatalogRequest, CatalogService};
pub use query::{QueryFailure, QueryFormat, QueryReply, QueryRequest, QueryService};
pub use server::serve;
pub use services::Services;
pub use telemetry::Metrics;
