//! Maps paths to handlers, and wraps every handler: counts, times, turns a panic into an answer.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, on, post};
use axum::{Extension, Router};
use futures::FutureExt;

use crate::door;
use crate::failure::Failure;
use crate::hosts::Name;
use crate::iceberg::{self, CatalogRequest};
use crate::services::Services;
use crate::{damage, health, query, tables, trash};

type Parameters = Query<BTreeMap<String, String>>;

/// All routes of the server.
pub(crate) fn router(services: Arc<Services>) -> Router {
    let catalog = Router::new()
        .route("/config", catalog_route(config))
        .route("/namespaces", catalog_route(namespaces))
        .route("/namespaces/{namespace}", catalog_route(namespace))
        .route("/namespaces/{namespace}/tables", catalog_route(table_names))
        .route("/namespaces/{namespace}/tables/{table}", catalog_route(table))
        // Scan reports are accepted and dropped, so that engines that send them do not warn.
        .route("/namespaces/{namespace}/tables/{table}/metrics", post(report))
        .method_not_allowed_fallback(async |uri: Uri| iceberg::read_only(uri.path()));
    Router::new()
        .route("/health", get(async || health::live()))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/api/v1/sql", post(sql))
        .route("/api/v1/tables/{table}", get(table_status))
        .route("/api/v1/tables/{table}/drop-columns", post(drop_columns))
        .route("/api/v1/tables/{table}/rebuild", post(rebuild))
        .route("/api/v1/topics/{topic}/damage", get(damaged))
        .route("/api/v1/trash", get(deleted_topics))
        .route("/api/v1/trash/undelete", post(undelete))
        .route("/api/v1/trash/purge", post(purge))
        .method_not_allowed_fallback(wrong_method)
        .nest("/iceberg/v1", catalog)
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(services.clone(), door::guard))
        .layer(middleware::from_fn_with_state(services.clone(), observed))
        .layer(middleware::map_response(door::with_headers))
        .with_state(services)
}

async fn ready(State(services): State<Arc<Services>>, Extension(name): Extension<Name>) -> Response {
    health::ready(&services.ready, services.tables.as_ref(), name)
}

async fn metrics_text(State(services): State<Arc<Services>>) -> Response {
    let text = services.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn sql(State(services): State<Arc<Services>>, headers: HeaderMap, body: Body) -> Response {
    query::query(services.query.as_ref(), &headers, body).await
}

async fn table_status(State(services): State<Arc<Services>>, Path(table): Path<String>) -> Response {
    tables::get(services.tables.as_ref(), &table)
}

async fn drop_columns(
    State(services): State<Arc<Services>>,
    Path(table): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    tables::drop_columns(services.tables.as_ref(), table, &headers, body).await
}

async fn rebuild(
    State(services): State<Arc<Services>>,
    Path(table): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    tables::rebuild(services.tables.as_ref(), table, &headers, body).await
}

async fn damaged(State(services): State<Arc<Services>>, Path(topic): Path<String>) -> Response {
    damage::get(services.damage.as_ref(), &topic)
}

async fn deleted_topics(State(services): State<Arc<Services>>) -> Response {
    trash::get(services.trash.as_ref())
}

async fn undelete(State(services): State<Arc<Services>>, headers: HeaderMap, body: Body) -> Response {
    trash::undelete(services.trash.as_ref(), &headers, body).await
}

async fn purge(State(services): State<Arc<Services>>, headers: HeaderMap, body: Body) -> Response {
    trash::purge(services.trash.as_ref(), &headers, body).await
}

/// Makes a catalog request from the path and the parameters.
type CatalogParser = fn(BTreeMap<String, String>, BTreeMap<String, String>) -> CatalogRequest;

fn catalog_route(parse: CatalogParser) -> MethodRouter<Arc<Services>> {
    use axum::routing::MethodFilter;
    on(
        MethodFilter::GET.or(MethodFilter::HEAD),
        async move |State(services): State<Arc<Services>>,
                    method: Method,
                    Path(path): Path<BTreeMap<String, String>>,
                    Query(parameters): Parameters| {
            let request = parse(path, parameters);
            match method {
                Method::HEAD => iceberg::head(services.catalog.as_ref(), request).await,
                _ => iceberg::get(services.catalog.as_ref(), request).await,
            }
        },
    )
}

fn config(_: BTreeMap<String, String>, mut parameters: BTreeMap<String, String>) -> CatalogRequest {
    CatalogRequest::Config { warehouse: parameters.remove("warehouse") }
}

fn namespaces(_: BTreeMap<String, String>, mut parameters: BTreeMap<String, String>) -> CatalogRequest {
    CatalogRequest::Namespaces { parent: parameters.remove("parent") }
}

fn namespace(mut path: BTreeMap<String, String>, _: BTreeMap<String, String>) -> CatalogRequest {
    CatalogRequest::Namespace { namespace: taken(&mut path, "namespace") }
}

fn table_names(mut path: BTreeMap<String, String>, _: BTreeMap<String, String>) -> CatalogRequest {
    CatalogRequest::Tables { namespace: taken(&mut path, "namespace") }
}

fn table(mut path: BTreeMap<String, String>, mut parameters: BTreeMap<String, String>) -> CatalogRequest {
    CatalogRequest::Table {
        namespace: taken(&mut path, "namespace"),
        table: taken(&mut path, "table"),
        snapshots: parameters.remove("snapshots"),
    }
}

fn taken(path: &mut BTreeMap<String, String>, name: &str) -> String {
    path.remove(name).expect("the route has this parameter")
}

async fn report(body: Body) -> Response {
    match query::read_body(body).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let instead = if method == Method::GET { "; POST may be" } else { "" };
    let message = format!("{method} is not possible on {}{instead}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).into_response()
}

async fn unknown_path(uri: Uri) -> Response {
    let message = format!(
        "there is nothing at {}; known are /health, /ready, /metrics, /api/v1/sql, /api/v1/tables/, \
         /api/v1/topics/, /api/v1/trash and /iceberg/v1/",
        uri.path()
    );
    Failure::new(StatusCode::NOT_FOUND, "NotFound", message).into_response()
}

/// Counts and times a request. If its handler panics, answers 500.
async fn observed(State(services): State<Arc<Services>>, request: Request, next: Next) -> Response {
    let route = label(request.uri().path());
    let started = services.env.monotonic();
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = handled.unwrap_or_else(|_| {
        tracing::error!(route, "a handler panicked");
        let message = "the server failed in a way that is a bug; its log has the place";
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", message).into_response()
    });
    let seconds = (services.env.monotonic() - started).as_secs_f64();
    let status = response.status().as_u16().to_string();
    metrics::counter!("floe_http_requests_total", "route" => route, "status" => status).increment(1);
    metrics::histogram!("floe_http_request_seconds", "route" => route).record(seconds);
    response
}

/// The label of a path in metrics. There are few labels, whatever paths clients ask for.
fn label(path: &str) -> &'static str {
    match path {
        "/health" => "health",
        "/ready" => "ready",
        "/metrics" => "metrics",
        "/api/v1/sql" => "sql",
        path if path.starts_with("/api/v1/tables/") => "tables",
        path if path.starts_with("/api/v1/topics/") => "topics",
        path if path.starts_with("/api/v1/trash") => "trash",
        path if path.starts_with("/iceberg/") => "iceberg",
        _ => "other",
    }
}
