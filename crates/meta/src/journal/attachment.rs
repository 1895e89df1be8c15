//! What every journal that carries attachments checks.

use std::ops::Range;

use bytes::Bytes;

use crate::journal::{AttachedError, Attachment, JournalError, Lsn};

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
