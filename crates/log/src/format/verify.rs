//! Whether consumers will be able to decode a batch: a walk over its records that keeps none of them.
//!
//! A batch is stored as the producer compressed it, and every consumer of the partition has to decode it. A batch
//! that does not decode would stop them all for good, so it is refused before it is acknowledged. The rules are those
//! of Apache Kafka (`LogValidator`, `DefaultRecord`): the records fill the batch exactly, there are as many as the
//! header says, their offset deltas are 0, 1, 2 and so on, and no header key is null.
//!
//! The walk decompresses piece by piece and holds one piece. Bytes, records and headers are bounded by
//! [`crate::limits`].

use std::io::{self, BufRead, BufReader, Read};

use crate::format::codec::{Compression, SnappyReader, zstd_reader};
use crate::format::header::{Blame, HEADER_BYTES, Header};
use crate::limits::{
    DECOMPRESSED_BYTES_FREE, DECOMPRESSED_BYTES_MAX, DECOMPRESSION_RATIO_MAX, RECORDS_DECODED_MAX,
    WALK_BUFFER_BYTES,
};

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// The largest timestamp of a record in milliseconds since the epoch; -1 if no record has one.
    pub max_timestamp: i64,
    /// The smallest timestamp of a record that has one; `i64::MAX` if none has.
    pub min_timestamp: i64,
    /// The first record without a key, from 0.
    pub keyless: Option<i32>,
}

impl Walked {
    /// What the client says in the header, for a batch that is not walked.
    pub(crate) fn claimed(header: &Header) -> Walked {
        let base = header.base_timestamp;
        let min_timestamp = if base == -1 { i64::MAX } else { base };
        Walked { max_timestamp: header.max_timestamp, min_timestamp, keyless: None }
    }
}

/// Why consumers could not decode the batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The compressed data does not decompress.
    #[error("its {codec} data does not decompress: {reason}")]
    Codec {
        /// Its name.
        codec: &'static str,
        /// What the decompressor says.
        reason: String,
    },
    /// It decompresses to more than [`DECOMPRESSED_BYTES_MAX`], or than its size permits.
    #[error(
        "its {codec} data takes more than {bytes_max} bytes when decompressed, which is the limit for a batch of this \
         size: send smaller batches"
    )]
    TooLarge {
        /// Its name.
        codec: &'static str,
        /// The limit.
        bytes_max: u64,
    },
    /// More records and headers than any reader decodes.
    #[error(
        "it has more than {RECORDS_DECODED_MAX} records and headers, which is the limit: send smaller batches"
    )]
    TooMany,
    /// The records contradict the format or the header.
    #[error("record {index}: {reason}")]
    Record {
        /// From 0.
        index: i32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Some bytes are no number, or compressed records do not count from 0.
    #[error("record {index}: {reason}")]
    Garbage {
        /// From 0.
        index: i32,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Undecodable {
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Undecodable::Codec { .. } | Undecodable::Garbage { .. } => Blame::Undecodable,
            Undecodable::TooLarge { .. } | Undecodable::TooMany | Undecodable::Record { .. } => Blame::Client,
        }
    }
}

/// Walks the records of a whole batch whose header and checksum are right. Takes the bytes that it decompresses from
/// `left`, what the batches of one request may decompress to.
///
/// # Errors
/// The first [`Undecodable`] found.
pub fn walk(
    header: &Header,
    codec: Compression,
    batch: &[u8],
    left: &mut u64,
) -> Result<Walked, Undecodable> {
    walk_with(header, codec, batch, left, Offsets::Dense, |_, _| true)
}

/// Walks the records of a stored batch, which may decompress to `bytes_max` bytes. Hands the offset delta and the
/// timestamp of each record to `each`, until it returns `false`. Holds no record.
///
/// # Errors
/// The first [`Undecodable`] found.
pub(crate) fn timestamps(
    header: &Header,
    codec: Compression,
    batch: &[u8],
    bytes_max: u64,
    mut each: impl FnMut(i32, i64) -> bool,
) -> Result<(), Undecodable> {
    let appended = header.is_log_append_time().then_some(header.max_timestamp);
    let each = |delta, timestamp| each(delta, appended.unwrap_or(timestamp));
    walk_with(header, codec, batch, &mut { bytes_max }, Offsets::Growing, each).map(drop)
}

/// Which offset deltas records may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offsets {
    /// 0, 1, 2 and so on, as clients write them.
    Dense,
    /// Growing ones up to the last of the header, as compaction leaves them.
    Growing,
}

fn walk_with(
    header: &Header,
    codec: Compression,
    batch: &[u8],
    left: &mut u64,
    offsets: Offsets,
    mut each: impl FnMut(i32, i64) -> bool,
) -> Result<Walked, Undecodable> {
    let body = &batch[HEADER_BYTES..];
    if codec == Compression::None {
        return Walk::new(header, body, offsets, &mut each).run(codec);
    }
    let bytes_max = bytes_max(body.len()).min(*left);
    let mut limited = |reader: &mut dyn Read| {
        let mut counted = Counted { inner: reader, left: bytes_max };
        // The buffer is filled once for many fields, so the walk does not call the decoder for each byte.
        let buffered = BufReader::with_capacity(WALK_BUFFER_BYTES, &mut counted);
        let walked = Walk::new(header, buffered, offsets, &mut each).run(codec);
        *left -= bytes_max - counted.left;
        match walked {
            Err(Undecodable::Codec { .. }) if counted.left == 0 => {
                Err(Undecodable::TooLarge { codec: codec.name(), bytes_max })
            }
            walked => walked,
        }
    };
    match codec {
        Compression::None => unreachable!("walked above, without a buffer"),
        Compression::Gzip => limited(&mut flate2::read::MultiGzDecoder::new(body)),
        Compression::Snappy => limited(&mut SnappyReader::new(body)),
        // The decoder takes the end of the bytes for the end of the frame. Kafka's does not.
        Compression::Lz4 if !ends_as_lz4_frame(body) => {
            Err(Undecodable::Codec { codec: codec.name(), reason: "the frame has no end".to_owned() })
        }
        Compression::Lz4 => limited(&mut lz4_flex::frame::FrameDecoder::new(body)),
        Compression::Zstd => match zstd_reader(body) {
            Ok(mut reader) => limited(&mut reader),
            Err(error) => Err(Undecodable::Codec { codec: codec.name(), reason: error.to_string() }),
        },
    }
}

/// Whether an LZ4 frame is closed: four zero bytes, and behind them the checksum of the contents, if the frame has one.
/// Source: LZ4 Frame Format, "EndMark".
fn ends_as_lz4_frame(frame: &[u8]) -> bool {
    const FLAGS_AT: usize = 4;
    const CONTENT_CHECKSUM: u8 = 0b100;
    let checksum = frame.get(FLAGS_AT).is_some_and(|flags| flags & CONTENT_CHECKSUM != 0);
    let end = frame.len().saturating_sub(if checksum { 4 } else { 0 });
    frame[..end].ends_with(&[0; 4])
}

/// Bytes that a batch of this many compressed bytes may decompress to. The ratio keeps a small request from costing
/// seconds of processor time.
fn bytes_max(compressed: usize) -> u64 {
    let by_ratio = (compressed as u64).saturating_mul(DECOMPRESSION_RATIO_MAX);
    by_ratio.saturating_add(DECOMPRESSED_BYTES_FREE).min(DECOMPRESSED_BYTES_MAX)
}

/// Lets so many bytes through and then fails.
struct Counted<'r> {
    inner: &'r mut dyn Read,
    left: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read as u64 > self.left {
            self.left = 0;
            return Err(io::Error::other("too much"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Why a field cannot be read.
enum Fault {
    Ended,
    TooMany,
    Offset,
    Io(io::Error),
    Damaged(&'static str),
    Number(&'static str),
}

/// A walk under way: the bytes that are left, and how many of them belong to the record.
struct Walk<'h, R, F> {
    header: &'h Header,
    reader: R,
    offsets: Offsets,
    /// The least offset delta that the next record may have.
    next_delta: i32,
    each: F,
    /// Bytes of the record that are not read yet.
    left: usize,
    /// Records and headers that may still come.
    room: usize,
}

impl<'h, R: BufRead, F: FnMut(i32, i64) -> bool> Walk<'h, R, F> {
    fn new(header: &'h Header, reader: R, offsets: Offsets, each: F) -> Walk<'h, R, F> {
        Walk { header, reader, offsets, next_delta: 0, each, left: 0, room: RECORDS_DECODED_MAX }
    }

    fn run(mut self, codec: Compression) -> Result<Walked, Undecodable> {
        let mut walked = Walked { max_timestamp: -1, min_timestamp: i64::MAX, keyless: None };
        for index in 0..self.header.count {
            let more = self.record(index, &mut walked).map_err(|fault| undecodable(fault, codec, index))?;
            if !more {
                return Ok(walked);
            }
        }
        match self.reader.fill_buf() {
            Ok([]) => Ok(walked),
            Ok(_) => {
                Err(Undecodable::Record { index: self.header.count, reason: "bytes follow the last record" })
            }
            Err(error) => Err(undecodable(Fault::Io(error), codec, self.header.count)),
        }
    }

    /// Whether the walk goes on behind this record.
    fn record(&mut self, index: i32, walked: &mut Walked) -> Result<bool, Fault> {
        // The length of a record is the one field outside of it.
        self.left = usize::MAX;
        let length = self.varint()?;
        self.left = usize::try_from(length).map_err(|_| Fault::Damaged("its length is negative"))?;
        self.skip(1)?; // attributes, which the format does not use
        let timestamp_delta = self.varlong()?;
        let delta = self.varint()?;
        let fits = match self.offsets {
            Offsets::Dense => delta == index,
            Offsets::Growing => (self.next_delta..=self.header.last_offset_delta).contains(&delta),
        };
        if !fits {
            return Err(Fault::Offset);
        }
        self.next_delta = delta.saturating_add(1);
        // Wraps as Kafka's own arithmetic does.
        let timestamp = self.header.base_timestamp.wrapping_add(timestamp_delta);
        walked.max_timestamp = walked.max_timestamp.max(timestamp);
        if timestamp != -1 {
            walked.min_timestamp = walked.min_timestamp.min(timestamp);
        }
        if self.bytes()?.is_none() {
            walked.keyless = walked.keyless.or(Some(index));
        }
        self.bytes()?;
        let headers = self.varint()?;
        let headers =
            usize::try_from(headers).map_err(|_| Fault::Damaged("its number of headers is negative"))?;
        // A header takes two bytes and a reader sixty-four, and this loop runs for each.
        self.room = self.room.checked_sub(headers.saturating_add(1)).ok_or(Fault::TooMany)?;
        for _ in 0..headers {
            self.bytes()?.ok_or(Fault::Damaged("a header key is null"))?;
            self.bytes()?;
        }
        match self.left {
            0 => Ok((self.each)(delta, timestamp)),
            _ => Err(Fault::Damaged("its length exceeds its contents")),
        }
    }

    /// Skips a length and so many bytes; `None` for null.
    fn bytes(&mut self) -> Result<Option<()>, Fault> {
        match self.varint()? {
            // As Kafka and its clients, which take any negative length for null.
            ..0 => Ok(None),
            length => self.skip(usize::try_from(length).expect("it is not negative")).map(Some),
        }
    }

    fn skip(&mut self, mut count: usize) -> Result<(), Fault> {
        self.left = self.left.checked_sub(count).ok_or(Fault::Damaged("a field exceeds the record"))?;
        while count > 0 {
            let ready = self.reader.fill_buf().map_err(Fault::Io)?.len().min(count);
            if ready == 0 {
                return Err(Fault::Ended);
            }
            self.reader.consume(ready);
            count -= ready;
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<i32, Fault> {
        i32::try_from(self.varlong()?).map_err(|_| Fault::Number("a number exceeds 32 bits"))
    }

    fn varlong(&mut self) -> Result<i64, Fault> {
        let mut raw = 0u64;
        for shift in (0..).step_by(7).take(10) {
            let byte = *self.reader.fill_buf().map_err(Fault::Io)?.first().ok_or(Fault::Ended)?;
            self.reader.consume(1);
            self.left = self.left.checked_sub(1).ok_or(Fault::Damaged("a field exceeds the record"))?;
            if shift == 63 && byte > 1 {
                return Err(Fault::Number("a number exceeds 64 bits"));
            }
            raw |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
            }
        }
        Err(Fault::Number("a number has more than 10 bytes"))
    }
}

fn undecodable(fault: Fault, codec: Compression, index: i32) -> Undecodable {
    match fault {
        Fault::TooMany => Undecodable::TooMany,
        Fault::Ended => Undecodable::Record { index, reason: "the batch ends before it" },
        Fault::Io(error) => Undecodable::Codec { codec: codec.name(), reason: error.to_string() },
        Fault::Damaged(reason) => Undecodable::Record { index, reason },
        // Which of the two errors it is differs in Kafka between compressed and plain batches.
        Fault::Number(reason) if codec == Compression::None => Undecodable::Garbage { index, reason },
        Fault::Number(reason) => Undecodable::Record { index, reason },
        Fault::Offset => {
            let reason = "its offset does not follow the one before";
            match codec {
                Compression::None => Undecodable::Record { index, reason },
                _ => Undecodable::Garbage { index, reason },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::format::records::Builder;

    fn batch(codec: Compression, count: usize) -> Bytes {
        let mut builder = Builder::new(codec);
        for index in 0..count {
            let time = 1_000 + (index as i64 * 7) % 50;
            let value = "v".repeat(index * 13 % 300);
            builder.push(
                time,
                (index > 0).then_some(b"key"),
                Some(value.as_bytes()),
                &[(b"h", None), (b"", Some(b"x"))],
            );
        }
        builder.build()
    }

    fn walked(bytes: &[u8]) -> Result<Walked, Undecodable> {
        let header = Header::parse(bytes).unwrap();
        let mut unlimited = u64::MAX;
        walk(&header, header.compression().unwrap(), bytes, &mut unlimited)
    }

    /// A batch whose records are these bytes, compressed.
    fn with_body(codec: Compression, count: i32, body: &[u8]) -> Vec<u8> {
        let mut bytes = batch(Compression::None, 1)[..HEADER_BYTES].to_vec();
        bytes.extend(codec.compress(body));
        let length = i32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[21..23].copy_from_slice(&(codec as i16).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        bytes
    }

    #[test]
    fn what_clients_write_is_walked() {
        for codec in Compression::ALL {
            let expected = Walked { max_timestamp: 1_049, min_timestamp: 1_000, keyless: Some(0) };
            assert_eq!(walked(&batch(codec, 1_000)), Ok(expected), "{}", codec.name());
            let one = Walked { max_timestamp: 1_000, min_timestamp: 1_000, keyless: Some(0) };
            assert_eq!(walked(&batch(codec, 1)), Ok(one), "{}", codec.name());
        }
    }

    #[test]
    fn what_no_consumer_can_decode_is_found() {
        // length 7: attributes, time delta, offset delta, key -1, value -1, no headers and one byte too many
        let good: &[u8] = &[12, 0, 0, 0, 1, 1, 0];
        let next: &[u8] = &[12, 0, 0, 2, 1, 1, 0];
        let check = |count, body: &[&[u8]], expected: &str| {
            for codec in Compression::ALL {
                let result = walked(&with_body(codec, count, &body.concat()));
                let said = result.map_or_else(|error| error.to_string(), |_| "fine".to_owned());
                assert!(said.contains(expected), "{}: {said}, not {expected}", codec.name());
            }
        };
        check(1, &[good], "fine");
        check(2, &[good, next], "fine");
        check(2, &[good, good], "record 1: its offset does not follow");
        check(1, &[next], "record 0: its offset does not follow");
        check(1, &[good, next], "record 1: bytes follow");
        check(3, &[good, next], "record 2: the batch ends before it");
        check(1, &[&[14, 0, 0, 0, 1, 1, 0, 0]], "exceeds its contents");
        check(1, &[&[10, 0, 0, 0, 1, 1, 0]], "a field exceeds the record");
        check(1, &[&[12, 0, 0, 0, 1, 1, 1]], "number of headers is negative");
        check(1, &[&[16, 0, 0, 0, 1, 1, 2, 1, 0]], "header key is null");
        check(1, &[&[13, 0, 0, 0, 1, 1, 0]], "its length is negative");
        check(1, &[&[12, 0, 0, 0, 5, 1, 0]], "fine");
        check(1, &[&[0xff; 20]], "a number exceeds 64 bits");
        check(1, &[&[12, 0, 0, 0, 200, 1, 1]], "a field exceeds the record");
        check(1, &[], "the batch ends before it");
    }

    #[test]
    fn what_does_not_decompress_is_found() {
        let plain = batch(Compression::None, 3);
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let mut flagged = plain.to_vec();
            flagged[21..23].copy_from_slice(&(codec as i16).to_be_bytes());
            let error = walked(&flagged).unwrap_err();
            assert!(matches!(error, Undecodable::Codec { .. }), "{}: {error}", codec.name());
            let whole = batch(codec, 500);
            for cut in [1, 3, 9] {
                let error = walked(&whole[..whole.len() - cut]);
                assert!(error.is_err(), "{}: {cut} bytes are cut off", codec.name());
            }
        }
    }

    #[test]
    fn decompression_is_bounded_by_size_and_by_ratio() {
        let mut builder = Builder::new(Compression::Zstd);
        builder.push(0, None, Some(&vec![b'a'; 100 << 20]), &[]);
        let bytes = builder.build();
        assert!(bytes.len() < 30 << 10, "a hundred MiB of one letter compress well");
        assert!(matches!(walked(&bytes), Err(Undecodable::TooLarge { codec: "zstd", .. })));
        let bytes = batch(Compression::Gzip, 1_000);
        let (header, mut left) = (Header::parse(&bytes).unwrap(), 200_000);
        assert!(walk(&header, Compression::Gzip, &bytes, &mut left).is_ok());
        assert!(left < 100_000, "{left}");
        let again = walk(&header, Compression::Gzip, &bytes, &mut left);
        assert!(
            matches!(again, Err(Undecodable::TooLarge { .. })),
            "the budget is that of the request: {again:?}"
        );
        assert_eq!(bytes_max(0), DECOMPRESSED_BYTES_FREE);
        assert_eq!(bytes_max(usize::MAX), DECOMPRESSED_BYTES_MAX);
    }

    #[test]
    fn records_and_headers_are_bounded() {
        let headers = RECORDS_DECODED_MAX + 1;
        let mut body = vec![0, 0, 0, 1, 1];
        let mut number = headers << 1;
        while number >= 0x80 {
            body.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        body.push(number as u8);
        body.extend(std::iter::repeat_n([0, 1], headers).flatten());
        let mut record = Vec::new();
        let mut length = body.len() << 1;
        while length >= 0x80 {
            record.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        record.push(length as u8);
        record.extend(body);
        assert_eq!(walked(&with_body(Compression::Zstd, 1, &record)), Err(Undecodable::TooMany));
    }
}
