//! The journal: the small durable serial log of metadata changes, and the only pluggable part.
//!
//! The contract, which `conformance` tests for every journal:
//!
//! - [`Lsn`]s number the commits from 1, without gaps. A group of commits is durable as a whole or not at all, and
//!   is durable before its outcome is answered.
//! - `commit(expected, ..)` applies only if the last LSN is `expected`. Otherwise it answers [`Outcome::Conflict`]
//!   with every entry after `expected`, in order. So an attempt applies at most once, however often it is sent. Of more
//!   than [`crate::limits::ENTRIES_MAX`] entries or [`crate::limits::ENTRIES_BYTES_MAX`] it may answer the first ones:
//!   at least every commit of the first group.
//! - [`JournalError::NotApplied`] is a promise: this call has and will have no effect. Without that promise the
//!   error is [`JournalError::Unknown`]. Dropping the future of a commit leaves its outcome unknown too.
//! - An unknown outcome is resolved by committing the same attempt again. The answer is `Committed`, or a conflict.
//!   The first entries of the conflict carry the attempt if it was applied.
//! - Entries are kept with their envelopes until [`Journal::forget`] says that they are kept elsewhere. That is a hint.
//!   A journal may act on it late, or never, and forgets it when it is closed. It lets go of the oldest entries first,
//!   never of one beyond what it was told, and never of the last. It still has what came of them: [`Journal::load`] has
//!   an image that is at least as new, and can make it good if one copy of it is damaged.
//! - A call that needs an entry that is gone answers [`JournalError::Reload`] and has no effect: whoever follows takes
//!   the image. An attempt whose outcome is unknown then stays unknown, so nobody lets a journal forget what a broker
//!   may still ask for.
//!
//! Some journals carry bytes with a commit, so that bytes and entries are durable with one sync:
//!
//! - [`Journal::carries`] is the largest sum of the attachments of a group; 0 is none. More is `NotApplied`.
//! - An [`Attachment`] is durable if and only if its commit is. [`Journal::attached`] reads it when the commit is
//!   answered, and after every reopening, until it is released.
//! - An attachment of a group that was not applied can never be read. The same attempt is sent again with the same
//!   attachments.
//! - [`Journal::released`] is a hint: nothing will ask for this attachment again, and its room may be used. A journal
//!   may forget the hint when it is closed. So a start compares [`Journal::attachments`] with what it needs.

pub(crate) mod attachment;
pub(crate) mod bucket;
#[doc(hidden)]
pub mod conformance;
pub(crate) mod entry;
pub(crate) mod inspected;
pub(crate) mod memory;
pub(crate) mod migrate;
pub(crate) mod open;
mod planted;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub(crate) mod ring;
pub mod seal;
pub(crate) mod sqlite;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::limits::ENVELOPE_TEXT_BYTES_MAX;
use floe_env::Timestamp;

/// The number of a commit, in one total order over the whole cluster. 0 is the empty map.
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

/// Who made a commit, when and why. The history keeps it for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// When the broker ran the command, or the time of the commit before, if that is later: it never goes back. Several
    /// commits may have one time; the LSN gives their order. [`crate::Meta`] sets it and ignores the caller's value.
    pub time: Timestamp,
    /// The authenticated writer, never taken from the client.
    pub principal: Arc<str>,
    /// The name that the client gave itself.
    pub client_id: Arc<str>,
    /// The run of a job, script or agent that the commit belongs to.
    pub run_id: Option<String>,
    /// The cause: topic/partition/offset, invocation/step, or the name of a broker's job.
    pub cause: Option<String>,
    /// The commit that this one undoes.
    pub undo_of: Option<Lsn>,
    /// A comment for people.
    pub comment: Option<String>,
}

impl Envelope {
    /// The principal of commits that a broker makes by itself.
    pub const BROKER: &'static str = "floe";

    /// A commit that the broker itself makes; `cause` names the job, for example `retention`.
    pub fn broker(cause: &str) -> Envelope {
        let mut envelope = Envelope::client(Envelope::BROKER.into(), "".into());
        envelope.cause = Some(cause.to_owned());
        envelope
    }

    /// A commit that a client requested.
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

    /// Prepares the envelope for its commit: sets the time, and cuts texts from outside to
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
    /// Who makes the commit, when and why.
    pub envelope: Envelope,
    /// The changes in key order.
    pub changes: Vec<Change>,
}

/// Bytes that become durable with a commit, at the same moment. The journal does not know what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The commit's place in its group, from 0. [`crate::Meta`] sets it.
    pub commit: u32,
    /// The bytes, in as many pieces as the caller has.
    pub pieces: Vec<Bytes>,
    /// The sum of the pieces' lengths.
    pub bytes: u64,
    /// CRC-32C of all bytes. Who made them has it, so a change of the memory between there and the disk is found.
    pub crc: u32,
}

impl Attachment {
    /// An attachment of these pieces, whose CRC-32C the caller knows.
    pub fn new(pieces: Vec<Bytes>, crc: u32) -> Attachment {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        Attachment { commit: 0, pieces, bytes, crc }
    }

    /// An attachment of these pieces, with the CRC-32C that they have now.
    pub fn of(pieces: Vec<Bytes>) -> Attachment {
        let crc = pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        Attachment::new(pieces, crc)
    }

    /// All bytes in one piece.
    pub(crate) fn joined(&self) -> Bytes {
        if let [piece] = &self.pieces[..] {
            return piece.clone();
        }
        let mut joined = BytesMut::new();
        self.pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
        joined.freeze()
    }
}

/// The outcome of a commit with attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The outcome of the group.
    pub outcome: Outcome,
    /// The attachments in their order, where the journal has them in memory as they went to the disk; otherwise empty.
    pub held: Vec<Bytes>,
}

impl Carried {
    /// An outcome of which nothing is held in memory.
    pub fn of(outcome: Outcome) -> Carried {
        Carried { outcome, held: Vec::new() }
    }
}

/// Why an attachment cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachedError {
    /// The commit has no attachment, or it was released.
    #[error("commit {0} has no attachment")]
    None(Lsn),
    /// The attachment ends before the range does.
    #[error("the attachment of commit {lsn} has {bytes} bytes, not {range:?}")]
    Range {
        /// The commit.
        lsn: Lsn,
        /// Bytes of the attachment.
        bytes: u64,
        /// What was asked for.
        range: Range<u64>,
    },
    /// The bytes do not match their checksum. The commit stands, and the bytes are kept as they are.
    #[error("the attachment of commit {lsn} is damaged: {place}. Restore the file from a backup")]
    Damaged {
        /// The commit.
        lsn: Lsn,
        /// The file and the place in it.
        place: String,
    },
    /// The disk did not read.
    #[error("cannot read the attachment of commit {lsn}: {reason}")]
    Failed {
        /// The commit.
        lsn: Lsn,
        /// What the disk said.
        reason: String,
    },
}

/// One commit of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The commit's number.
    pub lsn: Lsn,
    /// The attempt that committed it. All commits of a group share one.
    pub attempt: u128,
    /// Who made the commit, when and why.
    pub envelope: Envelope,
    /// The changes in key order.
    pub changes: Vec<Change>,
}

/// The contents of a journal at opening.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The folded map as of `image_lsn`.
    pub image: Vec<(Bytes, Bytes)>,
    /// The last commit that is in the image.
    pub image_lsn: Lsn,
    /// The commits after the image, in order.
    pub entries: Vec<Entry>,
}

/// The outcome of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The group is applied and durable; this is its last LSN.
    Committed(Lsn),
    /// This call applied nothing, because the journal is ahead of `expected`. These are the entries after `expected`:
    /// all of them, or the first of very many. If the first ones carry the attempt, an earlier call with it was
    /// applied.
    Conflict(Vec<Entry>),
}

/// Why a call of the journal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The call has and will have no effect.
    #[error("the journal did not apply it: {0}")]
    NotApplied(String),
    /// The call may have had its effect, or may still have it.
    #[error("the journal did not tell whether it applied it: {0}")]
    Unknown(String),
    /// The call had no effect. It needs entries that the journal has let go of: load the image.
    #[error(
        "the journal keeps the commits from {0} on, and this needs earlier ones: they are in the history"
    )]
    Reload(Lsn),
}

/// The durable serial log of metadata changes. The module documents the contract.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Everything that was committed, as an image and the entries after it.
    async fn load(&self) -> Result<Loaded, JournalError>;

    /// Appends a group of commits after `expected`, durably and as a whole.
    async fn commit(&self, expected: Lsn, attempt: u128, commits: &[Commit])
    -> Result<Outcome, JournalError>;

    /// The largest sum of the attachments of one group, in bytes; 0 if the journal carries none.
    fn carries(&self) -> u64 {
        0
    }

    /// The same as [`Journal::commit`], with bytes that become durable with the commits: at most one attachment for
    /// each, in the order of the commits. A journal that carries none takes only groups without attachments.
    async fn commit_with(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        if !attachments.is_empty() {
            return Err(JournalError::NotApplied(
                "this journal carries no bytes: put them into the store first".to_owned(),
            ));
        }
        self.commit(expected, attempt, commits).await.map(Carried::of)
    }

    /// Reads a part of the attachment of a commit.
    async fn attached(&self, lsn: Lsn, _range: Range<u64>) -> Result<Bytes, AttachedError> {
        Err(AttachedError::None(lsn))
    }

    /// Nothing needs the attachment of this commit any more. A hint, which must be quick and may be repeated.
    fn released(&self, _lsn: Lsn) {}

    /// The commits whose attachments are kept, in order.
    fn attachments(&self) -> Vec<Lsn> {
        Vec::new()
    }

    /// The commits whose attachments are known and not there, in order: their file is missing. Who does not need one
    /// says so with [`Journal::released`]; the others are found again when the file is put back.
    fn lost(&self) -> Vec<Lsn> {
        Vec::new()
    }

    /// Waits until there are entries after `from`. Returns them in order, at most [`crate::limits::ENTRIES_MAX`].
    /// The future may be dropped at any time.
    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError>;

    /// The entries after `from`, at most `count` (and [`crate::limits::ENTRIES_MAX`]), without waiting.
    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError>;

    /// The commits up to this one are kept elsewhere. A hint, which must be quick and may be repeated.
    fn forget(&self, _upto: Lsn) {}

    /// Whether the room for attachments is nearly used up. They are taken all the same while there is room; who has
    /// another place for bytes puts them there meanwhile. Must be quick.
    fn crowded(&self) -> bool {
        false
    }

    /// Whether attachments should leave soon, because their room is nearly used up, or the disk that they are on. Must
    /// be quick.
    fn pressed(&self) -> bool {
        self.crowded()
    }

    /// How long the present write with its sync has been under way, if there is one: a disk that hangs shows itself by
    /// this alone. It must be quick.
    fn stalled(&self) -> Option<Duration> {
        None
    }

    /// Why only deletions may be committed now, if so: the room that is left is kept for them, because they give room
    /// back. It is asked before each group, and must be quick.
    fn only_deletions(&self) -> Option<String> {
        None
    }
}
