//! A table on the local file system behind a tiny catalog: `cargo run -p floe-lake --example catalog -- DIR PORT
//! [ROUNDS]`.
//!
//! It writes records of many shapes, waits until they are in the table, then answers the read side of the Iceberg REST
//! protocol at `http://127.0.0.1:PORT` until it is killed. For trying readers by hand; the front serves the same
//! documents.

use std::{error::Error, sync::Arc, time::Duration};

use floe_env::Env;
use floe_lake::{Config, Lake, catalog};
use floe_log::{
    self, Append, Log, PartitionId, Writer,
    codec::Compression,
    records::Builder,
    topic::{NewTopic, Topic},
};
use floe_meta::{MemoryJournal, Meta};
use floe_store::local::{LocalStore, Options};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

type Failure = Box<dyn Error + Send + Sync>;

/// What arrives, one commit after the other: columns are added, widened, replaced, and given text beside them.
const STEPS: &[&[&str]] = &[
    &[r#"{"carrier":"UA","flight":1545,"delay":2,"time_hour":"2013-01-01T05:00:00Z","ok":true}"#, "nonsense"],
    &[
        r#"{"carrier":"AA","flight":5000000000,"delay":-1,"origin":{"code":"JFK","gates":[1,2]},"tags":["a",null]}"#,
    ],
    &[r#"{"carrier":"B6","big":9007199254740993,"delay":3}"#, r#"{"delay":"NA"}"#],
    &[r#"{"carrier":"DL","big":0.5,"delay":2.5,"origin":{"code":"LGA","gates":[0.5]},"Carrier":"upper"}"#],
    &[r#"{"legs":[{"element":1,"key":"k"},{"element":2.5}],"_partition":"mine","a.b":1,"a":{"b":2}}"#],
    &[r#"{"carrier":"WN","origin":{"code":"EWR","gates":[7]},"tags":[]}"#],
];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("which folder?")?;
    let port: u16 = arguments.next().ok_or("which port?")?.parse()?;
    let rounds: u32 = arguments.next().map_or(Ok(1), |rounds| rounds.parse())?;
    let env = Env::real();
    let store = Arc::new(LocalStore::open(env.clone(), dir, Options::default()).await?);
    let meta = Meta::open(env.clone(), Arc::new(MemoryJournal::new()), floe_meta::Options::default()).await?;
    let log = Log::open(env.clone(), meta, store, floe_log::Config::default()).await?;
    let lake = Lake::start(env.clone(), log.clone(), Config::default());
    for (name, mode) in [("flights", "json"), ("raw", "raw"), ("empty", "json")] {
        let configs = [("floe.table", mode), ("floe.table.freshness.ms", "200")];
        let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let new = NewTopic { name: name.to_owned(), partitions: 2, configs };
        let topic = log.create_topic(&Writer::new("User:example", "example"), new, false).await?;
        if name != "empty" {
            for round in 0..rounds {
                for step in STEPS {
                    produce(&log, &topic, round % 2, step).await?;
                    settled(&lake, name).await;
                }
            }
        }
    }
    serve(&env, lake, port).await
}

async fn produce(log: &Log, topic: &Topic, partition: u32, values: &[&str]) -> Result<(), Failure> {
    let mut builder = Builder::new(Compression::Zstd);
    for value in values {
        builder.push(1_357_016_400_000, Some(b"key"), Some(value.as_bytes()), &[(b"h", Some(b"v"))]);
    }
    let batches = vec![(PartitionId::new(topic.id, partition), builder.build())];
    for result in log.append(Append { writer: Writer::new("User:example", "example"), batches }).await {
        result?;
    }
    Ok(())
}

async fn settled(lake: &Lake, name: &str) {
    loop {
        let snapshot = lake.log().meta().snapshot();
        if let Ok(Some(table)) = lake.table(&snapshot, name)
            && table.topic.partition_ids().all(|p| {
                let end = Log::bounds(&snapshot, p).map_or(0, |bounds| bounds.high_watermark.0);
                table.progress.get(&p.index).map_or(0, |offset| offset.0) >= end
            })
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[expect(clippy::print_stdout, reason = "says that it is ready")]
async fn serve(env: &Env, lake: Lake, port: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept().await?;
        let lake = lake.clone();
        drop(env.spawn("connection", async move { answer(stream, lake).await }));
    }
}

async fn answer(stream: TcpStream, lake: Lake) -> Result<(), Failure> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut request, mut length) = (String::new(), 0);
        if stream.read_line(&mut request).await? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await?;
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if header.trim().is_empty() {
                break;
            }
        }
        stream.read_exact(&mut vec![0; length]).await?;
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let reply = route(&lake, method, path.split('?').next().unwrap_or_default()).await;
        let body =
            if method == "HEAD" || reply.status == 204 { String::new() } else { reply.body.to_string() };
        let head = format!(
            "HTTP/1.1 {} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            reply.status,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
    }
}

async fn route(lake: &Lake, method: &str, path: &str) -> catalog::Answer {
    let snapshot = lake.log().meta().snapshot();
    let parts: Vec<&str> =
        path.trim_start_matches("/v1/").split('/').filter(|part| !part.is_empty()).collect();
    match (method, &parts[..]) {
        ("GET", ["config"]) => catalog::config(),
        ("GET", ["namespaces"]) => catalog::namespaces(None),
        ("GET" | "HEAD", ["namespaces", namespace]) => catalog::namespace(namespace),
        ("GET", ["namespaces", namespace, "tables"]) => catalog::tables(lake, &snapshot, namespace),
        ("HEAD", ["namespaces", namespace, "tables", table]) => {
            catalog::table_exists(lake, &snapshot, namespace, table)
        }
        ("GET", ["namespaces", namespace, "tables", table]) => {
            catalog::table(lake, &snapshot, namespace, table, None).await
        }
        ("POST", ["namespaces", _, "tables", _, "metrics"]) => {
            catalog::Answer { status: 204, body: serde_json::Value::Null }
        }
        ("GET" | "HEAD", _) => catalog::not_found(path),
        _ => catalog::read_only(),
    }
}
