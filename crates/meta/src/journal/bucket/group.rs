//! An entry object: the commits of one group, and behind them the bytes that ride with them. Pure: bytes in, values
//! out.
//!
//! ```text
//! head         the 32 bytes of sealed.rs, then
//!              number u64, first LSN u64, attempt u128, commits u32, attachments u32, bytes of the body u32,
//!              crc32c of the body u32, bytes of the object u64, link: attempt u128, crc32c u32, zero u32
//! body         commits       bytes of the envelope u32, of the changes u32, envelope, changes (entry.rs)
//!              attachments   place of its commit u32, bytes u64, crc32c u32, and crc32c u32 of each 64 KiB of it if
//!                            it has more
//! zeros        up to 16 KiB, so that the first read of every entry has one length
//! attachments  their bytes, one behind the other
//! ```
//! All numbers are little endian. The link is the attempt and the head's checksum of the entry before. The head's
//! checksum covers the body's, and the body has those of the attachments: so a chain of links covers everything.

use bytes::Bytes;

use super::sealed::{Cut, HEAD, Unsound, damaged, open, seal};
use crate::journal::entry::{decode_changes, decode_envelope, encode_changes, encode_envelope};
use crate::journal::{Attachment, Commit, Entry, Lsn};
use crate::limits::{
    ATTACHMENTS_BYTES_MAX, BUCKET_BLOCK_BYTES, BUCKET_BODY_BYTES_MAX, BUCKET_FIRST_READ_BYTES,
    GROUP_COMMITS_MAX,
};

const MAGIC: &[u8; 8] = b"FLOEBENT";
/// Bytes of the head.
pub(super) const GROUP_HEAD: usize = HEAD + 80;

/// What the next entry says of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) attempt: u128,
    pub(super) crc: u32,
}

/// The head of an entry object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHead {
    pub(super) number: u64,
    pub(super) first: Lsn,
    pub(super) attempt: u128,
    pub(super) commits: u32,
    pub(super) attachments: u32,
    pub(super) body_bytes: u32,
    pub(super) body_crc: u32,
    pub(super) object_bytes: u64,
    /// Of the entry before; zero for the first.
    pub(super) before: Link,
    /// The checksum of this head.
    pub(super) crc: u32,
}

impl GroupHead {
    fn encode(&self, journal: u128) -> Vec<u8> {
        let mut body = Vec::with_capacity(GROUP_HEAD - HEAD);
        body.extend_from_slice(&self.number.to_le_bytes());
        body.extend_from_slice(&self.first.0.to_le_bytes());
        body.extend_from_slice(&self.attempt.to_le_bytes());
        for number in [self.commits, self.attachments, self.body_bytes, self.body_crc] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&self.object_bytes.to_le_bytes());
        body.extend_from_slice(&self.before.attempt.to_le_bytes());
        body.extend_from_slice(&self.before.crc.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        seal(MAGIC, journal, &body)
    }

    /// Reads the head at the front of an entry object, which must be the one with this number.
    pub(super) fn decode(journal: u128, number: u64, bytes: &[u8]) -> Result<GroupHead, Unsound> {
        let head = bytes.get(..GROUP_HEAD).ok_or_else(|| damaged("it ends within its head"))?;
        let (_, body, crc) = open(MAGIC, Some(journal), head)?;
        let mut cut = Cut(body);
        let head = GroupHead {
            number: cut.u64()?,
            first: Lsn(cut.u64()?),
            attempt: cut.u128()?,
            commits: cut.u32()?,
            attachments: cut.u32()?,
            body_bytes: cut.u32()?,
            body_crc: cut.u32()?,
            object_bytes: cut.u64()?,
            before: Link { attempt: cut.u128()?, crc: cut.u32()? },
            crc,
        };
        let most = GROUP_COMMITS_MAX as u32;
        let fits = (1..=most).contains(&head.commits)
            && head.attachments <= head.commits
            && u64::from(head.body_bytes) <= BUCKET_BODY_BYTES_MAX
            && head.object_bytes <= GROUP_HEAD as u64 + BUCKET_BODY_BYTES_MAX + OBJECT_REST_MAX;
        match fits && head.number == number {
            true => Ok(head),
            false if fits => Err(damaged(format!("it says that it is entry {}", head.number))),
            false => Err(damaged("its head has impossible numbers")),
        }
    }

    /// Bytes of head and body, which followers read.
    pub(super) fn read_bytes(&self) -> u64 {
        GROUP_HEAD as u64 + u64::from(self.body_bytes)
    }

    pub(super) fn link(&self) -> Link {
        Link { attempt: self.attempt, crc: self.crc }
    }

    /// The last commit of the group.
    pub(super) fn last(&self) -> Lsn {
        Lsn(self.first.0 + u64::from(self.commits) - 1)
    }
}

const OBJECT_REST_MAX: u64 = BUCKET_FIRST_READ_BYTES + ATTACHMENTS_BYTES_MAX;

/// Where an attachment is, and its checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attached {
    /// The number of its entry.
    pub(super) number: u64,
    /// Its first byte in the object.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) crc: u32,
    /// The checksums of its blocks, if it has more than one.
    pub(super) blocks: Box<[u32]>,
}

impl Attached {
    /// The checksum of a block.
    pub(super) fn block(&self, index: u64) -> u32 {
        match self.blocks.is_empty() {
            true => self.crc,
            false => self.blocks[index as usize],
        }
    }
}

/// The number of checksums of an attachment's blocks.
pub(super) fn blocks_of(bytes: u64) -> usize {
    match bytes <= BUCKET_BLOCK_BYTES {
        true => 0,
        false => bytes.div_ceil(BUCKET_BLOCK_BYTES) as usize,
    }
}

/// An entry object without the bytes of its attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) head: GroupHead,
    pub(super) entries: Vec<Entry>,
    pub(super) attached: Vec<(Lsn, Attached)>,
}

impl Group {
    /// The memory that it takes, more or less.
    pub(super) fn weight(&self) -> usize {
        self.head.read_bytes() as usize
    }
}

/// Lays out the entry after `before`: the group as others will read it, and the bytes up to the attachments.
pub(super) fn encode(
    journal: u128,
    (number, first, before): (u64, Lsn, Link),
    attempt: u128,
    commits: &[Commit],
    attachments: &[(u32, Bytes)],
) -> Result<(Group, Bytes), Unsound> {
    let mut body = Vec::new();
    for commit in commits {
        let (envelope, changes) = (encode_envelope(&commit.envelope), encode_changes(&commit.changes));
        for length in [envelope.len(), changes.len()] {
            let length = u32::try_from(length).map_err(|_| damaged("a commit is too large"))?;
            body.extend_from_slice(&length.to_le_bytes());
        }
        body.extend_from_slice(&envelope);
        body.extend_from_slice(&changes);
    }
    for (place, bytes) in attachments {
        body.extend_from_slice(&place.to_le_bytes());
        body.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        body.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
        if blocks_of(bytes.len() as u64) > 0 {
            for block in bytes.chunks(BUCKET_BLOCK_BYTES as usize) {
                body.extend_from_slice(&crc32c::crc32c(block).to_le_bytes());
            }
        }
    }
    if body.len() as u64 > BUCKET_BODY_BYTES_MAX || commits.len() > GROUP_COMMITS_MAX {
        return Err(damaged(format!(
            "the group has {} commits and {} bytes, more than an entry takes",
            commits.len(),
            body.len()
        )));
    }
    let rides: u64 = attachments.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let front = (GROUP_HEAD + body.len()).max(BUCKET_FIRST_READ_BYTES as usize);
    let count = |count: usize| u32::try_from(count).expect("groups are bounded");
    let mut head = GroupHead {
        number,
        first,
        attempt,
        commits: count(commits.len()),
        attachments: count(attachments.len()),
        body_bytes: count(body.len()),
        body_crc: crc32c::crc32c(&body),
        object_bytes: front as u64 + rides,
        before,
        crc: 0,
    };
    let mut out = head.encode(journal);
    head.crc = u32::from_le_bytes(out[12..16].try_into().expect("four bytes were cut"));
    out.extend_from_slice(&body);
    out.resize(front, 0);
    let group = decode_body(&head, &body)?;
    Ok((group, out.into()))
}

/// Reads the body behind a head.
pub(super) fn decode_body(head: &GroupHead, body: &[u8]) -> Result<Group, Unsound> {
    if body.len() != head.body_bytes as usize || crc32c::crc32c(body) != head.body_crc {
        return Err(damaged("its commits do not match their checksum"));
    }
    let mut cut = Cut(body);
    let mut entries = Vec::new();
    for place in 0..head.commits {
        let (envelope, changes) = (cut.u32()? as usize, cut.u32()? as usize);
        let (envelope, changes) = (cut.bytes(envelope)?, cut.bytes(changes)?);
        entries.push(Entry {
            lsn: head.first.plus(place as usize),
            attempt: head.attempt,
            envelope: decode_envelope(envelope).map_err(|error| damaged(error.to_string()))?,
            changes: decode_changes(changes).map_err(|error| damaged(error.to_string()))?,
        });
    }
    let mut offset = head.read_bytes().max(BUCKET_FIRST_READ_BYTES);
    let mut attached = Vec::new();
    for _ in 0..head.attachments {
        let (place, bytes, crc) = (cut.u32()?, cut.u64()?, cut.u32()?);
        if place >= head.commits || bytes > ATTACHMENTS_BYTES_MAX {
            return Err(damaged("it has an impossible attachment"));
        }
        let blocks = (0..blocks_of(bytes)).map(|_| cut.u32()).collect::<Result<_, _>>()?;
        let lsn = head.first.plus(place as usize);
        attached.push((lsn, Attached { number: head.number, offset, bytes, crc, blocks }));
        offset += bytes;
    }
    cut.end()?;
    let in_order = attached.is_sorted_by(|(one, _), (next, _)| one < next);
    match in_order && offset == head.object_bytes {
        true => Ok(Group { head: *head, entries, attached }),
        false => Err(damaged("its attachments are not those of its head")),
    }
}

/// Refuses attachments that changed between their maker and the journal; the others in one piece each.
pub(super) fn joined(attachments: &[Attachment]) -> Option<Vec<(u32, Bytes)>> {
    attachments
        .iter()
        .map(|attachment| {
            let bytes = attachment.joined();
            (crc32c::crc32c(&bytes) == attachment.crc).then_some((attachment.commit, bytes))
        })
        .collect()
}
