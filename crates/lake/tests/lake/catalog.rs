//! The catalog's documents, as readers ask for them.

use floe_env::Env;
use floe_lake::catalog;
use serde_json::json;

use floe_lake::map::Table;
use floe_log::WriterNumber;
use floe_meta::{Envelope, Tx};
use floe_store::Store;

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
    assert_eq!(catalog::namespaces(None).body, json!({"namespaces": [["default"], ["system"]]}));
    assert_eq!(catalog::namespaces(Some("default")).body, json!({"namespaces": []}));
    assert_eq!(catalog::namespaces(Some("system")).body, json!({"namespaces": []}));
    assert_eq!(catalog::namespaces(Some("other")).status, 404);
    assert_eq!(catalog::namespace("default").status, 200);
    assert_eq!(catalog::namespace("system").body["namespace"], json!(["system"]));
    assert_eq!(catalog::namespace("other").body["error"]["type"], "NoSuchNamespaceException");
    assert_eq!(
        catalog::tables(lake, snapshot, "default").body["identifiers"],
        json!([{"namespace": ["default"], "name": "t"}])
    );
    assert_eq!(catalog::table_exists(lake, snapshot, "default", "t").status, 204);
    assert_eq!(catalog::table_exists(lake, snapshot, "default", "plain").status, 404);
    assert_eq!(catalog::read_only().status, 406);

    let loaded = catalog::table(lake, snapshot, "default", "t", None).await;
    assert_eq!(loaded.status, 200);
    let metadata = &loaded.body["metadata"];
    assert_eq!(metadata["format-version"], 2);
    assert_eq!(metadata["snapshots"].as_array().map(Vec::len), Some(1));
    let location = loaded.body["metadata-location"].as_str().expect("a table has a place");
    assert!(is_specified(location), "{location}");
    // The second is how a Java client looks for the metadata table `default.t.snapshots`.
    for (namespace, name) in [("default", "none"), ("default\u{1f}t", "snapshots"), ("other", "t")] {
        let missing = catalog::table(lake, snapshot, namespace, name, None).await;
        assert_eq!((missing.status, &missing.body["error"]["type"]), (404, &json!("NoSuchTableException")));
        assert_eq!(catalog::table_exists(lake, snapshot, namespace, name).status, 404);
    }
    let other = catalog::tables(lake, snapshot, "other").body;
    assert_eq!(other["error"]["type"], "NoSuchNamespaceException");
}

/// Whether a metadata document has a name of the specification: `<version>-<uuid>.metadata.json`.
fn is_specified(location: &str) -> bool {
    let name = location.rsplit('/').next().and_then(|name| name.strip_suffix(".metadata.json"));
    let Some((version, uuid)) = name.and_then(|name| name.split_once('-')) else { return false };
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let parts: Vec<&str> = uuid.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    version.len() >= 5
        && version.bytes().all(|b| b.is_ascii_digit())
        && lengths == [8, 4, 4, 4, 12]
        && parts.into_iter().all(hex)
}

#[tokio::test(start_paused = true)]
async fn a_client_may_ask_for_the_snapshots_that_refs_name() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(1)).await;
    let topic = broker.topic("t", 1, JSON).await;
    for n in 0..3 {
        broker.produce(&topic, 0, &[format!("{{\"x\":{n}}}")]).await;
        broker.settled("t").await;
    }
    let snapshot = &broker.log.meta().snapshot();
    let load = async |snapshots| catalog::table(&broker.lake, snapshot, "default", "t", snapshots).await;
    let (all, refs) = (load(Some("all")).await, load(Some("refs")).await);
    assert_eq!(all, load(None).await);
    let ids = |answer: &catalog::Answer| -> Vec<i64> {
        let snapshots = answer.body["metadata"]["snapshots"].as_array().expect("a list").iter();
        snapshots.map(|snapshot| snapshot["snapshot-id"].as_i64().expect("an id")).collect()
    };
    let current = all.body["metadata"]["current-snapshot-id"].as_i64().expect("there is one");
    assert_eq!((ids(&all).len(), ids(&refs)), (3, vec![current]));
    // Nothing else differs: the client keeps its history.
    let (mut all, mut refs) = (all.body, refs.body);
    all["metadata"]["snapshots"].take();
    refs["metadata"]["snapshots"].take();
    assert_eq!(all, refs);
    let wrong = load(Some("none")).await;
    assert_eq!((wrong.status, &wrong.body["error"]["type"]), (400, &json!("BadRequestException")));
}

/// A table whose document has the name that earlier versions gave it goes on, and the old document is deleted when it
/// falls out of the metadata log.
#[tokio::test(start_paused = true)]
async fn a_table_with_documents_of_the_former_name_goes_on() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(1)).await;
    let topic = broker.topic("t", 1, JSON).await;
    broker.produce(&topic, 0, &["{\"x\":0}"]).await;
    let table = broker.settled("t").await;
    broker.lake.clone().close().await;
    let record = broker.log.meta().snapshot().get::<Table>(&table.topic.id).expect("readable").expect("made");
    let (folder, _) = record.metadata.rsplit_once('/').expect("a folder");
    let former = format!("{folder}/{:010}.metadata.json", WriterNumber::count(record.next_file) - 1);
    let document = ground.store.get(&record.metadata, None).await.expect("it is there");
    ground.store.put(&former, vec![document]).await.expect("stored");
    ground.store.delete(&record.metadata).await.expect("deleted");
    let (id, renamed) = (topic.id, Table { metadata: former.clone(), ..record });
    let rename = move |tx: &mut Tx<'_>| {
        tx.put(&id, &renamed);
        Ok::<_, std::convert::Infallible>(())
    };
    broker.log.meta().commit(Envelope::broker("test"), rename).await.expect("committed");

    let broker = ground.broker(Env::simulated(2)).await;
    let loaded = catalog::table(&broker.lake, &broker.log.meta().snapshot(), "default", "t", None).await;
    assert_eq!(loaded.body["metadata-location"], format!("memory:///{former}"));
    for n in 1..30 {
        broker.produce(&topic, 0, &[format!("{{\"x\":{n}}}")]).await;
        broker.settled("t").await;
    }
    let table = broker.settled("t").await;
    assert!(is_specified(table.metadata_location.as_deref().expect("made")), "{table:?}");
    assert_eq!(broker.rows(&table).await.len(), 30);
    broker.check_every_snapshot("t").await;
    tokio::time::sleep(floe_lake::limits::GARBAGE_GRACE * 2).await;
    assert!(!ground.store.keys().contains(&former), "the old document is gone");
    broker.check_no_orphans(&ground.store).await;
}

/// Readers refuse a field that is null where the specification lets it be absent.
#[tokio::test(start_paused = true)]
async fn a_table_without_rows_has_no_nulls() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(1)).await;
    broker.topic("t", 1, JSON).await;
    broker.settled("t").await;
    let loaded = catalog::table(&broker.lake, &broker.log.meta().snapshot(), "default", "t", None).await;
    let metadata = loaded.body["metadata"].as_object().expect("a document");
    let nulls: Vec<&String> =
        metadata.iter().filter(|(_, value)| value.is_null()).map(|(key, _)| key).collect();
    assert_eq!((loaded.status, nulls), (200, vec![]));
}
