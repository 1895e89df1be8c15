//! Typed keys of the metadata map, encoded so that the order of the bytes is the order of the keys.
//!
//! ```text
//! +------+----------------------------------------------+
//! | kind | key body, written by the key's own `encode`  |
//! | u8   | big endian integers, terminated strings      |
//! +------+----------------------------------------------+
//! ```

use crate::error::DecodeError;

/// The key of one kind of record. The encoded bytes must sort like the values.
pub trait Key: Sized + Ord {
    /// Appends the key's body (without the kind byte).
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads what [`Key::encode`] wrote. All bytes must be used.
    ///
    /// # Errors
    /// The bytes are not a key of this type.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// The key of a record that exists only once.
impl Key for () {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(bytes: &[u8]) -> Result<(), DecodeError> {
        KeyReader::new(bytes).finish()
    }
}

impl Key for u32 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, *self);
    }
    fn decode(bytes: &[u8]) -> Result<u32, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let value = reader.u32()?;
        reader.finish().map(|()| value)
    }
}

impl Key for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, *self);
    }
    fn decode(bytes: &[u8]) -> Result<u64, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let value = reader.u64()?;
        reader.finish().map(|()| value)
    }
}

impl Key for String {
    fn encode(&self, out: &mut Vec<u8>) {
        put_str(out, self);
    }
    fn decode(bytes: &[u8]) -> Result<String, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let value = reader.string()?;
        reader.finish().map(|()| value)
    }
}

/// Appends a `u8`.
pub fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

/// Appends a `u32`, big endian.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a `u64`, big endian.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends an `i64`, big endian with the sign bit flipped, so that negative numbers come first.
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, value.cast_unsigned() ^ (1 << 63));
}

/// Appends a string that ends in `00 01`, with each zero byte inside written as `00 ff`. A prefix therefore sorts
/// before its extensions, and further fields may follow.
pub fn put_str(out: &mut Vec<u8>, value: &str) {
    for &byte in value.as_bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 1]);
}

/// Reads the fields of a key in the order in which they were appended.
#[derive(Debug)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// A reader of a key's body, without the kind byte.
    pub fn new(bytes: &'a [u8]) -> KeyReader<'a> {
        KeyReader(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    /// Reads what [`put_u8`] wrote.
    ///
    /// # Errors
    /// The key ends here.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|bytes| bytes[0])
    }

    /// Reads what [`put_u32`] wrote.
    ///
    /// # Errors
    /// The key ends here.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads what [`put_u64`] wrote.
    ///
    /// # Errors
    /// The key ends here.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads what [`put_i64`] wrote.
    ///
    /// # Errors
    /// The key ends here.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.u64().map(|bits| (bits ^ (1 << 63)).cast_signed())
    }

    /// Reads what [`put_str`] wrote.
    ///
    /// # Errors
    /// The key ends here, an escape is unknown, or the bytes are not UTF-8.
    pub fn string(&mut self) -> Result<String, DecodeError> {
        let mut text = Vec::new();
        loop {
            match self.u8()? {
                0 => match self.u8()? {
                    0xff => text.push(0),
                    1 => break,
                    _ => return Err(DecodeError::corrupt("unknown escape in a string of a key")),
                },
                byte => text.push(byte),
            }
        }
        String::from_utf8(text).map_err(|_| DecodeError::corrupt("a string of a key is not utf-8"))
    }

    /// Ends the key.
    ///
    /// # Errors
    /// Bytes are left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::corrupt("a key has bytes left over")) }
    }
}
