//! The services of the HTTP front: SQL and the lake. Fronts do not know each other, so the binary joins them.

use floe_http::{CatalogReply, CatalogRequest, CatalogService, QueryReply, QueryRequest, QueryService};
use floe_lake::{Lake, catalog};
use floe_query::QueryError;
use floe_sql::Sql;
use futures::FutureExt;
use futures::future::BoxFuture;

/// SQL behind HTTP.
pub(crate) struct Query(pub(crate) Sql);

impl QueryService for Query {
    fn query(&self, request: QueryRequest) -> BoxFuture<'_, Result<QueryReply, QueryError>> {
        async move { Ok(QueryReply { body: self.0.query_as(&request.text, request.format).await? }) }.boxed()
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
                CatalogRequest::Table { namespace, table, snapshots } => {
                    catalog::table(&self.0, &snapshot, &namespace, &table, snapshots.as_deref()).await
                }
            };
            CatalogReply { status: answer.status, body: answer.body }
        }
        .boxed()
    }
}
