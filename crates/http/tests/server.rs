//! The server over loopback, with a few lines of HTTP/1.1 as the client: answers, limits and shutdown.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use floe_env::{Env, Task};
use floe_http::{
    CatalogReply, CatalogRequest, CatalogService, DamageService, Damaged, DeletedTopic, Hosts, Metrics,
    QueryReply, QueryRequest, QueryService, Rebuilding, RemovedRange, Services, StandsStill, TableFailure,
    TableService, TableStatus, TrashFailure, TrashService, WhichDeleted, limits, serve,
};
use floe_query::{Format, Kind, Place, QueryError};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Chooses its answer by the text of the statement.
struct Fake;

impl QueryService for Fake {
    fn query(&self, request: QueryRequest) -> BoxFuture<'_, Result<QueryReply, QueryError>> {
        async move {
            let big = Bytes::from(vec![b'x'; 1 << 20]);
            let failed = || Err(QueryError::new(Kind::Limit, "too many rows"));
            let body = match request.text.as_str() {
                "wrong" => {
                    let place = Place { line: 3, column: 4, width: 1 };
                    return Err(QueryError::at(Kind::Invalid, "no such table", "", place));
                }
                "busy" => return Err(QueryError::new(Kind::Busy, "later")),
                "panic" => panic!("planted"),
                "slow" => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    stream::iter(vec![Ok(Bytes::from_static(b"done"))]).boxed()
                }
                "late" => stream::iter(vec![Ok(Bytes::from_static(b"1")), failed()]).boxed(),
                "large" => stream::iter(vec![Ok(big); 9]).boxed(),
                "large late" => stream::iter(std::iter::repeat_n(Ok(big), 9).chain([failed()])).boxed(),
                text => {
                    let text = format!("{text} as {:?}", request.format == Format::Csv);
                    stream::iter(vec![Ok(Bytes::from(text))]).boxed()
                }
            };
            Ok(QueryReply { body })
        }
        .boxed()
    }
}

impl CatalogService for Fake {
    fn respond(&self, request: CatalogRequest) -> BoxFuture<'_, CatalogReply> {
        let status = match &request {
            CatalogRequest::Table { table, .. } if table == "none" => 404,
            _ => 200,
        };
        let body = json!({ "asked": format!("{request:?}") });
        std::future::ready(CatalogReply { status, body }).boxed()
    }
}

impl TableService for Fake {
    fn standing_still(&self, count: usize) -> (Vec<StandsStill>, usize) {
        (vec![still("t"); 2].into_iter().take(count).collect(), 2)
    }

    fn table(&self, name: &str) -> Result<Option<TableStatus>, TableFailure> {
        let (rows, files, bytes, bad_records, lag, columns, lost_records) = (1, 2, 3, 4, 5, 6, 7);
        let stands_still = (name == "t").then(|| still(name));
        let table = name.to_owned();
        let columns_max = 2000;
        let rebuild = stands_still.clone().map(|still| Rebuilding { lag: 7, stands_still: Some(still) });
        let status = TableStatus {
            table,
            rows,
            files,
            bytes,
            bad_records,
            lag,
            lost_records,
            columns,
            columns_max,
            job: (name == "t").then_some("merge"),
            job_fails: stands_still.clone(),
            stands_still,
            rebuild,
        };
        Ok(Some(status).filter(|_| name != "none"))
    }

    fn drop_columns(&self, name: String, keys: Vec<String>) -> BoxFuture<'_, Result<u64, TableFailure>> {
        let outcome = match name.as_str() {
            "none" => Err(TableFailure::Missing),
            "busy" => Err(TableFailure::Unavailable("later".to_owned())),
            _ if keys.is_empty() => Err(TableFailure::Wrong("name keys".to_owned())),
            _ => Ok(keys.len() as u64),
        };
        std::future::ready(outcome).boxed()
    }

    fn rebuild(&self, name: String, lose: bool) -> BoxFuture<'_, Result<u64, TableFailure>> {
        let outcome = match name.as_str() {
            "none" => Err(TableFailure::Missing),
            "damaged" if !lose => Err(TableFailure::Refused("say --lose".to_owned())),
            "damaged" => Ok(3),
            _ => Ok(0),
        };
        std::future::ready(outcome).boxed()
    }
}

impl TrashService for Fake {
    fn deleted(&self, count: usize) -> Result<(Vec<DeletedTopic>, usize), TrashFailure> {
        let topic = DeletedTopic {
            topic: "t".to_owned(),
            id: "1-2".to_owned(),
            partitions: 3,
            bytes: 4,
            deleted: "2026-01-01T00:00:00.000Z".to_owned(),
            until: None,
            removed: None,
        };
        let range = RemovedRange { partition: 0, from: 5, to: 7 };
        let part = DeletedTopic { removed: Some(vec![range]), ..topic.clone() };
        Ok(([topic, part].into_iter().take(count).collect(), 5_000))
    }

    fn undelete(
        &self,
        which: WhichDeleted,
        new_name: Option<String>,
    ) -> BoxFuture<'_, Result<(String, String), TrashFailure>> {
        let outcome = match which.topic.as_str() {
            "none" => Err(TrashFailure::Missing("list --deleted".to_owned())),
            "taken" if new_name.is_none() => Err(TrashFailure::Refused("say --as".to_owned())),
            "busy" => Err(TrashFailure::Unavailable("later".to_owned())),
            _ => Ok((new_name.unwrap_or(which.topic), which.id.unwrap_or_else(|| "1-2".to_owned()))),
        };
        std::future::ready(outcome).boxed()
    }

    fn purge(&self, which: Option<WhichDeleted>) -> BoxFuture<'_, Result<(u64, u64), TrashFailure>> {
        let outcome = match which {
            None => Ok((7, 8)),
            Some(which) if which.topic == "none" => Err(TrashFailure::Missing("list --deleted".to_owned())),
            Some(which) => Ok((if which.id.is_some() { 1 } else { 2 }, 3)),
        };
        std::future::ready(outcome).boxed()
    }
}

impl DamageService for Fake {
    fn damage(&self, topic: &str, count: usize) -> Result<Option<(Vec<Damaged>, usize)>, String> {
        assert_eq!(count, limits::DAMAGE_LISTED);
        let damaged = Damaged {
            partition: 1,
            first_offset: 10,
            next_offset: 20,
            place: "object 7".to_owned(),
            why: "it says so".to_owned(),
            since: "2026-01-01T00:00:00.000Z".to_owned(),
            found_by: vec!["start", "merging"],
        };
        match topic {
            "none" => Ok(None),
            "busy" => Err("try later".to_owned()),
            "whole" => Ok(Some((Vec::new(), 0))),
            _ => Ok(Some((vec![damaged], 300))),
        }
    }
}

fn still(table: &str) -> StandsStill {
    StandsStill {
        table: table.to_owned(),
        since: "2026-01-01T00:00:00.000Z".to_owned(),
        why: "it says so".to_owned(),
    }
}

struct Server {
    address: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    served: Task<()>,
}

async fn start(ready: Result<(), String>) -> Server {
    start_with(ready, limits::CONNECTIONS_MAX).await
}

async fn start_with(ready: Result<(), String>, connections: usize) -> Server {
    let env = Env::real();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let services = Services {
        env: env.clone(),
        connections,
        hosts: Hosts::parse("floe").unwrap(),
        ready: Arc::new(move || ready.clone()),
        metrics: Metrics::detached(),
        query: Arc::new(Fake),
        tables: Arc::new(Fake),
        trash: Arc::new(Fake),
        damage: Arc::new(Fake),
        catalog: Arc::new(Fake),
    };
    let served = env.spawn("server", serve(listener, services, stopped));
    Server { address, stop, served }
}

/// Headers of a statement.
const JSON: &str = "content-type: application/json\r\n";

/// A parsed answer of the server.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Sends a request on a connection of its own and reads until the server closes it.
async fn ask(server: &Server, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    ask_raw(server, method, path, &format!("host: floe\r\n{headers}"), body).await
}

/// As [`ask`], with no header `host` but those in `headers`.
async fn ask_raw(server: &Server, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let length = if method == "POST" { format!("content-length: {}\r\n", body.len()) } else { String::new() };
    let head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n{length}{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer and close before it has read a body that is too large.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    answer(&bytes)
}

fn answer(bytes: &[u8]) -> Answer {
    let end =
        bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no head in {bytes:?}"));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

async fn sql(server: &Server, text: &str, headers: &str) -> Answer {
    let body = json!({ "query": text }).to_string();
    ask(server, "POST", "/api/v1/sql", &format!("{JSON}{headers}"), body.as_bytes()).await
}

async fn get(server: &Server, path: &str) -> Answer {
    ask(server, "GET", path, "", b"").await
}

#[tokio::test]
async fn health_metrics_and_what_is_not_there() {
    let server = start(Err("the store is full".to_owned())).await;
    assert_eq!(get(&server, "/health").await.json(), json!({ "status": "live" }));
    let ready = get(&server, "/ready").await;
    assert_eq!((ready.status, &ready.json()["error"]["message"]), (503, &json!("the store is full")));
    assert!(ready.head.contains("retry-after"));
    let metrics = get(&server, "/metrics").await;
    assert!(metrics.status == 200 && metrics.head.contains("text/plain; version=0.0.4"), "{metrics:?}");
    assert_eq!(get(&server, "/nothing").await.json()["error"]["type"], "NotFound");
    assert_eq!(get(&server, "/api/v1/sql").await.json()["error"]["type"], "MethodNotAllowed");
    server.stop.send(true).unwrap();
    server.served.await.unwrap();

    let server = start(Ok(())).await;
    let still = json!({ "table": "t", "since": "2026-01-01T00:00:00.000Z", "why": "it says so" });
    let ready = json!({ "status": "ready", "tables_standing_still": 2, "standing_still": [still, still] });
    assert_eq!(get(&server, "/ready").await.json(), ready);
    // A foreign name learns no names of tables.
    let foreign = ask_raw(&server, "GET", "/ready", "host: evil.example\r\n", b"").await;
    assert_eq!((foreign.status, foreign.json()), (200, json!({ "status": "ready" })));
}

#[tokio::test]
async fn a_table_says_how_it_is_doing_and_loses_columns_when_asked() {
    let server = start(Ok(())).await;
    let mut table = json!({
        "table": "a b", "rows": 1, "files": 2, "bytes": 3, "bad_records": 4, "lag": 5, "lost_records": 7, "columns": 6,
        "columns_max": 2000, "job": null, "job_fails": null, "stands_still": null, "rebuild": null,
    });
    assert_eq!(get(&server, "/api/v1/tables/a%20b").await.json(), table);
    table["table"] = "t".into();
    table["stands_still"] = json!({ "table": "t", "since": "2026-01-01T00:00:00.000Z", "why": "it says so" });
    table["job"] = "merge".into();
    table["job_fails"] = table["stands_still"].clone();
    table["rebuild"] = json!({ "lag": 7, "stands_still": table["stands_still"] });
    assert_eq!(get(&server, "/api/v1/tables/t").await.json(), table);
    error_is(&get(&server, "/api/v1/tables/none").await, 404, "NoSuchTable", &["none", "floe.table"]);

    let drop = async |table: &str, headers: &str, body: &str| {
        ask(&server, "POST", &format!("/api/v1/tables/{table}/drop-columns"), headers, body.as_bytes()).await
    };
    let keys = r#"{"keys":["a","b_*"]}"#;
    assert_eq!(drop("t", JSON, keys).await.json(), json!({ "table": "t", "columns_dropped": 2 }));
    error_is(&drop("t", "content-type: text/plain\r\n", keys).await, 415, "UnsupportedMediaType", &[]);
    error_is(&drop("t", JSON, "{}").await, 400, "InvalidBody", &["keys"]);
    error_is(&drop("t", JSON, r#"{"keys":[]}"#).await, 400, "InvalidRequest", &["name keys"]);
    error_is(&drop("none", JSON, keys).await, 404, "NoSuchTable", &[]);
    error_is(&drop("busy", JSON, keys).await, 503, "Unavailable", &["later"]);
    assert_eq!(get(&server, "/api/v1/tables/t/drop-columns").await.status, 405);

    let rebuild = async |table: &str, body: &str| {
        ask(&server, "POST", &format!("/api/v1/tables/{table}/rebuild"), JSON, body.as_bytes()).await
    };
    assert_eq!(rebuild("t", "{}").await.json(), json!({ "table": "t", "rows_lost": 0 }));
    error_is(&rebuild("damaged", "{}").await, 409, "Refused", &["--lose"]);
    let lost = json!({ "table": "damaged", "rows_lost": 3 });
    assert_eq!(rebuild("damaged", r#"{"lose":true}"#).await.json(), lost);
    error_is(&rebuild("none", "{}").await, 404, "NoSuchTable", &[]);
    error_is(&rebuild("t", "yes").await, 400, "InvalidBody", &["lose"]);
}

#[tokio::test]
async fn damaged_records_are_listed() {
    let server = start(Ok(())).await;
    let damaged = json!({
        "partition": 1, "first_offset": 10, "next_offset": 20, "place": "object 7", "why": "it says so",
        "since": "2026-01-01T00:00:00.000Z", "found_by": ["start", "merging"],
    });
    let listed = json!({ "topic": "t", "damaged": [damaged], "count": 300 });
    assert_eq!(get(&server, "/api/v1/topics/t/damage").await.json(), listed);
    let whole = json!({ "topic": "whole", "damaged": [], "count": 0 });
    assert_eq!(get(&server, "/api/v1/topics/whole/damage").await.json(), whole);
    error_is(&get(&server, "/api/v1/topics/none/damage").await, 404, "NoSuchTopic", &["topic list"]);
    error_is(&get(&server, "/api/v1/topics/busy/damage").await, 503, "Unavailable", &["later"]);
}

#[tokio::test]
async fn deleted_topics_are_listed_and_come_back_or_go() {
    let server = start(Ok(())).await;
    let topic = json!({
        "topic": "t", "id": "1-2", "partitions": 3, "bytes": 4, "deleted": "2026-01-01T00:00:00.000Z", "until": null,
        "removed": null,
    });
    let mut part = topic.clone();
    part["removed"] = json!([{ "partition": 0, "from": 5, "to": 7 }]);
    let listed = json!({ "topics": [topic, part], "count": 5000 });
    assert_eq!(get(&server, "/api/v1/trash").await.json(), listed);

    let post = async |path: &str, body: &str| {
        ask(&server, "POST", &format!("/api/v1/trash/{path}"), JSON, body.as_bytes()).await
    };
    let undelete = async |body: &str| post("undelete", body).await;
    assert_eq!(undelete(r#"{"topic":"t"}"#).await.json(), json!({ "topic": "t", "id": "1-2" }));
    let other = undelete(r#"{"topic":"taken","as":"t-2","id":"3-4"}"#).await;
    assert_eq!(other.json(), json!({ "topic": "t-2", "id": "3-4" }));
    error_is(&undelete(r#"{"topic":"taken"}"#).await, 409, "Refused", &["--as"]);
    error_is(&undelete(r#"{"topic":"none"}"#).await, 404, "NoSuchTopic", &["list --deleted"]);
    error_is(&undelete(r#"{"topic":"busy"}"#).await, 503, "Unavailable", &["later"]);
    error_is(&undelete("{}").await, 400, "InvalidBody", &["topic", "orders-2"]);
    error_is(&undelete(r#"{"topic":"t","AS":"u"}"#).await, 400, "InvalidBody", &["AS"]);
    let text = ask(&server, "POST", "/api/v1/trash/purge", "content-type: text/plain\r\n", b"{}").await;
    error_is(&text, 415, "UnsupportedMediaType", &[]);

    let purge = async |body: &str| post("purge", body).await;
    assert_eq!(purge("{}").await.json(), json!({ "topics": 7, "bytes": 8 }));
    assert_eq!(purge(r#"{"topic":"t"}"#).await.json(), json!({ "topics": 2, "bytes": 3 }));
    assert_eq!(purge(r#"{"topic":"t","id":"3-4"}"#).await.json(), json!({ "topics": 1, "bytes": 3 }));
    error_is(&purge(r#"{"topic":"none"}"#).await, 404, "NoSuchTopic", &["list --deleted"]);
    error_is(&purge(r#"{"id":"3-4"}"#).await, 400, "InvalidRequest", &["name of its topic"]);
    error_is(&purge(r#"{"name":"t"}"#).await, 400, "InvalidBody", &["name"]);
    assert_eq!(get(&server, "/api/v1/trash/purge").await.status, 405);
}

#[tokio::test]
async fn statements_are_answered_in_the_format_that_is_accepted() {
    let server = start(Ok(())).await;
    let answer = sql(&server, "select 1", "accept: text/csv\r\n").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"select 1 as true"[..]));
    assert!(answer.head.contains("content-type: text/csv"), "{answer:?}");
    assert_eq!(sql(&server, "x", "").await.body, b"x as false");
    assert_eq!(sql(&server, "x", "accept: image/png\r\n").await.status, 406);

    let wrong = sql(&server, "wrong", "").await;
    let expected = json!({ "error": {
        "code": 400, "type": "InvalidStatement", "message": "no such table (line 3, column 4)", "line": 3, "column": 4,
    }});
    assert_eq!((wrong.status, wrong.json()), (400, expected));
    let busy = sql(&server, "busy", "").await;
    assert!(busy.status == 429 && busy.head.contains("retry-after"), "{busy:?}");
    assert_eq!(sql(&server, "panic", "").await.json()["error"]["type"], "Internal");
    assert_eq!(
        ask(&server, "POST", "/api/v1/sql", JSON, b"select 1").await.json()["error"]["type"],
        "InvalidBody"
    );
}

/// The error of an answer: its status, its type, and whether its message has these words.
fn error_is(answer: &Answer, status: u16, kind: &str, words: &[&str]) {
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["type"]), (status, &json!(kind)), "{answer:?}");
    let message = error["message"].as_str().unwrap();
    assert!(words.iter().all(|word| message.contains(word)), "{words:?} in {message}");
}

#[tokio::test]
async fn a_statement_that_any_web_page_may_send_is_refused() {
    let server = start(Ok(())).await;
    let body = json!({ "query": "select 1" }).to_string();
    let post = async |headers: &str| ask(&server, "POST", "/api/v1/sql", headers, body.as_bytes()).await;
    let said = ["content-type: application/json", "curl"];
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        error_is(&post(&format!("content-type: {kind}\r\n")).await, 415, "UnsupportedMediaType", &said);
    }
    error_is(&post("").await, 415, "UnsupportedMediaType", &said);
    assert_eq!(post("content-type: application/json; charset=utf-8\r\n").await.status, 200);
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_everywhere() {
    let server = start(Ok(())).await;
    let paths = ["/health", "/ready", "/metrics", "/iceberg/v1/config", "/nothing"];
    for origin in ["http://evil.example", "http://floe:3000", "null", ""] {
        let header = format!("origin: {origin}\r\n");
        for path in paths {
            let answer = ask(&server, "GET", path, &header, b"").await;
            error_is(&answer, 403, "ForeignOrigin", &[origin, "no header `origin`"]);
        }
        error_is(&sql(&server, "select 1", &header).await, 403, "ForeignOrigin", &[]);
        // The question of a browser before a request that a page may not send at once.
        let asks = format!("{header}access-control-request-method: POST\r\n");
        let answer = ask(&server, "OPTIONS", "/api/v1/sql", &asks, b"").await;
        assert!(answer.status == 403 && !answer.head.contains("access-control-allow"), "{answer:?}");
    }
    assert_eq!(sql(&server, "select 1", "origin: http://floe\r\n").await.status, 200);
    let twice = "origin: http://floe\r\norigin: http://evil.example\r\n";
    assert_eq!(sql(&server, "select 1", twice).await.status, 403);
}

#[tokio::test]
async fn only_known_names_are_answered() {
    let server = start(Err("the table t stands still".to_owned())).await;
    let get = async |path: &str, host: &str| ask_raw(&server, "GET", path, host, b"").await;
    let local = server.address.to_string();
    for host in [local.as_str(), "localhost", "LocalHost:1", "[::1]:8080", "10.9.8.7", "floe:8080"] {
        assert_eq!(get("/metrics", &format!("host: {host}\r\n")).await.status, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:8080", "floe.evil.example", "localhost.evil.example"] {
        let header = format!("host: {host}\r\n");
        for path in ["/metrics", "/iceberg/v1/config", "/nothing", "/health/x"] {
            error_is(
                &get(path, &header).await,
                421,
                "UnknownHost",
                &[host, "http_allowed_hosts", "localhost"],
            );
        }
        let body = json!({ "query": "select 1" }).to_string();
        let headers = format!("{header}{JSON}");
        error_is(
            &ask_raw(&server, "POST", "/api/v1/sql", &headers, body.as_bytes()).await,
            421,
            "UnknownHost",
            &[],
        );
        // Probes and proxies ask under any name. They learn no names of tables.
        assert_eq!(get("/health", &header).await.status, 200);
        let ready = get("/ready", &header).await;
        error_is(&ready, 503, "NotReady", &["localhost"]);
        assert!(!ready.json().to_string().contains("stands still"), "{ready:?}");
    }
    assert_eq!((get("/health", "").await.status, get("/metrics", "").await.status), (200, 421));
    assert_eq!(get("/metrics", "host: floe\r\nhost: evil.example\r\n").await.status, 400);
    assert_eq!(get("http://evil.example/metrics", "host: floe\r\n").await.status, 421);
    error_is(&get("/ready", "host: floe\r\n").await, 503, "NotReady", &["the table t stands still"]);
}

#[tokio::test]
async fn every_answer_tells_a_browser_to_keep_its_hands_off() {
    let server = start(Ok(())).await;
    let refused = ask(&server, "GET", "/metrics", "origin: null\r\n", b"").await;
    let answers = [
        get(&server, "/health").await,
        get(&server, "/nothing").await,
        sql(&server, "select 1", "").await,
        sql(&server, "panic", "").await,
        refused,
    ];
    for answer in answers {
        for header in [
            "x-content-type-options: nosniff",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'; sandbox",
            "x-frame-options: deny",
            "cross-origin-resource-policy: same-origin",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(answer.head.contains(header), "{header} in {answer:?}");
        }
    }
}

#[tokio::test]
async fn an_error_after_the_first_rows_is_still_an_error() {
    let server = start(Ok(())).await;
    // A small reply has the status of the error. A large reply has a body without an end.
    assert_eq!(sql(&server, "late", "").await.status, 422);
    let whole = sql(&server, "large", "").await;
    assert!(whole.body.len() > 9 << 20 && whole.body.ends_with(b"\r\n0\r\n\r\n"), "{}", whole.body.len());
    let broken = sql(&server, "large late", "").await;
    assert_eq!(broken.status, 200);
    assert!(!broken.body.ends_with(b"\r\n0\r\n\r\n"), "a client must see that the body was cut");
}

#[tokio::test]
async fn the_catalogs_paths() {
    let server = start(Ok(())).await;
    let asked = |answer: Answer| answer.json()["asked"].as_str().unwrap().to_owned();
    let config = get(&server, "/iceberg/v1/config?warehouse=w%20x").await;
    assert_eq!(asked(config), "Config { warehouse: Some(\"w x\") }");
    assert_eq!(asked(get(&server, "/iceberg/v1/namespaces").await), "Namespaces { parent: None }");
    assert_eq!(
        asked(get(&server, "/iceberg/v1/namespaces/a%1Fb").await),
        "Namespace { namespace: \"a\\u{1f}b\" }"
    );
    let table = get(&server, "/iceberg/v1/namespaces/default/tables/a.b").await;
    assert_eq!(asked(table), "Table { namespace: \"default\", table: \"a.b\", snapshots: None }");
    let refs = get(&server, "/iceberg/v1/namespaces/default/tables/t?snapshots=refs").await;
    assert_eq!(asked(refs), "Table { namespace: \"default\", table: \"t\", snapshots: Some(\"refs\") }");
    assert_eq!(get(&server, "/iceberg/v1/namespaces/default/tables/none").await.status, 404);
    let head = |path| ask(&server, "HEAD", path, "", b"");
    assert_eq!(head("/iceberg/v1/namespaces/default/tables/t").await.status, 204);
    assert_eq!(head("/iceberg/v1/namespaces/default/tables/none").await.status, 404);
    let post = |path| ask(&server, "POST", path, "", b"{}");
    assert_eq!(post("/iceberg/v1/namespaces/default/tables/t/metrics").await.status, 204);
    let refused = post("/iceberg/v1/namespaces/default/tables").await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["type"]),
        (406, &json!("UnsupportedOperationException"))
    );
    let refused = post("/iceberg/v1/namespaces/system/tables/commits").await;
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(refused.status == 406 && message.contains("history of commits"), "{message}");
    assert_eq!(get(&server, "/iceberg/v1/views").await.status, 404);
}

#[tokio::test]
async fn limits_have_clear_answers() {
    let server = start(Ok(())).await;
    let huge = vec![b' '; limits::BODY_BYTES_MAX + 1];
    assert_eq!(
        ask(&server, "POST", "/api/v1/sql", JSON, &huge).await.json()["error"]["type"],
        "BodyTooLarge"
    );
    // One that says so is not waited for, and one that breaks off is not too large.
    for (length, status) in [("1099511627776", 413), ("100", 400)] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            format!("POST /api/v1/sql HTTP/1.1\r\nhost: floe\r\n{JSON}content-length: {length}\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.unwrap();
        if status == 400 {
            stream.shutdown().await.unwrap();
        }
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        assert_eq!(answer(&bytes).status, status, "{length}");
    }
    let many: String = (0..limits::HEADERS_MAX + 1).map(|i| format!("x-{i}: 1\r\n")).collect();
    assert_eq!(ask(&server, "GET", "/health", &many, b"").await.status, 431);
}

/// Whoever sits idle keeps nobody out.
#[tokio::test]
async fn idle_connections_give_way() {
    let server = start(Ok(())).await;
    let mut idle = Vec::new();
    for number in 0..limits::CONNECTIONS_MAX + limits::PROBE_CONNECTIONS {
        let mut one = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 1 {
            one.write_all(b"GET /health HTTP/1.1\r\nhost: half a head").await.unwrap();
        }
        idle.push(one);
        // A listener has room for so many that it has not accepted.
        if number % 64 == 0 {
            assert_eq!(get(&server, "/health").await.status, 200, "beside {number}");
        }
    }
    for _ in 0..3 {
        assert_eq!(get(&server, "/health").await.status, 200);
        assert_eq!(sql(&server, "x", "").await.status, 200);
    }
    let mut first = idle.remove(0);
    let mut bytes = Vec::new();
    first.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"", "the one that was idle longest was closed");
}

/// While every connection is busy, probes are answered and other requests are told to come again.
#[tokio::test]
async fn busy_connections_leave_room_for_probes() {
    let server = start_with(Ok(()), 2).await;
    let asking = async { tokio::join!(sql(&server, "slow", ""), sql(&server, "slow", "")) };
    let probing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for path in ["/health", "/ready", "/metrics"] {
            assert_eq!(get(&server, path).await.status, 200, "{path}");
        }
        let refused = get(&server, "/api/v1/tables/t").await;
        assert_eq!((refused.status, &refused.json()["error"]["type"]), (503, &json!("TooManyConnections")));
    };
    let ((one, two), ()) = tokio::join!(asking, probing);
    assert_eq!((one.status, two.status), (200, 200), "nobody who asks loses the connection");
    assert_eq!(sql(&server, "x", "").await.status, 200);
}

#[tokio::test]
async fn a_shutdown_lets_requests_end() {
    let server = start(Ok(())).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let ask = sql(&server, "slow", "");
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.stop.send(true).unwrap();
    };
    let (answer, ()) = tokio::join!(ask, stop);
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"done"[..]));
    server.served.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    drop(idle);
}
