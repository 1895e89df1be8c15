//! Every limit of this crate, with its unit in the name.

use std::time::Duration;

/// Commands that may wait for the committer. One more is answered `NotApplied`.
pub const QUEUE_COMMANDS_MAX: usize = 65_536;

/// Commands that share one commit of the journal at most.
pub const GROUP_COMMANDS_MAX: usize = 4_096;

/// Bytes of changes after which a group takes no further command.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Bytes of keys and values that one command may change.
pub const COMMAND_BYTES_MAX: usize = 32 << 20;

/// Bytes that one change costs a group beside its key and value: their lengths.
pub const CHANGE_BYTES: usize = 8;

/// Bytes of the attachments of one group.
pub const ATTACHMENTS_BYTES_MAX: u64 = 16 << 20;

/// Commits in one frame of a ring.
pub const GROUP_COMMITS_MAX: usize = 4_096;

/// Bytes of a frame that one commit takes beside its changes and the texts of its envelope, at most.
const COMMIT_BYTES: usize = 256;

/// Bytes of a frame of a ring.
pub const FRAME_BYTES_MAX: u64 = 60 << 20;

/// How often a group runs again because another broker committed first.
pub const CONFLICTS_MAX: u32 = 1_000;

/// How long one call of the journal's commit may take before its outcome counts as unknown.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the callers of a commit with an unknown outcome wait until it is resolved.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The first pause between two attempts to resolve or to follow.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause between two attempts to resolve or to follow; each is twice the one before.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often a start asks where a journal ends that others write to.
pub const CATCH_UPS_MAX: usize = 100;

/// Entries in one answer of `history` or `follow`.
pub const ENTRIES_MAX: usize = 10_000;

/// Bytes of one key.
pub const KEY_BYTES_MAX: usize = 4_096;

/// Bytes of one text field of an envelope; longer texts are cut.
pub const ENVELOPE_TEXT_BYTES_MAX: usize = 4_096;

const _: () = assert!(GROUP_BYTES_MAX <= COMMAND_BYTES_MAX);
const _: () = assert!(GROUP_COMMANDS_MAX <= QUEUE_COMMANDS_MAX);
const _: () = assert!(GROUP_COMMANDS_MAX <= GROUP_COMMITS_MAX);
const _: () = assert!(GROUP_COMMITS_MAX * COMMIT_BYTES == 1 << 20);
const _: () = assert!(
    (GROUP_BYTES_MAX + COMMAND_BYTES_MAX + GROUP_COMMITS_MAX * COMMIT_BYTES) as u64 + ATTACHMENTS_BYTES_MAX
        <= FRAME_BYTES_MAX
);
const _: () = assert!(COMMIT_TIMEOUT.as_millis() < RESOLVE_TIMEOUT.as_millis());

/// Bytes of entries at which an answer of `history` or `follow` ends.
pub const ENTRIES_BYTES_MAX: usize = 64 << 20;

/// Orders that may wait for a thread of the SQLite journal.
pub const SQLITE_ORDERS_MAX: usize = 64;

/// Working size of SQLite's write-ahead log, given when the journal is opened.
pub const SQLITE_LOG_BYTES: u64 = 16 << 20;

/// Bytes to which the write-ahead log is cut after a large commit made it longer.
pub const SQLITE_LOG_BYTES_MAX: i64 = 64 << 20;

/// Pages of 4 KiB in the write-ahead log at which the keeper copies it into the file although commits come.
pub const SQLITE_LOG_PAGES_MAX: i64 = 2_000;

/// Entries that may wait to be folded into the image. Beyond them, folding continues beside commits.
pub const SQLITE_BACKLOG_ENTRIES_MAX: u64 = 10_000;

/// Bytes of changes that may wait to be folded. Beyond them, folding continues beside commits. Bounds the time of a
/// start.
pub const SQLITE_BACKLOG_BYTES_MAX: u64 = 8 << 20;

/// Bytes of changes at which a slice of folding ends.
pub const SQLITE_SLICE_BYTES: usize = 1 << 20;

/// Entries in one slice of folding. A slice takes some milliseconds, in which commits have one core less.
pub const SQLITE_SLICE_ENTRIES: usize = 250;

/// Free pages of 4 KiB that the SQLite journal keeps for the next commits. What is more goes back to the disk.
pub const SQLITE_FREE_PAGES_KEPT: i64 = 4_096;

/// Pages that go back to the disk in one slice of work.
pub const SQLITE_SLICE_PAGES: i64 = 256;

/// Pages of a journal of an earlier floe, in use, up to which a start shortens its file if more are free.
pub const SQLITE_SHORTENED_PAGES_MAX: i64 = 16_384;

/// How long the keeper rests after the image could not be copied before entries were to go.
pub const SQLITE_PAUSE_AFTER_BASE: Duration = Duration::from_secs(60);

/// The SQLite journal counts as idle after this long without a commit.
pub const SQLITE_IDLE: Duration = Duration::from_millis(100);

/// How often the keeper of an idle SQLite journal looks at the room of the disk, for the metrics.
pub const SQLITE_ROOM_LOOK: Duration = Duration::from_secs(10);

/// How long the SQLite journal's keeper rests after a failure, for example a full disk.
pub const SQLITE_PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

// The log is copied well before it outgrows its working size. A frame is a page and 24 bytes.
const _: () = assert!(SQLITE_LOG_PAGES_MAX as u64 * (4096 + 24) * 2 < SQLITE_LOG_BYTES + (1 << 20));
const _: () = assert!(SQLITE_LOG_BYTES as i64 <= SQLITE_LOG_BYTES_MAX);

/// Bytes of the first file of a ring. Each new one is as large as all before it together, so that a ring doubles.
pub const RING_FIRST_FILE_BYTES: u64 = 4 << 20;

/// Bytes of a file of a ring, at most.
pub const RING_FILE_BYTES: u64 = 64 << 20;

/// Bytes of all files of a ring, unless a setting says something else.
pub const RING_BYTES_MAX: u64 = 4 << 30;

/// On a smaller disk they are the disk's size divided by this.
pub const RING_DISK_SHARE: u64 = 8;

/// A ring may have so many of its largest files, whatever the disk and the setting: one is used, one is ready, and one
/// is held back.
pub const RING_FILES_MIN: u64 = 3;

/// Files of a ring that are ready before they are needed. The last one is for commits that free others.
pub const RING_READY_FILES: usize = 2;

/// Files of a ring that are kept although nothing is in them.
pub const RING_SPARE_FILES: usize = 2;

/// How long more of them are kept.
pub const RING_SPARE_TIME: Duration = Duration::from_secs(600);

/// Files of a ring that nothing but an image holds back, at which it writes one.
pub const RING_WAITING_FILES: u64 = 2;

/// How long after an image a ring writes another one for files that only the older of its two images holds back.
pub const RING_IMAGE_PAUSE: Duration = Duration::from_secs(60);

/// How many times larger than an image these files are at least. An image is read and written; a file is written.
pub const RING_WAITING_RATIO: u64 = 4;

/// Bytes of entries after which a ring writes its next image. Bounds the time of a start.
pub const RING_IMAGE_BYTES: u64 = 32 << 20;

/// Bytes of entries that may wait for an image. More commits are refused until it is written.
pub const RING_ENTRIES_BYTES_MAX: u64 = 256 << 20;

/// Bytes under which a part of the history is written again, together with what follows.
pub const RING_HISTORY_BYTES: u64 = 8 << 20;

/// Bytes of one read or write of files of a ring that are not frames.
pub const RING_STEP_BYTES: u64 = 512 << 10;

/// The pause after each such write of an image: less than 64 MB a second.
pub const RING_STEP_PAUSE: Duration = Duration::from_millis(8);

/// The pause after each step in which a file is filled with zeros, as long as another one is ready: about 100 MB a
/// second.
pub const RING_FILL_PAUSE: Duration = Duration::from_millis(4);

/// Bytes of the buffer for frames that is kept from one to the next.
pub const RING_BUFFER_KEPT_BYTES: usize = 20 << 20;

/// How long a ring rests before it marks the end of its log, and how often its keeper looks.
pub const RING_IDLE: Duration = Duration::from_secs(1);

/// Attachments that an image takes over at a time. Commits wait meanwhile.
pub const RING_SLICE_ATTACHMENTS: usize = 4_096;

/// A ring is crowded when the room for attachments is less than the whole divided by this.
pub const RING_CROWDED_SHARE: u64 = 4;

/// How often a ring looks whether it is crowded.
pub const RING_CROWD_LOOK: Duration = Duration::from_millis(100);

/// How often a ring looks at the room of its disk while there is enough.
pub const RING_ROOM_LOOK: Duration = Duration::from_secs(1);

const _: () = assert!(FRAME_BYTES_MAX + 2 * 4096 <= RING_FILE_BYTES);
const _: () = assert!(RING_FIRST_FILE_BYTES <= RING_FILE_BYTES);
const _: () = assert!(RING_FILES_MIN * RING_FILE_BYTES <= RING_BYTES_MAX);
const _: () = assert!(RING_IMAGE_BYTES + FRAME_BYTES_MAX < RING_ENTRIES_BYTES_MAX);

/// How long a connection to PostgreSQL may take until it can be used.
pub const POSTGRES_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The first pause before another connection to PostgreSQL is tried.
pub const POSTGRES_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause before another connection to PostgreSQL is tried.
pub const POSTGRES_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long a commit may wait for its turn in PostgreSQL: for the row that others change.
pub const POSTGRES_LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the statement of a commit may run in PostgreSQL. The wait for the disk and for standbys comes on top.
pub const POSTGRES_COMMIT_STATEMENT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the answer of a commit may take, with the wait for the disk and for standbys. Then its outcome is unknown.
pub const POSTGRES_ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// How long one statement that reads may run in PostgreSQL.
pub const POSTGRES_READ_STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the answer of a statement that reads may take.
pub const POSTGRES_READ_TIMEOUT: Duration = Duration::from_secs(25);

/// How long one statement of the work beside commits may run, a vacuum among them.
pub const POSTGRES_KEEPER_STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// How long PostgreSQL waits for the next statement of a transaction before it undoes it.
pub const POSTGRES_IDLE_IN_TRANSACTION: Duration = Duration::from_secs(60);

/// After this long without an acknowledgement of the network, a connection to PostgreSQL counts as gone.
pub const POSTGRES_NETWORK_TIMEOUT: Duration = Duration::from_secs(10);

/// The first pause between two looks at the end of the journal, if no notification comes.
pub const POSTGRES_POLL_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two looks at the end of the journal, if no notification comes.
pub const POSTGRES_POLL_MAX: Duration = Duration::from_secs(5);

/// How often a broker looks whether the journal in PostgreSQL needs an image or can let go of entries.
pub const POSTGRES_LOOK: Duration = Duration::from_secs(1);

/// Bytes of entries that follow the image in PostgreSQL, at which the next one is due. Bounds the time of a start.
pub const POSTGRES_IMAGE_BYTES: u64 = 32 << 20;

/// Beside that, the entries amount to at least the image's size divided by this, so that a large image is not rewritten
/// for few changes.
pub const POSTGRES_IMAGE_RATIO: u64 = 4;

/// Bytes of entries that go into an image at a time. Bounds the memory of the one who writes it.
pub const POSTGRES_FOLD_BYTES_MAX: u64 = 128 << 20;

/// Bytes of pairs at which a chunk of an image ends.
pub const POSTGRES_CHUNK_BYTES: usize = 1 << 20;

/// Chunks of an image that are read at a time.
pub const POSTGRES_CHUNKS_READ: i64 = 8;

/// The pause after each chunk that is written, so that commits have the disk.
pub const POSTGRES_CHUNK_PAUSE: Duration = Duration::from_millis(5);

/// Entries that are let go of in one statement.
pub const POSTGRES_FORGET_ROWS: i64 = 1_000;

/// Bytes that an entry counts beside its envelope and changes: its row's head, its place in the index.
pub const POSTGRES_ENTRY_BYTES: u64 = 256;

/// Bytes of the rows of one group.
pub const POSTGRES_GROUP_BYTES_MAX: u64 = FRAME_BYTES_MAX;

/// Ends of answers whose links are remembered. Every caller continues at the end of its last answer.
pub const POSTGRES_ENDS_MAX: usize = 1_024;

/// Reads whose callers went away, before the connection that still answers them is closed.
pub const POSTGRES_DROPPED_READS_MAX: u32 = 16;

// A call has its own outcome before its caller stops waiting, and a statement ends before its answer is given up.
const _: () = assert!(
    POSTGRES_PAUSE_MAX.as_millis()
        + POSTGRES_CONNECT_TIMEOUT.as_millis()
        + POSTGRES_ANSWER_TIMEOUT.as_millis()
        < COMMIT_TIMEOUT.as_millis()
);
const _: () = assert!(POSTGRES_LOCK_TIMEOUT.as_millis() < POSTGRES_COMMIT_STATEMENT_TIMEOUT.as_millis());
const _: () = assert!(POSTGRES_COMMIT_STATEMENT_TIMEOUT.as_millis() < POSTGRES_ANSWER_TIMEOUT.as_millis());
const _: () = assert!(POSTGRES_READ_STATEMENT_TIMEOUT.as_millis() < POSTGRES_READ_TIMEOUT.as_millis());
// The answer of a conflict always has the whole group of an attempt.
const _: () =
    assert!(POSTGRES_GROUP_BYTES_MAX <= ENTRIES_BYTES_MAX as u64 && GROUP_COMMITS_MAX <= ENTRIES_MAX);

/// Bytes of the first read of an entry in a bucket, and of the shortest entry. Most entries need no second read.
pub const BUCKET_FIRST_READ_BYTES: u64 = 16 << 10;

/// Bytes of the commits of one entry in a bucket, with what describes its attachments.
pub const BUCKET_BODY_BYTES_MAX: u64 = 44 << 20;

/// Bytes of an attachment in a bucket that have a checksum of their own: what the smallest read of it fetches.
pub const BUCKET_BLOCK_BYTES: u64 = 64 << 10;

/// Bytes at which a part of an image in a bucket ends.
pub const BUCKET_PART_BYTES: u64 = 8 << 20;

/// Bytes of such a part: one more value than there was room for.
pub const BUCKET_PART_BYTES_MAX: u64 = BUCKET_PART_BYTES + COMMAND_BYTES_MAX as u64 + (1 << 20);

/// Parts of an image in a bucket: a map of 256 GiB.
pub const BUCKET_PARTS_MAX: u32 = 32_768;

/// Bytes of the manifest of an image in a bucket.
pub const BUCKET_MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Reads of a bucket that a journal has under way at once.
pub const BUCKET_READS_MAX: usize = 16;
/// Attachments that `floe check` reads at once, each as a whole.
pub const BUCKET_INSPECTED_READS: usize = 4;

/// Keys in one answer of a listing of a bucket.
pub const BUCKET_LIST_KEYS: usize = 1_000;

/// Entries in a bucket that one round of its keeper looks at for deletion.
pub const BUCKET_SWEEP_KEYS: usize = 16_000;

/// Bytes of entries that a journal in a bucket keeps in memory, for followers and for its next image.
pub const BUCKET_RECENT_BYTES: usize = 32 << 20;

/// Entries that it keeps in memory, at most.
pub const BUCKET_RECENT_ENTRIES: usize = 100_000;

/// Entries after the newest image in a bucket at which the next one is due. Bounds the reads of a start.
pub const BUCKET_IMAGE_ENTRIES: u64 = 1_000;

/// Bytes of entries at which an image in a bucket is due earlier.
pub const BUCKET_IMAGE_BYTES: u64 = 32 << 20;

/// Bytes of entries that one image in a bucket takes over at most. What is more waits for the next one.
pub const BUCKET_FOLD_BYTES: u64 = 96 << 20;

/// How long a broker rests between two images in a bucket, while fewer than four times the due entries wait.
pub const BUCKET_IMAGE_PAUSE: Duration = Duration::from_secs(30);

/// How long a broker waits at most before it writes an image that is due: chance decides which one is first.
pub const BUCKET_IMAGE_JITTER: Duration = Duration::from_secs(10);

/// Entries in a bucket that may be let go of before a floor is raised for them.
pub const BUCKET_FORGET_ENTRIES: u64 = 100;

/// How long entries in a bucket stay below a floor before they are deleted. A broker looks at the floor when it may
/// have slept for [`BUCKET_TRUST`], so this is how long a request or a broker may hang between its look and its effect.
pub const BUCKET_GRACE: Duration = Duration::from_secs(600);

/// How long a broker trusts what it knows of the end of a journal in a bucket.
pub const BUCKET_TRUST: Duration = Duration::from_secs(60);

/// The first pause between two looks for the next entry in a bucket.
pub const BUCKET_POLL_MIN: Duration = Duration::from_millis(50);

/// The longest pause between two looks: at most 12 requests a minute.
pub const BUCKET_POLL_MAX: Duration = Duration::from_secs(5);

/// How long after another broker's entry this one is not alone. Bytes should not ride with commits meanwhile: a lost
/// race would upload them again.
pub const BUCKET_ALONE_AFTER: Duration = Duration::from_secs(10);

/// How often the keeper of a journal in a bucket looks whether something is due.
pub const BUCKET_KEEPER_LOOK: Duration = Duration::from_secs(10);

/// Tries of a load while others let go of what it reads.
pub const BUCKET_LOAD_TRIES: usize = 10;

// A manifest has room for all its parts.
const _: () = assert!(BUCKET_PARTS_MAX as u64 * 20 + 4096 <= BUCKET_MANIFEST_BYTES_MAX);
// A group that the committer makes fits into an entry: with 20 bytes for each attachment, and 4 for each block.
const _: () = assert!(
    (GROUP_BYTES_MAX + COMMAND_BYTES_MAX + GROUP_COMMITS_MAX * (COMMIT_BYTES + 20)) as u64
        + ATTACHMENTS_BYTES_MAX / BUCKET_BLOCK_BYTES * 8
        <= BUCKET_BODY_BYTES_MAX
);
const _: () = assert!(BUCKET_TRUST.as_millis() * 4 <= BUCKET_GRACE.as_millis());
