//! Every limit of the HTTP front.

use std::time::Duration;

/// Where the front listens by default.
pub const LISTEN_ADDRESS: &str = "127.0.0.1:8080";
/// Connections served at once, if the process may open as many files. The next one takes the place of an idle one.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Connections beyond that which only get an answer to probes, for when none is idle. The next one gets 503.
pub const PROBE_CONNECTIONS: usize = 16;
/// Time after an answer in which an idle connection keeps its place: the end of the answer may be on its way.
pub const IDLE_BEFORE_EVICTION: Duration = Duration::from_secs(1);
/// Time for the head of a request, counted from the end of the previous request. So it is the idle limit too.
pub const HEAD_READ_SECONDS_MAX: Duration = Duration::from_secs(60);
/// Bytes of a request's head (hyper's buffer for it).
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Header fields of a request.
pub const HEADERS_MAX: usize = 64;
/// Bytes of a request's body: a statement of 256 KiB with every character escaped (`\u0000`), and 64 KiB for the rest.
pub const BODY_BYTES_MAX: usize = (6 * 256 + 64) << 10;
/// Time for the whole body of a request.
pub const BODY_READ_SECONDS_MAX: Duration = Duration::from_secs(30);
/// Time for a handler, except for queries, which have limits of their own (`floe_sql::limits`).
pub const HANDLER_SECONDS_MAX: Duration = Duration::from_secs(30);
/// Total time that an answer waits for its client until the client has taken [`WRITE_BYTES_MIN`]. A client that took
/// less is disconnected. So a reply stays in memory for minutes at most.
pub const WRITE_STALL_SECONDS_MAX: Duration = Duration::from_secs(60);
/// Bytes that a client must take in [`WRITE_STALL_SECONDS_MAX`] of waiting: about 17 KB a second.
pub const WRITE_BYTES_MIN: usize = 1 << 20;
/// Time for requests in progress to end at shutdown. Service managers often wait 10 s, and other parts end after this.
pub const DRAIN_SECONDS_MAX: Duration = Duration::from_secs(5);
/// A reply up to this size is held back until it is complete, so that a late error is still a proper error. A larger
/// reply is streamed, and an error then ends the connection in the middle of the body.
pub const REPLY_BUFFER_BYTES: usize = 4 << 20;
/// Tables that `/ready` names when they stand still. It always says how many there are.
pub const STANDING_STILL_MAX: usize = 100;
/// Deleted topics that `/api/v1/trash` lists, those that were deleted last. It always says how many there are.
pub const DELETED_TOPICS_LISTED: usize = 1_000;
/// Entries of damaged records that `/api/v1/topics/{topic}/damage` lists. It always says how many there are.
pub const DAMAGE_LISTED: usize = 100;
/// Pause after a failed accept (no descriptors left), so that the loop does not spin.
pub const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Interval at which histograms are folded. Without it their buffers grow.
pub const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

const _: () = assert!(HEAD_BYTES_MAX >= 8 << 10, "hyper refuses smaller buffers");
const _: () = assert!(BODY_BYTES_MAX < 4 << 20);
const _: () = assert!(BODY_READ_SECONDS_MAX.as_secs() <= WRITE_STALL_SECONDS_MAX.as_secs());
