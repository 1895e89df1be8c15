//! A Kafka broker over memory: everything is lost when it ends. For trying clients against the front alone.
//!
//! `cargo run -p floe-kafka --example broker -- 127.0.0.1:9092`

use std::sync::Arc;

use floe_env::Env;
use floe_kafka::{Broker, Config};
use floe_log::Log;
use floe_meta::{MemoryJournal, Meta, Options};
use floe_store::MemoryStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    let env = Env::real();
    let meta = Meta::open(env.clone(), Arc::new(MemoryJournal::new()), Options::default()).await?;
    let log = Log::open(env.clone(), meta, Arc::new(MemoryStore::new()), floe_log::Config::default()).await?;
    let local = listener.local_addr()?;
    let config = Config {
        advertised_host: local.ip().to_string(),
        advertised_port: local.port(),
        ..Config::default()
    };
    let (end, shutdown) = tokio::sync::watch::channel(false);
    let broker = Broker::new(env, log.clone(), config);
    let interrupted = async {
        let waited = tokio::signal::ctrl_c().await;
        end.send_replace(true);
        waited
    };
    let ((), waited) = tokio::join!(broker.serve(listener, shutdown), interrupted);
    log.close().await;
    Ok(waited?)
}
