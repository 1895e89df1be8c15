//! Avro's object container files.
//!
//! ```text
//! "Obj" 1   map: avro.schema, avro.codec, and what Iceberg adds   marker (16 bytes)
//! blocks:   long: records   long: bytes   the records   marker
//! ```

use crate::{
    avro::{Decoder, Encoder},
    error::Error,
};

const MAGIC: &[u8; 4] = b"Obj\x01";

const MARKER_BYTES: usize = 16;

/// A block is closed at this many bytes. Readers decode a block at a time.
const BLOCK_BYTES: usize = 16_000;

/// The first members of the header.
const OWN_MEMBERS: [&str; 2] = ["avro.schema", "avro.codec"];

/// The members of the header.
pub(crate) type Header<'a> = Vec<(&'a str, &'a [u8])>;

/// Writes a file of records, each written by `write`. Its header has `members` with `values`.
pub(crate) fn write<T>(
    shape: &str,
    members: &[&str],
    values: &[String],
    records: &[T],
    write: impl Fn(&mut Encoder, &T) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let mut blocks: Vec<(i64, Encoder)> = Vec::new();
    for record in records {
        if blocks.last().is_none_or(|(_, block)| block.len() >= BLOCK_BYTES) {
            blocks.push((0, Encoder::default()));
        }
        if let Some((count, block)) = blocks.last_mut() {
            write(block, record)?;
            *count += 1;
        }
    }
    let mut file = Encoder::default();
    file.raw(MAGIC);
    let own = OWN_MEMBERS.into_iter().zip([shape, "null"]);
    let members = own.chain(members.iter().copied().zip(values.iter().map(String::as_str)));
    file.array(members.collect::<Vec<_>>().into_iter(), |file, (name, value)| {
        file.bytes(name.as_bytes());
        file.bytes(value.as_bytes());
        Ok(())
    })?;
    let mut hash = Hash::default();
    hash.add(file.as_bytes());
    blocks.iter().for_each(|(_, block)| hash.add(block.as_bytes()));
    let marker = hash.marker();
    file.raw(&marker);
    for (count, block) in blocks {
        file.long(count);
        file.bytes(block.as_bytes());
        file.raw(&marker);
    }
    Ok(file.into_bytes())
}

/// What separates blocks: a hash of the header and of all blocks (FNV-1a of 128 bits), so that the same records make
/// the same file, and every byte of it can be checked. Readers that begin in the middle look for it, so no value that a
/// client chose may be equal to it: who chooses the value does not know the hash.
struct Hash(u128);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| {
            (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
    }

    fn marker(&self) -> [u8; MARKER_BYTES] {
        self.0.to_be_bytes()
    }
}

/// Reads the records of a file, each with `read`, behind `check` of its header.
///
/// A file whose header has `members` in this order is ours, and must have its hash. An early version of Floe wrote
/// files with a library that puts them in an order of its own, and separates blocks by random bytes.
pub(crate) fn read<'a, T>(
    bytes: &'a [u8],
    shape: &str,
    members: &[&str],
    check: impl FnOnce(&Header<'a>) -> Result<(), Error>,
    mut read: impl FnMut(&mut Decoder<'a>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut file = Decoder::new(bytes);
    if file.raw(MAGIC.len())? != MAGIC {
        return Err(Error::Avro("it does not begin as one"));
    }
    let mut header = Header::new();
    file.array(|member| {
        header.push((member.text()?, member.bytes()?));
        Ok(())
    })?;
    let mut hash = Hash::default();
    hash.add(&bytes[..bytes.len() - file.remaining()]);
    if find(&header, "avro.codec").is_some_and(|codec| codec != b"null") {
        return Err(Error::Avro("it is compressed"));
    }
    if !find(&header, "avro.schema").is_some_and(|found| is_same(found, shape)) {
        return Err(Error::Avro("its records have another schema"));
    }
    check(&header)?;
    let marker = file.raw(MARKER_BYTES)?;
    let mut records = Vec::new();
    while !file.is_empty() {
        let count = file.count()?;
        let block = file.bytes()?;
        hash.add(block);
        let mut block = Decoder::new(block);
        // Every record takes a byte or more.
        if count > block.remaining() as u64 {
            return Err(Error::Avro("a block has more records than bytes"));
        }
        for _ in 0..count {
            records.push(read(&mut block)?);
        }
        if !block.is_empty() {
            return Err(Error::Avro("a block is longer than its records"));
        }
        if file.raw(MARKER_BYTES)? != marker {
            return Err(Error::Avro("a block does not end where it should"));
        }
    }
    let names = header.iter().map(|(name, _)| *name);
    if names.eq(OWN_MEMBERS.iter().chain(members).copied()) && hash.marker() != marker {
        return Err(Error::Avro("its bytes have another checksum"));
    }
    Ok(records)
}

/// A member of the header.
pub(crate) fn find<'a>(header: &Header<'a>, name: &str) -> Option<&'a [u8]> {
    header.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
}

/// Whether two schemas are the same JSON.
fn is_same(found: &[u8], shape: &str) -> bool {
    let parse = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).ok();
    found == shape.as_bytes() || parse(found).is_some_and(|found| Some(found) == parse(shape.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: &str = r#"{"type":"long"}"#;

    fn numbers(count: i64) -> Vec<u8> {
        let records: Vec<i64> = (0..count).collect();
        let long = |block: &mut Encoder, n: &i64| {
            block.long(*n);
            Ok(())
        };
        write(SHAPE, &["who"], &["floe".to_owned()], &records, long).unwrap()
    }

    fn sum(file: &[u8]) -> Result<i64, Error> {
        let check = |header: &Header<'_>| {
            assert_eq!(find(header, "who"), Some(&b"floe"[..]));
            Ok(())
        };
        Ok(read(file, SHAPE, &["who"], check, Decoder::long)?.into_iter().sum())
    }

    #[test]
    fn records_fill_several_blocks() {
        let file = numbers(100_000);
        let marker = &file[file.len() - MARKER_BYTES..];
        let markers = file.windows(MARKER_BYTES).filter(|window| *window == marker).count();
        assert!(markers > 10, "{markers} markers");
        assert_eq!(sum(&file).unwrap(), 99_999 * 100_000 / 2);
        assert_eq!(sum(&numbers(0)).unwrap(), 0);
        assert_eq!(numbers(3), numbers(3));
        let end = |file: Vec<u8>| file[file.len() - MARKER_BYTES..].to_vec();
        assert_ne!(end(numbers(3)), end(numbers(4)));
    }

    #[test]
    fn other_files_are_refused() {
        let file = numbers(3);
        let why = |file: &[u8]| sum(file).unwrap_err().to_string();
        assert!(why(b"PAR1 and more of it").contains("begin"));
        assert!(why(&[]).contains("too soon"));
        let text = |from: &str, to: &str| {
            let at = file.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            let mut changed = file.clone();
            changed[at..at + from.len()].copy_from_slice(to.as_bytes());
            changed
        };
        assert!(why(&text("null", "zstd")).contains("compressed"));
        assert!(why(&text("long", "int ")).contains("another schema"));
        let end = file.len() - 1;
        let mut cut = file.clone();
        cut[end] ^= 1;
        assert!(why(&cut).contains("does not end"));
        // Four records where three are.
        let count = file.len() - MARKER_BYTES - 3 - 2;
        assert_eq!(file[count], 6);
        cut = file.clone();
        cut[count] = 8;
        assert!(why(&cut).contains("more records"));
        cut[count] = 4;
        assert!(why(&cut).contains("longer"));
    }

    #[test]
    fn every_changed_byte_is_seen() {
        let (small, large) = (numbers(100), numbers(10_000));
        assert_eq!(sum(&large).unwrap(), 9_999 * 10_000 / 2);
        for (file, step) in [(small, 1), (large, 101)] {
            // A change of a member's name makes it the file of another writer, which is read if nothing else is wrong.
            let place = |name: &str| {
                let at = file.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
                at..at + name.len()
            };
            let names = ["avro.codec", "who"].map(place);
            let is_name = |at: &usize| names.iter().any(|name| name.contains(at));
            for at in (0..file.len()).step_by(step).filter(|at| !is_name(at)) {
                for bit in [1, 0x40] {
                    let mut damaged = file.clone();
                    damaged[at] ^= bit;
                    let read = read(&damaged, SHAPE, &["who"], |_| Ok(()), Decoder::long);
                    assert!(read.is_err(), "byte {at} of {}", file.len());
                }
            }
        }
    }

    #[test]
    fn a_file_of_another_writer_has_another_marker() {
        let mut file = numbers(3);
        let marker = file[file.len() - MARKER_BYTES..].to_vec();
        let places: Vec<usize> =
            (0..=file.len() - MARKER_BYTES).filter(|at| file[*at..].starts_with(&marker)).collect();
        for at in places {
            file[at..at + MARKER_BYTES].copy_from_slice(b"sixteen, at once");
        }
        let of = |members: &[&str]| read(&file, SHAPE, members, |_| Ok(()), Decoder::long);
        assert_eq!(of(&["codec", "who"]).unwrap(), [0, 1, 2]);
        assert!(of(&["who"]).unwrap_err().to_string().contains("another checksum"));
    }

    #[test]
    fn a_schema_may_be_spelled_in_another_way() {
        assert!(is_same(br#"{ "type" : "long" }"#, SHAPE));
        assert!(!is_same(br#"{ "type" : "long", "more": 1 }"#, SHAPE));
        assert!(!is_same(b"", SHAPE));
    }
}
