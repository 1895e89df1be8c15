//! The records of a batch as bytes: where each of them lies, its key, its value, its headers. Nothing is copied, and no
//! list is made, however many records there are. Compaction works on this, and `records.rs` decodes by it. What comes
//! in is walked over while it is decompressed (`verify.rs`).

use std::ops::Range;

/// The bytes contradict the format or the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// Which record, from 0.
    pub(crate) index: usize,
    /// What is wrong.
    pub(crate) reason: &'static str,
}

/// A record in the decompressed bytes of its batch.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    /// All of it, with its length in front.
    pub(crate) whole: Range<usize>,
    /// Its attributes.
    pub(crate) attributes: u8,
    /// Its time minus the base time of the batch.
    pub(crate) timestamp_delta: i64,
    /// Its offset minus that of the batch.
    pub(crate) delta: i32,
    /// Its key, if it has one.
    pub(crate) key: Option<Range<usize>>,
    /// Its value; one without is a tombstone.
    pub(crate) value: Option<Range<usize>>,
    /// Its headers: their number, and what follows. Nobody has looked at them yet.
    pub(crate) headers: Range<usize>,
    /// Everything behind its times: offset delta, key, value, headers.
    pub(crate) rest: Range<usize>,
}

/// The records of a batch, in order. An error is the last item: the bytes are not so many records, or their offsets do
/// not grow.
pub(crate) struct Walk<'a> {
    cursor: Cursor<'a>,
    /// The next record, from 0.
    index: i32,
    count: i32,
    delta_min: i32,
    last_delta: i32,
}

impl<'a> Walk<'a> {
    /// Walks over `count` records. `last_delta` is that of the batch.
    pub(crate) fn new(data: &'a [u8], count: i32, last_delta: i32) -> Walk<'a> {
        Walk { cursor: Cursor { data, position: 0 }, index: 0, count, delta_min: 0, last_delta }
    }

    fn step(&mut self) -> Result<Raw, &'static str> {
        let record = self.cursor.record()?;
        if record.delta < self.delta_min || record.delta > self.last_delta {
            return Err("the offset delta is out of order");
        }
        self.delta_min = record.delta.saturating_add(1);
        Ok(record)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Raw, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = match self.index < self.count {
            true => self.step(),
            false if self.cursor.position >= self.cursor.data.len() => return None,
            false => Err("bytes follow the last record"),
        };
        let index = usize::try_from(self.index).unwrap_or_default();
        match found {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(reason) => {
                // Nothing behind it can be read.
                (self.index, self.count, self.cursor.position) = (0, 0, self.cursor.data.len());
                Some(Err(Damaged { index, reason }))
            }
        }
    }
}

/// Hands each of `count` records to `each`, until that returns `false`. `last_delta` is that of the batch.
///
/// # Errors
/// As [`Walk`].
pub(crate) fn each(
    data: &[u8],
    count: i32,
    last_delta: i32,
    mut each: impl FnMut(&Raw) -> bool,
) -> Result<(), Damaged> {
    for record in Walk::new(data, count, last_delta) {
        if !each(&record?) {
            break;
        }
    }
    Ok(())
}

/// Appends a record with another time.
pub(crate) fn put_with_time(out: &mut Vec<u8>, data: &[u8], record: &Raw, timestamp_delta: i64) {
    let mut delta = Vec::with_capacity(10);
    put_varlong(&mut delta, timestamp_delta);
    let length = 1 + delta.len() + record.rest.len();
    put_varlong(out, i64::try_from(length).expect("a record is in memory"));
    out.push(record.attributes);
    out.extend_from_slice(&delta);
    out.extend_from_slice(&data[record.rest.clone()]);
}

fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Walks over bytes. Compares every length with the bytes left before using it.
pub(crate) struct Cursor<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) position: usize,
}

impl Cursor<'_> {
    fn record(&mut self) -> Result<Raw, &'static str> {
        let begin = self.position;
        let length = usize::try_from(self.varint()?).map_err(|_| "the length is negative")?;
        let end = self.position.checked_add(length).filter(|end| *end <= self.data.len());
        let end = end.ok_or("the length exceeds the batch")?;
        let attributes = *self.data[..end].get(self.position).ok_or("it is cut off")?;
        self.position += 1;
        let timestamp_delta = self.varlong()?;
        let rest = self.position;
        let delta = self.varint()?;
        let key = self.bytes(end)?;
        let value = self.bytes(end)?;
        if self.position > end {
            return Err("its length differs from its contents");
        }
        let headers = self.position..end;
        self.position = end;
        Ok(Raw {
            whole: begin..end,
            attributes,
            timestamp_delta,
            delta,
            key,
            value,
            headers,
            rest: rest..end,
        })
    }

    /// A length and so many bytes; `None` for null, which is any negative length to Kafka's clients.
    pub(crate) fn bytes(&mut self, end: usize) -> Result<Option<Range<usize>>, &'static str> {
        let Ok(length) = usize::try_from(self.varint()?) else { return Ok(None) };
        let begin = self.position;
        let after = begin.checked_add(length).filter(|after| *after <= end);
        self.position = after.ok_or("a length exceeds the record")?;
        Ok(Some(begin..self.position))
    }

    pub(crate) fn varint(&mut self) -> Result<i32, &'static str> {
        i32::try_from(self.varlong()?).map_err(|_| "a varint exceeds 32 bits")
    }

    fn varlong(&mut self) -> Result<i64, &'static str> {
        let mut raw = 0u64;
        for shift in (0..).step_by(7).take(10) {
            let byte = *self.data.get(self.position).ok_or("a varint is cut off")?;
            self.position += 1;
            if shift == 63 && byte > 1 {
                return Err("a varint exceeds 64 bits");
            }
            raw |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
            }
        }
        Err("a varint has more than 10 bytes")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::codec::Compression;
    use crate::format::header::HEADER_BYTES;
    use crate::format::records::Builder;

    proptest! {
        /// Random bytes are refused or walked over, and nothing is allocated by what they say.
        #[test]
        fn random_bytes_do_no_harm(data in prop::collection::vec(any::<u8>(), 0..200), count in any::<i32>()) {
            let mut found = 0;
            let walked = each(&data, count, i32::MAX, |record| {
                found += 1;
                assert!(record.whole.end <= data.len());
                true
            });
            prop_assert!(found <= data.len());
            if walked.is_ok() {
                prop_assert_eq!(found, usize::try_from(count).unwrap_or_default());
            }
        }
    }

    #[test]
    fn records_are_found_as_they_were_written() {
        let mut builder = Builder::new(Compression::None);
        builder.push(100, Some(b"key"), Some(b""), &[(b"h", None)]);
        builder.push(90, None, None, &[]);
        builder.push(120, Some(b""), None, &[]);
        let batch = builder.build();
        let data = &batch[HEADER_BYTES..];
        let mut found = Vec::new();
        each(data, 3, 2, |record| {
            let key = record.key.clone().map(|key| data[key].to_vec());
            found.push((record.delta, record.timestamp_delta, key, record.value.is_some()));
            let mut same = Vec::new();
            put_with_time(&mut same, data, record, record.timestamp_delta);
            assert_eq!(same, data[record.whole.clone()]);
            true
        })
        .expect("it is a batch");
        let expected =
            [(0, 0, Some(b"key".to_vec()), true), (1, -10, None, false), (2, 20, Some(Vec::new()), false)];
        assert_eq!(found, expected);
        assert!(each(data, 2, 2, |_| true).is_err(), "bytes follow");
        assert!(each(data, 4, 4, |_| true).is_err(), "one is missing");
        assert!(each(data, 3, 1, |_| true).is_err(), "the last is beyond the batch");
    }
}
