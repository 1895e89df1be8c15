//! What a fetch brought: a walk over the headers of its batches. Records are neither decompressed nor checked, because
//! the processor time that this takes is not the broker's.

use bytes::Bytes;
use floe_log::Offset;
use floe_log::batch::Batch;
use floe_log::header::{BatchError, HEADER_BYTES, Header};

/// The batches of one partition in one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walked {
    /// The offset to be asked for next.
    pub(super) next: i64,
    /// Records from the offset that was asked for on.
    pub(super) records: u64,
    /// Bytes of the batches.
    pub(super) bytes: u64,
}

/// The next whole batch and what follows it; `None` if there is none, or the last one is cut off.
fn split(rest: &mut Bytes) -> Result<Option<(Header, Bytes)>, BatchError> {
    if rest.len() < HEADER_BYTES {
        return Ok(None);
    }
    let header = Header::parse(rest)?;
    Ok((header.size <= rest.len()).then(|| (header, rest.split_to(header.size))))
}

/// Walks over the batches of an answer. `asked` is the offset that was asked for.
///
/// # Errors
/// A header is damaged.
pub(super) fn walk(mut rest: Bytes, asked: i64) -> Result<Walked, BatchError> {
    let mut walked = Walked { next: asked, records: 0, bytes: 0 };
    while let Some((header, batch)) = split(&mut rest)? {
        walked.bytes += batch.len() as u64;
        let after = header.base_offset.saturating_add(i64::from(header.offsets()));
        if after <= walked.next {
            continue;
        }
        // The first batch may begin before the offset that was asked for. Markers of transactions are no records.
        let skipped = walked.next.saturating_sub(header.base_offset).max(0);
        let records = i64::from(header.count).saturating_sub(skipped).max(0);
        if !header.is_control() {
            walked.records += records.unsigned_abs();
        }
        walked.next = after;
    }
    Ok(walked)
}

/// The values of all records of an answer, from `asked` on.
///
/// # Errors
/// A batch is damaged, or decompresses to more than `bytes_max` bytes.
pub(super) fn values(mut rest: Bytes, asked: i64, bytes_max: usize) -> anyhow::Result<Vec<Bytes>> {
    let mut values = Vec::new();
    while let Some((header, bytes)) = split(&mut rest)? {
        if header.is_control() {
            continue;
        }
        let records = Batch::new(Offset(header.base_offset), bytes)?.records(bytes_max)?;
        let wanted = records.into_iter().filter(|record| record.offset.0 >= asked);
        values.extend(wanted.filter_map(|record| record.value));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use floe_log::codec::Compression;
    use floe_log::records::Builder;

    use super::*;

    /// A batch of records whose values are their offsets.
    fn batch(base: i64, records: i64) -> Vec<u8> {
        let mut builder = Builder::new(Compression::Lz4);
        for offset in base..base + records {
            builder.push(5, None, Some(offset.to_string().as_bytes()), &[]);
        }
        Batch::new(Offset(base), builder.build()).expect("a batch").stamped().to_vec()
    }

    #[test]
    fn records_are_counted_from_the_offset_that_was_asked_for() {
        let answer = Bytes::from([batch(10, 5), batch(15, 3)].concat());
        let bytes = answer.len() as u64;
        assert_eq!(walk(answer.clone(), 10), Ok(Walked { next: 18, records: 8, bytes }));
        assert_eq!(walk(answer.clone(), 12), Ok(Walked { next: 18, records: 6, bytes }));
        assert_eq!(walk(answer.clone(), 99), Ok(Walked { next: 99, records: 0, bytes }));
        let got = values(answer, 13, 1_000).expect("it decodes");
        assert_eq!(got, ["13", "14", "15", "16", "17"]);
    }

    #[test]
    fn a_batch_that_is_cut_off_comes_again() {
        let (first, second) = (batch(0, 5), batch(5, 5));
        for cut in [first.len(), first.len() + 1, first.len() + HEADER_BYTES, first.len() + second.len() - 1]
        {
            let mut answer = [first.clone(), second.clone()].concat();
            answer.truncate(cut);
            let expected = Walked { next: 5, records: 5, bytes: first.len() as u64 };
            assert_eq!(walk(answer.clone().into(), 0), Ok(expected), "cut at {cut}");
            assert_eq!(values(answer.into(), 0, 1_000).expect("it decodes").len(), 5);
        }
        assert_eq!(walk(Bytes::new(), 3), Ok(Walked { next: 3, records: 0, bytes: 0 }));
    }

    #[test]
    fn damage_is_an_error() {
        let mut answer = batch(0, 5);
        answer[16] = 7;
        assert_eq!(walk(answer.into(), 0), Err(BatchError::Magic(7)));
        let mut answer = batch(0, 5);
        *answer.last_mut().expect("it has bytes") ^= 1;
        assert!(values(answer.into(), 0, 1_000).is_err(), "the checksum is wrong");
    }
}
