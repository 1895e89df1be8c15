//! The services of the HTTP front: SQL and the lake. Fronts do not know each other, so the binary joins them.

use floe_http::{
    CatalogReply, CatalogRequest, CatalogService, Place, QueryFailure, QueryFormat, QueryReply, QueryRequest,
    QueryService,
};
use floe_lake::{Lake, catalog};
use floe_sql::{Format, Kind, Sql, SqlError};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

/// SQL behind HTTP.
pub(crate) struct Query(pub(crate) Sql);

impl QueryService for Query {
    fn query(&self, request: QueryRequest) -> BoxFuture<'_, Result<QueryReply, QueryFailure>> {
        async move {
            let format = match request.format {
                QueryFormat::ArrowStream => Format::ArrowStream,
                QueryFormat::Json => Format::Json,
                QueryFormat::JsonLines => Format::JsonLines,
                QueryFormat::Csv => Format::Csv,
            };
            let body = self.0.query_as(&request.text, format).await.map_err(|error| failure(&error))?;
            Ok(QueryReply { body: body.map(|piece| piece.map_err(|error| failure(&error))).boxed() })
        }
        .boxed()
    }
}

fn failure(error: &SqlError) -> QueryFailure {
    let message = error.to_string();
    match error.kind {
        Kind::Invalid => QueryFailure::Invalid {
            message,
            place: error.place.map(|place| Place { line: place.line, column: place.column }),
        },
        Kind::Limit => QueryFailure::Limit(message),
        Kind::Busy => QueryFailure::Busy(message),
        Kind::Unavailable => QueryFailure::Unavailable(message),
        Kind::Internal => QueryFailure::Internal(message),
    }
}

/// The lake's documents behind HTTP.
pub(crate) struct Catalog(pub(crate) Lake);

impl CatalogService for Catalog {
    fn respond(&self, request: CatalogRequest) -> BoxFuture<'_, CatalogReply> {
        async move {
            let snapshot = self.0.log().meta().snapshot();
            let answer = match request {
                CatalogRequest::Config { .. } => catalog::config(),
                CatalogRequest::Namespaces { parent } => catalog::namespaces(parent.as_deref()),
                CatalogRequest::Namespace { namespace } => catalog::namespace(&namespace),
                CatalogRequest::Tables { namespace } => catalog::tables(&self.0, &snapshot, &namespace),
                CatalogRequest::Table { namespace, table } => {
                    catalog::table(&self.0, &snapshot, &namespace, &table).await
                }
            };
            CatalogReply { status: answer.status, body: answer.body }
        }
        .boxed()
    }
}
