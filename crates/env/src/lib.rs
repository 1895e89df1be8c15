//! The ground floor: everything that Floe takes from the operating system, except sockets.
//!
//! # Files
//! ```text
//! handle.rs    Env            clock, randomness, tasks and threads; real or simulated
//! clock.rs                    the clock and randomness behind Env: the machine's, or from a seed
//! time.rs      Timestamp      wall clock time
//! task.rs      Task           a running task, and the scope that it lives and dies with
//! random.rs                   the random generator behind Env
//! backoff.rs   Backoff        pauses between tries that grow and have jitter
//! ages.rs      Ages           how long things have been there, by the monotonic clock
//! grace.rs     Grace          what is older than a grace period, by the monotonic clock
//! log_lines.rs LogLines       log lines that could come for each of many things, so many in a while
//! lru.rs       Lru            a bounded map with LRU eviction
//! watch.rs     watch::Sender  a value that changes; its waiters wake in FIFO order
//! descriptors.rs              how many files this process may have open
//! durable.rs   sync_dir       files and names that survive a power cut; file locks
//! data_dir.rs  DataDir        a directory of one process, with its format
//! disk.rs      DiskReserve    the room of a disk, and what is kept of it for deletions
//! files/       Disk           files that are written in place and synced, real or simulated
//! expendable.rs               a process that others can do without
//! fatal.rs     end_process    the one way to end the process, with a line on stderr
//! ```
//!
//! # What it is not
//! It knows nothing of records, objects or metadata. It does not hide the file system: stores and journals use files
//! directly, and take from here the operations that must be done in one way only.
//!
//! # Why one seam
//! Nothing else in the workspace reads a clock, draws a number or starts a task (`clippy.toml` bans it). So a whole
//! cluster runs in one thread under a simulated clock, and the same seed gives the same run.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod ages;
mod backoff;
mod clock;
mod data_dir;
mod descriptors;
mod disk;
mod durable;
mod expendable;
mod fatal;
mod files;
mod grace;
mod handle;
mod log_lines;
mod lru;
mod random;
mod task;
mod time;
pub mod watch;

pub use ages::Ages;
pub use backoff::Backoff;
pub use data_dir::{DATA_DIR_FORMAT, DataDir, DataDirError};
pub use descriptors::raise_open_files;
pub use disk::{DISK_RESERVE_BYTES, DiskReserve, DiskRoom, punch_hole, reserve_blocks};
pub use durable::{FileLock, create_dir_durable, sync_data, sync_dir};
pub use expendable::{be_expendable, end_with_parent, go_first};
pub use fatal::end_process;
pub use files::{BlockBuffer, DISK_BLOCK, Disk, DiskFile, DiskOver, RealDisk, SimulatedDisk};
pub use grace::Grace;
pub use handle::Env;
pub use log_lines::LogLines;
pub use lru::Lru;
pub use task::{Task, TaskEnded};
pub use time::{SIMULATION_EPOCH, Timestamp};

/// Locks `mutex`, even if another holder panicked.
///
/// For data that no critical section leaves half changed: each section changes it in one step, or has no step that can
/// panic.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
