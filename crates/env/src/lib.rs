//! The ground floor: everything that Floe takes from the operating system besides sockets.
//!
//! # What is here
//! ```text
//! handle.rs    Env            clock, randomness, tasks and threads; real or simulated
//! clock.rs                     what is behind Env: the machine, or a seed
//! time.rs      Timestamp      wall clock time
//! task.rs      Task           a started task, and the scope that it lives and dies with
//! random.rs                   the generators behind Env
//! backoff.rs   Backoff        pauses that grow, and differ at random
//! lru.rs       Lru            a bounded map that forgets the least recently used first
//! watch.rs     watch::Sender  a value that changes, and waiters that wake in FIFO order
//! durable.rs   sync_dir       files and names that survive a power cut; the lock of a file
//! data_dir.rs  DataDir        a directory of one process, with its format
//! fatal.rs     end_process    the one way to end the process, with a line on stderr
//! ```
//!
//! # What it is not
//! It knows nothing of records, objects or metadata. It does not hide the file system: stores and journals use
//! files directly, and take from here what must be done in one way only.
//!
//! # Why one seam
//! Nothing else in the workspace reads a clock, draws a number or starts a task (`clippy.toml` bans it). So a whole
//! cluster runs in one thread under a simulated clock, and the same seed gives the same run.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod backoff;
mod clock;
mod data_dir;
mod durable;
mod fatal;
mod handle;
mod lru;
mod random;
mod task;
mod time;
pub mod watch;

pub use backoff::Backoff;
pub use data_dir::{DATA_DIR_FORMAT, DataDir, DataDirError};
pub use durable::{FileLock, create_dir_durable, sync_data, sync_dir};
pub use fatal::end_process;
pub use handle::Env;
pub use lru::Lru;
pub use task::{Task, TaskEnded};
pub use time::{SIMULATION_EPOCH, Timestamp};

/// Locks `mutex`, also after a panic of another holder.
///
/// For data that no section leaves half changed: each section makes its change in one step, or has no step that can
/// panic.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
