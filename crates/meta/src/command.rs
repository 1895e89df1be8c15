//! A command in the committer's queue, with its types erased.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::journal::{Attachment, Change, Envelope, Lsn};
use crate::snapshot::Snapshot;
use crate::tx::Tx;
use floe_env::Timestamp;

/// The answer to a durable command.
#[derive(Debug, Clone)]
pub struct Committed<T> {
    /// The LSN of its commit. For a command that changed nothing: the LSN of the commit before it.
    pub lsn: Lsn,
    /// What the command returned.
    pub reply: T,
    /// A map that includes this commit, and maybe later ones.
    pub snapshot: Snapshot,
}

/// Why a command is not known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError<E> {
    /// The command itself refused. Nothing changed.
    #[error(transparent)]
    Refused(E),
    /// Nothing changed and nothing will. The caller may send the command again.
    #[error("not committed: {0}")]
    NotApplied(String),
    /// The outcome is not known: the command may have been committed, or may still be.
    #[error("it is not known whether this was committed: {0}")]
    Unknown(String),
    /// The broker is shutting down. The outcome of a queued command is not known.
    #[error("the metadata service of this broker has ended")]
    Closed,
}

pub(crate) type Answer<T, E> = Result<Committed<T>, CommitError<E>>;

/// A waiting command. It may run several times, and is answered once.
pub(crate) trait Queued: Send {
    /// Runs the command over `base` and returns its changes; none if it refuses.
    fn run(&mut self, base: &Snapshot, now: Timestamp) -> Vec<Change>;

    /// The envelope as the last run stamped it.
    fn envelope(&self) -> &Envelope;

    /// Whether the command frees room, or lets room be freed.
    fn is_deletion(&self) -> bool;

    /// The bytes that the command brings, if any. They are durable with its commit, and gone if it makes none.
    fn attachment(&self) -> Option<&Attachment>;

    /// Its commit and attachment are durable, and nobody can see the commit yet. `held` is the attachment as the
    /// journal has it in memory, if it has.
    fn stored(&mut self, lsn: Lsn, held: Option<Bytes>);

    /// Answers with the reply of the last run, which is durable.
    fn durable(self: Box<Self>, lsn: Lsn, snapshot: &Snapshot);

    /// Answers that nothing changed and nothing will.
    fn not_applied(self: Box<Self>, reason: &str);

    /// Answers that the outcome is not known.
    fn unknown(self: Box<Self>, reason: &str);
}

/// What a caller does with its attachment once it is durable.
pub(crate) type Stored = Box<dyn FnOnce(Lsn, Option<Bytes>) + Send>;

pub(crate) struct Pending<T, E, F> {
    envelope: Envelope,
    is_deletion: bool,
    attachment: Option<(Attachment, Option<Stored>)>,
    command: F,
    result: Option<Result<T, E>>,
    answer: oneshot::Sender<Answer<T, E>>,
}

impl<T, E, F> Pending<T, E, F> {
    pub(crate) fn new(
        envelope: Envelope,
        is_deletion: bool,
        command: F,
        answer: oneshot::Sender<Answer<T, E>>,
    ) -> Self {
        Pending { envelope, is_deletion, attachment: None, command, result: None, answer }
    }

    /// The same command with bytes that it brings.
    pub(crate) fn with(self, attachment: Attachment, stored: Stored) -> Self {
        Pending { attachment: Some((attachment, Some(stored))), ..self }
    }

    /// Sends the answer. A caller that is gone is not an error: the command took effect all the same.
    fn answer(self, answer: Answer<T, E>) {
        let _ = self.answer.send(answer);
    }
}

impl<T, E, F> Queued for Pending<T, E, F>
where
    T: Send,
    E: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, base: &Snapshot, now: Timestamp) -> Vec<Change> {
        self.envelope.stamp(now);
        let mut tx = Tx::new(base, &self.envelope);
        let result = (self.command)(&mut tx);
        let changes = if result.is_ok() { tx.into_changes() } else { Vec::new() };
        self.result = Some(result);
        changes
    }

    fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    fn is_deletion(&self) -> bool {
        self.is_deletion
    }

    fn attachment(&self) -> Option<&Attachment> {
        self.attachment.as_ref().map(|(attachment, _)| attachment)
    }

    fn stored(&mut self, lsn: Lsn, held: Option<Bytes>) {
        let stored = self.attachment.as_mut().and_then(|(_, stored)| stored.take());
        if let Some(stored) = stored {
            stored(lsn, held);
        }
    }

    fn durable(mut self: Box<Self>, lsn: Lsn, snapshot: &Snapshot) {
        let result = self.result.take().expect("a command is run before it is answered");
        let answer = match result {
            Ok(reply) => Ok(Committed { lsn, reply, snapshot: snapshot.clone() }),
            Err(refusal) => Err(CommitError::Refused(refusal)),
        };
        self.answer(answer);
    }

    fn not_applied(self: Box<Self>, reason: &str) {
        self.answer(Err(CommitError::NotApplied(reason.to_owned())));
    }

    fn unknown(self: Box<Self>, reason: &str) {
        self.answer(Err(CommitError::Unknown(reason.to_owned())));
    }
}
