//! One broker: the crates below, wired.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use floe_env::{DataDir, Env, Task};
use floe_http::{Metrics, Services};
use floe_kafka::Broker;
use floe_lake::Lake;
use floe_log::Log;
use floe_meta::{Meta, Options, SqliteJournal};
use floe_sql::Sql;
use floe_store::Store;
use floe_store::local::LocalStore;
use floe_store::s3::S3Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use crate::config::{Config, S3, StoreConfig};
use crate::query::{Catalog, Query};

/// A running broker.
pub(crate) struct Server {
    /// Where Kafka clients connect.
    pub(crate) kafka: SocketAddr,
    /// Where HTTP clients connect.
    pub(crate) http: SocketAddr,
    /// Where its data is.
    pub(crate) data: PathBuf,
    env: Env,
    log: Log,
    lake: Lake,
    shutdown: watch::Sender<bool>,
    fronts: Vec<Task<()>>,
    // Held until the end: no second process may use the directory.
    _directory: DataDir,
}

impl Server {
    /// Starts a broker; it serves when this returns.
    ///
    /// # Errors
    /// What cannot be used (directory, store, port), and what to do about it.
    pub(crate) async fn start(config: Config) -> Result<Self> {
        let env = Env::real();
        let metrics = Metrics::install(&env).context("cannot collect metrics")?;
        let directory = DataDir::open(&config.data)?;
        let kafka = listen(&config.kafka, "--kafka").await?;
        let http = listen(&config.http, "--http").await?;
        let (kafka_address, http_address) = (kafka.local_addr()?, http.local_addr()?);
        let advertised = advertised(&config, kafka_address)?;

        let journal = SqliteJournal::open(&env, &config.data.join("journal"))?;
        let meta = Meta::open(env.clone(), Arc::new(journal), Options::default()).await?;
        let store = open_store(&env, &config).await?;
        let log = Log::open(env.clone(), meta, store, log_config(&config)).await?;
        let lake = Lake::start(env.clone(), log.clone(), lake_config(&config));
        let sql = Sql::new(env.clone(), log.clone(), lake.clone(), sql_config(&config))?;
        let broker = Broker::new(env.clone(), log.clone(), kafka_config(&config, advertised));

        let (shutdown, stopping) = watch::channel(false);
        let writing = log.clone();
        let services = Services {
            env: env.clone(),
            // Whoever can connect finds a broker that has loaded its metadata, so what is left is writing.
            ready: Arc::new(move || writing.writable()),
            metrics,
            query: Arc::new(Query(sql)),
            catalog: Arc::new(Catalog(lake.clone())),
        };
        let kafka_stopping = stopping.clone();
        let fronts = vec![
            env.spawn_vital("kafka front", async move { broker.serve(kafka, kafka_stopping).await }),
            env.spawn_vital("http front", floe_http::serve(http, services, stopping)),
        ];
        info!(kafka = %kafka_address, http = %http_address, data = %config.data.display(), "serving");
        Ok(Self {
            kafka: kafka_address,
            http: http_address,
            data: config.data,
            env,
            log,
            lake,
            shutdown,
            fronts,
            _directory: directory,
        })
    }

    /// Takes no new requests, finishes open uploads, and gives leases back.
    pub(crate) async fn stop(self) {
        // Without receivers the fronts have ended already.
        let _ = self.shutdown.send(true);
        for front in self.fronts {
            if let Err(error) = front.await {
                tracing::error!(%error, "a front did not end in order");
            }
        }
        self.lake.close().await;
        self.log.close().await;
        self.env.abort_all();
    }

    /// The seam to clock and tasks.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// How many snapshots the table of a topic has had.
    pub(crate) fn snapshots(&self, table: &str) -> u64 {
        self.table(table).map_or(0, |table| table.snapshots)
    }

    /// How many rows the table of a topic holds.
    pub(crate) fn rows_in_lake(&self, table: &str) -> u64 {
        self.table(table).map_or(0, |table| table.rows)
    }

    fn table(&self, name: &str) -> Option<floe_lake::TableRef> {
        self.lake.table(&self.log.meta().snapshot(), name).ok().flatten()
    }
}

async fn listen(address: &str, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another address with {flag} HOST:PORT"))
}

/// The address that clients are told: the one asked for, else the one listened on.
fn advertised(config: &Config, listening: SocketAddr) -> Result<(String, u16)> {
    if let Some(asked) = &config.advertised {
        return Ok(asked.clone());
    }
    if listening.ip().is_unspecified() {
        bail!(
            "clients cannot connect to {}: say with --advertised HOST:PORT where they find this broker",
            listening.ip()
        );
    }
    Ok((listening.ip().to_string(), listening.port()))
}

async fn open_store(env: &Env, config: &Config) -> Result<Arc<dyn Store>> {
    match &config.store {
        StoreConfig::Local => {
            let options = floe_store::local::Options::default();
            let store = LocalStore::open(env.clone(), config.data.join("store"), options).await;
            Ok(Arc::new(store.context("cannot open the local store")?))
        }
        StoreConfig::S3(s3) => {
            Ok(Arc::new(S3Store::new(env.clone(), s3_config(s3)).context("cannot use the bucket")?))
        }
    }
}

fn s3_config(s3: &S3) -> floe_store::s3::Config {
    let credentials = s3.access_key_id.clone().zip(s3.secret_access_key.clone());
    floe_store::s3::Config {
        prefix: s3.prefix.clone(),
        region: Some(s3.region.clone()),
        endpoint: s3.endpoint.clone(),
        credentials: credentials.map(|(access_key_id, secret_access_key)| floe_store::s3::Credentials {
            access_key_id,
            secret_access_key,
        }),
        ..floe_store::s3::Config::new(&s3.bucket)
    }
}

fn log_config(config: &Config) -> floe_log::Config {
    // What this broker wrote itself is what is read most: the tail.
    let tail = config.cache_bytes / 4 * 3;
    floe_log::Config {
        object_bytes: config.object_bytes,
        linger: Some(config.linger),
        uploads_max: config.uploads,
        bytes_in_flight_max: config.append_bytes,
        cache: floe_log::Capacity { tail, cold: config.cache_bytes - tail },
        ..floe_log::Config::default()
    }
}

fn kafka_config(config: &Config, (advertised_host, advertised_port): (String, u16)) -> floe_kafka::Config {
    floe_kafka::Config {
        advertised_host,
        advertised_port,
        auto_create_topics: config.auto_create_topics,
        default_partitions: config.default_partitions,
        default_topic_configs: vec![("floe.table".to_owned(), config.table_default.as_str().to_owned())],
        frame_bytes_max: config.frame_bytes,
        connections_max: config.connections,
        group_initial_delay: config.group_initial_delay,
        ..floe_kafka::Config::default()
    }
}

/// Views commit well before SQL refuses a table because its tail is too long: what comes while they do is a part of it.
fn lake_config(config: &Config) -> floe_lake::Config {
    let default = floe_lake::Config::default();
    floe_lake::Config {
        gather_bytes: (config.sql_tail_bytes / 4).clamp(1 << 20, default.gather_bytes),
        ..default
    }
}

fn sql_config(config: &Config) -> floe_sql::Config {
    floe_sql::Config {
        memory_bytes: config.sql_memory_bytes,
        query_time_max: config.sql_timeout,
        tail_bytes_max: config.sql_tail_bytes,
        ..floe_sql::Config::default()
    }
}
