//! Over real sockets: limits on connections, and shutdown.

use std::sync::Arc;
use std::time::Duration;

use floe_client::Client;
use floe_env::Env;
use floe_kafka::{Broker, Config};
use floe_log::Log;
use floe_meta::{MemoryJournal, Meta, Options};
use floe_store::MemoryStore;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn connections_are_limited_per_address_and_end_with_the_broker() {
    let env = Env::real();
    let meta =
        Meta::open(env.clone(), Arc::new(MemoryJournal::new()), Options::default()).await.expect("opens");
    let store = Arc::new(MemoryStore::new());
    let log = Log::open(env.clone(), meta, store, floe_log::Config::default()).await.expect("opens");
    let config = Config { connections_per_ip_max: 2, ..Config::default() };
    let broker = Broker::new(env.clone(), log.clone(), config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (end, shutdown) = tokio::sync::watch::channel(false);
    let serving = env.spawn("serve", async move { broker.serve(listener, shutdown).await });

    let mut first = Client::connect(address, "first").await.expect("within the limit");
    let second = Client::connect(address, "second").await.expect("within the limit");
    let mut third = TcpStream::connect(address).await.expect("accepted, then closed");
    let mut byte = [0];
    assert!(matches!(third.read(&mut byte).await, Ok(0) | Err(_)), "turned away");
    drop(second);
    // The seat is free when the broker has noticed the close. Until then new connections are turned away.
    let mut patience = 500;
    while Client::connect(address, "third").await.is_err() {
        patience -= 1;
        assert!(patience > 0, "the place of a closed connection does not come back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.create_topic("t", 1, &[]).await.expect("created");
    // A waiting fetch is dropped, so shutdown does not wait for its minute.
    let mut waiting =
        floe_wire::fetch::FetchRequest { max_wait_ms: 60_000, min_bytes: 1, ..Default::default() };
    waiting.topics.push(floe_wire::fetch::FetchTopic {
        topic: "t".to_owned(),
        partitions: vec![Default::default()],
        ..Default::default()
    });
    let waiting = first.send_at_most(&waiting, 12).await.expect("sent");
    end.send_replace(true);
    serving.await.expect("the listener ends");
    assert!(first.receive(waiting).await.is_err(), "connections end with the broker");
    log.close().await;
}
