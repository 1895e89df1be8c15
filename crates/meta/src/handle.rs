//! A broker's handle on the metadata: read a snapshot, commit a command, watch, observe.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::command::{Answer, Pending, Queued};
use crate::committer::Committer;
use crate::journal::{Change, Entry, Envelope, Journal, JournalError, Lsn};
use crate::limits;
use crate::record::{DecodeError, Record, decode_key};
use crate::snapshot::Snapshot;
use crate::tx::Tx;
use floe_env::watch;
use floe_env::{Env, lock};

/// A broker's handle on the metadata map and its journal. A clone is the same handle; when the last one is gone, the
/// committer ends.
#[derive(Clone)]
pub struct Meta {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Box<dyn Queued>>,
}

/// Limits that tests and special deployments change; see [`crate::limits`] for the usual ones.
#[derive(Debug, Clone)]
pub struct Options {
    /// Commands that may wait.
    pub queue_commands_max: usize,
    /// Commands that share one commit of the journal.
    pub group_commands_max: usize,
    /// How long one call of the journal's commit may take before its outcome counts as unknown.
    pub commit_timeout: Duration,
    /// How long callers wait for the resolution of an unknown outcome.
    pub resolve_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            queue_commands_max: limits::QUEUE_COMMANDS_MAX,
            group_commands_max: limits::GROUP_COMMANDS_MAX,
            commit_timeout: limits::COMMIT_TIMEOUT,
            resolve_timeout: limits::RESOLVE_TIMEOUT,
        }
    }
}

/// The metadata cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal cannot be read.
    #[error("cannot load the metadata: {0}")]
    Load(#[from] JournalError),
    /// The journal has a gap or is out of order.
    #[error("the journal is corrupt: entry {found} where {expected} was due")]
    Gap {
        /// The LSN that was due.
        expected: Lsn,
        /// The LSN that was found.
        found: Lsn,
    },
}

/// A durable command.
#[derive(Debug, Clone)]
pub struct Committed<T> {
    /// Its commit; for a command that changed nothing, the commit before it.
    pub lsn: Lsn,
    /// What the command returned.
    pub reply: T,
    /// A map that includes this commit (and maybe later ones).
    pub snapshot: Snapshot,
}

/// A command that is not known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError<E> {
    /// The command itself refused; nothing changed.
    #[error(transparent)]
    Refused(E),
    /// Nothing changed and nothing will; it can be sent again.
    #[error("not committed: {0}")]
    NotApplied(String),
    /// It may have been committed or may still be.
    #[error("it is not known whether this was committed: {0}")]
    Unknown(String),
    /// The broker is shutting down; if the command was taken in, its outcome is not known.
    #[error("the metadata service of this broker has ended")]
    Closed,
}

/// One commit that was applied to this broker's map, as [`Meta::observe`] shows it.
#[derive(Debug)]
pub struct Applied<'a> {
    /// The commit.
    pub lsn: Lsn,
    /// Who, when and why.
    pub envelope: &'a Envelope,
    /// What changed, in key order.
    pub changes: &'a [Change],
    /// The map now, which includes this commit (and maybe later ones).
    pub snapshot: &'a Snapshot,
}

impl Applied<'_> {
    /// Whether a record of this type was written or removed.
    pub fn touches<R: Record>(&self) -> bool {
        self.changes.iter().any(|change| change.key.first() == Some(&R::KIND))
    }

    /// The keys of this type of record that were written or removed.
    pub fn keys<R: Record>(&self) -> impl Iterator<Item = Result<R::Key, DecodeError>> {
        self.changes
            .iter()
            .filter(|change| change.key.first() == Some(&R::KIND))
            .map(|c| decode_key::<R>(&c.key))
    }
}

impl Meta {
    /// Loads the map from the journal and starts the committer as a task of `env`.
    ///
    /// # Errors
    /// The journal cannot be read or has a gap.
    pub async fn open(env: Env, journal: Arc<dyn Journal>, options: Options) -> Result<Meta, OpenError> {
        let loaded = journal.load().await?;
        let mut snapshot = Snapshot::of_image(loaded.image, loaded.image_lsn);
        for entry in &loaded.entries {
            let expected = snapshot.lsn().next();
            if entry.lsn != expected {
                return Err(OpenError::Gap { expected, found: entry.lsn });
            }
            snapshot.apply(entry.lsn, &entry.changes);
        }
        let shared = Arc::new(Shared::new(snapshot, journal));
        let (queue, commands) = mpsc::channel(options.queue_commands_max);
        let committer = Committer::new(env.clone(), shared.clone(), commands, options);
        env.spawn_vital("meta committer", committer.run());
        Ok(Meta { shared, queue })
    }

    /// The map as this broker knows it now. Never blocks on a commit.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Runs `command` over the map and commits what it changed, durably, as one commit.
    ///
    /// The command is pure: it may be run again when another broker committed first. It is in the queue once this
    /// function returns its future; commands of one broker run in the order of these calls. Dropping the future does
    /// not take the command back. A command that changes nothing or refuses makes no commit, but is answered only
    /// after the earlier commands of its group are durable.
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
        let (answer, answered) = oneshot::channel::<Answer<T, E>>();
        let pending = Pending::new(envelope, command, answer);
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

    /// The same as [`Meta::commit`], for callers that want to say that the call fixes the order.
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

    /// Tells the LSN of the map whenever it moves on. Observers have run by then.
    pub fn watch(&self) -> watch::Receiver<Lsn> {
        self.shared.lsn.subscribe()
    }

    /// Calls `observer` for every commit of any broker after the returned snapshot, in LSN order, when it is in the
    /// map of [`Meta::snapshot`] and before it is acknowledged. It runs in the committer: it must be quick, must not
    /// block, and must not hold a [`Meta`] (it would keep the committer alive).
    pub fn observe(&self, observer: impl Fn(&Applied<'_>) + Send + Sync + 'static) -> Snapshot {
        let mut observers = lock(&self.shared.observers);
        observers.push(Arc::new(observer));
        self.shared.snapshot()
    }

    /// The kept commits after `from`, at most `count`: who wrote what.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.shared.journal.history(from, count).await
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meta").field("snapshot", &self.snapshot()).finish()
    }
}

type Observer = Arc<dyn Fn(&Applied<'_>) + Send + Sync>;

/// What the handles and the committer share.
pub(crate) struct Shared {
    pub(crate) journal: Arc<dyn Journal>,
    snapshot: RwLock<Snapshot>,
    observers: Mutex<Vec<Observer>>,
    lsn: watch::Sender<Lsn>,
}

impl Shared {
    fn new(snapshot: Snapshot, journal: Arc<dyn Journal>) -> Shared {
        let lsn = watch::Sender::new(snapshot.lsn());
        Shared { journal, snapshot: RwLock::new(snapshot), observers: Mutex::default(), lsn }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes durable commits visible: snapshot, then observers, then watchers.
    pub(crate) fn publish<'a>(
        &self,
        snapshot: &'a Snapshot,
        commits: impl Iterator<Item = (Lsn, &'a Envelope, &'a [Change])>,
    ) {
        let observers = {
            // Both under this lock, so that an observer misses no commit after the snapshot that it was given.
            let observers = lock(&self.observers);
            let mut published = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            assert!(published.lsn() <= snapshot.lsn(), "the map never goes back");
            *published = snapshot.clone();
            observers.clone()
        };
        for (lsn, envelope, changes) in commits {
            for observer in &observers {
                observer(&Applied { lsn, envelope, changes, snapshot });
            }
        }
        self.lsn.send_replace(snapshot.lsn());
        metrics::gauge!("floe_meta_lsn").set(snapshot.lsn().0 as f64);
        metrics::gauge!("floe_meta_keys").set(snapshot.len() as f64);
    }
}
