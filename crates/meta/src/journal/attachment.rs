//! Bytes that ride with a commit.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::journal::{JournalError, Lsn, Outcome};

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

/// Refuses attachments that no journal takes: more than it carries, two for one commit, or out of order.
pub(crate) fn check(commits: usize, attachments: &[Attachment], carries: u64) -> Result<(), JournalError> {
    let bytes: u64 = attachments.iter().map(|attachment| attachment.bytes).sum();
    if bytes > carries || (carries == 0 && !attachments.is_empty()) {
        return Err(JournalError::NotApplied(format!(
            "the group brings {bytes} bytes, the journal carries {carries}: put them into the store first"
        )));
    }
    let in_order = attachments.is_sorted_by(|one, next| one.commit < next.commit);
    assert!(in_order, "a commit has at most one attachment, in the order of the commits");
    let last = attachments.last().map_or(0, |last| last.commit as usize + 1);
    assert!(last <= commits, "an attachment belongs to a commit of its group");
    for attachment in attachments {
        let sum: u64 = attachment.pieces.iter().map(|piece| piece.len() as u64).sum();
        assert_eq!(sum, attachment.bytes, "the length of an attachment is that of its pieces");
    }
    Ok(())
}

/// The part of an attachment that was asked for.
pub(crate) fn part(lsn: Lsn, whole: &Bytes, range: Range<u64>) -> Result<Bytes, AttachedError> {
    check_range(lsn, whole.len() as u64, &range)?;
    Ok(whole.slice(range.start as usize..range.end as usize))
}

/// Refuses a range that the attachment does not have.
pub(crate) fn check_range(lsn: Lsn, bytes: u64, range: &Range<u64>) -> Result<(), AttachedError> {
    match range.start <= range.end && range.end <= bytes {
        true => Ok(()),
        false => Err(AttachedError::Range { lsn, bytes, range: range.clone() }),
    }
}
