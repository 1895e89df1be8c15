//! Every limit of this crate, in one place. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

// The cache.

/// Memory for objects that this broker wrote.
pub const CACHE_TAIL_BYTES: usize = 256 << 20;
/// Memory for what lagging readers fetch.
pub const CACHE_COLD_BYTES: usize = 64 << 20;
/// Pieces of an object below this size are copied together when the object is kept: they came in socket buffers that
/// are often larger than they are.
pub const CACHE_COPIED_BYTES: usize = 16 << 10;
/// What an object in the tail takes up beside its bytes, rounded up …
pub const CACHE_OBJECT_OVERHEAD: usize = 512;
/// … and each of its pieces.
pub const CACHE_PIECE_OVERHEAD: usize = 128;
/// What is fetched and kept at once: large enough that a request is worth its price, small enough for the cold lane.
pub const BLOCK_BYTES: u64 = 1 << 20;
/// Neighbouring blocks that one GET fetches.
pub const GET_BLOCKS_MAX: u64 = 8;
/// GETs under way at one time.
pub const GETS_IN_FLIGHT_MAX: usize = 32;

// The writer.

/// A WAL object closes at this size.
pub const OBJECT_BYTES: usize = 8 << 20;
/// On a remote store, how long the first request of an object waits for others.
pub const LINGER_REMOTE: Duration = Duration::from_millis(100);
/// Uploads at one time to a local store: more would only make each slower.
pub const UPLOADS_LOCAL: usize = 2;
/// Uploads at one time to a remote store: at 100 ms each this is 1.2 GB/s.
pub const UPLOADS_REMOTE: usize = 16;
/// On a remote store, how long the upload of a small object may take: clients wait 30 s for their answer …
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// … a large one may take longer, at this many bytes per second …
pub const UPLOAD_BYTES_PER_SECOND: u64 = 1 << 20;
/// … up to this.
pub const UPLOAD_TIMEOUT_MAX: Duration = Duration::from_secs(25);
/// Memory for requests that are being read from sockets, written or answered.
pub const BYTES_IN_FLIGHT_MAX: usize = 256 << 20;
/// Requests above this size share one half of that memory: they may be on their way for long.
pub const LARGE_REQUEST_BYTES: usize = 1 << 20;
/// Callers that append without reserving are refused at this multiple of the budget.
pub const WAITING_SHARE: usize = 2;
/// How long the limits of a topic are remembered.
pub const TOPIC_CONFIG_TTL: Duration = Duration::from_secs(1);
/// Topics whose limits are remembered.
pub const TOPIC_CONFIGS_MAX: usize = 10_000;

// The reader.

/// Extents that one read looks at: a read of tiny extents ends early and the next goes on. Each may cost a block of
/// an object of its own.
pub const EXTENTS_PER_READ_MAX: usize = 64;
/// Places inside extents that are remembered for readers that go on there; the least recently used are forgotten.
pub const PLACES_MAX: usize = 16_384;
/// Bytes that a read may fetch beyond what it wants, because it fetches whole blocks.
pub const READ_SURPLUS_BYTES_MAX: u64 = 8 << 20;
/// Bytes that a batch may decompress to when a timestamp is looked up; of a larger one only the header is used.
pub const DECODED_BYTES_MAX: usize = 32 << 20;
/// Records and headers of one batch that are decoded: each takes 100 bytes of memory whatever it holds, and 7 or 2
/// bytes are enough to make one. The most that librdkafka puts in a batch is 1,000,000 records.
pub const RECORDS_DECODED_MAX: usize = 2 << 20;

// Objects and their ids.

/// Object ids of one lease.
pub const LEASE_IDS: u64 = 256;
/// How long a lease on object ids lasts without renewal.
pub const LEASE_TTL: Duration = Duration::from_secs(120);
/// How long an upload that someone else commits keeps its lease.
pub const DETACHED_UPLOAD_TTL: Duration = Duration::from_secs(600);
/// How long trash is kept: for readers with an old snapshot, and for uploads that are still on their way.
pub const TRASH_GRACE: Duration = Duration::from_secs(600);
/// Pause between two rounds of the cleaner.
pub const CLEANER_PAUSE: Duration = Duration::from_secs(30);
/// Pause before the next round when one has left something to do.
pub const CLEANER_STEP_PAUSE: Duration = Duration::from_millis(50);
/// The cleaner's lease on its job; longer than a round should take.
pub const CLEANER_LEASE: Duration = Duration::from_secs(120);
/// Expired leases that one round ends.
pub const LEASES_ENDED_PER_ROUND: usize = 100;
/// Objects that one round deletes.
pub const TRASH_PER_ROUND: usize = 10_000;
/// Deletions at one time.
pub const DELETES_AT_ONCE: usize = 64;
/// How long an idle producer is remembered (Kafka: `producer.id.expiration.ms`).
pub const PRODUCER_TTL: Duration = Duration::from_secs(24 * 3600);
/// Producers that one round forgets.
pub const PRODUCERS_EXPIRED_MAX: usize = 10_000;
/// How long an append that failed says that the next would, too: a broker to which nobody sends any more because of it
/// would otherwise never learn that the fault has ended.
pub const TROUBLE_TIME: Duration = Duration::from_secs(30);
/// Producers that one commit forgets.
pub const PRODUCERS_PER_COMMIT: usize = 1_000;

const _: () = assert!(OBJECT_BYTES < BYTES_IN_FLIGHT_MAX);
const _: () = assert!(floe_store::limits::REQUEST_TIME_MAX.as_secs() < TRASH_GRACE.as_secs());
const _: () = assert!(BLOCK_BYTES as usize * EXTENTS_PER_READ_MAX <= CACHE_COLD_BYTES);
const _: () = assert!(BLOCK_BYTES * GET_BLOCKS_MAX < CACHE_COLD_BYTES as u64);
