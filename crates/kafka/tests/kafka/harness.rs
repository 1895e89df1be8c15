//! One broker in memory, and its clients.

use std::sync::Arc;

use bytes::Bytes;
use floe_client::{Client, ClientError};
use floe_env::Env;
use floe_kafka::APIS;
use floe_kafka::{Broker, Config};
use floe_log::Log;
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_meta::{MemoryJournal, Meta, Options};
use floe_store::MemoryStore;
use floe_store::Store;
use floe_wire::Request;
use tokio::io::DuplexStream;

const PIPE_BYTES: usize = 1 << 20;

pub(crate) type TestClient = Client<DuplexStream>;

/// The parts that survive a broker: its journal and its store.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) journal: MemoryJournal,
    pub(crate) store: Arc<dyn Store>,
}

pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) log: Log,
    pub(crate) broker: Broker,
}

pub(crate) fn disk() -> Disk {
    Disk { journal: MemoryJournal::new(), store: Arc::new(MemoryStore::new()) }
}

pub(crate) async fn world() -> World {
    World::open(&disk(), Config::default()).await
}

impl World {
    pub(crate) async fn open(disk: &Disk, config: Config) -> World {
        // A deletion is for good, unless the topic says otherwise.
        let trash = floe_log::deleted::Trash { ms: 0, ..Default::default() };
        World::open_with(disk, config, floe_log::Config { trash, ..floe_log::Config::default() }).await
    }

    pub(crate) async fn open_with(disk: &Disk, config: Config, log: floe_log::Config) -> World {
        let env = Env::simulated(7);
        let meta =
            Meta::open(env.clone(), Arc::new(disk.journal.clone()), Options::default()).await.expect("opens");
        let log = Log::open(env.clone(), meta, disk.store.clone(), log).await.expect("opens");
        let broker = Broker::new(env.clone(), log.clone(), config);
        World { env, log, broker }
    }

    /// The client's end of a new connection.
    pub(crate) fn pipe(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let broker = self.broker.clone();
        self.env.spawn("connection", async move { broker.serve_connection(theirs, "test".to_owned()).await });
        ours
    }

    /// The same, and the task that serves it.
    pub(crate) fn watched_pipe(&self) -> (DuplexStream, floe_env::Task<()>) {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let broker = self.broker.clone();
        let serve = async move { broker.serve_connection(theirs, "test".to_owned()).await };
        (ours, self.env.spawn("connection", serve))
    }

    pub(crate) fn client(&self) -> TestClient {
        Client::new(self.pipe(), "test-client")
    }

    pub(crate) async fn close(self) {
        self.log.clone().close().await;
        self.env.abort_all();
    }
}

/// Calls in this version, or in the nearest one that the API has.
pub(crate) async fn call_at<R: Request>(client: &mut TestClient, version: i16, request: &R) -> R::Response {
    let api = APIS.iter().find(|api| api.key == R::API).expect("the api is served");
    let sent = client.send_at_most(request, version.clamp(api.min, api.max)).await.expect("sent");
    client.receive(sent).await.expect("answered")
}

pub(crate) async fn call<R: Request>(client: &mut TestClient, request: &R) -> R::Response {
    client.call(request).await.expect("answered")
}

/// A batch of records with these values and growing timestamps.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    let mut builder = Builder::new(Compression::None);
    for (at, value) in values.iter().enumerate() {
        builder.push(1_000 + at as i64, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

pub(crate) async fn produce(
    client: &mut TestClient,
    topic: &str,
    values: &[&str],
) -> Result<i64, ClientError> {
    client.produce(topic, 0, batch(values), -1).await.map(|produced| produced.base_offset)
}

/// All values of partition 0.
pub(crate) async fn values(client: &mut TestClient, topic: &str) -> Vec<String> {
    let wait = floe_client::Wait { max_ms: 0, min_bytes: 0, max_bytes: 1 << 20 };
    let fetched = client.fetch(topic, 0, 0, wait).await.expect("fetched");
    let records = fetched.records(1 << 20).expect("whole");
    let text = |record: &floe_log::records::Record| {
        String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).expect("text")
    };
    records.iter().map(text).collect()
}
