//! Every limit of the front in one place. What a setting may change is in [`crate::Config`], whose defaults are
//! these numbers; the rest are properties of the protocol or of our own structures.

use std::time::Duration;

/// Longest request frame that is accepted; Kafka's `socket.request.max.bytes`.
pub const FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;
/// A frame carries at least a request header: key, version, correlation id.
pub const FRAME_BYTES_MIN: usize = 8;
/// Up to this length a frame's buffer is allocated at once when its memory is set aside; a longer frame's buffer
/// grows with the bytes that have really arrived.
pub const FRAME_BYTES_TRUSTED: usize = 1024 * 1024;
/// Frames of other APIs than Produce up to this length do not wait for memory: a heartbeat must pass …
pub const FRAME_BYTES_UNRESERVED: usize = 64 * 1024;
/// … as long as its connection has no more than this under way.
pub const CONNECTION_BYTES_UNRESERVED: usize = 128 * 1024;
/// Memory for the other frames of other APIs than Produce.
pub const REQUEST_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes that are set aside for frames of one address and have not arrived: a stranger who announces frames and does
/// not send them holds up only his own address.
pub const ARRIVING_BYTES_PER_ADDRESS: usize = 32 * 1024 * 1024;
/// Longest frame of any other API than Produce: decoded, it may take sixteen times as much memory.
pub const OTHER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much memory such a frame takes, per byte.
pub const OTHER_FRAME_WEIGHT: usize = 4;
/// What one read of the socket asks for while no long frame is under way.
pub const READ_BYTES: usize = 8 * 1024;
/// Requests of one connection that may be taken in before the first of them is answered.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 64;
/// Connections of one listener.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections from one address.
pub const CONNECTIONS_PER_IP_MAX: usize = 2_000;
/// How long the listener rests when it cannot accept.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// When the broker ends, requests under way may take so long; waiting fetches and joins are cut off then.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);
/// What the listener waits beyond that for connections to end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// A connection without a request for so long is closed; Kafka's `connections.max.idle.ms`.
pub const IDLE: Duration = Duration::from_secs(600);
/// A started frame may take so long before its rate counts.
pub const SLOW_FRAME_GRACE: Duration = Duration::from_secs(5);
/// Bytes per second that a started frame must keep after the grace.
pub const SLOW_FRAME_BYTES_PER_SECOND: u64 = 16 * 1024;
/// A frame longer than [`FRAME_BYTES_TRUSTED`] must keep a rate at which it is whole after so many seconds.
pub const LARGE_FRAME_SECONDS: u64 = 30;
/// Segments handed to one vectored write; IOV_MAX is 1,024 on Linux.
pub const WRITE_SEGMENTS_MAX: usize = 256;
/// Memory for answers, from the moment their parts are read until they are written.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Answers up to this size need none of it.
pub const ANSWER_BYTES_UNRESERVED: usize = 64 * 1024;
/// An answer may take as long as a connection may be idle, and longer at this rate …
pub const ANSWER_BYTES_PER_SECOND: u64 = 16 * 1024;
/// … but when all memory for answers is taken and it holds some, only so long …
pub const ANSWER_GRACE_SHORT: Duration = Duration::from_secs(30);
/// … and longer at this rate.
pub const ANSWER_BYTES_PER_SECOND_SHORT: u64 = 1024 * 1024;
/// How often a client that does not read is looked at.
pub const ANSWER_STEP: Duration = Duration::from_secs(5);
/// How much of a client id is kept as part of the writer's identity.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// Longest answer to one fetch, whatever the client asks for; Kafka's `fetch.max.bytes` of the broker.
pub const FETCH_BYTES_MAX: usize = 55 * 1024 * 1024;
/// A fetch of more than this gets as much as the half of the free memory for answers allows, but so much at least.
pub const FETCH_BYTES_LEAST: usize = 1024 * 1024;
/// Longest time that a fetch waits, whatever the client asks for.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(60);
/// Reads of one fetch that run side by side; together they read no more than the fetch may have.
pub const FETCH_READS_PARALLEL: usize = 8;
/// Fetch sessions that are remembered; Kafka's `max.incremental.fetch.session.cache.slots`.
pub const FETCH_SESSIONS_MAX: usize = 1_000;
/// Partitions of one fetch session; a larger fetch is served without a session.
pub const FETCH_SESSION_PARTITIONS_MAX: usize = 10_000;
/// Partitions of all fetch sessions.
pub const FETCH_SESSIONS_PARTITIONS_MAX: usize = 500_000;
/// A session may be evicted for a new one when it was not used for so long.
pub const FETCH_SESSION_IDLE: Duration = Duration::from_secs(120);

/// Groups that one DescribeGroups, OffsetFetch or FindCoordinator is answered for. What is named beyond them is left
/// out; administrators' clients ask again for what they got no answer to.
pub const GROUPS_PER_REQUEST_MAX: usize = 10_000;
/// Once an answer about several groups has so many bytes, the rest is answered with `COORDINATOR_LOAD_IN_PROGRESS`, on
/// which clients ask again for those groups alone.
pub const GROUPS_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest message of an error in an answer; old versions carry at most 32,767 bytes.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 4_096;
/// Topics in one CreateTopics or DeleteTopics request.
pub const TOPICS_PER_REQUEST_MAX: usize = 10_000;
/// Topics that one Metadata request creates by itself; what goes beyond is created when the client asks again.
pub const TOPICS_CREATED_BY_METADATA_MAX: usize = 1_000;
/// Topics and brokers that one DescribeConfigs request describes.
pub const CONFIG_RESOURCES_PER_REQUEST_MAX: usize = 1_000;
/// Memory that the settings of one topic or broker take in an answer, rounded up.
pub const CONFIG_RESOURCE_ANSWER_BYTES: usize = 24 * 1024;
/// Memory that one partition takes in an answer to Metadata, rounded up.
pub const PARTITION_ANSWER_BYTES: usize = 192;
/// Partitions of all topics of one CreateTopics request, as in Kafka.
pub const PARTITIONS_PER_REQUEST_MAX: u64 = 10_000;

const _: () = assert!(FRAME_BYTES_TRUSTED <= FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_UNRESERVED <= FRAME_BYTES_TRUSTED);
const _: () = assert!(FRAME_BYTES_UNRESERVED <= CONNECTION_BYTES_UNRESERVED);
const _: () = assert!(READ_BYTES <= FRAME_BYTES_UNRESERVED);
const _: () = assert!(OTHER_FRAME_BYTES_MAX * OTHER_FRAME_WEIGHT <= REQUEST_BYTES_MAX);
const _: () = assert!(OTHER_FRAME_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(FETCH_SESSION_PARTITIONS_MAX <= FETCH_SESSIONS_PARTITIONS_MAX);
const _: () = assert!(READ_BYTES >= FRAME_BYTES_MIN + 4);
const _: () = assert!(CONNECTIONS_PER_IP_MAX <= CONNECTIONS_MAX);
