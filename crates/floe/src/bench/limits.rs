//! The limits of the load generator, in one place. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

/// Connections that write, and connections that read.
pub(super) const CONNECTIONS_MAX: u64 = 256;
/// Requests of one connection that may be without an answer.
pub(super) const IN_FLIGHT_MAX: u64 = 64;
/// The same for an idempotent producer: brokers remember five batches per producer and partition.
pub(super) const IDEMPOTENT_IN_FLIGHT_MAX: u64 = 5;
/// Partitions of a topic that is created or used.
pub(super) const PARTITIONS_MAX: u64 = 10_000;
/// Bytes of the value of one record.
pub(super) const RECORD_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one batch before compression.
pub(super) const BATCH_BYTES_MAX: u64 = 16 << 20;
/// Records of one batch, as in librdkafka.
pub(super) const RECORDS_PER_BATCH_MAX: u64 = 1_000_000;
/// Bytes that one fetch asks for.
pub(super) const FETCH_BYTES_MAX: u64 = 64 << 20;
/// The longest time for which a broker may hold a fetch.
pub(super) const WAIT_MS_MAX: u64 = 30_000;
/// Memory for batches in flight and for answers to fetches, over all connections.
pub(super) const BUFFER_BYTES_MAX: u64 = 1 << 30;
/// Bytes that an answer to a fetch has beside its batches, and a first batch that is larger than what was asked for.
pub(super) const ANSWER_SLACK_BYTES: usize = 32 << 20;
/// Different batches that are made before the load begins, and sent in turn.
pub(super) const TEMPLATES_MAX: usize = 16;
/// Memory for them.
pub(super) const TEMPLATES_BYTES_MAX: usize = 64 << 20;
/// Seconds of a run, or of its warm-up.
pub(super) const SECONDS_MAX: u64 = 7 * 24 * 3600;
/// Records of a run.
pub(super) const RECORDS_MAX: u64 = 1 << 50;
/// Records, or bytes, a second.
pub(super) const RATE_MAX: u64 = 1 << 40;
/// Requests a second: more would be due than one thread can tell.
pub(super) const REQUESTS_PER_SECOND_MAX: u64 = 1_000_000;
/// Seconds within which a request must be answered.
pub(super) const TIMEOUT_SECONDS_MAX: u64 = 600;
/// Requests of one connection that fail one after the other before the run ends.
pub(super) const FAILURES_IN_ROW_MAX: u32 = 100;
/// The pause of a reader after a fetch that the broker refused.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// How long brokers may take to be ready for a new topic, or for their first idempotent producer.
pub(super) const READY_TIME_MAX: Duration = Duration::from_secs(30);
/// The pause between two looks whether they are.
pub(super) const READY_PAUSE: Duration = Duration::from_millis(100);
/// Values above are counted as this: 73 minutes in nanoseconds.
pub(super) const LATENCY_BITS_MAX: u32 = 42;

const _: () = assert!(IN_FLIGHT_MAX as usize <= floe_client::limits::IN_FLIGHT_MAX);
const _: () = assert!(BATCH_BYTES_MAX < BUFFER_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX < BUFFER_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX as usize + ANSWER_SLACK_BYTES <= floe_client::limits::FRAME_BYTES_MAX);
