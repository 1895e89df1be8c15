//! A frame: a group of commits and the bytes that ride with them. It is the unit of durability. Pure: bytes in, values
//! out.
//!
//! ```text
//!   0 magic "FLOEFRAM"   8 version u16   10 kind u8: 1 group, 2 seal, 3 void   11 zero   12 crc32c of the rest of it
//!  16 journal id u64    24 generation u64   32 place u64 (offset in the file)   40 nonce u64 (of this use of the file)
//!  48 first LSN u64     56 attempt u128     72 attempt of the frame before u128  88 durable u64
//!  96 commits u32      100 attachments u32 104 meta bytes u32     108 crc32c of the meta part u32
//! 112 payload bytes u32   116 frame bytes u32   120 crc32c in the header of the frame before u32   124 zero
//! 128 meta part: for each attachment commit u32, offset in the payload u32, bytes u32, crc32c u32
//!                then for each commit bytes of the envelope u32, bytes of the changes u32, envelope, changes
//!     payload: the attachments back to back, from the next multiple of 8
//!     zeros up to the next multiple of 4,096
//! ```
//! All numbers are little endian. `entry.rs` has the encodings of envelopes and changes. Two frames never share a block
//! of 4,096 bytes, so a torn write cannot hurt a neighbour. The header lies in one sector of 512 bytes.
//!
//! A frame counts only where it was written (journal, generation, place, nonce) and only behind the frame that it names
//! (attempt and checksum). So leftovers of an earlier use never count, nor does a payload in which a client imitated a
//! frame: the nonce is random and leaves the process in no other way.
//!
//! `durable` is the last LSN that was known to be durable when the frame was handed over. So a sound frame proves that
//! the commits up to there were acknowledged. A seal has no commits, and proves the same of all before it. A void says
//! that the log ends here, and that the next frame takes its place.

use std::ops::Range;

use crate::journal::entry::{decode_changes, decode_envelope, encode_changes, encode_envelope};
use crate::journal::{Attachment, Commit, Entry, Lsn};
use crate::limits::{FRAME_BYTES_MAX, GROUP_COMMITS_MAX};

/// Frames begin and end at multiples of this.
pub(super) const BLOCK: u64 = 4096;
/// Bytes of a payload that are copied and summed at once.
const SUMMED_BYTES: usize = 48 << 10;
/// Bytes of a frame's header.
pub(super) const HEADER_BYTES: usize = 128;

const MAGIC: &[u8; 8] = b"FLOEFRAM";
const VERSION: u16 = 1;
const ATTACHMENT_BYTES: usize = 16;
const LENGTHS_BYTES: usize = 8;
const PAYLOAD_ALIGN: u64 = 8;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Commits, and maybe attachments.
    Group = 1,
    /// Nothing; all before it is durable.
    Seal = 2,
    /// The log ends here.
    Void = 3,
}

/// Where a frame lies, and what binds it to this use of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) journal: u64,
    pub(super) generation: u64,
    pub(super) nonce: u64,
    pub(super) offset: u64,
}

/// What a frame says of the frame before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) attempt: u128,
    pub(super) crc: u32,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) place: Place,
    /// The LSN of the first commit, or of the one that would come next.
    pub(super) first: Lsn,
    pub(super) attempt: u128,
    pub(super) before: Link,
    pub(super) durable: Lsn,
    pub(super) commits: u32,
    pub(super) attachments: u32,
    pub(super) meta_bytes: u32,
    pub(super) meta_crc: u32,
    pub(super) payload_bytes: u32,
}

/// Why bytes are not a frame of this place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoFrame {
    #[error("there is no frame")]
    None,
    #[error("a frame of format {0}, which a newer floe wrote: use that one")]
    Newer(u16),
    #[error("the frame is damaged: {0}")]
    Damaged(&'static str),
}

/// An attachment as its frame lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) commit: u32,
    /// The first byte in the payload.
    pub(super) offset: u32,
    pub(super) bytes: u32,
    pub(super) crc: u32,
}

/// The meta part of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MetaPart {
    pub(super) attachments: Vec<Listed>,
    pub(super) entries: Vec<Entry>,
}

impl Header {
    /// A frame without commits.
    pub(super) fn empty(kind: Kind, place: Place, attempt: u128, before: Link, last: Lsn) -> Header {
        Header {
            kind,
            place,
            first: last.next(),
            attempt,
            before,
            durable: last,
            commits: 0,
            attachments: 0,
            meta_bytes: 0,
            meta_crc: 0,
            payload_bytes: 0,
        }
    }

    /// The last LSN after this frame.
    pub(super) fn last(&self) -> Lsn {
        Lsn(self.first.0 - 1).plus(self.commits as usize)
    }

    /// The first byte of the payload, from the frame's beginning.
    pub(super) fn payload_at(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.meta_bytes)).next_multiple_of(PAYLOAD_ALIGN)
    }

    /// Bytes of the whole frame with its filling.
    pub(super) fn frame_bytes(&self) -> u64 {
        (self.payload_at() + u64::from(self.payload_bytes)).next_multiple_of(BLOCK)
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(10, &[self.kind as u8]);
        put(16, &self.place.journal.to_le_bytes());
        put(24, &self.place.generation.to_le_bytes());
        put(32, &self.place.offset.to_le_bytes());
        put(40, &self.place.nonce.to_le_bytes());
        put(48, &self.first.0.to_le_bytes());
        put(56, &self.attempt.to_le_bytes());
        put(72, &self.before.attempt.to_le_bytes());
        put(88, &self.durable.0.to_le_bytes());
        put(96, &self.commits.to_le_bytes());
        put(100, &self.attachments.to_le_bytes());
        put(104, &self.meta_bytes.to_le_bytes());
        put(108, &self.meta_crc.to_le_bytes());
        put(112, &self.payload_bytes.to_le_bytes());
        let frame_bytes = u32::try_from(self.frame_bytes()).expect("frames are bounded");
        put(116, &frame_bytes.to_le_bytes());
        put(120, &self.before.crc.to_le_bytes());
        let crc = checksum(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// What the next frame says of this one.
    pub(super) fn link(&self) -> Link {
        let crc = u32_at(&self.encode(), 12);
        Link { attempt: self.attempt, crc }
    }

    /// Reads the header of a frame found at `place`, of which at most `room` bytes can be there.
    pub(super) fn decode(bytes: &[u8], place: &Place, room: u64) -> Result<Header, NoFrame> {
        let bytes: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(NoFrame::Damaged("its header is cut off"))?;
        if &bytes[..8] != MAGIC || u32_at(bytes, 12) != checksum(bytes) {
            return Err(NoFrame::None);
        }
        let found = Place {
            journal: u64_at(bytes, 16),
            generation: u64_at(bytes, 24),
            nonce: u64_at(bytes, 40),
            offset: u64_at(bytes, 32),
        };
        if found != *place {
            return Err(NoFrame::None);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(NoFrame::Newer(version));
        }
        let kind = match bytes[10] {
            1 => Kind::Group,
            2 => Kind::Seal,
            3 => Kind::Void,
            _ => return Err(NoFrame::Damaged("it has an unknown kind")),
        };
        let header = Header {
            kind,
            place: found,
            first: Lsn(u64_at(bytes, 48)),
            attempt: u128_at(bytes, 56),
            before: Link { attempt: u128_at(bytes, 72), crc: u32_at(bytes, 120) },
            durable: Lsn(u64_at(bytes, 88)),
            commits: u32_at(bytes, 96),
            attachments: u32_at(bytes, 100),
            meta_bytes: u32_at(bytes, 104),
            meta_crc: u32_at(bytes, 108),
            payload_bytes: u32_at(bytes, 112),
        };
        header.check(u32_at(bytes, 116), room)?;
        Ok(header)
    }

    /// Checks every size before anything uses it.
    fn check(&self, frame_bytes: u32, room: u64) -> Result<(), NoFrame> {
        let table = u64::from(self.attachments) * ATTACHMENT_BYTES as u64;
        let lengths = u64::from(self.commits) * LENGTHS_BYTES as u64;
        let sound = self.first.0 > 0
            && self.durable < self.first
            && self.first.0.checked_add(u64::from(self.commits)).is_some()
            && self.commits as usize <= GROUP_COMMITS_MAX
            && self.attachments <= self.commits
            && table + lengths <= u64::from(self.meta_bytes)
            && (self.kind == Kind::Group) == (self.commits > 0)
            && (self.commits > 0 || self.meta_bytes == 0)
            && (self.attachments > 0 || self.payload_bytes == 0)
            && self.frame_bytes() <= FRAME_BYTES_MAX.min(room)
            && self.frame_bytes() == u64::from(frame_bytes);
        if sound { Ok(()) } else { Err(NoFrame::Damaged("its sizes are not possible")) }
    }

    /// Reads the meta part: exactly [`Header::meta_bytes`] bytes behind the header.
    pub(super) fn decode_meta(&self, bytes: &[u8]) -> Result<MetaPart, NoFrame> {
        if bytes.len() != self.meta_bytes as usize || crc32c::crc32c(bytes) != self.meta_crc {
            return Err(NoFrame::Damaged("its entries do not match their checksum"));
        }
        // What follows was summed, so a mismatch is a mistake of the writer, and not allowed to do harm either.
        let (table, mut rest) = bytes.split_at(self.attachments as usize * ATTACHMENT_BYTES);
        let attachments = table.chunks_exact(ATTACHMENT_BYTES).map(listed).collect();
        self.check_listed(&attachments)?;
        let mut entries = Vec::with_capacity(self.commits as usize);
        for at in 0..self.commits as usize {
            let (envelope, changes) =
                take_commit(&mut rest).ok_or(NoFrame::Damaged("an entry is cut off"))?;
            entries.push(Entry {
                lsn: self.first.plus(at),
                attempt: self.attempt,
                envelope: decode_envelope(envelope).map_err(|_| NoFrame::Damaged("an envelope"))?,
                changes: decode_changes(changes).map_err(|_| NoFrame::Damaged("a list of changes"))?,
            });
        }
        if rest.is_empty() {
            Ok(MetaPart { attachments, entries })
        } else {
            Err(NoFrame::Damaged("its entries"))
        }
    }

    /// Attachments lie back to back, and each belongs to another commit.
    fn check_listed(&self, attachments: &Vec<Listed>) -> Result<(), NoFrame> {
        let (mut at, mut commit) = (0, 0);
        for listed in attachments {
            let sound = u64::from(listed.offset) == at && (commit..self.commits).contains(&listed.commit);
            if !sound {
                return Err(NoFrame::Damaged("its attachments"));
            }
            (at, commit) = (at + u64::from(listed.bytes), listed.commit + 1);
        }
        match at == u64::from(self.payload_bytes) {
            true => Ok(()),
            false => Err(NoFrame::Damaged("its attachments")),
        }
    }
}

impl Listed {
    /// Where the attachment lies in its file.
    pub(super) fn range(&self, header: &Header) -> Range<u64> {
        let start = header.place.offset + header.payload_at() + u64::from(self.offset);
        start..start + u64::from(self.bytes)
    }
}

fn listed(bytes: &[u8]) -> Listed {
    Listed {
        commit: u32_at(bytes, 0),
        offset: u32_at(bytes, 4),
        bytes: u32_at(bytes, 8),
        crc: u32_at(bytes, 12),
    }
}

fn take_commit<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (lengths, after) = rest.split_at_checked(LENGTHS_BYTES)?;
    let (envelope, after) = after.split_at_checked(u32_at(lengths, 0) as usize)?;
    let (changes, after) = after.split_at_checked(u32_at(lengths, 4) as usize)?;
    *rest = after;
    Some((envelope, changes))
}

/// A group that is laid out, and not yet at a place.
pub(super) struct Draft<'a> {
    meta: Vec<u8>,
    commits: u32,
    attachments: &'a [Attachment],
    listed: Vec<Listed>,
    payload_bytes: u32,
}

/// Why a group is no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotWritten {
    #[error("the group takes {0} bytes of the journal, more than {1}: split it")]
    Large(u64, u64),
    #[error("the group has {0} commits, more than {GROUP_COMMITS_MAX}: split it")]
    Many(usize),
    #[error("the bytes of commit {0} have changed in memory since they were taken in")]
    Changed(u32),
}

impl<'a> Draft<'a> {
    /// Lays a group out. `room` is the largest frame that fits.
    pub(super) fn of(
        commits: &[Commit],
        attachments: &'a [Attachment],
        room: u64,
    ) -> Result<Draft<'a>, NotWritten> {
        if commits.len() > GROUP_COMMITS_MAX {
            return Err(NotWritten::Many(commits.len()));
        }
        let room = room.min(FRAME_BYTES_MAX);
        let mut meta = Vec::with_capacity(attachments.len() * ATTACHMENT_BYTES + commits.len() * 256);
        let (mut listed, mut at) = (Vec::with_capacity(attachments.len()), 0_u64);
        for Attachment { commit, bytes, crc, .. } in attachments {
            let small = |number: u64| u32::try_from(number).map_err(|_| NotWritten::Large(number, room));
            let one = Listed { commit: *commit, offset: small(at)?, bytes: small(*bytes)?, crc: *crc };
            for number in [one.commit, one.offset, one.bytes, one.crc] {
                meta.extend_from_slice(&number.to_le_bytes());
            }
            listed.push(one);
            at += bytes;
        }
        for Commit { envelope, changes } in commits {
            let (envelope, changes) = (encode_envelope(envelope), encode_changes(changes));
            if (meta.len() + envelope.len() + changes.len()) as u64 > room {
                return Err(NotWritten::Large((meta.len() + envelope.len() + changes.len()) as u64, room));
            }
            meta.extend_from_slice(&(envelope.len() as u32).to_le_bytes());
            meta.extend_from_slice(&(changes.len() as u32).to_le_bytes());
            meta.extend_from_slice(&envelope);
            meta.extend_from_slice(&changes);
        }
        let payload_bytes = u32::try_from(at).map_err(|_| NotWritten::Large(at, room))?;
        let draft = Draft { meta, commits: commits.len() as u32, attachments, listed, payload_bytes };
        match draft.frame_bytes() <= room {
            true => Ok(draft),
            false => Err(NotWritten::Large(draft.frame_bytes(), room)),
        }
    }

    /// Bytes of the frame with its filling.
    pub(super) fn frame_bytes(&self) -> u64 {
        let payload_at = (HEADER_BYTES as u64 + self.meta.len() as u64).next_multiple_of(PAYLOAD_ALIGN);
        (payload_at + u64::from(self.payload_bytes)).next_multiple_of(BLOCK)
    }

    /// Bytes of the meta part.
    pub(super) fn meta_bytes(&self) -> u64 {
        self.meta.len() as u64
    }

    /// The attachments as the frame lists them.
    pub(super) fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// Writes the frame into `out`, which has exactly its length. `last` is the last durable commit. The sums of the
    /// attachments are taken of the copies that go to the disk.
    pub(super) fn write(
        &self,
        out: &mut [u8],
        place: Place,
        attempt: u128,
        before: Link,
        last: Lsn,
    ) -> Result<Header, NotWritten> {
        assert_eq!(out.len() as u64, self.frame_bytes(), "the room is the frame's");
        let header = Header {
            commits: self.commits,
            attachments: self.listed.len() as u32,
            meta_bytes: self.meta.len() as u32,
            meta_crc: crc32c::crc32c(&self.meta),
            payload_bytes: self.payload_bytes,
            ..Header::empty(Kind::Group, place, attempt, before, last)
        };
        let payload_at = header.payload_at() as usize;
        out[..HEADER_BYTES].copy_from_slice(&header.encode());
        out[HEADER_BYTES..HEADER_BYTES + self.meta.len()].copy_from_slice(&self.meta);
        out[HEADER_BYTES + self.meta.len()..payload_at].fill(0);
        let mut at = payload_at;
        for Attachment { commit, pieces, bytes, crc } in self.attachments {
            let (start, mut sum) = (at, 0);
            // In steps that stay in the processor's cache until they are summed.
            for part in pieces.iter().flat_map(|piece| piece.chunks(SUMMED_BYTES)) {
                let copy = &mut out[at..at + part.len()];
                copy.copy_from_slice(part);
                sum = crc32c::crc32c_append(sum, copy);
                at += part.len();
            }
            assert_eq!((at - start) as u64, *bytes, "the pieces are as long as they say");
            if sum != *crc {
                return Err(NotWritten::Changed(*commit));
            }
        }
        out[at..].fill(0);
        Ok(header)
    }
}

/// A whole frame in memory that has no commits.
pub(super) fn block_of(header: &Header) -> [u8; BLOCK as usize] {
    assert_eq!(header.frame_bytes(), BLOCK, "it has no commits");
    let mut block = [0; BLOCK as usize];
    block[..HEADER_BYTES].copy_from_slice(&header.encode());
    block
}

fn checksum(header: &[u8; HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were cut"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were cut"))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes were cut"))
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
