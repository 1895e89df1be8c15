//! One broker: the crates below, wired.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use floe_env::{DataDir, Env, Task};
use floe_history::History;
use floe_http::{Hosts, Metrics, Services};
use floe_kafka::Broker;
use floe_lake::Lake;
use floe_log::{FoundBy, JournalId, Log};
use floe_meta::{Meta, Options};
use floe_store::Store;
use floe_store::local::LocalStore;
use floe_store::s3::S3Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::damage::Damage;
use crate::descriptors::{self, Shares};
use crate::journal::{self, Opened};
use crate::query::{Catalog, Query, Tables};
use crate::settings::{Config, HostPort, Secret, StorePlace};
use crate::trash::Trash;

/// What a stopped broker waits for statements that run.
const STATEMENTS_END_WITHIN: Duration = Duration::from_secs(3);
/// What a stopped broker waits for its background work: steps that write some megabytes.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);

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
    journal: JournalId,
    lake: Lake,
    /// The tasks of the history.
    history: Env,
    query: Arc<Query>,
    shutdown: watch::Sender<bool>,
    fronts: Vec<Task<()>>,
    // Held until the end: no second process may use the directory.
    _directory: DataDir,
}

impl Server {
    /// Starts a broker; it serves when this returns.
    ///
    /// # Errors
    /// The directory, the store or a port cannot be used; the message says what to do.
    pub(crate) async fn start(config: Config) -> Result<Self> {
        let env = Env::real();
        let metrics = Metrics::install(&env).context("cannot collect metrics")?;
        let shares = share_descriptors(&config)?;
        let directory = DataDir::open(&config.data)?;
        let kafka = listen(&config.kafka, "--kafka").await?;
        let http = listen(&config.http, "--http").await?;
        let (kafka_address, http_address) = (kafka.local_addr()?, http.local_addr()?);
        let advertised = advertised(&config, kafka_address)?;

        let store = open_store(&env, &config).await?;
        let Opened { journal, id } = journal::open(&env, &config, &store).await?;
        let meta = Meta::open(env.clone(), journal, Options::default()).await?;
        let log_config = floe_log::Config { journal: id, ..log_config(&config) };
        let log = Log::open(env.clone(), meta, store, log_config).await?;
        let lake = Lake::start(env.clone(), log.on_behalf_of(FoundBy::View), floe_lake::Config::default());
        log.enforce_retention(vec![floe_lake::unread, floe_lake::unread_by_rebuild]);
        let history = env.scope();
        drop(history.spawn("history", History::new(log.clone(), history_config(&config)).run()));
        let query = Query::start(&env, &log, &lake, sql_config(&config), config.sql_in_process)?;
        let query = Arc::new(query);
        let clients = log.on_behalf_of(FoundBy::Client);
        let broker = Broker::new(env.clone(), clients, kafka_config(&config, shares, advertised));

        let (shutdown, stopping) = watch::channel(false);
        let writing = log.clone();
        let services = Services {
            env: env.clone(),
            connections: shares.http,
            hosts: hosts(&config),
            // The metadata is loaded before a client can connect, so readiness depends on writing alone. Tables that
            // stand still are named beside it.
            ready: Arc::new(move || writing.writable()),
            metrics,
            query: query.clone(),
            tables: Arc::new(Tables(lake.clone())),
            trash: Arc::new(Trash(log.clone())),
            damage: Arc::new(Damage(log.clone())),
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
            journal: id,
            lake,
            history,
            query,
            shutdown,
            fronts,
            _directory: directory,
        })
    }

    /// Takes no new requests, finishes open uploads, and gives leases back.
    pub(crate) async fn stop(self) {
        // Without receivers the fronts have ended already.
        let _ = self.shutdown.send(true);
        let fronts = self.fronts;
        let mut fronts = std::pin::pin!(async {
            for front in fronts {
                if let Err(error) = front.await {
                    tracing::error!(%error, "a front did not end in order");
                }
            }
        });
        // A statement that ends with an error tells its client more than a connection that is cut.
        let in_time = tokio::time::timeout(STATEMENTS_END_WITHIN, fronts.as_mut()).await;
        self.query.close();
        if in_time.is_err() {
            fronts.await;
        }
        self.lake.close().await;
        self.history.abort_all();
        self.log.close().await;
        self.env.abort_all();
        // A dropped task may have left work on a blocking thread, such as filling a pack with zeros. The next owner of
        // the data directory, or the one who removes it, must not race with that work.
        if tokio::time::timeout(DRAINED_WITHIN, self.env.drained()).await.is_err() {
            warn!("some background work did not end within {DRAINED_WITHIN:?}; it ends with the process");
        }
    }

    /// Returns when another broker has started on the store, with the same journal or with a copy of this broker's
    /// metadata.
    pub(crate) async fn fenced(&self) -> u64 {
        self.log.fenced().await.0
    }

    /// Which journal it has.
    pub(crate) fn journal(&self) -> JournalId {
        self.journal
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

/// Shares the descriptors of this process out, and says so if clients get fewer than they were meant to have.
fn share_descriptors(config: &Config) -> Result<Shares> {
    let descriptors = floe_env::raise_open_files();
    let shares = descriptors::share(descriptors, config.connections, config.connections_per_ip)?;
    if shares.kafka < config.connections {
        warn!(
            descriptors,
            connections = shares.kafka,
            connections_per_ip = shares.kafka_per_ip,
            "the process may open too few files for {} connections: raise the limit (ulimit -n) to have them",
            config.connections
        );
    }
    Ok(shares)
}

async fn listen(address: &HostPort, flag: &str) -> Result<TcpListener> {
    TcpListener::bind((address.host.as_str(), address.port))
        .await
        .with_context(|| format!("cannot listen on {address}: choose another address with {flag} HOST:PORT"))
}

/// The address that clients are told: the one asked for, else the one listened on.
fn advertised(config: &Config, listening: SocketAddr) -> Result<HostPort> {
    if let Some(asked) = &config.advertised {
        return Ok(asked.clone());
    }
    if listening.ip().is_unspecified() {
        bail!(
            "clients cannot connect to {}: say with --advertised HOST:PORT where they find this broker",
            listening.ip()
        );
    }
    Ok(HostPort::from(listening))
}

/// The names under which HTTP is answered: those that the operator gave this broker.
fn hosts(config: &Config) -> Hosts {
    let given = config.http_allowed_hosts.clone().unwrap_or_default().and(&config.http.host);
    config.advertised.iter().fold(given, |hosts, advertised| hosts.and(&advertised.host))
}

async fn open_store(env: &Env, config: &Config) -> Result<Arc<dyn Store>> {
    if let StorePlace::S3 { bucket, prefix } = &config.store {
        let store = S3Store::new(env.clone(), s3_config(config, bucket, prefix));
        return Ok(Arc::new(store.context("cannot use the bucket")?));
    }
    let directory = config.store.directory(&config.data).context("the store is in no directory")?;
    let options = floe_store::local::Options {
        disk_reserve_bytes: config.disk_reserve_bytes,
        ..floe_store::local::Options::default()
    };
    let store = LocalStore::open(env.clone(), directory, options).await;
    Ok(Arc::new(store.context("cannot open the local store")?))
}

pub(crate) fn s3_config(config: &Config, bucket: &str, prefix: &str) -> floe_store::s3::Config {
    let credentials = config.s3_access_key_id.clone().zip(config.s3_secret_access_key.clone());
    floe_store::s3::Config {
        prefix: prefix.to_owned(),
        region: Some(config.s3_region.clone()),
        endpoint: config.s3_endpoint.clone(),
        credentials: credentials.map(|(access_key_id, Secret(secret_access_key))| {
            floe_store::s3::Credentials { access_key_id, secret_access_key }
        }),
        ..floe_store::s3::Config::new(bucket)
    }
}

fn log_config(config: &Config) -> floe_log::Config {
    // Consumers mostly read what this broker wrote last: the tail.
    let tail = config.cache_bytes / 4 * 3;
    let cold = config.cache_bytes - tail;
    floe_log::Config {
        object_bytes: config.object_bytes,
        linger: Some(config.linger_ms),
        uploads_max: Some(config.uploads),
        bytes_in_flight_max: config.append_bytes,
        validate_compressed: config.validate_compressed,
        retention: floe_log::RetentionDefaults {
            ms: limit(u64::try_from(config.retention_ms.as_millis()).unwrap_or(u64::MAX)),
            bytes: limit(config.retention_bytes),
        },
        trash: floe_log::deleted::Trash {
            ms: u64::try_from(config.trash_ms.as_millis()).unwrap_or(u64::MAX),
            bytes: config.trash_bytes,
        },
        // One broker at a time: no second process has this directory, and of a shared journal a start takes the place
        // of the process before. So the holders of leases are dead, or write nothing any more.
        sole: true,
        cache: floe_log::Capacity { tail, cold, reads: floe_log::limits::READS_BYTES_MAX },
        // Whoever gives the cache little memory has little.
        merge: floe_log::MergeSizes::within(config.cache_bytes / 2),
        compaction: floe_log::Compaction::within(config.cache_bytes / 2),
        ..floe_log::Config::default()
    }
}

/// A limit as Kafka has it: -1 for none.
fn limit(number: u64) -> i64 {
    i64::try_from(number).ok().filter(|number| *number < floe_log::limits::UNLIMITED).unwrap_or(-1)
}

fn kafka_config(config: &Config, shares: Shares, advertised: HostPort) -> floe_kafka::Config {
    floe_kafka::Config {
        advertised_host: advertised.host,
        advertised_port: advertised.port,
        auto_create_topics: config.auto_create_topics,
        default_partitions: config.default_partitions,
        default_topic_configs: vec![("floe.table".to_owned(), config.table_default.clone())],
        frame_bytes_max: config.frame_bytes,
        connections_max: shares.kafka,
        connections_per_ip_max: shares.kafka_per_ip,
        group_initial_delay: config.group_initial_delay_ms,
        offsets_retention: Duration::from_secs(config.offsets_retention_minutes * 60),
        ..floe_kafka::Config::default()
    }
}

fn history_config(config: &Config) -> floe_history::Config {
    floe_history::Config { freshness: config.history_freshness_ms, ..floe_history::Config::default() }
}

fn sql_config(config: &Config) -> floe_sql::Config {
    floe_sql::Config {
        memory_bytes: config.sql_memory_bytes,
        spill_directory: Some(config.data.join("spill")),
        spill_bytes: config.sql_spill_bytes,
        disk_reserve_bytes: config.disk_reserve_bytes,
        query_time_max: config.sql_timeout_ms,
        tail_held_bytes: config.sql_tail_bytes,
        ..floe_sql::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Checked, Typed};

    /// Of all fields, also those that no setting reaches.
    fn assert_same(ours: &impl std::fmt::Debug, theirs: &impl std::fmt::Debug) {
        assert_eq!(format!("{ours:#?}"), format!("{theirs:#?}"));
    }

    #[test]
    fn without_settings_each_crate_gets_its_own_defaults() {
        let config = Checked::new(&Typed::default()).expect("the defaults are in range").config();
        let of_local_store = floe_log::Config {
            linger: Some(floe_log::limits::LINGER_LOCAL),
            uploads_max: Some(floe_log::limits::UPLOADS_LOCAL),
            sole: true,
            ..floe_log::Config::default()
        };
        assert_same(&log_config(&config), &of_local_store);
        let of_front = floe_kafka::Config {
            default_topic_configs: vec![("floe.table".to_owned(), "off".to_owned())],
            ..floe_kafka::Config::default()
        };
        let advertised = HostPort { host: of_front.advertised_host.clone(), port: of_front.advertised_port };
        let shares =
            descriptors::share(1 << 20, config.connections, config.connections_per_ip).expect("enough");
        assert_same(&kafka_config(&config, shares, advertised), &of_front);
        let of_sql = floe_sql::Config {
            spill_directory: Some(config.data.join("spill")),
            ..floe_sql::Config::default()
        };
        assert_same(&sql_config(&config), &of_sql);
    }
}
