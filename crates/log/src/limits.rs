//! Every limit of this crate, in one place. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

// The cache.

/// Memory for objects that this broker wrote.
pub const CACHE_TAIL_BYTES: usize = 192 << 20;
/// Memory for blocks that lagging readers fetch.
pub const CACHE_COLD_BYTES: usize = 64 << 20;
/// Memory for blocks that all reads under way take from the store or from the cold lane. A read waits for its share,
/// and what it returns counts elsewhere.
pub const READS_BYTES_MAX: usize = 64 << 20;
/// Bytes of blocks that one read takes, unless its first batch is larger.
pub const READ_BLOCKS_BYTES_MAX: u64 = 16 << 20;
/// The batches of a cached object are copied into buffers of about this size; a larger batch has its own. A reader that
/// keeps one batch keeps its buffer.
pub const CACHE_CHUNK_BYTES: usize = 128 << 10;

/// A buffer is kept for a large batch in it if all else is at most one part in so many.
pub const CACHE_ALONE_REST: usize = 8;
/// A larger object is copied where it holds up no other task.
pub const CACHE_COPIED_APART_BYTES: usize = OBJECT_BYTES * 2;
/// Memory that an object in the tail takes beside its bytes, rounded up.
pub const CACHE_OBJECT_OVERHEAD: usize = 512;
/// Memory that each buffer of an object in the tail takes beside its bytes, rounded up.
pub const CACHE_CHUNK_OVERHEAD: usize = 128;
/// Memory that a block in the cold lane takes beside its bytes, rounded up.
pub const CACHE_BLOCK_OVERHEAD: usize = 512;
/// The unit of fetching and caching: large enough that a request is worth its price, small enough for the cold
/// lane.
pub const BLOCK_BYTES: u64 = 1 << 20;
/// Neighbouring blocks that one GET fetches at most.
pub const GET_BLOCKS_MAX: u64 = 8;
/// GETs in flight at most.
pub const GETS_IN_FLIGHT_MAX: usize = 32;

/// Reads outside of the tail that are remembered, to tell how many readers share the cold lane.
pub const COLD_READS_MAX: usize = 64;
/// How long they are remembered.
pub const COLD_READS_TIME: Duration = Duration::from_secs(10);
/// Bytes of an extent that is fetched alone, without the rest of its blocks.
pub const ALONE_BYTES_MAX: u64 = BLOCK_BYTES / 4;
/// Partitions that are read outside of the tail, up to which extents are fetched alone. With more of them, others need
/// the rest of the blocks.
pub const ALONE_READERS_MAX: u64 = 4;
/// Extents that were fetched alone, and are remembered: whoever needs one again fetches its blocks, which are kept.
pub const ALONE_REMEMBERED_MAX: usize = 4_096;

// The WAL writer.

/// A WAL object closes at this size.
pub const OBJECT_BYTES: usize = 8 << 20;
/// The bytes that ride with one commit are closed at this size, where the journal carries them: some milliseconds of a
/// disk's time, which a small request waits behind large ones.
pub const FRAME_BYTES: usize = 4 << 20;
/// Commits with bytes that are open at once: one that the journal makes durable, and one that is ready behind it.
pub const FRAMES_OPEN_MAX: usize = 2;
/// From this size on, the checksum of a batch is joined to that of others; a smaller one is summed again in less time.
pub const CRC_JOINED_BYTES: usize = 256 << 10;
/// How long the first request of an object waits for others, on a local store: as long as another upload is in flight.
pub const LINGER_LOCAL: Duration = Duration::ZERO;
/// How long the first request of an object waits for others, on a remote store.
pub const LINGER_REMOTE: Duration = Duration::from_millis(100);
/// Uploads in flight to a local store; more would only slow each other down.
pub const UPLOADS_LOCAL: usize = 2;
/// Uploads in flight to a remote store: at 100 ms each, 16 objects of 8 MiB make 1.2 GB/s.
pub const UPLOADS_REMOTE: usize = 16;
/// How long the upload of a small object to a remote store may take. Clients wait 30 s for their answer.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of an upload grows by one second for this many bytes.
pub const UPLOAD_BYTES_PER_SECOND: u64 = 1 << 20;
/// The longest timeout of an upload, whatever its size.
pub const UPLOAD_TIMEOUT_MAX: Duration = Duration::from_secs(25);
/// How long a write of the journal may take before the broker says that it is not ready.
pub const STALLED_AFTER: Duration = Duration::from_secs(5);
/// Memory for requests that are being read from sockets, written or answered.
pub const BYTES_IN_FLIGHT_MAX: usize = 256 << 20;
/// Requests above this size share one half of that memory, because they may take long to arrive.
pub const LARGE_REQUEST_BYTES: usize = 1 << 20;
/// Appends are refused once unanswered requests exceed the budget by this factor. Only callers that do not reserve
/// get there.
pub const WAITING_SHARE: usize = 2;
/// Batches of one append. Those behind them are refused, and may be sent again in another request.
pub const BATCHES_PER_REQUEST_MAX: usize = 10_000;
/// Batches of one WAL object. They bound the changes of its commit: without that bound, one client's request of a
/// million small batches would make a commit that no journal takes, for all clients of the object.
pub const BATCHES_PER_OBJECT_MAX: usize = 10_000;
/// Bytes of changes that one batch adds to the commit of its object at most: an extent, the head of a partition, a
/// producer and their count, and a writer with two long names.
pub const CHANGE_BYTES_PER_BATCH: usize = 2_560;
/// Batches of all unanswered requests. Each takes half a kilobyte of memory beside its own bytes.
pub const WAITING_BATCHES_MAX: usize = 256 << 10;
/// How long the limits of a topic are cached.
pub const TOPIC_CONFIG_TTL: Duration = Duration::from_secs(1);
/// Topics whose limits are cached; a full cache is emptied.
pub const TOPIC_CONFIGS_MAX: usize = 10_000;

// The walk over the records of a batch before it is taken.

/// Whether compressed batches are decompressed once before they are taken.
pub const VALIDATE_COMPRESSED: bool = true;
/// Bytes that one batch may decompress to.
pub const DECOMPRESSED_BYTES_MAX: u64 = 128 << 20;
/// Bytes that one byte of a compressed batch may become, beyond [`DECOMPRESSED_BYTES_FREE`].
pub const DECOMPRESSION_RATIO_MAX: u64 = 1_024;
/// Bytes that a batch may decompress to whatever its size.
pub const DECOMPRESSED_BYTES_FREE: u64 = 64 << 20;
/// Bytes that all batches of one request may decompress to.
pub const DECOMPRESSED_BYTES_PER_REQUEST_MAX: u64 = 256 << 20;
/// Bytes of decompressed data that a walk holds.
pub const WALK_BUFFER_BYTES: usize = 16 << 10;
/// Batches from this size on are walked where they hold up no other connection.
pub const WALK_APART_BYTES: usize = 256 << 10;

// Segments.

/// A batch up to this size is copied into a piece of a segment together with others; a larger one is a piece itself.
pub const SEGMENT_COPIED_BYTES: usize = 4 << 10;
/// Small batches of a segment are copied into pieces of this size.
pub const SEGMENT_PIECE_BYTES: usize = 64 << 10;
/// Bytes of a footer of a segment that are read. One of a million commits has some eight million.
pub const SEGMENT_FOOTER_BYTES_MAX: u64 = 64 << 20;

// The order of producers.

/// Producers (per partition) whose batches in flight or in trouble are remembered. The least recently used are
/// forgotten, and with them only the protection of their order while a partition does not know them.
pub const ORDER_PRODUCERS_MAX: usize = 65_536;
/// How long a failed batch holds back those that were sent after it: clients give a record up after two minutes
/// (`delivery.timeout.ms`).
pub const ORDER_FAILED_TIME: Duration = Duration::from_secs(120);

// The reader.

/// Extents that one read looks at. A read of tiny extents ends early, and the next one continues. Each extent may
/// cost a block of an object of its own.
pub const EXTENTS_PER_READ_MAX: usize = 64;
/// Positions inside extents that are remembered for readers that continue there (LRU).
pub const PLACES_MAX: usize = 16_384;
/// Bytes of a section from which on its seek index is used. A smaller one is read with the one GET that fetches its
/// blocks.
pub const SEEK_BYTES_MIN: u64 = BLOCK_BYTES;
/// Memory for decoded seek indexes, 12 KiB each at most.
pub const SEEK_INDEXES_BYTES: usize = 4 << 20;
/// Bytes from the end of a segment that are read to find its footer. Most footers are smaller.
pub const FOOTER_READ_BYTES: u64 = 128 << 10;
/// Memory for footers of segments that were read. A larger one is read each time.
pub const FOOTERS_BYTES: usize = 16 << 20;
/// Bytes that a read may fetch beyond what it wants, because it fetches whole blocks.
pub const READ_SURPLUS_BYTES_MAX: u64 = 8 << 20;
/// Lookups of offsets by time that run at once, of all connections. Each takes a thread while it scans.
pub const LOOKUPS_MAX: usize = 8;
/// Bytes of batches that a lookup by time holds, or one batch if that is larger.
pub const LOOKUP_READ_BYTES: usize = 1 << 20;
/// Bytes that a batch may decompress to when a timestamp is looked up. Of a larger batch only the header is used.
pub const DECODED_BYTES_MAX: usize = 32 << 20;
/// Records and headers of one batch that are decoded. Each takes 100 bytes of memory, however short, and 7 or 2
/// bytes are enough to make one. librdkafka puts at most 1,000,000 records in a batch.
pub const RECORDS_DECODED_MAX: usize = 2 << 20;

// Objects and their ids.

/// Object ids per lease.
pub const LEASE_IDS: u64 = 256;
/// How long a lease on object ids lasts without renewal.
pub const LEASE_TTL: Duration = Duration::from_secs(120);
/// How long a detached upload, which its caller commits, keeps its lease.
pub const DETACHED_UPLOAD_TTL: Duration = Duration::from_secs(600);
/// How long trash is kept at least: for uploads still in flight, and as a second defence for readers.
pub const TRASH_GRACE: Duration = Duration::from_secs(600);
/// Objects whose commit is still open, beside those that are being uploaded. More wait in memory.
pub const COMMITS_OPEN_MAX: usize = 32;
/// Ids whose upload or commit failed and that the journal does not know as useless yet. Then no more are given out.
pub const USELESS_IDS_MAX: usize = 16;
/// Detached uploads whose caller has not committed them yet.
pub const DETACHED_UPLOADS_MAX: usize = 16;
/// Uploads under way at once, whatever the settings say.
pub const UPLOADS_MAX: usize = 64;
/// Objects that one process can leave behind that no record names: those in the four limits above. Twice the uploads,
/// because as many wait for an earlier one to end.
pub const UNEXPLAINED_OBJECTS_MAX: usize =
    2 * UPLOADS_MAX + COMMITS_OPEN_MAX + USELESS_IDS_MAX + DETACHED_UPLOADS_MAX;
/// How long a session lasts without renewal. A dead broker keeps trash that long; a living one renews it four times.
pub const SESSION_TTL: Duration = Duration::from_secs(60);
/// How long a reader keeps what its snapshot refers to. A longer one may find that it is gone.
pub const PINNED_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

// Merging.

/// Bytes of the batches of a segment. A merge takes twice this in memory: what it has read, and what it writes.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// The same, in a process with little memory, at least.
pub const MERGE_SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// Objects below this size are small.
pub const MERGE_SMALL_BYTES: u64 = 64 << 10;
/// So many small objects become one, whatever their size. A batch has more than 64 bytes, so that one is not small.
pub const MERGE_SMALL_OBJECTS: usize = 1_024;
/// Extents of this length are sorted without being gathered before.
pub const MERGE_LONG_BYTES: u64 = 256 << 10;
/// Bytes that are sorted together: the extents become up to sixteen times as long.
pub const MERGE_POOL_BYTES: u64 = 16 * SEGMENT_BYTES;
/// Extents that are sorted together at most. They take some 60 MB of memory until then.
pub const MERGE_POOL_EXTENTS_MAX: u64 = 256 << 10;
/// Extents of one merge.
pub const MERGE_EXTENTS_MAX: u64 = 100_000;
/// Extents that one commit of a merge replaces. Each may make an object trash and free a writer.
pub const MERGE_EXTENTS_PER_COMMIT: usize = 1_500;
/// A merged extent has at most this part of what its topic keeps, by time and by bytes: retention takes whole extents.
pub const MERGE_RETAINED_PARTS: u64 = 16;
/// Bytes of one read of a merge.
pub const MERGE_GET_BYTES: u64 = 8 << 20;
/// Reads of a merge in flight.
pub const MERGE_GETS_MAX: usize = 4;
/// How often a plan is made again without what was found damaged, before the round ends.
pub const MERGE_PLANS_MAX: usize = 4;
/// The pause of a merge while requests of producers wait to be written.
pub const MERGE_YIELD_PAUSE: Duration = Duration::from_millis(10);
/// So many of these pauses in a row: merging goes on under any load.
pub const MERGE_YIELDS_MAX: usize = 5;
/// The pause between two looks for a merge that is due.
pub const MERGE_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two merges, and between two commits of one.
pub const MERGE_STEP_PAUSE: Duration = Duration::from_millis(20);
/// The first pause after a merge that failed.
pub const MERGE_RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause after a merge that failed.
pub const MERGE_RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

// Damage.

/// Runs of records that cannot be read, as far as they are named. Each takes some 300 bytes. With more, nothing is
/// compacted.
pub const DAMAGE_ENTRIES_MAX: usize = 16_384;
/// Objects, and commits of the journal, with damage. With more, nothing is merged.
pub const DAMAGE_SOURCES_MAX: usize = 32_768;
/// Bytes of the text that says what is damaged.
pub const DAMAGE_TEXT_BYTES_MAX: usize = 400;
/// The pause between two looks whether a full list has entries that the map has no more.
pub const DAMAGE_COMPARED_PAUSE: Duration = Duration::from_secs(1);
/// How long merging and compaction leave damage alone before they try it again.
pub const DAMAGE_PAUSE: Duration = Duration::from_secs(600);

// `floe check`.

/// Bytes of an object that a check reads at once, or one batch if that is larger.
pub const CHECK_READ_BYTES: u64 = 8 << 20;

// The cleaner and retention.

/// The pause between two rounds of the cleaner.
pub const CLEANER_PAUSE: Duration = Duration::from_secs(30);
/// The pause before the next round when one has left work.
pub const CLEANER_STEP_PAUSE: Duration = Duration::from_millis(50);
/// How long the cleaner's lease lasts; longer than a round should take.
pub const CLEANER_LEASE: Duration = Duration::from_secs(120);
/// Expired leases that one round ends.
pub const LEASES_ENDED_PER_ROUND: usize = 100;
/// Objects that one round deletes.
pub const TRASH_PER_ROUND: usize = 10_000;
/// Deletions in flight at most.
pub const DELETES_AT_ONCE: usize = 64;
/// The pause between two rounds of retention. A round removes everything that is due, so this is how late it is.
pub const RETENTION_PAUSE: Duration = Duration::from_secs(30);
/// The pause between two commits of one round.
pub const RETENTION_STEP_PAUSE: Duration = Duration::from_millis(20);
/// Kafka's `log.retention.ms`, for topics without `retention.ms`: 7 days.
pub const RETENTION_MS: i64 = 7 * 86_400_000;
/// Kafka's `log.retention.bytes`, for topics without `retention.bytes`: no limit.
pub const RETENTION_BYTES: i64 = -1;
/// The largest limit of retention, which is none.
pub const UNLIMITED: i64 = i64::MAX;
/// Partitions whose log start one commit moves.
pub const RETENTION_PARTITIONS_PER_COMMIT: usize = 1_000;
/// Extents that one commit removes of all its partitions. Each may make an object trash and free a writer.
pub const RETENTION_EXTENTS_PER_COMMIT: usize = 1_000;
/// The pause between two rounds of compaction (Kafka: `log.cleaner.backoff.ms`).
pub const COMPACTION_PAUSE: Duration = Duration::from_secs(15);
/// Bytes of the map of keys and offsets of one pass: 1,048,576 keys. More keys take several passes.
pub const COMPACTION_MAP_BYTES: usize = 32 << 20;
/// Bytes of the batches that one commit of a pass writes, or one extent if that is larger. A pass holds them in memory.
pub const COMPACTION_OBJECT_BYTES: u64 = 64 << 20;
/// Bytes of the blocks that a pass keeps of what it has read, and as many that it reads. Less where the cold lane of
/// readers is smaller.
pub const COMPACTION_CACHE_BYTES: usize = 16 << 20;
/// Bytes of batches that a pass reads at once, or one batch if that is larger.
pub const COMPACTION_READ_BYTES: usize = 1 << 20;
/// Less than so many dirty bytes of a partition wait, up to [`COMPACTION_SMALL_PAUSE`] from its last pass on.
pub const COMPACTION_SMALL_BYTES: u64 = 1 << 20;
/// How long small dirty parts wait. Each pass costs an object and two commits.
pub const COMPACTION_SMALL_PAUSE: Duration = Duration::from_secs(600);
/// Transactions that a pass knows. In front of more, it ends.
pub const COMPACTION_TRANSACTIONS_MAX: usize = 100_000;
/// Extents that one commit of a pass replaces.
pub const COMPACTION_EXTENTS_MAX: usize = 1_000;
/// Runs of one writer that a pass asks for at once.
pub const COMPACTION_RUNS_MAX: usize = 10_000;
/// The pause between two commits of a pass.
pub const COMPACTION_STEP_PAUSE: Duration = Duration::from_millis(10);
/// Tries of one swap whose extents others have changed meanwhile. Then the next round begins the pass anew.
pub const COMPACTION_TRIES_MAX: u32 = 5;
/// How long a deleted topic can come back, for topics without `floe.trash.ms`: one day.
pub const TRASH_MS: u64 = 86_400_000;
/// Bytes of all deleted topics that can come back: no limit but their time.
pub const TRASH_BYTES: u64 = UNLIMITED.cast_unsigned();
/// Deleted topics that can come back. Beyond them, the one that was deleted first goes for good.
pub const DELETED_TOPICS_MAX: u64 = 10_000;
/// Partitions of all deleted topics that can come back. Each takes some ten bytes of every broker's memory.
pub const DELETED_PARTITIONS_MAX: u64 = 500_000;
/// A part of removed records collects what a topic loses in `floe.trash.ms` divided by this, and has at most so large a
/// share of `floe.trash.bytes`.
pub const REMOVED_PARTS_PER_TIME: u64 = 8;
/// The same, at least. It bounds the parts that a client makes by deleting records.
pub const REMOVED_SPAN_MIN: Duration = Duration::from_secs(1);
/// A part with more extents than this takes no more, so that not everything goes at once when there are too many.
pub const REMOVED_PART_EXTENTS: u64 = DELETED_EXTENTS_MAX / 16;
/// Bytes of records of parts that one commit of retention writes, one for each partition, unless the first is larger.
/// They hold the settings of topics.
pub const REMOVED_RECORDS_BYTES: usize = 1 << 20;
/// Bytes of changes when a deleted topic goes for good: its records, and the note about its remains.
pub const CHANGE_BYTES_PER_DELETED: usize = 128;
/// Deleted topics go before their time while less than so many times the disk's reserve is free beside the reserve:
/// before records are refused, and long before only deletions are taken.
pub const TRASH_YIELDS_BELOW_RESERVES: u64 = 2;
/// They go until so many times the reserve would be free.
pub const TRASH_YIELDS_UP_TO_RESERVES: u64 = 3;
/// The disk must have been so full for this long: at two looks of the cleaner.
pub const TRASH_YIELDS_AFTER: Duration = Duration::from_secs(20);
/// Extents of all deleted topics that can come back. Each takes some 150 bytes of every broker's memory.
pub const DELETED_EXTENTS_MAX: u64 = 1_000_000;
/// Memory of the map that an extent takes, about: its key and value of some 45 bytes, and the tree around them.
pub const EXTENT_MAP_BYTES: u64 = 150;
/// Memory of the map that a deleted topic takes beside its extents and the heads of its partitions, about.
pub const DELETED_TOPIC_MAP_BYTES: u64 = 500;
/// Memory of the map that a partition of a deleted topic takes, about.
pub const DELETED_PARTITION_MAP_BYTES: u64 = 10;
/// Deleted topics that one commit lets go for good: three small records each.
pub const DELETED_PER_COMMIT: usize = 1_000;
/// How long an idle producer is remembered (Kafka: `producer.id.expiration.ms`).
pub const PRODUCER_TTL: Duration = Duration::from_secs(24 * 3600);
/// Idempotent producers that a partition remembers. At the limit it forgets those that were idle for
/// [`PRODUCER_IDLE_MIN`]. If all are in use, new ones are refused for now.
pub const PRODUCERS_PER_PARTITION_MAX: u64 = 50_000;
/// Idempotent producers that all partitions remember, each as often as it wrote to a partition. Each takes about 300
/// bytes of every broker's memory.
pub const PRODUCERS_MAX: u64 = 1_000_000;
/// From so many producers in all on, those that were idle for [`PRODUCER_IDLE_MIN`] are forgotten.
pub const PRODUCERS_MANY: u64 = PRODUCERS_MAX / 8 * 7;
/// A producer is never forgotten earlier, however many there are.
pub const PRODUCER_IDLE_MIN: Duration = Duration::from_secs(3600);
/// Producers that one round forgets.
pub const PRODUCERS_EXPIRED_MAX: usize = 10_000;
/// How long a failed append counts as a sign that the next would fail too. It must end: a broker that gets no more
/// appends because of it would never learn that the fault is over.
pub const TROUBLE_TIME: Duration = Duration::from_secs(30);
/// Producers that one commit forgets.
pub const PRODUCERS_PER_COMMIT: usize = 1_000;

// The start.

/// Writers whose high water a start reads: the newest ones.
pub const WRITERS_COMPARED_MAX: u64 = 1_000;
/// The newest objects that the map names and a start looks for in a remote store.
pub const NEWEST_OBJECTS_COMPARED: usize = 16;
/// Objects that a start lists of a remote store: one request.
pub const NEWEST_OBJECTS_LISTED: usize = 1_000;
/// Bytes of the claim of a store that are read.
pub const CLAIM_BYTES_MAX: u64 = 256;
/// How often a start compares the store with a journal that a former process may still write to.
pub const COMPARISONS_MAX: usize = 5;
/// Lines about damaged objects that a start writes.
pub const DAMAGE_LINES_MAX: usize = 20;
/// Tries of one read of the store at a start, the first included.
pub const START_TRIES_MAX: u32 = 5;
/// The first pause between two of them.
pub const START_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two of them.
pub const START_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The pause between two looks for a newer writer.
pub const WATCH_PAUSE: Duration = Duration::from_secs(5);
/// After so many of these looks, the last commit is noted in the store.
pub const HIGH_WATER_ROUNDS: u64 = 6;

const _: () = assert!(UNEXPLAINED_OBJECTS_MAX < NEWEST_OBJECTS_LISTED);
const _: () = assert!(OBJECT_BYTES < BYTES_IN_FLIGHT_MAX);
const _: () = assert!(SEGMENT_COPIED_BYTES < SEGMENT_PIECE_BYTES);
const _: () = assert!(BATCHES_PER_REQUEST_MAX <= BATCHES_PER_OBJECT_MAX);
const _: () = assert!(BATCHES_PER_OBJECT_MAX <= WAITING_BATCHES_MAX);
const _: () =
    assert!(BATCHES_PER_OBJECT_MAX * CHANGE_BYTES_PER_BATCH <= floe_meta::limits::COMMAND_BYTES_MAX);
const _: () = assert!(
    (RETENTION_PARTITIONS_PER_COMMIT + RETENTION_EXTENTS_PER_COMMIT) * CHANGE_BYTES_PER_BATCH
        + REMOVED_RECORDS_BYTES
        + DELETED_PER_COMMIT * CHANGE_BYTES_PER_DELETED
        <= floe_meta::limits::GROUP_BYTES_MAX
);
const _: () =
    assert!(MERGE_EXTENTS_PER_COMMIT * 2 * CHANGE_BYTES_PER_BATCH <= floe_meta::limits::GROUP_BYTES_MAX);
const _: () = assert!(MERGE_SMALL_OBJECTS < MERGE_EXTENTS_PER_COMMIT);
const _: () = assert!(MERGE_SMALL_BYTES <= MERGE_SMALL_OBJECTS as u64 * 64);
const _: () = assert!(MERGE_STEP_PAUSE.as_millis() < MERGE_PAUSE.as_millis());
const _: () = assert!(COMPACTION_EXTENTS_MAX <= RETENTION_EXTENTS_PER_COMMIT);
const _: () = assert!(DAMAGE_ENTRIES_MAX < DAMAGE_SOURCES_MAX);
const _: () = assert!(TRASH_YIELDS_BELOW_RESERVES < TRASH_YIELDS_UP_TO_RESERVES);
const _: () = assert!(TRASH_YIELDS_AFTER.as_secs() < CLEANER_PAUSE.as_secs());
const _: () = assert!(RETENTION_PAUSE.as_secs() < 60);
const _: () = assert!(SESSION_TTL.as_secs() < TRASH_GRACE.as_secs());
const _: () = assert!(floe_store::limits::REQUEST_TIME_MAX.as_secs() < TRASH_GRACE.as_secs());
const _: () = assert!(BLOCK_BYTES as usize * EXTENTS_PER_READ_MAX <= CACHE_COLD_BYTES);
const _: () = assert!(PRODUCERS_PER_PARTITION_MAX <= PRODUCERS_MANY);
const _: () = assert!(PRODUCER_IDLE_MIN.as_secs() < PRODUCER_TTL.as_secs());
const _: () = assert!(BLOCK_BYTES * GET_BLOCKS_MAX < CACHE_COLD_BYTES as u64);
const _: () = assert!(READ_BLOCKS_BYTES_MAX <= READS_BYTES_MAX as u64);
const _: () = assert!(READ_SURPLUS_BYTES_MAX < READ_BLOCKS_BYTES_MAX);
