//! The demo's producer: the Kafka protocol over a socket, as any client speaks it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use floe_client::{Client, Producer, ProducerConfig};
use floe_env::Env;
use tokio::net::TcpStream;

use crate::demo::data::Sample;

/// Records between two flushes; a flush makes them visible while the stream goes on.
const RECORDS_PER_FLUSH: usize = 250;

/// An idempotent producer on a broker.
pub(crate) struct Streamer {
    env: Env,
    address: SocketAddr,
    producer: Producer<TcpStream>,
}

impl Streamer {
    /// Connects to the broker.
    pub(crate) async fn connect(env: &Env, address: SocketAddr) -> Result<Self> {
        let client = Client::connect(address, "floe-demo").await.context("cannot connect to the broker")?;
        let producer = Producer::new(env, client, ProducerConfig::default()).await?;
        Ok(Self { env: env.clone(), address, producer })
    }

    /// Creates a topic whose JSON records are rows; one that exists already is an error.
    pub(crate) async fn create_table_topic(&mut self, name: &str, partitions: i32) -> Result<()> {
        let mut client = Client::connect(self.address, "floe-demo").await?;
        client
            .create_topic(name, partitions, &[("floe.table", "json"), ("floe.table.freshness.ms", "1000")])
            .await
            .with_context(|| format!("cannot create the topic {name}: start with an empty data directory"))
    }

    /// Sends the records in order, spread over `pace`. `acknowledged` hears after each flush how many are acknowledged.
    pub(crate) async fn send(
        &mut self,
        topic: &str,
        samples: Vec<Sample>,
        pace: Duration,
        mut acknowledged: impl FnMut(u64),
    ) -> Result<()> {
        let started = self.env.monotonic();
        let total = samples.len();
        for (number, sample) in samples.into_iter().enumerate() {
            let now = self.env.now().0;
            self.producer.send(topic, now, Some(sample.key.as_bytes()), Some(&sample.value)).await?;
            let sent = number + 1;
            if sent % RECORDS_PER_FLUSH == 0 || sent == total {
                self.producer.flush().await.with_context(|| format!("cannot write to {topic}"))?;
                acknowledged(sent as u64);
                let due = started + pace.mul_f64(sent as f64 / total as f64);
                tokio::time::sleep_until(due).await;
            }
        }
        Ok(())
    }
}
