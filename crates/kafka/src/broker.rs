//! The broker: what all connections share, and the loop that accepts them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use floe_env::Env;
use floe_log::Log;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::call::PRINCIPAL;
use crate::budget::Budget;
use crate::conn::connection::{self, Peer};
use crate::conn::doorman::{self, Doorman};
use crate::conn::frames::Pace;
use crate::directory::Directory;
use crate::fetch::session::Sessions;
use crate::limits;
use floe_group::Coordinator;
use floe_group::Rules;

/// Settings of the Kafka front. The defaults are those of [`crate::limits`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The number under which clients know this broker.
    pub node_id: i32,
    /// The host name or address that clients are told to connect to.
    pub advertised_host: String,
    /// The port that clients are told to connect to.
    pub advertised_port: u16,
    /// The zone of this broker, shown to clients as its rack.
    pub rack: Option<String>,
    /// Kafka's `auto.create.topics.enable`: a topic that a client asks for is created.
    pub auto_create_topics: bool,
    /// Kafka's `num.partitions`: for topics that are created without a number.
    pub default_partitions: u32,
    /// Settings that topics get when they are created by themselves.
    pub default_topic_configs: Vec<(String, String)>,
    /// Kafka's `socket.request.max.bytes`.
    pub frame_bytes_max: usize,
    /// Requests of one connection that are taken in before the first is answered.
    pub requests_in_flight_max: usize,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections from one address; Kafka's `max.connections.per.ip`.
    pub connections_per_ip_max: usize,
    /// Memory for requests other than produces; those of up to [`limits::FRAME_BYTES_UNRESERVED`] mostly need none.
    pub request_bytes_max: usize,
    /// Memory for answers until they are written; those of up to [`limits::ANSWER_BYTES_UNRESERVED`] need none.
    pub answer_bytes_max: usize,
    /// Bytes of one address that are set aside for frames and have not arrived.
    pub arriving_bytes_per_ip: usize,
    /// Kafka's `connections.max.idle.ms`.
    pub idle: Duration,
    /// How long a started frame may take before its rate counts.
    pub slow_frame_grace: Duration,
    /// The rate that a started frame must keep after the grace, in bytes per second.
    pub slow_frame_bytes_per_second: u64,
    /// Longest answer to one fetch.
    pub fetch_bytes_max: usize,
    /// Fetch sessions that are remembered.
    pub fetch_sessions_max: usize,
    /// Kafka's `group.initial.rebalance.delay.ms`.
    pub group_initial_delay: Duration,
    /// Kafka's `group.max.size`.
    pub group_members_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node_id: 1,
            advertised_host: "localhost".to_owned(),
            advertised_port: 9092,
            rack: None,
            auto_create_topics: true,
            default_partitions: 1,
            default_topic_configs: Vec::new(),
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX,
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_ip_max: limits::CONNECTIONS_PER_IP_MAX,
            request_bytes_max: limits::REQUEST_BYTES_MAX,
            answer_bytes_max: limits::ANSWER_BYTES_MAX,
            arriving_bytes_per_ip: limits::ARRIVING_BYTES_PER_ADDRESS,
            idle: limits::IDLE,
            slow_frame_grace: limits::SLOW_FRAME_GRACE,
            slow_frame_bytes_per_second: limits::SLOW_FRAME_BYTES_PER_SECOND,
            fetch_bytes_max: limits::FETCH_BYTES_MAX,
            fetch_sessions_max: limits::FETCH_SESSIONS_MAX,
            group_initial_delay: Duration::from_millis(floe_group::limits::GROUP_INITIAL_REBALANCE_DELAY_MS),
            group_members_max: floe_group::limits::GROUP_MEMBERS_MAX,
        }
    }
}

impl Config {
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            frame_bytes_max: self.frame_bytes_max,
            idle: self.idle,
            slow_grace: self.slow_frame_grace,
            slow_bytes_per_second: self.slow_frame_bytes_per_second,
        }
    }

    fn doors(&self) -> doorman::Limits {
        doorman::Limits {
            total: self.connections_max,
            per_ip: self.connections_per_ip_max,
            arriving_bytes_per_ip: self.arriving_bytes_per_ip,
        }
    }

    fn group_rules(&self) -> Rules {
        Rules {
            initial_delay_ms: u64::try_from(self.group_initial_delay.as_millis()).unwrap_or(u64::MAX),
            members_max: self.group_members_max,
            bytes_max: floe_group::limits::GROUP_BYTES_MAX,
        }
    }
}

/// A Kafka broker over a log. Clones are the same broker.
#[derive(Clone)]
pub struct Broker(pub(crate) Arc<Inner>);

/// What all connections share.
pub(crate) struct Inner {
    pub(crate) env: Env,
    pub(crate) log: Log,
    pub(crate) config: Config,
    pub(crate) cluster_id: String,
    pub(crate) principal: Arc<str>,
    pub(crate) directory: Directory,
    pub(crate) groups: Coordinator,
    pub(crate) sessions: Mutex<Sessions>,
    /// Memory for requests other than produces.
    pub(crate) requests: Budget,
    /// Memory for answers until they are written.
    pub(crate) answers: Budget,
    pub(crate) shutdown: watch::Sender<bool>,
    doorman: Doorman,
}

impl Broker {
    /// A broker over `log` that serves nobody yet.
    pub fn new(env: Env, log: Log, config: Config) -> Broker {
        let groups = Coordinator::start(&env, log.meta(), config.group_rules());
        let directory = Directory::new(log.meta());
        let doorman = Doorman::new(config.doors());
        let requests = Budget::measured(config.request_bytes_max, "floe_kafka_request_bytes");
        let answers = Budget::measured(config.answer_bytes_max, "floe_kafka_answer_bytes");
        let sessions =
            Mutex::new(Sessions::new(config.fetch_sessions_max, limits::FETCH_SESSIONS_PARTITIONS_MAX));
        let cluster_id = log.cluster_id();
        let (shutdown, _) = watch::channel(false);
        let principal = PRINCIPAL.into();
        Broker(Arc::new(Inner {
            env,
            log,
            config,
            cluster_id,
            principal,
            directory,
            groups,
            sessions,
            requests,
            answers,
            shutdown,
            doorman,
        }))
    }

    /// Accepts connections until `shutdown` says true. Connections then take in no more requests and end when those
    /// under way are answered, or after [`limits::SHUTDOWN_PATIENCE`]; this returns when all have ended.
    pub async fn serve(&self, listener: TcpListener, mut shutdown: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                // A dropped sender means that nobody will ever ask to end.
                Ok(_) = shutdown.wait_for(|shutdown| *shutdown) => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file handles, mostly: give connections time to end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            let peer = Peer { name: address.to_string().into(), ip: Some(address.ip()) };
            let place = match self.0.doorman.admit(peer.ip) {
                Ok(place) => place,
                Err(reason) => {
                    metrics::counter!("floe_kafka_connections_refused_total").increment(1);
                    tracing::warn!(peer = &*peer.name, %reason, "connection turned away");
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(peer = &*peer.name, %error, "answers may be delayed");
            }
            let (source, sink) = stream.into_split();
            self.0.env.spawn("connection", connection::serve(self.0.clone(), source, sink, peer, place));
        }
        self.0.shutdown.send_replace(true);
        // Every connection ends by itself within the patience; the second on top is for writing what is left.
        let patience = limits::SHUTDOWN_PATIENCE + limits::SHUTDOWN_GRACE;
        if tokio::time::timeout(patience, self.0.doorman.empty()).await.is_err() {
            tracing::warn!("connections are still open after {patience:?}, they are cut off");
        }
    }

    /// Serves one connection that somebody else accepted, until it ends.
    pub async fn serve_connection<S>(&self, stream: S, peer: String)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let peer = Peer { name: peer.into(), ip: None };
        match self.0.doorman.admit(None) {
            Ok(place) => {
                let (source, sink) = tokio::io::split(stream);
                connection::serve(self.0.clone(), source, sink, peer, place).await;
            }
            Err(reason) => tracing::warn!(peer = &*peer.name, %reason, "connection turned away"),
        }
    }
}
