//! A file of sorted pairs in pages with checksums: an image of the map, or a part of the history. Pure: bytes in,
//! values out.
//!
//! ```text
//! header     0 magic "FLOEPAGE"   8 version u16   10 kind u8: 1 image, 2 history   11 zero   12 crc32c of 128 bytes
//!           16 journal id u64    24 first LSN u64   32 last LSN u64   40 generation u64   48 last frame u64
//!           56 next frame u64    64 attempt u128    80 crc32c of the last frame's header u32   84 zero up to 4,096
//! page       0 kind u8: 1 pairs, 2 attachments, 3 end   1 zero   4 bytes u32   8 count u32   12 crc32c u32   16 body
//! pairs      bytes of the key u32, bytes of the value u32, key, value
//! attachment LSN u64, generation u64, offset in the file u64, bytes u32, crc32c u32
//! end        pages before u64, pairs u64, attachments u64, crc32c of the checksums of all pages u32
//! ```
//! All numbers are little endian. The checksum of a page covers its place and the checksum of the file's header, so
//! no page counts in another file or at another place. The end tells that nothing is missing.
//!
//! An image has the pairs of the map, the attachments that are needed, and where the log goes on. A part of the history
//! has an LSN (big endian) as each key; its value is the attempt, the bytes of the envelope u32, envelope and changes.

use bytes::Bytes;

use super::file::Position;
use super::frame::Link;
use crate::error::DecodeError;
use crate::journal::entry::{decode_changes, decode_envelope, encode_changes, encode_envelope};
use crate::journal::{Entry, Lsn};

/// Bytes of the header.
pub(super) const HEADER: usize = 4096;
/// Bytes of a page's head.
pub(super) const PAGE_HEAD: usize = 16;
/// A page ends once it has this many bytes.
pub(super) const PAGE_BYTES: usize = 64 << 10;

const MAGIC: &[u8; 8] = b"FLOEPAGE";
const VERSION: u16 = 1;
const SUMMED: usize = 128;
const ATTACHMENT: usize = 32;
const END: usize = 28;

/// What a file of pages is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PagesKind {
    Image = 1,
    History = 2,
}

/// The header of a file of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PagesHeader {
    pub(super) kind: PagesKind,
    pub(super) journal: u64,
    /// The first commit of a part of the history. Of an image, the first one that the history has.
    pub(super) first: Lsn,
    /// Where the log was at the last commit.
    pub(super) position: Position,
}

/// An attachment that an image lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) lsn: Lsn,
    pub(super) generation: u64,
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) crc: u32,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    Pairs(Vec<(Bytes, Bytes)>),
    Attachments(Vec<Kept>),
    End(Totals),
}

/// What a file of pages holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pages: u64,
    pairs: u64,
    attachments: u64,
    crc: u32,
}

/// The head of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    kind: u8,
    pub(super) bytes: usize,
    count: u32,
    crc: u32,
}

fn damaged(what: &str) -> DecodeError {
    DecodeError::corrupt(what)
}

impl PagesHeader {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let Position { lsn, generation, frame, next, link } = self.position;
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(10, &[self.kind as u8]);
        for (at, number) in
            [(16, self.journal), (24, self.first.0), (32, lsn.0), (40, generation), (48, frame), (56, next)]
        {
            put(at, &number.to_le_bytes());
        }
        put(64, &link.attempt.to_le_bytes());
        put(80, &link.crc.to_le_bytes());
        let crc = header_crc(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(block: &[u8]) -> Result<PagesHeader, DecodeError> {
        if block.len() < HEADER || &block[..8] != MAGIC || u32_at(block, 12) != header_crc(block) {
            return Err(damaged("its header does not match its checksum"));
        }
        let version = u16::from_le_bytes([block[8], block[9]]);
        if version != VERSION {
            let found = u8::try_from(version).unwrap_or(u8::MAX);
            return Err(DecodeError::NewerVersion { kind: block[10], found, known: VERSION as u8 });
        }
        let kind = match block[10] {
            1 => PagesKind::Image,
            2 => PagesKind::History,
            _ => return Err(damaged("it has an unknown kind")),
        };
        let attempt = u128::from_le_bytes(block[64..80].try_into().expect("sixteen bytes were cut"));
        let position = Position {
            lsn: Lsn(u64_at(block, 32)),
            generation: u64_at(block, 40),
            frame: u64_at(block, 48),
            next: u64_at(block, 56),
            link: Link { attempt, crc: u32_at(block, 80) },
        };
        Ok(PagesHeader { kind, journal: u64_at(block, 16), first: Lsn(u64_at(block, 24)), position })
    }

    /// What binds the pages to this file.
    pub(super) fn seed(&self) -> u32 {
        header_crc(&self.encode())
    }
}

/// Lays out a file of pages.
pub(super) struct PagesWriter {
    seed: u32,
    /// Laid out and not taken yet.
    out: Vec<u8>,
    /// Bytes that were taken.
    taken: u64,
    page: Vec<u8>,
    page_kind: u8,
    page_count: u32,
    totals: Totals,
}

impl PagesWriter {
    pub(super) fn new(header: &PagesHeader) -> PagesWriter {
        PagesWriter {
            seed: header.seed(),
            out: header.encode().to_vec(),
            taken: 0,
            page: Vec::new(),
            page_kind: 1,
            page_count: 0,
            totals: Totals::default(),
        }
    }

    pub(super) fn pair(&mut self, key: &[u8], value: &[u8]) {
        self.begin(1);
        for length in [key.len(), value.len()] {
            let length = u32::try_from(length).expect("keys and values are bounded");
            self.page.extend_from_slice(&length.to_le_bytes());
        }
        self.page.extend_from_slice(key);
        self.page.extend_from_slice(value);
        self.totals.pairs += 1;
        self.count();
    }

    pub(super) fn attachment(&mut self, kept: &Kept) {
        self.begin(2);
        for number in [kept.lsn.0, kept.generation, kept.offset] {
            self.page.extend_from_slice(&number.to_le_bytes());
        }
        self.page.extend_from_slice(&kept.bytes.to_le_bytes());
        self.page.extend_from_slice(&kept.crc.to_le_bytes());
        self.totals.attachments += 1;
        self.count();
    }

    /// Ends the file. What is left to be taken fills whole blocks.
    pub(super) fn end(&mut self) {
        self.flush();
        let Totals { pages, pairs, attachments, crc } = self.totals;
        self.begin(3);
        for number in [pages, pairs, attachments] {
            self.page.extend_from_slice(&number.to_le_bytes());
        }
        self.page.extend_from_slice(&crc.to_le_bytes());
        self.page_count = 1;
        self.flush();
        self.out.resize(self.out.len().next_multiple_of(HEADER), 0);
    }

    /// Bytes that can be taken.
    pub(super) fn ready(&self) -> &[u8] {
        &self.out
    }

    /// The first bytes of [`PagesWriter::ready`] are written.
    pub(super) fn take(&mut self, bytes: usize) {
        self.out.drain(..bytes);
        self.taken += bytes as u64;
    }

    fn begin(&mut self, kind: u8) {
        if kind != self.page_kind {
            self.flush();
            self.page_kind = kind;
        }
    }

    fn count(&mut self) {
        self.page_count += 1;
        if self.page.len() >= PAGE_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.page_count == 0 {
            return;
        }
        let place = self.taken + self.out.len() as u64;
        let bytes = u32::try_from(self.page.len()).expect("pages are bounded");
        let crc = page_crc(self.seed, place, self.page_kind, self.page_count, &self.page);
        self.out.extend_from_slice(&[self.page_kind, 0, 0, 0]);
        for number in [bytes, self.page_count, crc] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        self.out.append(&mut self.page);
        self.page_count = 0;
        self.totals.add(crc);
    }
}

impl Totals {
    fn add(&mut self, crc: u32) {
        self.pages += 1;
        self.crc = crc32c::crc32c_append(self.crc, &crc.to_le_bytes());
    }
}

/// Checks pages as they are read in order.
pub(super) struct PagesReader {
    seed: u32,
    totals: Totals,
}

impl PagesReader {
    pub(super) fn new(header: &PagesHeader) -> PagesReader {
        PagesReader { seed: header.seed(), totals: Totals::default() }
    }

    /// The head of the page at the begin of `bytes`, whose body is not longer than `room`.
    pub(super) fn head(bytes: &[u8; PAGE_HEAD], room: u64) -> Result<Head, DecodeError> {
        let head = Head {
            kind: bytes[0],
            bytes: u32_at(bytes, 4) as usize,
            count: u32_at(bytes, 8),
            crc: u32_at(bytes, 12),
        };
        match head.bytes as u64 <= room {
            true => Ok(head),
            false => Err(damaged("a page is longer than the file")),
        }
    }

    /// Reads the page whose head is at `place` of the file.
    pub(super) fn page(&mut self, head: &Head, place: u64, body: &Bytes) -> Result<Page, DecodeError> {
        if page_crc(self.seed, place, head.kind, head.count, body) != head.crc {
            return Err(damaged("a page does not match its checksum"));
        }
        let page = match head.kind {
            1 => Page::Pairs(pairs(body, head.count)?),
            2 => Page::Attachments(attachments(body, head.count)?),
            3 => Page::End(totals(body)?),
            _ => return Err(damaged("a page has an unknown kind")),
        };
        match &page {
            Page::Pairs(pairs) => self.totals.pairs += pairs.len() as u64,
            Page::Attachments(kept) => self.totals.attachments += kept.len() as u64,
            Page::End(found) if *found != self.totals => return Err(damaged("pages are missing")),
            Page::End(_) => {}
        }
        self.totals.add(head.crc);
        Ok(page)
    }
}

fn pairs(body: &Bytes, count: u32) -> Result<Vec<(Bytes, Bytes)>, DecodeError> {
    if u64::from(count) * 8 > body.len() as u64 {
        return Err(damaged("a page has fewer pairs than it says"));
    }
    let mut found = Vec::with_capacity(count as usize);
    let mut rest = body.clone();
    for _ in 0..count {
        if rest.len() < 8 {
            return Err(DecodeError::Truncated);
        }
        let lengths = rest.split_to(8);
        let (key, value) = (u32_at(&lengths, 0) as usize, u32_at(&lengths, 4) as usize);
        if key > rest.len() || value > rest.len() - key {
            return Err(DecodeError::Truncated);
        }
        found.push((rest.split_to(key), rest.split_to(value)));
    }
    if rest.is_empty() { Ok(found) } else { Err(damaged("a page has more than its pairs")) }
}

fn attachments(body: &[u8], count: u32) -> Result<Vec<Kept>, DecodeError> {
    if u64::from(count) * ATTACHMENT as u64 != body.len() as u64 {
        return Err(damaged("a page has another number of attachments than it says"));
    }
    let kept = |bytes: &[u8]| Kept {
        lsn: Lsn(u64_at(bytes, 0)),
        generation: u64_at(bytes, 8),
        offset: u64_at(bytes, 16),
        bytes: u32_at(bytes, 24),
        crc: u32_at(bytes, 28),
    };
    Ok(body.chunks_exact(ATTACHMENT).map(kept).collect())
}

fn totals(body: &[u8]) -> Result<Totals, DecodeError> {
    if body.len() != END {
        return Err(DecodeError::Truncated);
    }
    Ok(Totals {
        pages: u64_at(body, 0),
        pairs: u64_at(body, 8),
        attachments: u64_at(body, 16),
        crc: u32_at(body, 24),
    })
}

/// An entry as a pair of the history.
pub(super) fn pair_of_entry(entry: &Entry) -> ([u8; 8], Vec<u8>) {
    let (envelope, changes) = (encode_envelope(&entry.envelope), encode_changes(&entry.changes));
    let mut value = entry.attempt.to_le_bytes().to_vec();
    value.extend_from_slice(&(envelope.len() as u32).to_le_bytes());
    value.extend_from_slice(&envelope);
    value.extend_from_slice(&changes);
    (entry.lsn.0.to_be_bytes(), value)
}

/// Reads what [`pair_of_entry`] wrote.
pub(super) fn entry_of_pair(key: &[u8], value: &[u8]) -> Result<Entry, DecodeError> {
    let lsn = key.try_into().map_err(|_| DecodeError::Truncated)?;
    let (head, rest) = value.split_at_checked(20).ok_or(DecodeError::Truncated)?;
    let envelope = u32_at(head, 16) as usize;
    let (envelope, changes) = rest.split_at_checked(envelope).ok_or(DecodeError::Truncated)?;
    Ok(Entry {
        lsn: Lsn(u64::from_be_bytes(lsn)),
        attempt: u128::from_le_bytes(head[..16].try_into().expect("sixteen bytes were cut")),
        envelope: decode_envelope(envelope)?,
        changes: decode_changes(changes)?,
    })
}

fn header_crc(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &block[16..SUMMED])
}

fn page_crc(seed: u32, place: u64, kind: u8, count: u32, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), &place.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &[kind]);
    let crc = crc32c::crc32c_append(crc, &(body.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &count.to_le_bytes()), body)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were cut"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were cut"))
}
