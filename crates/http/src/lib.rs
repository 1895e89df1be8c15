//! The HTTP front: health, metrics, SQL, and the read side of the Iceberg REST catalog.
//!
//! # What it is not
//! It holds no state and decides nothing about data. The binary hands it a [`QueryService`] for SQL and a
//! [`CatalogService`] for catalog documents. It knows no SQL engine, no Arrow and no Kafka.
//!
//! # A request, file by file
//! ```text
//! server.rs     serve              accepts within the limit of connections, one task each, drains at shutdown
//! seats.rs      Seats              who gets a connection when there are too many; idle ones give way
//! stall.rs      StallGuard         ends a connection whose client reads next to nothing
//! routes.rs     router             path -> handler; counts, times, turns a panic into an answer
//! door.rs       guard              refuses web pages of other origins; the headers of every answer
//! hosts.rs      Hosts              the names under which the server answers
//! services.rs   Services           what the binary hands in
//! health.rs     /health /ready     alive, and able to serve
//! telemetry.rs  /metrics           Prometheus text
//! help.rs                          what each metric is, in words
//! query.rs      /api/v1/sql        statement in; Arrow stream, JSON, JSON lines or CSV out
//! tables.rs     /api/v1/tables     how a table is doing; drops columns, makes it anew
//! damage.rs     /api/v1/topics     records that background work cannot read
//! trash.rs      /api/v1/trash      deleted topics and removed records that can come back
//! iceberg.rs    /iceberg/v1/...    the catalog's documents
//! failure.rs    Failure            the one JSON shape of every error
//! limits.rs                        every limit of this crate
//! ```
//! # Formats
//! ```text
//! request   POST /api/v1/sql   content-type: application/json   {"query": "select 1"}
//! request   GET  /api/v1/tables/orders
//! request   POST /api/v1/tables/orders/drop-columns   content-type: application/json   {"keys": ["id_*"]}
//! error     {"error": {"code": 400, "type": "InvalidStatement", "message": "...", "line": 1, "column": 8}}
//! ```
//! An error has `line` and `column` (from 1, in characters) if it has a position in the statement. The shape is that of
//! the Iceberg REST specification (`ErrorModel`), so one reader serves both.
//!
//! # Web pages
//! A browser lets any page send some requests anywhere: a POST of plain text, a GET, and anything to a name that the
//! page's owner points at this machine. So a statement must be `application/json`, which a page of another origin may
//! not send without asking first; a request with a foreign `Origin` is refused; and only known names are answered.

mod damage;
mod door;
mod failure;
mod health;
mod help;
mod hosts;
mod iceberg;
pub mod limits;
mod query;
mod routes;
mod seats;
mod server;
mod services;
mod stall;
mod tables;
mod telemetry;
mod trash;

pub use damage::{DamageService, Damaged};
pub use health::Ready;
pub use hosts::Hosts;
pub use iceberg::{CatalogReply, CatalogRequest, CatalogService};
pub use query::{QueryReply, QueryRequest, QueryService};
pub use server::serve;
pub use services::Services;
pub use tables::{Rebuilding, StandsStill, TableFailure, TableService, TableStatus};
pub use telemetry::Metrics;
pub use trash::{DeletedTopic, RemovedRange, TrashFailure, TrashService, WhichDeleted};
