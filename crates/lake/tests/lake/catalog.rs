//! The catalog's documents, as readers ask for them.

use floe_env::Env;
use floe_lake::catalog;
use serde_json::json;

use crate::world::{Ground, JSON};

#[tokio::test(start_paused = true)]
async fn tables_are_listed_and_loaded() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(1)).await;
    let topic = broker.topic("t", 1, JSON).await;
    broker.topic("plain", 1, &[]).await;
    broker.produce(&topic, 0, &["{\"x\":1}"]).await;
    broker.settled("t").await;
    let (lake, snapshot) = (&broker.lake, &broker.log.meta().snapshot());

    assert_eq!(catalog::config().status, 200);
    assert_eq!(catalog::namespaces(None).body, json!({"namespaces": [["default"]]}));
    assert_eq!(catalog::namespaces(Some("default")).body, json!({"namespaces": []}));
    assert_eq!(catalog::namespaces(Some("other")).status, 404);
    assert_eq!(catalog::namespace("default").status, 200);
    assert_eq!(catalog::namespace("other").body["error"]["type"], "NoSuchNamespaceException");
    assert_eq!(
        catalog::tables(lake, snapshot, "default").body["identifiers"],
        json!([{"namespace": ["default"], "name": "t"}])
    );
    assert_eq!(catalog::table_exists(lake, snapshot, "default", "t").status, 204);
    assert_eq!(catalog::table_exists(lake, snapshot, "default", "plain").status, 404);
    assert_eq!(catalog::read_only().status, 406);

    let loaded = catalog::table(lake, snapshot, "default", "t").await;
    assert_eq!(loaded.status, 200);
    let metadata = &loaded.body["metadata"];
    assert_eq!(metadata["format-version"], 2);
    assert_eq!(metadata["snapshots"].as_array().map(Vec::len), Some(1));
    let location = loaded.body["metadata-location"].as_str().expect("a table has a place");
    assert!(location.ends_with(".metadata.json"), "{location}");
    let missing = catalog::table(lake, snapshot, "default", "none").await;
    assert_eq!((missing.status, &missing.body["error"]["type"]), (404, &json!("NoSuchTableException")));
}

/// Readers refuse a field that is null where the specification lets it be absent.
#[tokio::test(start_paused = true)]
async fn a_table_without_rows_has_no_nulls() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(1)).await;
    broker.topic("t", 1, JSON).await;
    broker.settled("t").await;
    let loaded = catalog::table(&broker.lake, &broker.log.meta().snapshot(), "default", "t").await;
    let metadata = loaded.body["metadata"].as_object().expect("a document");
    let nulls: Vec<&String> =
        metadata.iter().filter(|(_, value)| value.is_null()).map(|(key, _)| key).collect();
    assert_eq!((loaded.status, nulls), (200, vec![]));
}
