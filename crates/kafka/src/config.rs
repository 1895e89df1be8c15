//! The settings of the front. What a setting cannot change is in `limits.rs`.

use std::time::Duration;

use floe_group::Rules;

use crate::limits;

/// Settings of the Kafka front. The defaults are those of [`crate::limits`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The id of this broker in the protocol (Kafka's `node.id`).
    pub node_id: i32,
    /// The host name or address that Metadata tells clients to connect to.
    pub advertised_host: String,
    /// The port that Metadata tells clients to connect to.
    pub advertised_port: u16,
    /// The zone of this broker, shown to clients as its rack.
    pub rack: Option<String>,
    /// Kafka's `auto.create.topics.enable`: Metadata creates the topics that it is asked for.
    pub auto_create_topics: bool,
    /// Kafka's `num.partitions`: partitions of a topic that is created without a number.
    pub default_partitions: u32,
    /// Settings of topics that Metadata creates.
    pub default_topic_configs: Vec<(String, String)>,
    /// Longest request frame in bytes; Kafka's `socket.request.max.bytes`.
    pub frame_bytes_max: usize,
    /// Requests of one connection that may be under way.
    pub requests_in_flight_max: usize,
    /// Connections of the listener.
    pub connections_max: usize,
    /// Connections from one address; Kafka's `max.connections.per.ip`.
    pub connections_per_ip_max: usize,
    /// Memory for requests other than produces, in bytes. Those of up to [`limits::FRAME_BYTES_UNRESERVED`] mostly
    /// need none.
    pub request_bytes_max: usize,
    /// Memory for answers until they are written, in bytes. Those of up to [`limits::ANSWER_BYTES_UNRESERVED`] need
    /// none.
    pub answer_bytes_max: usize,
    /// Bytes that may be set aside for frames of one address and have not arrived.
    pub arriving_bytes_per_ip: usize,
    /// A connection without a request for so long is closed; Kafka's `connections.max.idle.ms`.
    pub idle: Duration,
    /// Time that a started frame may take before its rate counts.
    pub slow_frame_grace: Duration,
    /// Least rate of a started frame after the grace, in bytes per second.
    pub slow_frame_bytes_per_second: u64,
    /// Longest answer to one fetch, in bytes.
    pub fetch_bytes_max: usize,
    /// Fetch sessions that the broker keeps.
    pub fetch_sessions_max: usize,
    /// Wait of an empty group's first rebalance; Kafka's `group.initial.rebalance.delay.ms`.
    pub group_initial_delay: Duration,
    /// Members of one group; Kafka's `group.max.size`.
    pub group_members_max: usize,
    /// How long committed offsets are kept when nobody uses them; Kafka's `offsets.retention.minutes`.
    pub offsets_retention: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node_id: 1,
            advertised_host: "localhost".to_owned(),
            advertised_port: 9092,
            rack: None,
            auto_create_topics: limits::AUTO_CREATE_TOPICS,
            default_partitions: limits::DEFAULT_PARTITIONS,
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
            offsets_retention: floe_group::limits::OFFSETS_RETENTION,
        }
    }
}

impl Config {
    pub(crate) fn group_rules(&self) -> Rules {
        Rules {
            initial_delay_ms: u64::try_from(self.group_initial_delay.as_millis()).unwrap_or(u64::MAX),
            members_max: self.group_members_max,
            bytes_max: floe_group::limits::GROUP_BYTES_MAX,
        }
    }
}
