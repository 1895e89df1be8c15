//! Every limit of this crate, in one place. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

/// Bytes of the longest object key. Leaves room for a prefix in S3's 1,024 bytes and for the header of a local
/// region.
pub const KEY_BYTES_MAX: usize = 440;

// The local store.

/// Size of the first pack file. Each new one is twice the last, so that a small installation stays small.
pub const PACK_BYTES_FIRST: u64 = 32 << 20;
/// Size of the largest pack file.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// Pack files that are zero-filled ahead of use.
pub const PACKS_AHEAD: usize = 1;
/// Objects larger than the largest pack divided by this become files of their own, so that the end of a pack wastes
/// few bytes.
pub const PACK_SHARE_MAX: u64 = 8;
/// Zeros are written in steps of this size, so that a sync of the pack in use, or of the journal, waits only
/// shortly behind one.
pub const ZERO_STEP_BYTES: u64 = 512 << 10;
/// An object that is a file of its own is written and synced in steps of this size, for the same reason. An
/// acknowledgement that comes meanwhile waits for one step: at 10 MiB/s, the 99th percentile was 24 to 32 ms with steps
/// of 4 MiB, and 6 to 7 ms with these.
pub const FILE_STEP_BYTES: usize = 512 << 10;
/// How long the disk is left to others between two steps. Segments and files of tables are written so. Clients wait for
/// objects below 16 MiB, which are in packs.
pub const FILE_STEP_PAUSE: Duration = Duration::from_millis(2);
/// The next pack is filled this many times faster than the pack in use is used up.
pub const ZERO_AHEAD: f64 = 2.0;
/// The share of the next pack that is filled at once.
pub const ZERO_AHEAD_SHARE: f64 = 0.05;
/// The pause of the filler after a full disk.
pub const ZERO_RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Packs without objects that are kept for their next use, beside [`PACKS_AHEAD`]: one for so many in use. The others
/// go back to the file system.
pub const PACKS_IN_USE_PER_SPARE: usize = 8;
/// With less free room than this beside the reserve, the dead parts of packs go back to the file system. With more,
/// whole packs are used again, which is faster.
pub const ROOM_AMPLE_BYTES: u64 = 1 << 30;
/// The pause between two rounds that give room back to the file system.
pub const GIVE_BACK_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two looks at the room of the disk, for the metrics.
pub const ROOM_LOOK_PAUSE: Duration = Duration::from_secs(10);
/// Folders that are remembered as having durable names.
pub const FOLDERS_REMEMBERED_MAX: usize = 10_000;
/// Regions at the end of a pack in use whose payload is verified when the store opens, because they may have been
/// in flight when the process died. A torn region beyond them is found on its first read, as all damage is, and
/// nothing refers to it.
pub const REGIONS_VERIFIED_AT_OPEN: usize = 8;
/// Reads under way at most. Each takes a thread, and a disk answers more of them no sooner.
pub const READS_AT_ONCE_MAX: usize = 16;
/// Memory of a read that verifies the payload of a region, beside what it was asked for.
pub const VERIFY_STEP_BYTES: u64 = 256 << 10;

// The S3 store.

/// The region of a bucket by default.
pub const S3_REGION: &str = "us-east-1";
/// Tries of one request to S3, the first included.
pub const S3_TRIES_MAX: u32 = 4;
/// Longest pause before the first retry. It doubles each time, and chance takes up to half of it ...
pub const S3_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// ... until it is so many times as long.
pub const S3_RETRY_GROWTH_MAX: u32 = 64;
/// Longest wait for a connection.
pub const S3_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one answer, body included.
pub const S3_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request may still have its effect after its caller gave up: the timeouts of all its tries.
pub const REQUEST_TIME_MAX: Duration =
    Duration::from_secs(S3_REQUEST_TIMEOUT.as_secs() * S3_TRIES_MAX as u64);

const _: () = assert!(PACK_BYTES_FIRST <= PACK_BYTES_MAX);
const _: () = assert!(PACK_BYTES_FIRST.is_multiple_of(4096));
