//! The checksums of a data file, inside the file, in front of its Parquet footer.
//!
//! ```text
//! "PAR1" pages, indexes  (`covered` bytes)
//! u32 × ⌈covered / 16 KiB⌉   CRC-32C of each 16 KiB of the above; the last piece may be shorter
//! u64                        covered
//! u32                        CRC-32C of the checksums, of `covered`, and of everything behind the mark
//! 8 bytes                    the mark "FLOEsum1"
//! Parquet footer, u32 length, "PAR1"
//! ```
//! Numbers are little-endian. So every byte of the file is checked, and a reader of a part of it reads at most two
//! pieces more than that part. The format is one of the file's own: the specification of Parquet finds everything by
//! offsets, so other readers do not see these bytes. Parquet's page checksums would leave out the headers of pages, the
//! indexes and the footer, where one changed byte can also change a sum: it names another column, or other bounds.

use std::ops::Range;

use bytes::Bytes;

/// Bytes that one checksum covers.
pub const PIECE_BYTES: u64 = 16 << 10;

/// Ends the checksums. The digit is the version of their format.
const MARK: &[u8; 8] = b"FLOEsum1";

/// `covered`, the checksum of the rest, and the mark.
const TRAILER_BYTES: u64 = 8 + 4 + 8;

/// The footer's length, and Parquet's magic.
const END_BYTES: u64 = 8;

/// Why a data file is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is not a whole Parquet file.
    #[error("it does not end as a Parquet file does")]
    NoEnd,
    /// The mark is not there.
    #[error("it has no checksums: it is damaged, or an early version of Floe wrote it")]
    NoChecksums,
    /// The end of the file: its footer, or the checksums themselves.
    #[error("its footer has another checksum")]
    Footer,
    /// A piece of the file.
    #[error("its bytes from {from} to {to} have another checksum")]
    Piece {
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
    /// A range that the file does not have.
    #[error("something in it points at the bytes from {from} to {to}")]
    Range {
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
}

/// The checksums of one file, themselves checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    covered: u64,
    sums: Vec<u32>,
}

/// What the end of a file says of its checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// They are all there.
    Checks(Checks),
    /// They begin before what was given: the file has to be read from this offset on.
    Before(u64),
}

/// The largest multiple of [`PIECE_BYTES`] up to `at`: where a read of checked bytes begins.
pub fn begin_of_piece(at: u64) -> u64 {
    at - at % PIECE_BYTES
}

/// Puts the checksums into a finished Parquet file.
///
/// # Panics
/// It is no Parquet file.
pub fn add(file: &mut Vec<u8>) {
    let footer = footer_begin(file, 0, file.len() as u64).expect("a finished file has a footer");
    let end = file.split_off(to_usize(footer));
    let sums: Vec<u8> =
        file.chunks(to_usize(PIECE_BYTES)).flat_map(|piece| crc32c::crc32c(piece).to_le_bytes()).collect();
    file.extend_from_slice(&sums);
    file.extend_from_slice(&footer.to_le_bytes());
    file.extend_from_slice(&of_end(&sums, footer, &end).to_le_bytes());
    file.extend_from_slice(MARK);
    file.extend_from_slice(&end);
}

/// Checks every byte of a whole file.
///
/// # Errors
/// A byte is not as it was written.
pub fn verify(file: &Bytes) -> Result<(), Damage> {
    match Checks::find(file, 0, file.len() as u64)? {
        Found::Checks(checks) => checks.verify(0, &file[..to_usize(checks.covered)]),
        Found::Before(_) => Err(Damage::Footer),
    }
}

/// The checksum of what no piece covers.
fn of_end(sums: &[u8], covered: u64, end: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(sums), &covered.to_le_bytes());
    crc32c::crc32c_append(sum, end)
}

/// Where the footer begins in a file of `size` bytes whose last ones, from `from` on, are `tail`.
fn footer_begin(tail: &[u8], from: u64, size: u64) -> Result<u64, Damage> {
    let end = tail.len().checked_sub(to_usize(END_BYTES)).ok_or(Damage::NoEnd)?;
    let (length, magic) = tail[end..].split_at(4);
    let length = u64::from(u32::from_le_bytes(length.try_into().expect("four bytes")));
    let begin = size.checked_sub(END_BYTES + length).ok_or(Damage::NoEnd)?;
    if magic == b"PAR1" && from + tail.len() as u64 == size { Ok(begin) } else { Err(Damage::NoEnd) }
}

/// A length that is in memory.
fn to_usize(length: u64) -> usize {
    usize::try_from(length).expect("a part of what is in memory")
}

impl Checks {
    /// The checksums of a file of `size` bytes, given its last ones, from `from` on.
    ///
    /// # Errors
    /// The end of the file is not as it was written.
    pub fn find(tail: &[u8], from: u64, size: u64) -> Result<Found, Damage> {
        let footer = footer_begin(tail, from, size)?;
        let trailer = footer.checked_sub(TRAILER_BYTES).ok_or(Damage::NoChecksums)?;
        if trailer < from {
            return Ok(Found::Before(begin_of_piece(trailer)));
        }
        let (at, end) = (to_usize(trailer - from), to_usize(footer - from));
        let (covered, rest) = tail[at..end].split_at(8);
        let (sum, mark) = rest.split_at(4);
        if mark != MARK {
            return Err(Damage::NoChecksums);
        }
        let covered = u64::from_le_bytes(covered.try_into().expect("eight bytes"));
        let length = covered.div_ceil(PIECE_BYTES).checked_mul(4);
        if length.and_then(|length| covered.checked_add(length)) != Some(trailer) {
            return Err(Damage::Footer);
        }
        if covered < from {
            return Ok(Found::Before(begin_of_piece(covered)));
        }
        let sums = &tail[to_usize(covered - from)..at];
        if of_end(sums, covered, &tail[end..]).to_le_bytes() != sum {
            return Err(Damage::Footer);
        }
        let sums = sums.as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        Ok(Found::Checks(Checks { covered, sums }))
    }

    /// Bytes of the file, from its begin, that the checksums of pieces cover.
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// Bytes of memory that this takes.
    pub fn memory_size(&self) -> usize {
        size_of::<Checks>() + self.sums.len() * size_of::<u32>()
    }

    /// The whole pieces that hold `range`.
    ///
    /// # Errors
    /// The checksums do not cover the range.
    pub fn pieces(&self, range: &Range<u64>) -> Result<Range<u64>, Damage> {
        if range.start > range.end || range.end > self.covered {
            return Err(Damage::Range { from: range.start, to: range.end });
        }
        Ok(begin_of_piece(range.start)..range.end.next_multiple_of(PIECE_BYTES).min(self.covered))
    }

    /// Checks whole pieces of the file, which begin at `from`.
    ///
    /// # Errors
    /// A byte is not as it was written.
    ///
    /// # Panics
    /// They are not whole pieces, as [`Checks::pieces`] gives them.
    pub fn verify(&self, from: u64, pieces: &[u8]) -> Result<(), Damage> {
        let end = from + pieces.len() as u64;
        assert!(from.is_multiple_of(PIECE_BYTES), "a piece begins at a multiple of its size");
        assert!(end.is_multiple_of(PIECE_BYTES) || end == self.covered, "the last piece is whole");
        let first = to_usize(from / PIECE_BYTES);
        for (number, piece) in pieces.chunks(to_usize(PIECE_BYTES)).enumerate() {
            if self.sums.get(first + number) != Some(&crc32c::crc32c(piece)) {
                let from = from + number as u64 * PIECE_BYTES;
                return Err(Damage::Piece { from, to: from + piece.len() as u64 });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with `body` bytes before its footer of `footer` bytes.
    fn file(body: usize, footer: u32) -> Vec<u8> {
        let mut file: Vec<u8> = (0..body).map(|n| (n % 251) as u8).collect();
        file.extend((0..footer).map(|n| (n % 13) as u8));
        file.extend(footer.to_le_bytes());
        file.extend(b"PAR1");
        file
    }

    // The bytes below are in users' files and never change.
    #[test]
    fn the_format_is_as_it_was() {
        let mut small = b"PAR1abc".to_vec();
        small.extend([1, 2, 3, 3, 0, 0, 0]);
        small.extend(b"PAR1");
        add(&mut small);
        let hex: String = small.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN, "persisted: a change needs a new mark");
        assert_eq!(verify(&small.into()), Ok(()));
    }

    const GOLDEN: &str =
        "50415231616263a5e09cc10700000000000000b3db7bd1464c4f4573756d310102030300000050415231";

    #[test]
    fn every_changed_byte_is_seen() {
        for (body, footer) in [(0, 0), (1, 5), (100, 7), (16_384, 3), (16_385, 3), (40_000, 90)] {
            let mut whole = file(body, footer);
            add(&mut whole);
            assert_eq!(verify(&whole.clone().into()), Ok(()), "{body} and {footer}");
            let step = if whole.len() > 1_000 { 97 } else { 1 };
            let last = whole.len() - 200.min(whole.len());
            for at in (0..last).step_by(step).chain(last..whole.len()) {
                for bit in [1, 0x80] {
                    let mut damaged = whole.clone();
                    damaged[at] ^= bit;
                    assert!(verify(&damaged.into()).is_err(), "byte {at} of {body} and {footer}");
                }
            }
            for length in 0..whole.len().min(64) {
                assert!(verify(&whole[..length].to_vec().into()).is_err(), "cut to {length}");
            }
        }
        assert_eq!(verify(&file(100, 7).into()), Err(Damage::NoChecksums));
    }

    #[test]
    fn a_part_is_checked_by_its_pieces() {
        let mut whole = file(40_000, 90);
        add(&mut whole);
        let size = whole.len() as u64;
        // A tail that does not reach to the checksums asks for more, in whole pieces.
        let mut from = size - 20;
        let checks = loop {
            assert!(from > 0, "it never needs the whole file");
            match Checks::find(&whole[to_usize(from)..], from, size) {
                Ok(Found::Before(more)) => from = more,
                found => break found,
            }
        };
        let Ok(Found::Checks(checks)) = checks else { panic!("{checks:?}") };
        assert_eq!((checks.covered(), from), (40_000, 32_768));
        assert_eq!(checks.pieces(&(5..6)), Ok(0..16_384));
        assert_eq!(checks.pieces(&(16_384..16_384)), Ok(16_384..16_384));
        assert_eq!(checks.pieces(&(16_383..33_000)), Ok(0..40_000));
        assert_eq!(checks.pieces(&(39_999..40_001)), Err(Damage::Range { from: 39_999, to: 40_001 }));
        assert_eq!(checks.verify(16_384, &whole[16_384..40_000]), Ok(()));
        let mut damaged = whole.clone();
        damaged[33_000] ^= 1;
        assert_eq!(checks.verify(0, &damaged[..32_768]), Ok(()));
        let piece = Damage::Piece { from: 32_768, to: 40_000 };
        assert_eq!(checks.verify(16_384, &damaged[16_384..40_000]), Err(piece));
    }
}
