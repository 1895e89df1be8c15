//! `/iceberg/v1/…`: the read side of the Iceberg REST catalog. The paths are here; the documents come from the lake.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;

use crate::failure::Failure;
use crate::limits::HANDLER_SECONDS_MAX;

/// The source of the catalog's documents. The lake implements it.
pub trait CatalogService: Send + Sync + 'static {
    /// Answers one request.
    fn respond(&self, request: CatalogRequest) -> BoxFuture<'_, CatalogReply>;
}

/// A request of the Iceberg REST specification, read side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogRequest {
    /// `GET /v1/config`.
    Config {
        /// The warehouse named by the client.
        warehouse: Option<String>,
    },
    /// `GET /v1/namespaces`.
    Namespaces {
        /// If set, only the children of this namespace are listed.
        parent: Option<String>,
    },
    /// `GET /v1/namespaces/{namespace}`.
    Namespace {
        /// The levels of the name, separated by U+001F.
        namespace: String,
    },
    /// `GET /v1/namespaces/{namespace}/tables`.
    Tables {
        /// As in [`CatalogRequest::Namespace`].
        namespace: String,
    },
    /// `GET /v1/namespaces/{namespace}/tables/{table}`.
    Table {
        /// As in [`CatalogRequest::Namespace`].
        namespace: String,
        /// The name of the table.
        table: String,
        /// The snapshots that the document shall have: `all`, the default, or `refs`.
        snapshots: Option<String>,
    },
}

/// A document with its HTTP status. Errors are documents too.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogReply {
    /// A status of the Iceberg REST specification.
    pub status: u16,
    /// A JSON document of the specification.
    pub body: serde_json::Value,
}

/// Handles `GET`.
pub(crate) async fn get(service: &dyn CatalogService, request: CatalogRequest) -> Response {
    match reply(service, request).await {
        Ok((status, body)) => (status, Json(body)).into_response(),
        Err(failure) => failure.into_response(),
    }
}

/// Handles `HEAD`: whether the thing exists. The specification wants 204 where `GET` returns 200.
pub(crate) async fn head(service: &dyn CatalogService, request: CatalogRequest) -> Response {
    match reply(service, request).await {
        Ok((StatusCode::OK, _)) => StatusCode::NO_CONTENT.into_response(),
        Ok((status, _)) => status.into_response(),
        Err(failure) => failure.status.into_response(),
    }
}

/// Refuses every request that would change the catalog.
pub(crate) fn read_only(path: &str) -> Response {
    // The specification gives 406 for an operation that a catalog does not support.
    let message = match path.contains("/namespaces/system/") {
        true => "the tables of the namespace system are read-only: Floe alone writes its history of commits",
        false => {
            "this catalog is read-only: a topic becomes a table by its setting floe.table, \
             and rows are written through the Kafka protocol"
        }
    };
    Failure::new(StatusCode::NOT_ACCEPTABLE, "UnsupportedOperationException", message).into_response()
}

async fn reply(
    service: &dyn CatalogService,
    request: CatalogRequest,
) -> Result<(StatusCode, serde_json::Value), Failure> {
    let reply = tokio::time::timeout(HANDLER_SECONDS_MAX, service.respond(request)).await.map_err(|_| {
        let message =
            format!("the lake did not answer within {} s; try again", HANDLER_SECONDS_MAX.as_secs());
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", message)
    })?;
    let status = StatusCode::from_u16(reply.status).expect("the lake gives statuses of the specification");
    Ok((status, reply.body))
}
