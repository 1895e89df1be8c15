//! The journal: the small durable serial log of metadata changes, and the only part that is pluggable.
//!
//! The contract, which `conformance` tests for every journal:
//!
//! - Commits are numbered by [`Lsn`] without gaps, from 1. A group of commits is durable as a whole or not at all,
//!   and durable before its outcome is answered.
//! - `commit(expected, ..)` applies only if the last LSN is `expected`. If not, it answers [`Outcome::Conflict`] with
//!   every entry after `expected`, in order. So an attempt applies at most once, however often it is sent.
//! - [`JournalError::NotApplied`] is a promise: this call has and will have no effect. Whatever cannot promise that is
//!   [`JournalError::Unknown`]; dropping the future of a commit is unknown too. Whoever needs to know commits the same
//!   attempt again: `Committed`, or a conflict whose first entries carry the attempt, or one whose entries do not.
//! - Entries are kept for ever with their envelopes: the history of who wrote what.

#[doc(hidden)]
pub mod conformance;
pub(crate) mod entry;
pub(crate) mod memory;
pub(crate) mod sqlite;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::ENVELOPE_TEXT_BYTES_MAX;
use floe_env::Timestamp;

/// The number of a commit: one total order over the whole cluster. 0 is the empty map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The commit after this one.
    #[must_use]
    pub fn next(self) -> Lsn {
        self.plus(1)
    }

    /// The commit `count` after this one.
    #[must_use]
    pub fn plus(self, count: usize) -> Lsn {
        Lsn(self.0.checked_add(count as u64).expect("64 bits of commits do not run out"))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who made a commit, when and why. Kept for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// When the broker ran the command; stamped by [`crate::Meta`], whatever the caller wrote.
    pub time: Timestamp,
    /// The authenticated writer, never taken from the client.
    pub principal: Arc<str>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// The run of a job, script or agent that this belongs to.
    pub run_id: Option<String>,
    /// What made this happen: topic/partition/offset, invocation/step, or the name of a broker's job.
    pub cause: Option<String>,
    /// The commit that this one takes back.
    pub undo_of: Option<Lsn>,
    /// Words for people.
    pub comment: Option<String>,
}

impl Envelope {
    /// The principal of what a broker does by itself.
    pub const BROKER: &'static str = "floe";

    /// A commit that the broker itself makes; `cause` names the job, for example `retention`.
    pub fn broker(cause: &str) -> Envelope {
        let mut envelope = Envelope::client(Envelope::BROKER.into(), "".into());
        envelope.cause = Some(cause.to_owned());
        envelope
    }

    /// A commit that a client asked for.
    pub fn client(principal: Arc<str>, client_id: Arc<str>) -> Envelope {
        Envelope {
            time: Timestamp::default(),
            principal,
            client_id,
            run_id: None,
            cause: None,
            undo_of: None,
            comment: None,
        }
    }

    /// The envelope as it is committed: stamped, and with texts from outside cut to
    /// [`ENVELOPE_TEXT_BYTES_MAX`].
    pub(crate) fn stamp(&mut self, now: Timestamp) {
        self.time = now;
        for text in [&mut self.principal, &mut self.client_id] {
            if text.len() > ENVELOPE_TEXT_BYTES_MAX {
                *text = cut(text).into();
            }
        }
        for text in [&mut self.run_id, &mut self.cause, &mut self.comment].into_iter().flatten() {
            let length = cut(text).len();
            text.truncate(length);
        }
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(ENVELOPE_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A key's new value, or its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The full key: kind and body.
    pub key: Bytes,
    /// The new value; `None` removes the key.
    pub value: Option<Bytes>,
}

/// One commit before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Who, when and why.
    pub envelope: Envelope,
    /// What changes, in key order.
    pub changes: Vec<Change>,
}

/// One commit of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub lsn: Lsn,
    /// The attempt that committed it; all commits of a group share one.
    pub attempt: u128,
    /// Who, when and why.
    pub envelope: Envelope,
    /// What changed, in key order.
    pub changes: Vec<Change>,
}

/// What a journal holds when it is opened.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The map up to `image_lsn`.
    pub image: Vec<(Bytes, Bytes)>,
    /// The last commit that is in the image.
    pub image_lsn: Lsn,
    /// The commits after the image, in order.
    pub entries: Vec<Entry>,
}

/// What a commit came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Applied and durable; the last LSN of the group.
    Committed(Lsn),
    /// Not applied by this call, because the journal is further than expected: all entries after `expected`. If the
    /// first ones carry the attempt, an earlier call with it was applied.
    Conflict(Vec<Entry>),
}

/// A call of the journal that gave no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The call has and will have no effect.
    #[error("the journal did not apply it: {0}")]
    NotApplied(String),
    /// The call may have had its effect or may still have it.
    #[error("the journal did not tell whether it applied it: {0}")]
    Unknown(String),
}

/// The durable serial log of metadata changes. See the module's words for the contract.
#[async_trait]
pub trait Journal: Send + Sync {
    /// All that was committed.
    async fn load(&self) -> Result<Loaded, JournalError>;

    /// Appends a group of commits after `expected`, durably and as a whole.
    async fn commit(&self, expected: Lsn, attempt: u128, commits: &[Commit])
    -> Result<Outcome, JournalError>;

    /// Waits until there are entries after `from` and returns them in order, at most
    /// [`crate::limits::ENTRIES_MAX`]. May be dropped at any time.
    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError>;

    /// The kept entries after `from`, at most `count` (and [`crate::limits::ENTRIES_MAX`]), without waiting.
    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError>;
}
