//! Checksums of what a journal keeps: one for each entry, one for each value of the image, and one for the image's own
//! record of how far it goes. Pure: bytes in, numbers out.
//!
//! ```text
//! entry   crc32c of  lsn u64 | attempt u128 | length of the envelope u64 | envelope | changes
//! value   crc32c of  length of the key u64 | key | value
//! fold    lsn u64 | crc32c of the entry with this LSN u32 | sum of the checksums of all values u64 | crc32c u32
//! ```
//! All numbers are big endian. The checksum of a fold also covers the id of the journal, which is not part of it. The
//! sum finds a value that vanished, and the checksum of the last entry finds a journal that is not the one that was
//! folded.

use crate::error::DecodeError;
use crate::journal::Lsn;

const FOLD_BYTES: usize = 24;

/// The checksum of an entry of the journal, of its encoded envelope and changes.
pub fn of_entry(lsn: Lsn, attempt: u128, envelope: &[u8], changes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&lsn.0.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &attempt.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &(envelope.len() as u64).to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, envelope), changes)
}

/// The checksum of a value of the image, with its key.
pub fn of_value(key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&(key.len() as u64).to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

/// How far an image goes, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fold {
    /// The last commit in the image.
    pub lsn: Lsn,
    /// The checksum of the entry of that commit; 0 before the first.
    pub entry: u32,
    /// The sum of the checksums of all values, modulo 2^64.
    pub sum: u64,
}

impl Fold {
    /// The record as the image keeps it.
    pub fn encode(&self, id: &[u8]) -> [u8; FOLD_BYTES] {
        let mut out = [0; FOLD_BYTES];
        out[..8].copy_from_slice(&self.lsn.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.entry.to_be_bytes());
        out[12..20].copy_from_slice(&self.sum.to_be_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(id), &out[..20]);
        out[20..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads what [`Fold::encode`] wrote for the same journal.
    ///
    /// # Errors
    /// The checksum does not match.
    pub fn decode(id: &[u8], bytes: &[u8]) -> Result<Fold, DecodeError> {
        let bytes: &[u8; FOLD_BYTES] = bytes.try_into().map_err(|_| DecodeError::Truncated)?;
        let number =
            |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes were cut"));
        let entry = u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes were cut"));
        let fold = Fold { lsn: Lsn(number(0)), entry, sum: number(12) };
        match fold.encode(id) == *bytes {
            true => Ok(fold),
            false => Err(DecodeError::corrupt("the record of the image does not match its checksum")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files in the field hold these numbers, so they never change.
    #[test]
    fn golden() {
        assert_eq!(of_entry(Lsn(1), 2, b"envelope", b"changes"), GOLDEN_ENTRY);
        assert_eq!(of_value(b"key", b"value"), GOLDEN_VALUE);
        let fold = Fold { lsn: Lsn(7), entry: 0x0102_0304, sum: 9 };
        let hex: String = fold.encode(b"id").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("0000000000000007010203040000000000000009{GOLDEN_FOLD}"));
        assert_eq!(Fold::decode(b"id", &fold.encode(b"id")), Ok(fold));
    }

    const GOLDEN_ENTRY: u32 = 0xc7f7_56d9;
    const GOLDEN_VALUE: u32 = 0x3ff7_ad0d;
    const GOLDEN_FOLD: &str = "cecba320";

    #[test]
    fn no_boundary_can_move() {
        assert_ne!(of_entry(Lsn(1), 2, b"ab", b"c"), of_entry(Lsn(1), 2, b"a", b"bc"));
        assert_ne!(of_value(b"ab", b"c"), of_value(b"a", b"bc"));
    }

    #[test]
    fn every_changed_byte_of_a_fold_is_found() {
        let fold = Fold { lsn: Lsn(7), entry: 8, sum: 9 };
        assert!(Fold::decode(b"other", &fold.encode(b"id")).is_err());
        assert_eq!(Fold::decode(b"id", &fold.encode(b"id")[1..]), Err(DecodeError::Truncated));
        for at in 0..FOLD_BYTES {
            let mut bytes = fold.encode(b"id");
            bytes[at] ^= 1;
            assert!(Fold::decode(b"id", &bytes).is_err(), "byte {at}");
        }
    }
}
