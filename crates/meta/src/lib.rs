//! The metadata map behind a small journal.
//!
//! Everything that Floe knows (topics, extents, producers, groups, leases, progress of views) is one ordered map of
//! typed keys to versioned values. Applying the journal, a serial log of commits numbered by [`Lsn`], yields the
//! map. Each broker holds the map in memory as a persistent tree, so a [`Snapshot`] is a pointer copy and readers
//! never block.
//!
//! # One commit
//!
//! 1. A caller hands a pure command to [`Meta::commit`] (handle.rs). It waits in the committer's queue
//!    (command.rs).
//! 2. The committer (committer.rs) takes the waiting commands as one group. It runs each in a [`Tx`] (tx.rs), an
//!    overlay of typed reads and writes over the result of the earlier ones.
//! 3. The changes of each command become one [`Commit`] with its [`Envelope`]. The group goes to
//!    [`Journal::commit`] (journal/) with the LSN that it ran over, and is durable as a whole or not at all.
//! 4. The new map is published, observers are called in LSN order, and watchers wake (published.rs). Only then the
//!    callers are answered.
//!
//! If another broker committed first, the journal answers with the missed entries. The committer applies them and
//! runs the commands again. If it has let go of some of them, the committer takes the map as a whole (load.rs), and
//! observers see the difference as one commit. If the journal cannot tell whether it applied a group, the committer
//! sends the same attempt again until it can. Nothing else runs before that.
//!
//! # Formats
//!
//! ```text
//! key    kind u8 | fields in an order-preserving encoding           key.rs, span.rs
//! value  version u8 | body, postcard for most                       record.rs
//! entry  envelope and changes, each with a version                  journal/entry.rs
//! files  ring/, image/, history/                                    journal/ring/
//! objects  journal/                                                 journal/bucket/
//!        journal.sqlite, image.sqlite, base.sqlite of an earlier floe   journal/sqlite/
//! tables journal, tail, entries, images, chunks                     journal/postgres/ (a feature)
//! ```
//! Kinds: 1 cluster, 2 counter, 3 lease, 4 writer, 5 writer by name (no longer written), 6 principal, 7 principal by
//! name, 8 writer by principal and client id, 9 extents of a writer, 10 topic, 11 topic by name, 12 partition, 13
//! extent, 14 producer, 15 object, 16 object lease, 17 trash, 18 remains of a topic, 19 producers of a partition, 20
//! writer number, 21 mark of a partition, 30 group, 31 group offset, 40 table, 41 progress, 42 view state, 43 garbage
//! of a table, 44 and 45 the rebuilding of a table, 50 part of the history, 51 loose object of the history. A number is
//! never reused. Numbers from 200 on belong to tests.
//!
//! # What it is not
//!
//! It knows no batches and no topics: those records live in the crates above. It is not a consensus algorithm:
//! brokers that share a journal are serialised by the journal's own store. It holds no payload: values are small,
//! and the whole map fits into memory. Commands do no I/O and read no clock but [`Tx::now`].

mod command;
mod committer;
mod counter;
mod error;
mod handle;
mod journal;
pub mod key;
pub mod lease;
pub mod limits;
mod load;
mod published;
mod record;
mod snapshot;
mod span;
mod tx;

pub use command::{CommitError, Committed};
pub use committer::Options;
pub use counter::{Counter, CounterKey};
pub use error::DecodeError;
pub use handle::Meta;
pub use journal::bucket::{
    BucketFound, BucketJournal, BucketOpenError, BucketOptions, has_bucket_journal, inspect_bucket,
};
#[doc(hidden)]
pub use journal::conformance;
pub use journal::inspected::{DamagedAttachment, Inspected};
pub use journal::memory::MemoryJournal;
pub use journal::migrate::MigrateError;
pub use journal::open::{
    JournalOpenError, JournalOptions, has_journal, inspect, open_journal, set_image_aside,
};
#[cfg(feature = "postgres")]
pub use journal::postgres::{PostgresJournal, PostgresOpenError, PostgresOptions, inspect_postgres};
#[doc(hidden)]
pub use journal::ring::crash;
pub use journal::ring::{RingJournal, RingOpenError, RingOptions};
pub use journal::seal;
pub use journal::sqlite::{SqliteJournal, SqliteOpenError};
pub use journal::{
    AttachedError, Attachment, Carried, Change, Commit, Entry, Envelope, Journal, JournalError, Loaded, Lsn,
    Outcome,
};
pub use load::OpenError;
pub use published::{Applied, Fence};
pub use record::{MapRecord, decode_key, decode_value, put_postcard, take_part, take_postcard};
pub use snapshot::{Lookup, Snapshot};
pub use tx::Tx;
