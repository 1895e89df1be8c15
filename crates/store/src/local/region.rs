//! The format of pack files: a header per pack, a header per region. Pure: bytes in, values out.
//!
//! ```text
//! pack file    +0     pack header, 4,096 bytes (76 used)     all zero: the pack is blank and ready for use
//!              +4096  regions, each aligned to 4,096 bytes
//!
//! pack header  0  magic "FLOEPACK"   8  version u32   12  crc32c of the header without this field u32
//!              16 generation u64     24 nonce u64     32  capacity u64 (bytes of the file)
//!
//! region       0  magic "FLOEREGN"   8  version u8    9   state u8 (1 live, 2 dead)   10 key length u16
//!              12 crc32c of the header without this field u32
//!              16 generation u64     24 nonce u64     32  offset of this region in the file u64
//!              40 payload length u64 48 crc32c of the payload u32   52 key, zero-filled up to 512
//!              512  payload, zero-filled up to the next multiple of 4,096
//! ```
//! All numbers are little endian. A region counts only if its generation and nonce are those of its pack, and its
//! offset is the one where it was found. So leftovers of an earlier use of the file never count, nor does a payload
//! in which a client imitated a region: the nonce is random and leaves the process in no other way. The header fits
//! one sector, so marking a region dead is one atomic write.

use thiserror::Error;

use crate::limits::KEY_BYTES_MAX;

/// Alignment of regions, and size of a pack's header.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes of a region's header; the payload follows.
pub(crate) const HEADER_BYTES: usize = 512;
/// The version that this code writes. It reads no other.
pub(crate) const VERSION: u8 = 1;

const PACK_MAGIC: &[u8; 8] = b"FLOEPACK";
const REGION_MAGIC: &[u8; 8] = b"FLOEREGN";
const KEY_AT: usize = 52;

const _: () = assert!(KEY_AT + KEY_BYTES_MAX <= HEADER_BYTES);

/// The header of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackHeader {
    /// Counts the uses of all packs of a store. The pack with the highest number was in use last.
    pub(crate) generation: u64,
    /// Random for each use; binds regions to it.
    pub(crate) nonce: u64,
    /// Bytes of the file.
    pub(crate) capacity: u64,
}

/// The state of a pack file, as its first block shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PackState {
    /// Zero-filled and never used.
    Blank,
    /// In use.
    Used(PackHeader),
    /// Unreadable: the first use never completed, so nothing in it was acknowledged.
    Torn,
}

/// A newer version of Floe wrote the file.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("pack format version {0} is newer than this program, use the version of Floe that wrote it")]
pub(crate) struct NewerFormat(pub(crate) u32);

impl PackHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut block = [0; HEADER_BYTES];
        block[..8].copy_from_slice(PACK_MAGIC);
        block[8..12].copy_from_slice(&u32::from(VERSION).to_le_bytes());
        block[16..24].copy_from_slice(&self.generation.to_le_bytes());
        block[24..32].copy_from_slice(&self.nonce.to_le_bytes());
        block[32..40].copy_from_slice(&self.capacity.to_le_bytes());
        seal(&mut block);
        block
    }

    pub(crate) fn decode(block: &[u8; HEADER_BYTES]) -> Result<PackState, NewerFormat> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(PackState::Blank);
        }
        if &block[..8] != PACK_MAGIC || !sealed(block) {
            return Ok(PackState::Torn);
        }
        let version = u32_at(block, 8);
        if version != u32::from(VERSION) {
            return Err(NewerFormat(version));
        }
        Ok(PackState::Used(PackHeader {
            generation: u64_at(block, 16),
            nonce: u64_at(block, 24),
            capacity: u64_at(block, 32),
        }))
    }
}

/// The header of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegionHeader {
    pub(crate) live: bool,
    /// The first byte of the region in its file.
    pub(crate) offset: u64,
    /// Bytes of the payload.
    pub(crate) length: u64,
    /// crc32c of the payload.
    pub(crate) crc: u32,
    pub(crate) key: String,
}

impl RegionHeader {
    pub(crate) fn encode(&self, pack: &PackHeader) -> [u8; HEADER_BYTES] {
        assert!(self.key.len() <= KEY_BYTES_MAX, "keys are checked before they are stored");
        let mut block = [0; HEADER_BYTES];
        block[..8].copy_from_slice(REGION_MAGIC);
        block[8] = VERSION;
        block[9] = if self.live { 1 } else { 2 };
        block[10..12].copy_from_slice(&(self.key.len() as u16).to_le_bytes());
        block[16..24].copy_from_slice(&pack.generation.to_le_bytes());
        block[24..32].copy_from_slice(&pack.nonce.to_le_bytes());
        block[32..40].copy_from_slice(&self.offset.to_le_bytes());
        block[40..48].copy_from_slice(&self.length.to_le_bytes());
        block[48..52].copy_from_slice(&self.crc.to_le_bytes());
        block[KEY_AT..KEY_AT + self.key.len()].copy_from_slice(self.key.as_bytes());
        seal(&mut block);
        block
    }

    /// Decodes the header of a region found at `offset`; `None` unless it belongs to this use of the pack.
    pub(crate) fn decode(block: &[u8; HEADER_BYTES], pack: &PackHeader, offset: u64) -> Option<RegionHeader> {
        let ours = &block[..8] == REGION_MAGIC
            && block[8] == VERSION
            && u64_at(block, 16) == pack.generation
            && u64_at(block, 24) == pack.nonce
            && u64_at(block, 32) == offset
            && sealed(block);
        if !ours {
            return None;
        }
        let key_bytes = usize::from(u16::from_le_bytes([block[10], block[11]]));
        if key_bytes > KEY_BYTES_MAX {
            return None;
        }
        let header = RegionHeader {
            live: block[9] == 1,
            offset,
            length: u64_at(block, 40),
            crc: u32_at(block, 48),
            key: String::from_utf8(block[KEY_AT..KEY_AT + key_bytes].to_vec()).ok()?,
        };
        let fits = header.length <= pack.capacity && offset + span(header.length) <= pack.capacity;
        fits.then_some(header)
    }
}

/// Generation and nonce of the pack whose living region has its header in a block found at `offset`. For files whose
/// own header cannot tell.
pub(crate) fn pack_of_live(block: &[u8; HEADER_BYTES], offset: u64) -> Option<(u64, u64)> {
    let live = &block[..8] == REGION_MAGIC && block[9] == 1 && u64_at(block, 32) == offset && sealed(block);
    live.then(|| (u64_at(block, 16), u64_at(block, 24)))
}

/// Whether a block found at `offset` was the header of a region of this use of the pack and is damaged: all but one of
/// the marks that no other block has are there. A crash leaves no such block, because a header fits one sector.
pub(crate) fn is_damaged(block: &[u8; HEADER_BYTES], pack: &PackHeader, offset: u64) -> bool {
    let marks = [
        &block[..8] == REGION_MAGIC,
        u64_at(block, 16) == pack.generation,
        u64_at(block, 24) == pack.nonce,
        u64_at(block, 32) == offset,
    ];
    let there = marks.iter().filter(|mark| **mark).count();
    there + 1 >= marks.len() && RegionHeader::decode(block, pack, offset).is_none()
}

/// The bytes that a payload of `length` takes in a pack: header, payload, and filling.
pub(crate) fn span(length: u64) -> u64 {
    (HEADER_BYTES as u64 + length).next_multiple_of(BLOCK)
}

fn seal(block: &mut [u8; HEADER_BYTES]) {
    let crc = checksum(block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
}

fn sealed(block: &[u8; HEADER_BYTES]) -> bool {
    u32_at(block, 12) == checksum(block)
}

fn checksum(block: &[u8; HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &block[16..])
}

fn u32_at(block: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes were cut"))
}

fn u64_at(block: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes were cut"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACK: PackHeader = PackHeader { generation: 3, nonce: 0x0123_4567_89ab_cdef, capacity: 1 << 20 };

    fn region() -> RegionHeader {
        RegionHeader { live: true, offset: 4096, length: 70_000, crc: 0xdead_beef, key: "wal/1f".into() }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Golden bytes written by version 1. They never change.
    #[test]
    fn headers_are_written_as_they_always_were() {
        let pack = PACK.encode();
        assert_eq!(
            hex(&pack[..40]),
            "464c4f455041434b0100000006c594350300000000000000efcdab89674523010000100000000000"
        );
        assert!(pack[40..].iter().all(|byte| *byte == 0));
        let live = region().encode(&PACK);
        assert_eq!(
            hex(&live[..60]),
            "464c4f455245474e0101060051f092d70300000000000000efcdab896745230100100000000000007011010000000000\
             efbeadde77616c2f31660000"
        );
        let dead = RegionHeader { live: false, ..region() }.encode(&PACK);
        assert_eq!(hex(&dead[..16]), "464c4f455245474e010206008d62b90f");
    }

    #[test]
    fn a_pack_header_is_blank_used_torn_or_newer() {
        assert_eq!(PackHeader::decode(&[0; HEADER_BYTES]), Ok(PackState::Blank));
        assert_eq!(PackHeader::decode(&PACK.encode()), Ok(PackState::Used(PACK)));
        let mut newer = PACK.encode();
        newer[8] = 2;
        seal(&mut newer);
        assert_eq!(PackHeader::decode(&newer), Err(NewerFormat(2)));
        for at in 0..HEADER_BYTES {
            let mut torn = PACK.encode();
            torn[at] ^= 0x40;
            assert_eq!(PackHeader::decode(&torn), Ok(PackState::Torn), "byte {at}");
        }
    }

    #[test]
    fn only_an_untouched_region_of_this_use_at_this_place_counts() {
        let block = region().encode(&PACK);
        assert_eq!(RegionHeader::decode(&block, &PACK, 4096), Some(region()));
        assert_eq!(RegionHeader::decode(&block, &PACK, 8192), None, "another place");
        assert_eq!(RegionHeader::decode(&block, &PackHeader { generation: 4, ..PACK }, 4096), None);
        assert_eq!(RegionHeader::decode(&block, &PackHeader { nonce: 1, ..PACK }, 4096), None);
        assert_eq!(
            RegionHeader::decode(&block, &PackHeader { capacity: 65_536, ..PACK }, 4096),
            None,
            "too long"
        );
        for at in 0..HEADER_BYTES {
            let mut torn = block;
            torn[at] ^= 1;
            assert_eq!(RegionHeader::decode(&torn, &PACK, 4096), None, "byte {at}");
            assert!(is_damaged(&torn, &PACK, 4096), "byte {at}");
        }
        assert!(!is_damaged(&block, &PACK, 4096));
        assert!(!is_damaged(&block, &PackHeader { generation: 4, nonce: 1, ..PACK }, 4096), "an earlier use");
        assert!(!is_damaged(&[0; HEADER_BYTES], &PACK, 4096));
    }

    proptest! {
        #[test]
        fn regions_round_trip(
            live: bool, block in 1u64..100, length in 0u64..100_000, crc: u32, key in "[a-z/0-9]{1,440}"
        ) {
            let region = RegionHeader { live, offset: block * BLOCK, length, crc, key };
            let read = RegionHeader::decode(&region.encode(&PACK), &PACK, block * BLOCK);
            prop_assert_eq!(read, Some(region));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES), offset: u32) {
            let block: [u8; HEADER_BYTES] = bytes.try_into().expect("exactly as many were generated");
            let _ = PackHeader::decode(&block);
            prop_assert_eq!(RegionHeader::decode(&block, &PACK, u64::from(offset)), None);
        }
    }
}
