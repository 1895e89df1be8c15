//! The journal in PostgreSQL, for brokers on many machines. Several open it at once.
//!
//! ```text
//! schema floe                                                                        schema.rs
//!   journal   one row     format, id
//!   tail      one row     last lsn, its link and attempt, bytes of all entries        <- the race is for this row
//!   entries   lsn         attempt, envelope, changes, checksum, link                  rows.rs, seen.rs
//!   images    generation  lsn, fold (how far it goes, its sum), chunks, bytes         read.rs; generations 0 and 1
//!   chunks    generation, chunk   pairs in key order, checksum                        image.rs
//! ```
//!
//! # One commit
//! One statement changes the tail from what the group expects, inserts the entries and tells the listeners (commit.rs,
//! state.rs). It is one transaction, so the group is durable as a whole or not at all, with one sync, and one round
//! trip. PostgreSQL itself makes brokers take turns: the second one waits for the row, and finds that it has changed. A
//! second statement travels with the first and brings what was missed, so a lost race also costs one round trip.
//!
//! # What is certain
//! An error of the statement undoes its transaction: `NotApplied`. A connection that breaks, or does not answer in
//! time, leaves the outcome open: `Unknown`, and the connection is thrown away. The same attempt sent again finds the
//! tail where it expects it, or finds the entries, with its own attempt first if it was applied. A late first call
//! cannot apply after that, because the tail has moved.
//!
//! `synchronous_commit` is set to `on` by every session; with `synchronous_standby_names` that includes the standbys. A
//! server with `fsync=off` is refused.
//!
//! # The right server
//! Only the primary is used (`target_session_attrs`, and `pg_is_in_recovery()`), by every connection (session.rs).
//! Each entry has a link that stands for the whole history up to it (seen.rs). A process remembers the last one that it
//! has seen durable. Every new connection is compared with it, every commit names the link that it expects, and every
//! page of entries must follow it. So a fail-over to a standby that has everything goes on, and one to a standby that
//! lost commits is refused, as is an older backup: nothing is applied, and every call says so until the right server
//! is back. Not found is a server that lost commits, was followed by others, and has since let go of the place that
//! this process would compare; then the process takes the image like everybody else. A process that starts has seen
//! nothing and takes the server as it is: what the store has beyond it is found by the comparison of the two at start.
//!
//! # Beside commits
//! A listener (listener.rs) hears of commits by `NOTIFY`, and looks for itself when it hears nothing. The keeper
//! (keeper.rs) of whichever broker notices first writes the next image when enough entries follow the last one, in one
//! transaction: the image before with what has changed, chunk by chunk. Entries go when they are kept elsewhere and two
//! images have them. So the database holds two images (three while one is written), the entries behind the older one,
//! and those that the history does not have yet.
//!
//! With `sslmode=require`, connections are encrypted, and the server's certificate is verified (tls.rs).
//!
//! A handle has up to five connections: for commits, for reads, for listening, and now and then one for a load and one
//! for the keeper. They are sessions of their own; a pooler that hands out connections by transaction does not work.
//!
//! # What is missing
//! - One broker at a time serves with it (`log/start/taken.rs`), and `floe journal move` does not know it.
//! - Brokers race for each commit. A turn that a broker keeps for several commits is a matter of the contract.

mod commit;
mod error;
mod image;
mod inspect;
mod keeper;
mod listener;
mod planted;
mod read;
mod rows;
mod schema;
mod seen;
mod server;
#[cfg(test)]
mod server_tests;
mod session;
mod state;
#[cfg(test)]
mod test_proxy;
#[cfg(test)]
mod test_server;
mod tls;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use floe_env::{Env, Task, lock};
use tokio::sync::Mutex;

use crate::journal::{Commit, Entry, Journal, JournalError, Loaded, Lsn, Outcome};
use crate::limits::ENTRIES_MAX;

use self::server::Server;
use self::session::{Role, Session};
use self::state::{Lane, Shared};

pub use self::error::PostgresOpenError;
pub use self::inspect::inspect_postgres;
pub use self::server::PostgresOptions;

/// A journal in PostgreSQL. Dropping it closes its connections at once; a commit that is under way may still apply.
pub struct PostgresJournal {
    shared: Arc<Shared>,
    commits: Mutex<Lane>,
    reads: Arc<Mutex<Lane>>,
    tasks: [Task<()>; 2],
}

impl PostgresJournal {
    /// Opens the journal at an address, and makes its tables if they are missing and the caller knows no id.
    ///
    /// # Errors
    /// See [`PostgresOpenError`].
    pub async fn open(env: &Env, options: PostgresOptions) -> Result<PostgresJournal, PostgresOpenError> {
        let server = Server::of(&options)?;
        let session = Session::connect(env, &server, Role::Keeper, None).await?;
        let id = match options.id {
            None => schema::ensure(&session.client, &server, env.random_u128()).await?,
            // A cluster that has a journal does not get another one.
            expected => schema::find_expected(&session.client, &server, expected).await?,
        };
        drop(session);
        let shared = Shared::new(env, server, options, id);
        let ready = shared.ready(Role::Commits, None).await?;
        let reads = Arc::new(Mutex::new(Lane::new(&shared, Role::Reads, None)));
        let tasks = [
            env.spawn("postgres-listener", listener::listen(Arc::clone(&shared))),
            env.spawn("postgres-keeper", keeper::keep(Arc::clone(&shared), Arc::clone(&reads))),
        ];
        let commits = Mutex::new(Lane::new(&shared, Role::Commits, Some(ready)));
        Ok(PostgresJournal { shared, commits, reads, tasks })
    }

    /// The id of the journal: drawn once, when its tables were made.
    pub fn id(&self) -> u128 {
        self.shared.id
    }

    /// The last commit that this process knows of.
    pub fn lsn(&self) -> Lsn {
        self.shared.heard.borrow().last
    }
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn load(&self) -> Result<Loaded, JournalError> {
        read::load(&self.shared).await
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        commit::commit(&self.shared, &self.commits, expected, attempt, commits).await
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        let mut heard = self.shared.heard.subscribe();
        // The sender lives in the state, which this call holds.
        let _ = heard.wait_for(|heard| heard.last > from || heard.trouble.is_some()).await;
        let trouble = self.shared.heard.borrow().trouble.clone();
        if let Some(trouble) = trouble {
            return Err(JournalError::NotApplied(trouble));
        }
        self.history(from, ENTRIES_MAX).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        read::history(&self.shared, &self.reads, from, count).await
    }

    fn forget(&self, upto: Lsn) {
        self.shared.told.fetch_max(upto.0, Ordering::SeqCst);
    }

    fn stalled(&self) -> Option<Duration> {
        lock(&self.shared.under_way).map(|began| began.elapsed())
    }
}

impl Drop for PostgresJournal {
    fn drop(&mut self) {
        self.tasks.iter().for_each(Task::abort);
    }
}

impl std::fmt::Debug for PostgresJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresJournal").field("lsn", &self.lsn()).finish_non_exhaustive()
    }
}
