//! The metadata map behind a small journal, and the seam to clock, randomness and tasks.
//!
//! Everything that Floe knows (topics, extents, producers, groups, leases, progress of views) is one ordered map of
//! typed keys to versioned values. The map is what results from applying the journal, a serial log of commits
//! numbered by [`Lsn`]. Each broker holds the map in memory as a persistent tree, so a [`Snapshot`] is a pointer copy
//! and readers never block.
//!
//! # One commit
//!
//! 1. A caller hands a pure command to [`Meta::commit`] (meta.rs); it waits in the committer's queue.
//! 2. The committer (committer.rs) takes what waits as one group and runs each command over what the earlier ones
//!    left, in a [`Tx`] (tx.rs): an overlay of typed reads and writes.
//! 3. What each command changed becomes one [`Commit`] with its [`Envelope`]; the group goes to [`Journal::commit`]
//!    (journal.rs) with the LSN that it was run over, and is durable as a whole or not at all.
//! 4. The new map is published, observers are called in LSN order, watchers woken, and only then the callers are
//!    answered.
//!
//! If another broker committed first, the journal answers what was missed; the committer applies it and runs the
//! commands again. If the journal cannot tell whether it applied a group, the committer sends the same attempt again
//! until it can; nothing else runs before that.
//!
//! # Formats
//!
//! ```text
//! key    kind u8 | fields in an order-preserving encoding           key.rs
//! value  version u8 | body, postcard for most                       record.rs
//! entry  envelope and changes, each with a version                  entry.rs
//! files  journal.sqlite, image.sqlite                               sqlite.rs
//! ```
//! Kinds: 1 cluster, 2 counter, 3 lease, 4 writer, 5 writer by name, 10 topic, 11 topic by name, 12 partition,
//! 13 extent, 14 producer, 15 object, 16 object lease, 17 trash, 30 group, 31 group offset, 40 table, 41 progress,
//! 42 view state. A number is never used again; from 200 on they belong to tests.
//!
//! # What it is not
//!
//! It knows no batches and no topics: those records live in the crates above. It is no consensus algorithm: brokers
//! that share a journal are serialised by the journal's own store. It holds no payload: values are small, and the
//! whole map fits into memory. Commands do no I/O and read no clock but [`Tx::now`].

mod command;
mod committer;
mod counter;
mod error;
mod handle;
mod journal;
pub mod key;
pub mod lease;
pub mod limits;
mod published;
pub mod record;
mod snapshot;
mod span;
mod tx;

pub use command::{CommitError, Committed};
pub use committer::Options;
pub use counter::{Counter, CounterKey};
pub use error::DecodeError;
pub use handle::{Meta, OpenError};
#[doc(hidden)]
pub use journal::conformance;
pub use journal::memory::MemoryJournal;
pub use journal::sqlite::{SqliteJournal, SqliteOpenError};
pub use journal::{Change, Commit, Entry, Envelope, Journal, JournalError, Loaded, Lsn, Outcome};
pub use key::{Key, KeyReader};
pub use lease::{Lease, LeaseError};
pub use published::Applied;
pub use record::Record;
pub use snapshot::{Lookup, Snapshot};
pub use tx::Tx;
