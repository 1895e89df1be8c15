//! Every byte of a WAL object.

use std::ops::Range;

use floe_store::StoreError;

use crate::check::faults::Faults;
use crate::check::reading::Reading;
use crate::format::header::{CRC_FROM, HEADER_BYTES, Header};
use crate::format::wal::{self, Footer, HEAD_BYTES, TAIL_BYTES};
use crate::limits::FOOTER_READ_BYTES;
use crate::map::extent::{Data, Extent, ExtentKey};
use crate::map::ids::{ObjectId, Offset};

/// A batch, as its place and its header have it.
struct Found {
    bytes: Range<u64>,
    /// Offsets that its header says it covers; 0 if it has none that can be read.
    offsets: u32,
    damage: Option<String>,
}

/// Checks a WAL object.
///
/// # Errors
/// It is missing, shorter than the map says, or cannot be read.
pub(super) async fn check(
    reading: &mut Reading<'_>,
    id: ObjectId,
    extents: &[(ExtentKey, Data)],
    faults: &mut Faults,
) -> Result<(), StoreError> {
    let size = reading.size;
    if size < (HEAD_BYTES + TAIL_BYTES) as u64 {
        return Err(StoreError::Corrupt(format!("a WAL object of {size} bytes")));
    }
    let footer = match footer(reading).await? {
        Ok((footer, end)) if footer.object == id => Some((footer, end)),
        Ok((footer, _)) => {
            faults.object(format!("its footer says that it is {}; readers do not need it", footer.object));
            None
        }
        Err(what) => {
            faults.object(format!("{what}; readers do not need that"));
            None
        }
    };
    match footer {
        Some((footer, end)) => by_footer(reading, &footer, end, extents, faults).await,
        None => by_extents(reading, extents, faults).await,
    }
}

/// The footer and where it begins, or what is wrong with it or with the first bytes.
async fn footer(reading: &mut Reading<'_>) -> Result<Result<(Footer, u64), String>, StoreError> {
    let size = reading.size;
    let head = reading.next(0..HEAD_BYTES as u64).await?;
    let mut end = reading.apart(size.saturating_sub(FOOTER_READ_BYTES)..size).await?;
    let length = match wal::footer_bytes(&end) {
        Ok(length) => length as u64,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let Some(begin) = size.checked_sub(length).filter(|begin| *begin >= HEAD_BYTES as u64) else {
        return Ok(Err("its footer is longer than the object".to_owned()));
    };
    end = match end.len() as u64 >= length {
        true => end.slice(end.len() - length as usize..),
        false => reading.apart(begin..size).await?,
    };
    let head = head.first_chunk().expect("so many bytes were read");
    Ok(Footer::decode(head, &end).map(|footer| (footer, begin)).map_err(|error| error.to_string()))
}

/// Checks all batches, where the footer says they are.
async fn by_footer(
    reading: &mut Reading<'_>,
    footer: &Footer,
    end: u64,
    extents: &[(ExtentKey, Data)],
    faults: &mut Faults,
) -> Result<(), StoreError> {
    let mut extents = extents.iter().peekable();
    let (mut position, mut sum, mut is_whole) = (HEAD_BYTES as u64, 0, true);
    let mut of_extent: Vec<Found> = Vec::new();
    for group in &footer.groups {
        for length in &group.lengths {
            let bytes = position..position + u64::from(*length);
            if bytes.end > end {
                faults.object("its footer lists more batches than it has".to_owned());
                return by_extents(reading, &extents.copied().collect::<Vec<_>>(), faults).await;
            }
            let batch = reading.next(bytes.clone()).await?;
            sum = crc32c::crc32c_append(sum, &batch[..batch.len().min(CRC_FROM)]);
            let verified = wal::verify_batch(&batch);
            is_whole &= verified.is_ok();
            let header = Header::parse(&batch).map_or(0, |header| header.offsets());
            let damage = verified.err().map(|error| error.to_string());
            position = bytes.end;
            let found = Found { bytes, offsets: header, damage };
            match extents.peek() {
                Some((_, data)) if found.bytes.start >= data.position => of_extent.push(found),
                _ => dead(group.partition, found, faults),
            }
            if let Some((key, data)) = extents.next_if(|(_, data)| position >= data.end()) {
                judge(*key, data, std::mem::take(&mut of_extent), faults);
            }
        }
    }
    for (key, data) in extents {
        let found = std::mem::take(&mut of_extent);
        judge(*key, data, found, faults);
    }
    if position != end {
        faults.object("bytes lie between its batches and its footer".to_owned());
    }
    if is_whole && sum != footer.prefixes_crc {
        faults.object("the first bytes of a batch changed; readers do not look at them".to_owned());
    }
    Ok(())
}

/// A batch that no extent needs: it was refused, was sent twice, or is deleted.
fn dead(partition: crate::map::ids::PartitionId, found: Found, faults: &mut Faults) {
    if let Some(what) = found.damage {
        let what = format!("at byte {}: {what}", found.bytes.start);
        faults.records(partition, Offset::ZERO..Offset::ZERO, what, false);
    }
}

/// Checks the batches of extents alone, by their own lengths.
async fn by_extents(
    reading: &mut Reading<'_>,
    extents: &[(ExtentKey, Data)],
    faults: &mut Faults,
) -> Result<(), StoreError> {
    for (key, data) in extents {
        let (mut position, mut of_extent) = (data.position, Vec::new());
        while position < data.end() {
            let head = reading.next(position..data.end().min(position + HEADER_BYTES as u64)).await?;
            let size = Header::parse(&head).map(|header| header.size as u64);
            let Some(end) =
                size.ok().and_then(|size| position.checked_add(size)).filter(|end| *end <= data.end())
            else {
                let damage = Some("no batch begins here".to_owned());
                of_extent.push(Found { bytes: position..data.end(), offsets: 0, damage });
                break;
            };
            let batch = reading.next(position..end).await?;
            let damage = wal::verify_batch(&batch).err().map(|error| error.to_string());
            let offsets = Header::parse(&batch).map_or(0, |header| header.offsets());
            of_extent.push(Found { bytes: position..end, offsets, damage });
            position = end;
        }
        judge(*key, data, of_extent, faults);
    }
    Ok(())
}

/// Names the damaged batches of an extent, in which each batch begins where the one before it ends.
fn judge(key: ExtentKey, data: &Data, found: Vec<Found>, faults: &mut Faults) {
    let end = Extent::Data(*data).next_offset(key.base);
    let all: u64 = found.iter().map(|found| u64::from(found.offsets)).sum();
    let begins = found.first().map(|found| found.bytes.start);
    let ends = found.last().map(|found| found.bytes.end);
    let fits = begins == Some(data.position) && ends == Some(data.end()) && all == data.offsets;
    let is_whole = found.iter().all(|found| found.damage.is_none());
    if is_whole && !fits {
        faults.extent(key, data, "its batches are not those that the metadata has".to_owned());
        return;
    }
    let mut next = key.base;
    for Found { bytes, offsets, damage } in found {
        let after = next.plus(offsets);
        if let Some(what) = damage {
            // If the offsets of all do not add up, nobody knows where those behind it are.
            let to = if fits { after } else { end };
            faults.records(key.partition, next..to, format!("at byte {}: {what}", bytes.start), true);
            if !fits {
                return;
            }
        }
        next = after;
    }
}
