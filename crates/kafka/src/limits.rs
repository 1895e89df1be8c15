//! Every limit of the front in one place. Some are the defaults of settings (`config.rs`); the others are properties of
//! the protocol or of our own structures.

use std::time::Duration;

/// Where the front listens by default.
pub const LISTEN_ADDRESS: &str = "127.0.0.1:9092";
/// Whether a topic that a client asks for is created; Kafka's `auto.create.topics.enable`.
pub const AUTO_CREATE_TOPICS: bool = true;
/// Partitions of a topic that is created without a number; Kafka's `num.partitions`.
pub const DEFAULT_PARTITIONS: u32 = 1;
/// Longest request frame that is accepted; Kafka's `socket.request.max.bytes`.
pub const FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;
/// A frame carries at least a request header: key, version, correlation id.
pub const FRAME_BYTES_MIN: usize = 8;
/// The buffer of a frame up to this length is allocated at once. The buffer of a longer frame grows with the bytes that
/// arrive.
pub const FRAME_BYTES_TRUSTED: usize = 1024 * 1024;
/// Frames up to this length of other APIs than Produce wait for no memory, because a heartbeat must always pass …
pub const FRAME_BYTES_UNRESERVED: usize = 64 * 1024;
/// … unless the connection has more than this under way.
pub const CONNECTION_BYTES_UNRESERVED: usize = 128 * 1024;
/// Memory for longer frames of other APIs than Produce.
pub const REQUEST_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes that may be set aside for frames of one address and have not arrived. A client that announces frames and does
/// not send them then holds up its own address only.
pub const ARRIVING_BYTES_PER_ADDRESS: usize = 32 * 1024 * 1024;
/// Of the memory that large produces share in the log, the bytes that frames of one address may have announced and not
/// sent are 1 / this. So a few slow ones hold up their own address only.
pub const LARGE_ARRIVING_SHARE: usize = 2;
/// Longest frame of any other API than Produce. Decoded it may take sixteen times as much memory.
pub const OTHER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that the topics and partitions of one Produce may take when they are decoded, beside the batches: room for
/// ten times as many batches as the log takes of one request. A partition takes 8 bytes on the wire, and its answer
/// several hundred.
pub const PRODUCE_DECODED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory that is set aside per byte of such a frame.
pub const OTHER_FRAME_WEIGHT: usize = 4;
/// Bytes that one read of the socket asks for, unless a long frame is under way.
pub const READ_BYTES: usize = 8 * 1024;
/// Requests of one connection that may be under way.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 64;
/// Connections of one listener.
pub const CONNECTIONS_MAX: usize = 8_192;
/// Connections from one address.
pub const CONNECTIONS_PER_IP_MAX: usize = 2_000;
/// Back-off of the listener when it cannot accept.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Time that requests under way may take when the broker stops. Fetches and joins that still wait are then dropped.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);
/// Time that the listener waits beyond that for connections to end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// A connection without a request for so long is closed; Kafka's `connections.max.idle.ms`.
pub const IDLE: Duration = Duration::from_secs(600);
/// Time that a started frame may take before its rate counts.
pub const SLOW_FRAME_GRACE: Duration = Duration::from_secs(5);
/// Least rate of a started frame after the grace, in bytes per second.
pub const SLOW_FRAME_BYTES_PER_SECOND: u64 = 16 * 1024;
/// A frame longer than [`FRAME_BYTES_TRUSTED`] must keep the rate that completes it in so many seconds.
pub const LARGE_FRAME_SECONDS: u64 = 30;
/// Segments handed to one vectored write; IOV_MAX is 1,024 on Linux.
pub const WRITE_SEGMENTS_MAX: usize = 256;
/// Memory for answers, from the moment their parts are read until they are written.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Answers up to this size need none of that memory.
pub const ANSWER_BYTES_UNRESERVED: usize = 64 * 1024;
/// Writing an answer may take the idle time, and more at this rate in bytes per second …
pub const ANSWER_BYTES_PER_SECOND: u64 = 16 * 1024;
/// … but while the memory for answers is used up and this answer holds some of it, only this time …
pub const ANSWER_GRACE_SHORT: Duration = Duration::from_secs(30);
/// … and more at this rate in bytes per second.
pub const ANSWER_BYTES_PER_SECOND_SHORT: u64 = 1024 * 1024;
/// Interval at which a client that does not read is checked.
pub const ANSWER_STEP: Duration = Duration::from_secs(5);
/// Bytes of a client id that are kept in a writer's identity.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// Longest answer to one fetch, whatever the client asks for; Kafka's `fetch.max.bytes` of the broker.
pub const FETCH_BYTES_MAX: usize = 55 * 1024 * 1024;
/// A fetch of more than this gets half of the free memory for answers, but this much at least.
pub const FETCH_BYTES_LEAST: usize = 1024 * 1024;
/// Longest wait of a fetch, whatever the client asks for.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a fetch begins again with a newer snapshot because records were moved under it.
pub const FETCH_PLANS_AGAIN_MAX: u32 = 3;
/// Reads of one fetch that run in parallel. Together they read no more than the fetch may have.
pub const FETCH_READS_PARALLEL: usize = 8;
/// Fetch sessions that the broker keeps; Kafka's `max.incremental.fetch.session.cache.slots`.
pub const FETCH_SESSIONS_MAX: usize = 1_000;
/// Partitions of one fetch session; a larger fetch is served without a session.
pub const FETCH_SESSION_PARTITIONS_MAX: usize = 10_000;
/// Partitions of all fetch sessions.
pub const FETCH_SESSIONS_PARTITIONS_MAX: usize = 500_000;
/// A session that was unused for so long may be evicted for a new one.
pub const FETCH_SESSION_IDLE: Duration = Duration::from_secs(120);

/// Groups that one DescribeGroups, OffsetFetch or FindCoordinator answers. Further groups are left out; admin clients
/// ask again for groups without an answer.
pub const GROUPS_PER_REQUEST_MAX: usize = 10_000;
/// Bytes of an answer about several groups. The groups after that get `COORDINATOR_LOAD_IN_PROGRESS`, and clients ask
/// again for those alone.
pub const GROUPS_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Memory of one group in the answer to ListGroups, with the longest name in it three times: as it is listed, answered
/// and encoded. All of it is set aside before the groups are listed.
pub const LISTED_GROUP_BYTES_MAX: u64 = 512 + 3 * floe_group::limits::GROUP_NAME_BYTES_MAX as u64;

/// Longest error message in an answer, in bytes; old versions carry at most 32,767.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 4_096;
/// Topics in one CreateTopics or DeleteTopics request.
pub const TOPICS_PER_REQUEST_MAX: usize = 10_000;
/// Topics that one Metadata request creates. The others are created when the client asks again.
pub const TOPICS_CREATED_BY_METADATA_MAX: usize = 1_000;
/// Log lines a minute about topics that were created because a client asked for them.
pub const CREATED_LINES_PER_MINUTE: u32 = 20;
/// Topics and brokers that one DescribeConfigs request describes.
pub const CONFIG_RESOURCES_PER_REQUEST_MAX: usize = 1_000;
/// Memory of the settings of one topic or broker in an answer, rounded up.
pub const CONFIG_RESOURCE_ANSWER_BYTES: usize = 24 * 1024;
/// Memory of one partition in an answer to Metadata, rounded up.
pub const PARTITION_ANSWER_BYTES: usize = 192;
/// Partitions of one DeleteRecords request.
pub const PARTITIONS_CUT_PER_REQUEST_MAX: usize = 100_000;
/// Partitions of all topics of one CreateTopics request, as in Kafka.
pub const PARTITIONS_PER_REQUEST_MAX: u64 = 10_000;

const _: () = assert!(PRODUCE_DECODED_BYTES_MAX >= 256 * floe_log::limits::BATCHES_PER_REQUEST_MAX);
const _: () = assert!(FRAME_BYTES_TRUSTED <= FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_UNRESERVED <= FRAME_BYTES_TRUSTED);
const _: () = assert!(FRAME_BYTES_UNRESERVED <= CONNECTION_BYTES_UNRESERVED);
const _: () = assert!(READ_BYTES <= FRAME_BYTES_UNRESERVED);
const _: () = assert!(OTHER_FRAME_BYTES_MAX * OTHER_FRAME_WEIGHT <= REQUEST_BYTES_MAX);
const _: () = assert!(OTHER_FRAME_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(FETCH_SESSION_PARTITIONS_MAX <= FETCH_SESSIONS_PARTITIONS_MAX);
const _: () = assert!(READ_BYTES >= FRAME_BYTES_MIN + 4);
const _: () = assert!(CONNECTIONS_PER_IP_MAX <= CONNECTIONS_MAX);
