//! An image: the folded map up to an entry, in parts, and a manifest that lists them. Pure: bytes in, values out.
//!
//! ```text
//! manifest   the 32 bytes of sealed.rs, then
//!            number u64 and last LSN u64 of the last entry in the image, its link: attempt u128, crc32c u32,
//!            parts u32, and for each part: kind u32 (1 pairs, 2 attachments), count u32, bytes u64, crc32c u32
//! pairs      bytes of the key u32, bytes of the value u32, key, value; in key order over all parts
//! attachment LSN u64, number of the entry u64, offset u64, bytes u64, crc32c u32, and crc32c u32 of each block
//! ```
//! All numbers are little endian. The checksum of a part covers the image's serial and the part's index, so no part
//! counts in another image or at another place. The manifest is written last: without it there is no image.

use bytes::Bytes;

use super::group::{Attached, Link, blocks_of};
use super::names::ImageName;
use super::sealed::{Cut, Unsound, damaged, open, seal};
use crate::journal::Lsn;
use crate::limits::{
    ATTACHMENTS_BYTES_MAX, BUCKET_MANIFEST_BYTES_MAX, BUCKET_PART_BYTES, BUCKET_PART_BYTES_MAX,
    BUCKET_PARTS_MAX,
};

const MAGIC: &[u8; 8] = b"FLOEBIMG";

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum PartKind {
    Pairs = 1,
    Attachments = 2,
}

/// What the manifest says of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    /// Pairs or attachments in it.
    pub(super) count: u32,
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

/// The last entry that is in an image: where a journal goes on behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    pub(super) number: u64,
    pub(super) last: Lsn,
    pub(super) link: Link,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) position: Position,
    pub(super) parts: Vec<Part>,
}

impl Manifest {
    pub(super) fn encode(&self, journal: u128) -> Vec<u8> {
        let Position { number, last, link } = self.position;
        let mut body = number.to_le_bytes().to_vec();
        body.extend_from_slice(&last.0.to_le_bytes());
        body.extend_from_slice(&link.attempt.to_le_bytes());
        body.extend_from_slice(&link.crc.to_le_bytes());
        let count = u32::try_from(self.parts.len()).expect("parts are bounded");
        body.extend_from_slice(&count.to_le_bytes());
        for part in &self.parts {
            body.extend_from_slice(&(part.kind as u32).to_le_bytes());
            body.extend_from_slice(&part.count.to_le_bytes());
            body.extend_from_slice(&part.bytes.to_le_bytes());
            body.extend_from_slice(&part.crc.to_le_bytes());
        }
        seal(MAGIC, journal, &body)
    }

    pub(super) fn decode(journal: u128, bytes: &[u8]) -> Result<Manifest, Unsound> {
        if bytes.len() as u64 > BUCKET_MANIFEST_BYTES_MAX {
            return Err(damaged("it is too long"));
        }
        let (_, body, _) = open(MAGIC, Some(journal), bytes)?;
        let mut cut = Cut(body);
        let (number, last) = (cut.u64()?, Lsn(cut.u64()?));
        let link = Link { attempt: cut.u128()?, crc: cut.u32()? };
        let count = cut.u32()?;
        let mut parts = Vec::new();
        for _ in 0..count {
            let kind = match cut.u32()? {
                1 => PartKind::Pairs,
                2 => PartKind::Attachments,
                other => return Err(damaged(format!("it has a part of kind {other}"))),
            };
            let part = Part { kind, count: cut.u32()?, bytes: cut.u64()?, crc: cut.u32()? };
            if part.bytes > BUCKET_PART_BYTES_MAX {
                return Err(damaged(format!("it has a part of {} bytes", part.bytes)));
            }
            parts.push(part);
        }
        cut.end()?;
        Ok(Manifest { position: Position { number, last, link }, parts })
    }
}

fn crc_of_part(serial: u64, index: u32, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&serial.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &index.to_le_bytes()), body)
}

/// Collects the parts of an image. Whoever feeds it takes what is full.
pub(super) struct PartsWriter {
    serial: u64,
    kind: PartKind,
    count: u32,
    body: Vec<u8>,
    pub(super) parts: Vec<Part>,
}

impl PartsWriter {
    pub(super) fn new(image: ImageName) -> PartsWriter {
        PartsWriter {
            serial: image.serial,
            kind: PartKind::Pairs,
            count: 0,
            body: Vec::new(),
            parts: Vec::new(),
        }
    }

    pub(super) fn pair(&mut self, key: &[u8], value: &[u8]) {
        for length in [key.len(), value.len()] {
            let length = u32::try_from(length).expect("keys and values are bounded");
            self.body.extend_from_slice(&length.to_le_bytes());
        }
        self.body.extend_from_slice(key);
        self.body.extend_from_slice(value);
        self.count += 1;
    }

    /// Adds an attachment. All pairs come before the first one, and the part of the pairs was taken.
    pub(super) fn attachment(&mut self, lsn: Lsn, attached: &Attached) {
        assert!(self.kind == PartKind::Attachments || self.count == 0, "pairs and attachments share no part");
        self.kind = PartKind::Attachments;
        for number in [lsn.0, attached.number, attached.offset, attached.bytes] {
            self.body.extend_from_slice(&number.to_le_bytes());
        }
        self.body.extend_from_slice(&attached.crc.to_le_bytes());
        for block in &attached.blocks {
            self.body.extend_from_slice(&block.to_le_bytes());
        }
        self.count += 1;
    }

    /// Whether the part is large enough.
    pub(super) fn is_full(&self) -> bool {
        self.body.len() as u64 >= BUCKET_PART_BYTES
    }

    /// Ends the part, if anything is in it: its index and its bytes.
    pub(super) fn take(&mut self) -> Result<Option<(u32, Bytes)>, Unsound> {
        if self.count == 0 {
            return Ok(None);
        }
        let index = u32::try_from(self.parts.len()).ok().filter(|index| *index < BUCKET_PARTS_MAX);
        let index = index.ok_or_else(|| damaged("the map is larger than an image takes"))?;
        let body = std::mem::take(&mut self.body);
        let crc = crc_of_part(self.serial, index, &body);
        self.parts.push(Part { kind: self.kind, count: self.count, bytes: body.len() as u64, crc });
        self.count = 0;
        Ok(Some((index, body.into())))
    }
}

/// What a part holds.
pub(super) enum Held {
    Pairs(Vec<(Bytes, Bytes)>),
    Attachments(Vec<(Lsn, Attached)>),
}

/// Reads a part that the manifest lists.
pub(super) fn decode_part(image: ImageName, index: u32, part: &Part, body: &Bytes) -> Result<Held, Unsound> {
    if body.len() as u64 != part.bytes || crc_of_part(image.serial, index, body) != part.crc {
        return Err(damaged(format!("part {index} does not match its checksum")));
    }
    let mut cut = Cut(body);
    let held = match part.kind {
        PartKind::Pairs => {
            let mut pairs = Vec::new();
            for _ in 0..part.count {
                let (key, value) = (cut.u32()? as usize, cut.u32()? as usize);
                let (key, value) = (cut.bytes(key)?, cut.bytes(value)?);
                // Copies: a value that stays in the map must not keep the whole part in memory.
                pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            }
            if !pairs.is_sorted_by(|(one, _), (next, _)| one < next) {
                return Err(damaged(format!("part {index} is out of order")));
            }
            Held::Pairs(pairs)
        }
        PartKind::Attachments => {
            let mut attachments = Vec::new();
            for _ in 0..part.count {
                let lsn = Lsn(cut.u64()?);
                let (number, offset, bytes, crc) = (cut.u64()?, cut.u64()?, cut.u64()?, cut.u32()?);
                if bytes > ATTACHMENTS_BYTES_MAX {
                    return Err(damaged(format!("part {index} has an impossible attachment")));
                }
                let blocks = (0..blocks_of(bytes)).map(|_| cut.u32()).collect::<Result<_, _>>()?;
                attachments.push((lsn, Attached { number, offset, bytes, crc, blocks }));
            }
            Held::Attachments(attachments)
        }
    };
    cut.end().map(|()| held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> (ImageName, Manifest, Vec<Bytes>) {
        let name = ImageName { number: 9, serial: 0xabcd };
        let mut writer = PartsWriter::new(name);
        let mut bodies = Vec::new();
        writer.pair(b"a", b"1");
        writer.pair(b"b", b"");
        bodies.extend(writer.take().unwrap().map(|(_, body)| body));
        let attached = Attached { number: 3, offset: 16_384, bytes: 100_000, crc: 7, blocks: [8, 9].into() };
        writer.attachment(Lsn(5), &attached);
        bodies.extend(writer.take().unwrap().map(|(_, body)| body));
        assert!(writer.take().unwrap().is_none());
        let link = Link { attempt: 1, crc: 2 };
        let position = Position { number: 9, last: Lsn(30), link };
        (name, Manifest { position, parts: writer.parts }, bodies)
    }

    /// Buckets in the field hold these bytes, so they never change.
    #[test]
    fn golden() {
        let (name, manifest, bodies) = image();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&bodies[0]), "010000000100000061310100000000000000 62".replace(' ', ""));
        assert_eq!(hex(&bodies[1]), GOLDEN_ATTACHMENT.replace(' ', ""));
        assert_eq!(hex(&manifest.encode(0x0102)), GOLDEN_MANIFEST.replace(' ', ""));
        assert_eq!(Manifest::decode(0x0102, &manifest.encode(0x0102)), Ok(manifest.clone()));
        let Ok(Held::Pairs(pairs)) = decode_part(name, 0, &manifest.parts[0], &bodies[0]) else {
            panic!("the first part has pairs")
        };
        assert_eq!(pairs, [("a".into(), "1".into()), ("b".into(), "".into())]);
        let Ok(Held::Attachments(found)) = decode_part(name, 1, &manifest.parts[1], &bodies[1]) else {
            panic!("the second part has attachments")
        };
        assert_eq!((found.len(), found[0].0, found[0].1.block(1)), (1, Lsn(5), 9));
    }

    const GOLDEN_ATTACHMENT: &str = "0500000000000000 0300000000000000 0040000000000000 a086010000000000 \
                                     07000000 08000000 09000000";
    const GOLDEN_MANIFEST: &str = "464c4f4542494d4701000000eee35c96020100000000000000000000000000000900000000000000\
     1e000000000000000100000000000000000000000000000002000000020000000100000002000000\
     13000000000000000c0564fd02000000010000002c00000000000000a63a45e3";

    #[test]
    fn every_changed_byte_is_found_and_no_part_counts_elsewhere() {
        let (name, manifest, bodies) = image();
        let encoded = manifest.encode(1);
        for at in 0..encoded.len() {
            let mut bytes = encoded.clone();
            bytes[at] ^= 1;
            assert!(Manifest::decode(1, &bytes).is_err(), "byte {at}");
            assert!(Manifest::decode(1, &encoded[..at]).is_err(), "{at} bytes");
        }
        assert!(matches!(Manifest::decode(2, &encoded), Err(Unsound::Foreign { found: 1, ours: 2 })));
        for (index, body) in (0..).zip(&bodies) {
            let part = &manifest.parts[index as usize];
            for at in 0..body.len() {
                let mut bytes = body.to_vec();
                bytes[at] ^= 1;
                assert!(decode_part(name, index, part, &bytes.into()).is_err(), "byte {at}");
            }
            assert!(decode_part(name, index + 1, part, body).is_err(), "another place");
            let other = ImageName { serial: 1, ..name };
            assert!(decode_part(other, index, part, body).is_err(), "another image");
        }
    }
}
