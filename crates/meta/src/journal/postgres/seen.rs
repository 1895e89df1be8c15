//! What this process has seen durable, and whether a server has it. Pure: numbers in, a judgement out.
//!
//! Each entry has a *link*: a checksum over the link before it and the entry's own checksum. So the link of one entry
//! stands for the whole history up to it. A server that lost commits, or went on differently, has another link there.
//!
//! ```text
//! link of entry n   crc32c of  link of entry n-1 u32 | checksum of entry n (seal.rs) u32      big endian; link 0 is 0
//! ```

use std::collections::BTreeMap;

use crate::journal::Lsn;
use crate::limits::POSTGRES_ENDS_MAX;

/// The link of an entry with this checksum behind an entry with the link `before`.
pub(super) fn link(before: u32, crc: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&before.to_be_bytes()), &crc.to_be_bytes())
}

/// A place in the history of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) lsn: Lsn,
    pub(super) link: u32,
}

/// The last commit that this process has seen, and the ends of the answers that it has given: the next call begins
/// at one of them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    last: Mark,
    ends: BTreeMap<Lsn, u32>,
}

/// Why the history of a server is not the one that this process has seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Astray {
    /// It ends too early.
    #[error(
        "the PostgreSQL server ends at commit {found}, and this broker has seen commit {seen} as durable: the server \
         has lost commits, by a fail-over to a standby that was behind or from an older backup. Nothing is applied. \
         Make the server that has them the primary again; if they are gone for good, restart every broker, and they go \
         on from what this server has"
    )]
    Behind {
        /// The last commit of the server.
        found: Lsn,
        /// The last commit that this process has seen.
        seen: Lsn,
    },
    /// It has other commits.
    #[error(
        "the PostgreSQL server has another history than the one that this broker has seen up to commit {0}: it lost \
         commits, and others were made in their place. Nothing is applied. Make the server that has them the primary \
         again; if they are gone for good, restart every broker, and they go on from what this server has"
    )]
    Differs(Lsn),
}

impl Seen {
    /// The last commit that this process has seen.
    pub(super) fn last(&self) -> Mark {
        self.last
    }

    /// The link of a commit, if this process remembers it.
    pub(super) fn link_of(&self, lsn: Lsn) -> Option<u32> {
        match lsn {
            Lsn(0) => Some(0),
            _ if lsn == self.last.lsn => Some(self.last.link),
            _ => self.ends.get(&lsn).copied(),
        }
    }

    /// Remembers the end of an answer.
    pub(super) fn note(&mut self, end: Mark) {
        if end.lsn == Lsn(0) {
            return;
        }
        self.ends.insert(end.lsn, end.link);
        if end.lsn > self.last.lsn {
            self.last = end;
        }
        while self.ends.len() > POSTGRES_ENDS_MAX {
            self.ends.pop_first();
        }
    }
}

impl Mark {
    /// Compares this place, up to which commits were seen durable, with what a server has: its last commit, and the
    /// link that it has at this place, if it still keeps that entry. An entry that it let go of cannot be compared;
    /// whoever asks for what follows it takes the image.
    pub(super) fn judge(self, tail: Mark, here: Option<u32>) -> Result<(), Astray> {
        if tail.lsn < self.lsn {
            return Err(Astray::Behind { found: tail.lsn, seen: self.lsn });
        }
        let here = if tail.lsn == self.lsn { Some(tail.link) } else { here };
        match self.lsn > Lsn(0) && here.is_some_and(|link| link != self.link) {
            true => Err(Astray::Differs(self.lsn)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(lsn: u64, link: u32) -> Mark {
        Mark { lsn: Lsn(lsn), link }
    }

    /// Databases in the field hold these numbers, so they never change.
    #[test]
    fn golden() {
        assert_eq!(link(0, 0), GOLDEN_FIRST);
        assert_eq!(link(GOLDEN_FIRST, 0x0102_0304), GOLDEN_SECOND);
    }

    const GOLDEN_FIRST: u32 = 0x8c28_b28a;
    const GOLDEN_SECOND: u32 = 0x90b5_2bb7;

    #[test]
    fn a_link_depends_on_the_whole_history() {
        let of = |crcs: &[u32]| crcs.iter().fold(0, |before, crc| link(before, *crc));
        assert_ne!(of(&[1, 2, 3]), of(&[4, 2, 3]));
        assert_ne!(of(&[1, 2]), of(&[2, 1]));
    }

    #[test]
    fn a_server_that_lost_commits_or_has_others_is_found() {
        assert_eq!(mark(0, 0).judge(mark(0, 0), None), Ok(()));
        assert_eq!(mark(0, 0).judge(mark(9, 7), None), Ok(()));
        let seen = mark(5, 50);
        assert_eq!(seen.judge(mark(5, 50), Some(50)), Ok(()));
        assert_eq!(seen.judge(mark(8, 80), Some(50)), Ok(()));
        assert_eq!(seen.judge(mark(8, 80), None), Ok(()), "it let go of it");
        let behind = Astray::Behind { found: Lsn(4), seen: Lsn(5) };
        assert_eq!(seen.judge(mark(4, 40), None), Err(behind));
        assert_eq!(seen.judge(mark(5, 51), Some(51)), Err(Astray::Differs(Lsn(5))));
        assert_eq!(seen.judge(mark(8, 80), Some(51)), Err(Astray::Differs(Lsn(5))));
    }

    #[test]
    fn the_ends_of_answers_are_remembered_and_bounded() {
        let mut seen = Seen::default();
        assert_eq!((seen.link_of(Lsn(0)), seen.link_of(Lsn(1))), (Some(0), None));
        for lsn in 1..=(POSTGRES_ENDS_MAX as u64 + 2) {
            seen.note(mark(lsn, lsn as u32 + 1));
        }
        assert_eq!((seen.link_of(Lsn(2)), seen.link_of(Lsn(3))), (None, Some(4)));
        let last = seen.last();
        seen.note(mark(3, 4));
        assert_eq!(seen.last(), last, "it never goes back");
        assert_eq!(seen.ends.len(), POSTGRES_ENDS_MAX);
    }
}
