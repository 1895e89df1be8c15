//! The documents of the Iceberg REST catalog's read side: a status and a JSON body for each request that the HTTP front
//! routes here (`open-api/rest-catalog-open-api.yaml` of Apache Iceberg). The namespace `default` has the tables of
//! topics, and `system` those that Floe keeps of itself. The lake knows nothing of the latter: the binary hands their
//! documents in.
//!
//! A table is loaded with its whole metadata document, which names the files by URLs of the store. On a local store
//! these are `file://` URLs, which readers on the same machine open directly. Writes are refused: each table has one
//! writer, a job of the broker.
//!
//! A Java client asks for a metadata table such as `default.t.snapshots` as the table `snapshots` of a namespace
//! `default.t`, and makes the metadata table itself only if the answer is `NoSuchTableException`. So a table route has
//! that answer for every namespace that is not there, as the specification says.

use std::collections::BTreeSet;

use floe_iceberg::TableMetadata;
use floe_meta::Snapshot;
use serde_json::{Value, json};

use crate::{handle::Lake, table::TableRef};

/// The namespace of the tables of topics.
pub const NAMESPACE: &str = "default";

/// The namespace of tables that Floe keeps of itself.
pub const SYSTEM: &str = "system";

/// An answer to the HTTP front.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// The JSON document; null for an empty body.
    pub body: Value,
}

fn ok(body: Value) -> Answer {
    Answer { status: 200, body }
}

/// An error in the form of the protocol (`IcebergErrorResponse`).
pub fn error(status: u16, kind: &str, message: &str) -> Answer {
    Answer { status, body: json!({"error": {"message": message, "type": kind, "code": status}}) }
}

/// The answer to everything that would change something.
pub fn read_only() -> Answer {
    error(406, "UnsupportedOperationException", "Floe writes its tables itself: produce to the topic")
}

/// The answer to a path that the protocol does not know.
pub fn not_found(path: &str) -> Answer {
    error(404, "NoSuchEndpointException", &format!("there is no {path} here"))
}

/// `GET /v1/config`. It lists the endpoints, so that clients do not try others.
pub fn config() -> Answer {
    ok(json!({
        "defaults": {},
        "overrides": {},
        "endpoints": [
            "GET /v1/config",
            "GET /v1/{prefix}/namespaces",
            "GET /v1/{prefix}/namespaces/{namespace}",
            "HEAD /v1/{prefix}/namespaces/{namespace}",
            "GET /v1/{prefix}/namespaces/{namespace}/tables",
            "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
            "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
            "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
        ],
    }))
}

/// `GET /v1/namespaces?parent=…`
pub fn namespaces(parent: Option<&str>) -> Answer {
    match parent.filter(|parent| !parent.is_empty()) {
        None => ok(json!({"namespaces": [[NAMESPACE], [SYSTEM]]})),
        Some(NAMESPACE | SYSTEM) => ok(json!({"namespaces": []})),
        Some(other) => no_namespace(other),
    }
}

/// `GET /v1/namespaces/{namespace}`. For `HEAD` only the status counts, and 200 becomes 204.
pub fn namespace(namespace: &str) -> Answer {
    match namespace {
        NAMESPACE | SYSTEM => ok(json!({"namespace": [namespace], "properties": {}})),
        other => no_namespace(other),
    }
}

fn no_namespace(name: &str) -> Answer {
    error(
        404,
        "NoSuchNamespaceException",
        &format!(
            "namespace {} does not exist, there are only {NAMESPACE} and {SYSTEM}",
            name.replace('\u{1f}', ".")
        ),
    )
}

/// `GET /v1/namespaces/{namespace}/tables`: tables that have a metadata document.
pub fn tables(lake: &Lake, snapshot: &Snapshot, namespace: &str) -> Answer {
    if namespace != NAMESPACE {
        return no_namespace(namespace);
    }
    let tables = match lake.tables(snapshot) {
        Ok(tables) => tables,
        Err(failure) => return failed(&failure),
    };
    let made = tables.iter().filter(|table| table.metadata_location.is_some());
    listed(NAMESPACE, made.map(|table| table.name.as_str()))
}

/// The tables of a namespace, by their names.
pub fn listed<'a>(namespace: &str, names: impl Iterator<Item = &'a str>) -> Answer {
    let identifiers: Vec<Value> = names.map(|name| json!({"namespace": [namespace], "name": name})).collect();
    ok(json!({"identifiers": identifiers, "next-page-token": null}))
}

/// `HEAD /v1/namespaces/{namespace}/tables/{table}`: 204 or 404.
pub fn table_exists(lake: &Lake, snapshot: &Snapshot, namespace: &str, name: &str) -> Answer {
    match find(lake, snapshot, namespace, name) {
        Ok(_) => Answer { status: 204, body: Value::Null },
        Err(answer) => answer,
    }
}

/// `GET /v1/namespaces/{namespace}/tables/{table}?snapshots=…` (`LoadTableResult`). `snapshots` is `all`, the default,
/// or `refs`: then the document has only the snapshots that a branch or a tag names, and the client asks for all of
/// them once it needs an older one.
pub async fn table(
    lake: &Lake,
    snapshot: &Snapshot,
    namespace: &str,
    name: &str,
    snapshots: Option<&str>,
) -> Answer {
    let table = match find(lake, snapshot, namespace, name) {
        Ok(table) => table,
        Err(answer) => return answer,
    };
    match (lake.metadata(&table).await, &table.metadata_location) {
        (Ok(Some(metadata)), Some(location)) => loaded(location, &metadata, snapshots),
        (Ok(_), _) => no_table(namespace, name),
        (Err(failure), _) => failed(&failure),
    }
}

/// The answer with a table whose metadata document is at `location`. For `snapshots`, see [`table`].
pub fn loaded(location: &str, metadata: &TableMetadata, snapshots: Option<&str>) -> Answer {
    if let Some(other) = snapshots.filter(|snapshots| !["all", "refs"].contains(snapshots)) {
        let message = format!("the parameter snapshots is {other:?}: ask for `all` or `refs`");
        return error(400, "BadRequestException", &message);
    }
    match metadata.document() {
        Ok(mut metadata) => {
            if snapshots == Some("refs") {
                keep_referenced(&mut metadata);
            }
            ok(json!({"metadata-location": location, "metadata": metadata, "config": {}}))
        }
        Err(failure) => error(500, "InternalServerError", &failure.to_string()),
    }
}

/// Leaves the snapshots out that no branch and no tag names. The history (`snapshot-log`) stays, as in the reference
/// implementation (`TableMetadata.Builder.suppressHistoricalSnapshots`).
fn keep_referenced(document: &mut Value) {
    let refs = document["refs"].as_object().into_iter().flat_map(serde_json::Map::values);
    let named: BTreeSet<i64> = refs.filter_map(|target| target["snapshot-id"].as_i64()).collect();
    if let Some(snapshots) = document.get_mut("snapshots").and_then(Value::as_array_mut) {
        snapshots.retain(|snapshot| snapshot["snapshot-id"].as_i64().is_some_and(|id| named.contains(&id)));
    }
}

fn find(lake: &Lake, snapshot: &Snapshot, namespace: &str, name: &str) -> Result<TableRef, Answer> {
    if namespace != NAMESPACE {
        return Err(no_table(namespace, name));
    }
    let found = lake.table(snapshot, name).map_err(|failure| failed(&failure))?;
    found.filter(|table| table.metadata_location.is_some()).ok_or_else(|| no_table(namespace, name))
}

/// The answer to a request for a table that is not there. `namespace` has its levels separated by U+001F.
pub fn no_table(namespace: &str, name: &str) -> Answer {
    let hint = match namespace {
        NAMESPACE => "is floe.table set on a topic of that name?".to_owned(),
        SYSTEM => "it begins to exist when the first commits have moved to the store".to_owned(),
        _ => format!("there are only the namespaces {NAMESPACE} and {SYSTEM}"),
    };
    let namespace = namespace.replace('\u{1f}', ".");
    error(404, "NoSuchTableException", &format!("table {namespace}.{name} does not exist: {hint}"))
}

/// The store or the metadata failed. Clients try again on this status.
pub fn failed(failure: &dyn std::fmt::Display) -> Answer {
    error(503, "ServiceUnavailableException", &failure.to_string())
}
