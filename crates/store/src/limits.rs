//! Every limit of this crate, in one place. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

/// Longest object key; leaves room for a prefix in S3's 1,024 and for the header of a local region.
pub const KEY_BYTES_MAX: usize = 440;

// The local store.

/// Size of the first pack file; each new one is twice the last, so that a small installation stays small.
pub const PACK_BYTES_FIRST: u64 = 32 << 20;
/// Largest pack file.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// Pack files that are zero-filled ahead of use.
pub const PACKS_AHEAD: usize = 1;
/// Objects larger than this part of the largest pack become files of their own, so that few bytes are wasted at
/// the end of a pack.
pub const PACK_SHARE_MAX: u64 = 8;
/// Zeros are written in steps of this size, so that a sync of the pack in use, or of the journal, does not wait long
/// behind one.
pub const ZERO_STEP_BYTES: u64 = 512 << 10;
/// The next pack is filled this many times faster than the one in use is used up …
pub const ZERO_AHEAD: f64 = 2.0;
/// … and this share of it at once.
pub const ZERO_AHEAD_SHARE: f64 = 0.05;
/// After a full disk, the filler looks again this often.
pub const ZERO_RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Room on the disk that no object may take …
pub const DISK_RESERVE_BYTES: u64 = 32 << 20;
/// … but not more than this part of a small disk.
pub const DISK_RESERVE_SHARE: u64 = 20;
/// Folders that are known to have durable names.
pub const FOLDERS_REMEMBERED_MAX: usize = 10_000;
/// Regions at the end of a pack in use whose payload is verified when the store is opened: what was in flight when
/// the process died. One that is missed is verified when it is first read, like all others; nothing refers to it.
pub const REGIONS_VERIFIED_AT_OPEN: usize = 8;

// The S3 store.

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
/// How long a request may have its effect after its caller has given up: the timeouts of all its tries.
pub const REQUEST_TIME_MAX: Duration =
    Duration::from_secs(S3_REQUEST_TIMEOUT.as_secs() * S3_TRIES_MAX as u64);

const _: () = assert!(PACK_BYTES_FIRST <= PACK_BYTES_MAX);
const _: () = assert!(PACK_BYTES_FIRST.is_multiple_of(4096));
