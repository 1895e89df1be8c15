//! A broker's handle on the metadata: read a snapshot, commit a command, watch, observe.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::command::{Answer, CommitError, Committed, Pending, Queued, Stored};
use crate::committer::{Committer, Options};
use crate::journal::{AttachedError, Attachment, Entry, Envelope, Journal, JournalError, Lsn, Outcome};
use crate::limits::CATCH_UPS_MAX;
use crate::load::{OpenError, load};
use crate::published::{Applied, Fence, Published};
use crate::snapshot::Snapshot;
use crate::tx::Tx;
use floe_env::watch;
use floe_env::{Env, lock};

/// A broker's handle on the metadata map and its journal. Clones share it. The committer ends with the last clone.
#[derive(Clone)]
pub struct Meta {
    shared: Arc<Published>,
    queue: mpsc::Sender<Box<dyn Queued>>,
}

impl Meta {
    /// Loads the map from the journal and starts the committer as a task of `env`.
    ///
    /// # Errors
    /// The journal cannot be read or has a gap.
    pub async fn open(env: Env, journal: Arc<dyn Journal>, options: Options) -> Result<Meta, OpenError> {
        let (snapshot, time) = load(&*journal).await?;
        let shared = Arc::new(Published::new(snapshot, journal));
        let (queue, commands) = mpsc::channel(options.queue_commands_max);
        let committer = Committer::new(env.clone(), shared.clone(), commands, options, time);
        env.spawn_vital("meta committer", committer.run());
        Ok(Meta { shared, queue })
    }

    /// The map as this broker knows it now. Never blocks on a commit.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Runs `command` over the map and commits its changes, durably, as one commit.
    ///
    /// The command must be pure: it may run again when another broker committed first. It is in the queue once this
    /// function returns its future, and the commands of one broker run in the order of these calls. Dropping the
    /// future does not cancel the command. A command that changes nothing or refuses makes no commit, but is
    /// answered only after the earlier commands of its group are durable.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit<T, E, F>(
        &self,
        envelope: Envelope,
        command: F,
    ) -> impl Future<Output = Result<Committed<T>, CommitError<E>>> + Send + 'static
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.queue(envelope, false, None, command)
    }

    /// The same as [`Meta::commit`], for a command that brings bytes: they are durable with its commit. `stored` is
    /// called between the two moments at which the commit is durable and at which others see it, with the commit's LSN,
    /// and with the bytes as the journal has them in memory, if it has. A command that makes no commit keeps no bytes.
    /// The caller asks [`Meta::carries`] first.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit_attached<T, E, F>(
        &self,
        envelope: Envelope,
        attachment: Attachment,
        stored: impl FnOnce(Lsn, Option<Bytes>) + Send + 'static,
        command: F,
    ) -> impl Future<Output = Result<Committed<T>, CommitError<E>>> + Send + 'static
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.queue(envelope, false, Some((attachment, Box::new(stored))), command)
    }

    /// The same as [`Meta::commit`], for a command that frees room or lets room be freed. It is also taken when the
    /// journal is so full that it takes nothing else ([`Journal::only_deletions`]).
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit_deletion<T, E, F>(
        &self,
        envelope: Envelope,
        command: F,
    ) -> impl Future<Output = Result<Committed<T>, CommitError<E>>> + Send + 'static
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.queue(envelope, true, None, command)
    }

    fn queue<T, E, F>(
        &self,
        envelope: Envelope,
        is_deletion: bool,
        attachment: Option<(Attachment, Stored)>,
        command: F,
    ) -> impl Future<Output = Result<Committed<T>, CommitError<E>>> + Send + 'static
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel::<Answer<T, E>>();
        let mut pending = Pending::new(envelope, is_deletion, command, answer);
        if let Some((attachment, stored)) = attachment {
            pending = pending.with(attachment, stored);
        }
        let refused = match self.queue.try_send(Box::new(pending)) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!("floe_meta_queue_refused_total").increment(1);
                let limit = self.queue.max_capacity();
                Some(CommitError::NotApplied(format!(
                    "{limit} metadata commands are waiting already, try again later"
                )))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Some(CommitError::Closed),
        };
        async move {
            match refused {
                Some(error) => Err(error),
                None => answered.await.unwrap_or(Err(CommitError::Closed)),
            }
        }
    }

    /// The same as [`Meta::commit`]. The name tells the reader that the call fixes the order.
    pub fn enqueue<T, E, F>(
        &self,
        envelope: Envelope,
        command: F,
    ) -> impl Future<Output = Result<Committed<T>, CommitError<E>>> + Send + 'static
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.commit(envelope, command)
    }

    /// A watch of the LSN of the published map. Observers run before it changes.
    pub fn watch(&self) -> watch::Receiver<Lsn> {
        self.shared.lsn.subscribe()
    }

    /// Calls `observer` for every commit of any broker after the returned snapshot, in LSN order. At each call the
    /// commit is in the map of [`Meta::snapshot`] and is not acknowledged yet. The observer runs in the committer:
    /// it must be quick, must not block, and must not hold a [`Meta`], which would keep the committer alive.
    pub fn observe(&self, observer: impl Fn(&Applied<'_>) + Send + Sync + 'static) -> Snapshot {
        let mut observers = lock(&self.shared.observers);
        observers.push(Arc::new(observer));
        self.shared.snapshot()
    }

    /// What ends the commits of this broker. An observer may hold it.
    pub fn fence(&self) -> Fence {
        self.shared.fence.clone()
    }

    /// Waits until the map has everything that others had committed when this was called.
    ///
    /// # Errors
    /// The journal did not answer.
    pub async fn catch_up(&self) -> Result<(), JournalError> {
        for _ in 0..CATCH_UPS_MAX {
            let known = self.snapshot().lsn();
            // A group without commits asks where the journal ends, and has no effect.
            let some = match self.shared.journal.commit(known, 0, &[]).await {
                Ok(Outcome::Committed(_)) => return Ok(()),
                Ok(Outcome::Conflict(missed)) => missed.last().map_or(known, |entry| entry.lsn),
                // The committer takes the map as a whole, which has at least this commit.
                Err(JournalError::Reload(first)) => first,
                Err(error) => return Err(error),
            };
            // The sender lives in the state, which this handle holds.
            let _ = self.watch().wait_for(|lsn| *lsn >= some).await;
        }
        Err(JournalError::NotApplied("others commit faster than this broker reads".to_owned()))
    }

    /// The largest attachment that a command may bring, in bytes; 0 if the journal carries none.
    pub fn carries(&self) -> u64 {
        self.shared.journal.carries()
    }

    /// Reads a part of the attachment of a commit.
    ///
    /// # Errors
    /// See [`AttachedError`].
    pub async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        self.shared.journal.attached(lsn, range).await
    }

    /// Nothing needs the attachment of this commit any more. A hint, see [`Journal::released`].
    pub fn released(&self, lsn: Lsn) {
        self.shared.journal.released(lsn);
    }

    /// The commits whose attachments the journal keeps, in order.
    pub fn attachments(&self) -> Vec<Lsn> {
        self.shared.journal.attachments()
    }

    /// The commits whose attachments are known and not there, see [`Journal::lost`].
    pub fn lost(&self) -> Vec<Lsn> {
        self.shared.journal.lost()
    }

    /// Whether bytes should go elsewhere for now, see [`Journal::crowded`].
    pub fn crowded(&self) -> bool {
        self.shared.journal.crowded()
    }

    /// Whether attachments should leave the journal soon, see [`Journal::pressed`].
    pub fn pressed(&self) -> bool {
        self.shared.journal.pressed()
    }

    /// How long the journal's present write has been under way, if there is one, see [`Journal::stalled`].
    pub fn stalled(&self) -> Option<Duration> {
        self.shared.journal.stalled()
    }

    /// The commits after `from`, at most `count`: who wrote what.
    ///
    /// # Errors
    /// The journal cannot be read, or has let go of them.
    pub async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.shared.journal.history(from, count).await
    }

    /// The commits up to this one are kept elsewhere. A hint, see [`Journal::forget`].
    pub fn forget(&self, upto: Lsn) {
        self.shared.journal.forget(upto);
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meta").field("snapshot", &self.snapshot()).finish()
    }
}
