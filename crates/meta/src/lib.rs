//! The metadata map behind a small journal, and the seam to clock, randomness and tasks.

#[doc(hidden)]
pub mod conformance;
pub mod counter;
pub mod env;
pub mod journal;
pub mod key;
pub mod lease;
pub mod limits;
pub mod lock;
pub mod memory;
pub mod record;
pub mod snapshot;
pub mod sqlite;
pub mod tx;

mod command;
mod committer;
mod entry;
mod meta;

pub use counter::{Counter, CounterKey};
pub use env::{Env, Task, TaskEnded, Timestamp};
pub use journal::{Change, Commit, Entry, Envelope, Journal, JournalError, Loaded, Lsn, Outcome};
pub use key::{Key, KeyReader};
pub use lease::{Lease, LeaseError};
pub use lock::{DataDir, DataDirError};
pub use memory::MemoryJournal;
pub use meta::{Applied, CommitError, Committed, Meta, OpenError, Options};
pub use record::{DecodeError, Record};
pub use snapshot::{Lookup, Snapshot};
pub use sqlite::{SqliteJournal, SqliteOpenError};
pub use tx::Tx;
