//! What all objects of the journal begin with, and how numbers are cut out of bytes. Pure: bytes in, values out.
//!
//! ```text
//! 0 magic   8 version u16   10 zero   12 crc32c u32 of all other bytes   16 the journal's id u128   32 …
//! ```
//! All numbers are little endian.

/// Bytes of the head that every object has.
pub(super) const HEAD: usize = 32;
/// The version of all formats of this journal.
pub(super) const VERSION: u16 = 1;

/// Why an object is not what its key says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsound {
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it has version {0}, this build knows {VERSION}: a newer floe wrote it, upgrade this broker")]
    Newer(u16),
    #[error("it belongs to journal {found:032x}, this one is {ours:032x}")]
    Foreign { found: u128, ours: u128 },
}

pub(super) fn damaged(what: impl Into<String>) -> Unsound {
    Unsound::Damaged(what.into())
}

/// Lays out an object: the head, and `body` behind it.
pub(super) fn seal(magic: &[u8; 8], journal: u128, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.extend_from_slice(magic);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&journal.to_le_bytes());
    out.extend_from_slice(body);
    let crc = crc_of(&out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads what [`seal`] laid out: the body, and the checksum.
pub(super) fn open<'a>(
    magic: &[u8; 8],
    journal: Option<u128>,
    bytes: &'a [u8],
) -> Result<(u128, &'a [u8], u32), Unsound> {
    if bytes.len() < HEAD || &bytes[..8] != magic {
        return Err(damaged("it does not begin as such an object does"));
    }
    let crc = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes were cut"));
    if crc != crc_of(bytes) {
        return Err(damaged("it does not match its checksum"));
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if version != VERSION {
        return Err(Unsound::Newer(version));
    }
    let found = u128::from_le_bytes(bytes[16..32].try_into().expect("sixteen bytes were cut"));
    match journal {
        Some(ours) if ours != found => Err(Unsound::Foreign { found, ours }),
        _ => Ok((found, &bytes[HEAD..], crc)),
    }
}

fn crc_of(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// Bytes of which numbers are cut off at the front.
pub(super) struct Cut<'a>(pub(super) &'a [u8]);

impl<'a> Cut<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Unsound> {
        match self.0.split_at_checked(count) {
            Some((cut, rest)) => {
                self.0 = rest;
                Ok(cut)
            }
            None => Err(damaged("it ends too early")),
        }
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Unsound> {
        Ok(self.bytes(N)?.try_into().expect("so many bytes were cut"))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Unsound> {
        self.number().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Unsound> {
        self.number().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, Unsound> {
        self.number().map(u128::from_le_bytes)
    }

    /// Refuses bytes that nobody cut off.
    pub(super) fn end(&self) -> Result<(), Unsound> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(damaged("it has more bytes than it should")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"FLOETEST";

    #[test]
    fn every_changed_byte_is_found() {
        let sealed = seal(MAGIC, 7, b"body");
        let crc = u32::from_le_bytes(sealed[12..16].try_into().unwrap());
        assert_eq!(open(MAGIC, Some(7), &sealed), Ok((7, &b"body"[..], crc)));
        assert_eq!(open(MAGIC, Some(8), &sealed), Err(Unsound::Foreign { found: 7, ours: 8 }));
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[at] ^= 1;
            assert!(open(MAGIC, Some(7), &bytes).is_err(), "byte {at}");
            assert!(open(MAGIC, Some(7), &sealed[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn a_newer_version_is_refused_with_the_reason() {
        let mut sealed = seal(MAGIC, 7, b"body");
        sealed[8] = 2;
        let crc = crc_of(&sealed);
        sealed[12..16].copy_from_slice(&crc.to_le_bytes());
        let refused = open(MAGIC, Some(7), &sealed).unwrap_err();
        assert_eq!(refused, Unsound::Newer(2));
        assert!(refused.to_string().contains("upgrade this broker"));
    }
}
