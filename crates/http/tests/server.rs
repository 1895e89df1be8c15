//! The server over loopback, with a few lines of HTTP/1.1 as the client: answers, limits and shutdown.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use floe_env::{Env, Task};
use floe_http::{
    CatalogReply, CatalogRequest, CatalogService, Metrics, QueryReply, QueryRequest, QueryService, Services,
    limits, serve,
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

struct Server {
    address: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    served: Task<()>,
}

async fn start(ready: Result<(), String>) -> Server {
    let env = Env::real();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let services = Services {
        env: env.clone(),
        ready: Arc::new(move || ready.clone()),
        metrics: Metrics::detached(),
        query: Arc::new(Fake),
        catalog: Arc::new(Fake),
    };
    let served = env.spawn("server", serve(listener, services, stopped));
    Server { address, stop, served }
}

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
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let length = if method == "POST" { format!("content-length: {}\r\n", body.len()) } else { String::new() };
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: floe\r\nconnection: close\r\n{length}{headers}\r\n");
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
    ask(server, "POST", "/api/v1/sql", headers, body.as_bytes()).await
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
    assert_eq!(get(&server, "/ready").await.json(), json!({ "status": "ready" }));
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
        ask(&server, "POST", "/api/v1/sql", "", b"select 1").await.json()["error"]["type"],
        "InvalidBody"
    );
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
    assert_eq!(asked(table), "Table { namespace: \"default\", table: \"a.b\" }");
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
    assert_eq!(get(&server, "/iceberg/v1/views").await.status, 404);
}

#[tokio::test]
async fn limits_have_clear_answers() {
    let server = start(Ok(())).await;
    let huge = vec![b' '; limits::BODY_BYTES_MAX + 1];
    assert_eq!(ask(&server, "POST", "/api/v1/sql", "", &huge).await.json()["error"]["type"], "BodyTooLarge");
    let many: String = (0..limits::HEADERS_MAX + 1).map(|i| format!("x-{i}: 1\r\n")).collect();
    assert_eq!(ask(&server, "GET", "/health", &many, b"").await.status, 431);

    let mut held = Vec::new();
    for _ in 0..limits::CONNECTIONS_MAX {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    // The last connections may still be in the backlog: connect until the server refuses one.
    let refused = loop {
        let mut one = TcpStream::connect(server.address).await.unwrap();
        let mut bytes = Vec::new();
        if let Ok(Ok(1..)) =
            tokio::time::timeout(Duration::from_millis(200), one.read_to_end(&mut bytes)).await
        {
            break answer(&bytes);
        }
        held.push(one);
    };
    assert_eq!((refused.status, &refused.json()["error"]["type"]), (503, &json!("TooManyConnections")));
    drop(held);
    let mut status = 0;
    for _ in 0..50 {
        status = get(&server, "/health").await.status;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status, 200, "room is made again");
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
