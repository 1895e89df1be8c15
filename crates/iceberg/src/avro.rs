//! Avro's encoding of single values ("Binary Encoding" in its specification).

use crate::error::Error;

/// Bytes of the longest number: 64 bits, 7 in a byte.
const VARINT_BYTES_MAX: u32 = 10;

/// Writes values.
#[derive(Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An `int` or a `long`: both have one encoding.
    pub(crate) fn long(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    /// A number that is never negative, as a `long`.
    pub(crate) fn count(&mut self, value: u64) -> Result<(), Error> {
        self.long(i64::try_from(value).map_err(|_| Error::TooLarge(value))?);
        Ok(())
    }

    /// `bytes` or a `string`.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.bytes.extend_from_slice(value);
    }

    /// The null of a union of null and something else.
    pub(crate) fn none(&mut self) {
        self.long(0);
    }

    /// The beginning of the other branch.
    pub(crate) fn some(&mut self) {
        self.long(1);
    }

    /// A union of null and `long`.
    pub(crate) fn optional_long(&mut self, value: Option<i64>) {
        match value {
            None => self.none(),
            Some(value) => {
                self.some();
                self.long(value);
            }
        }
    }

    /// An `array` in one block.
    pub(crate) fn array<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Encoder, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if items.len() > 0 {
            self.length(items.len());
        }
        for item in items {
            write(self, item)?;
        }
        self.long(0);
        Ok(())
    }

    fn length(&mut self, length: usize) {
        self.long(i64::try_from(length).expect("memory is smaller than 63 bits"));
    }

    /// What is already Avro.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads values from bytes that may be damaged.
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that remain.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Error::Avro("it ends too soon"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn long(&mut self) -> Result<i64, Error> {
        let mut value = 0_u64;
        for at in 0..VARINT_BYTES_MAX {
            let byte = self.raw(1)?[0];
            if at == VARINT_BYTES_MAX - 1 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(Error::Avro("a number has more than 64 bits"))
    }

    pub(crate) fn int(&mut self) -> Result<i32, Error> {
        i32::try_from(self.long()?).map_err(|_| Error::Avro("a number has more than 32 bits"))
    }

    /// A number that is never negative.
    pub(crate) fn count(&mut self) -> Result<u64, Error> {
        u64::try_from(self.long()?).map_err(|_| Error::Avro("a count is negative"))
    }

    /// A number of things of which each takes a byte or more.
    pub(crate) fn length(&mut self) -> Result<usize, Error> {
        let length = usize::try_from(self.count()?).ok().filter(|length| *length <= self.rest.len());
        length.ok_or(Error::Avro("a length is greater than the rest of the file"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let length = self.length()?;
        self.raw(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::Avro("a text is not UTF-8"))
    }

    /// A union of null and something else.
    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match self.long()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Error::Avro("a union has two branches only")),
        }
    }

    /// The null of a union whose other branch Floe does not write.
    pub(crate) fn null(&mut self) -> Result<(), Error> {
        if self.long()? == 0 { Ok(()) } else { Err(Error::Avro("it says something that Floe never writes")) }
    }

    /// An `array` or a `map` of items that take a byte or more each.
    pub(crate) fn array(
        &mut self,
        mut read: impl FnMut(&mut Decoder<'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            let count = match self.long()? {
                0 => return Ok(()),
                // Behind a negative count come the bytes of the block, for readers that skip it.
                sized @ ..0 => {
                    self.length()?;
                    sized.unsigned_abs()
                }
                count => count.unsigned_abs(),
            };
            if count > self.rest.len() as u64 {
                return Err(Error::Avro("an array has more items than there are bytes"));
            }
            for _ in 0..count {
                read(self)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bytes_of_the_specification() {
        // "Primitive Types" of Avro's specification, and the ends of the range.
        let cases: [(i64, &[u8]); 8] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (-65, &[0x81, 1]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        for (value, bytes) in cases {
            let mut encoder = Encoder::default();
            encoder.long(value);
            assert_eq!(encoder.as_bytes(), bytes, "{value}");
            let mut decoder = Decoder::new(bytes);
            assert_eq!(decoder.long().unwrap(), value);
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn an_array_may_have_blocks_with_and_without_sizes() {
        // Two items, one item with the size of its block, the end.
        let mut decoder = Decoder::new(&[4, 2, 4, 1, 2, 6, 0, 9]);
        let mut found = Vec::new();
        let item = |item: &mut Decoder<'_>| {
            found.push(item.long()?);
            Ok(())
        };
        decoder.array(item).unwrap();
        assert_eq!((found, decoder.remaining()), (vec![1, 2, 3], 1));
    }

    #[test]
    fn numbers_that_lie_are_errors() {
        let long = |bytes: &[u8]| Decoder::new(bytes).long().unwrap_err().to_string();
        assert!(long(&[0x80]).contains("ends too soon"));
        assert!(long(&[0xff; 10]).contains("64 bits"));
        assert!(long(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]).contains("64 bits"));
        let bytes = |bytes: &[u8]| Decoder::new(bytes).bytes().unwrap_err().to_string();
        assert!(bytes(&[6, 1, 2]).contains("greater than the rest"));
        assert!(bytes(&[1]).contains("negative"));
        let array = |bytes: &[u8]| Decoder::new(bytes).array(|item| item.long().map(drop)).unwrap_err();
        assert!(array(&[6, 1, 2]).to_string().contains("more items"));
        let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0];
        assert!(array(&least).to_string().contains("more items"));
    }
}
