//! What stays of a batch. Pure: a batch in, a batch out.
//!
//! The rules are those of Apache Kafka's cleaner. A record stays if no later one has its key. One without a value, a
//! tombstone, goes when its time is over. A record without a key goes: it came before the topic was compacted. Records
//! from the end of the pass on stay, and so does the newest record of the partition.
//!
//! A batch that loses records covers the same offsets and keeps its times, headers, producer and codec. One that loses
//! all of them goes. Kafka keeps an empty batch for the last sequence of each producer, because its log is where a
//! broker finds the producers again. Here the metadata map has them (`map/producer.rs`), and compaction does not touch
//! it.
//!
//! # Tombstones and markers
//! The first pass that meets a tombstone writes the time at which it may go into its batch, as Kafka does (KIP-534): a
//! bit of the attributes says that the base timestamp is a delete horizon, and the times of the records count from it.
//! So readers see their times unchanged, and whoever reads the log elsewhere knows the format. A client can set the bit
//! as well. So it counts only in batches that an earlier pass covered: that one wrote the horizon of its own into each
//! that has a tombstone.

use bytes::Bytes;

use crate::compact::offset_map::OffsetMap;
use crate::compact::transactions::{Fates, Kept};
use crate::format::batch::Batch;
use crate::format::codec::Compression;
use crate::format::header::{self, HEADER_BYTES, Header, Rewrite};
use crate::format::raw::{self, Raw};
use crate::format::records::RecordsError;
use crate::limits::DECOMPRESSED_BYTES_MAX;
use crate::map::ids::Offset;

/// What a pass knows, the same for all batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// The end of the pass before this one: a horizon counts in batches below it.
    pub(crate) covered: Offset,
    /// Records from here on stay: the map does not know all of them.
    pub(crate) end: Offset,
    /// The newest record of the partition, which stays.
    pub(crate) newest: Offset,
    /// The time of the pass, in milliseconds since the epoch.
    pub(crate) now: i64,
    /// When tombstones may go that this pass is the first to meet.
    pub(crate) horizon: i64,
    /// A bug on purpose.
    pub(crate) bug: Option<PlantedBug>,
}

/// A bug on purpose, for tests of those who have to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Of two records of a key the older one stays.
    KeepsOlder,
    /// Every third record stays, whatever replaces it.
    KeepsSome,
    /// Tombstones go at once.
    DropsTombstones,
    /// The newest record of a partition goes.
    DropsNewest,
}

/// What became of a batch, and the largest time of the records of clients that stay, as far as the pass has looked at
/// them.
pub(crate) type Filtered = (Fate, Option<i64>);

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays as it is.
    Same,
    /// This batch takes its place.
    Changed(Bytes),
    /// Nothing of it stays.
    Gone,
}

/// Counts of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Records that stayed.
    pub(crate) kept: u64,
    /// Records that went.
    pub(crate) removed: u64,
}

/// Notes the keys of a batch, from the offset `from` up to, not including, `limit`. Returns the offset of the first
/// record for which there was no room.
///
/// # Errors
/// The batch is damaged, or takes too much memory.
pub(crate) fn note(
    map: &mut OffsetMap,
    batch: &Batch,
    from: Offset,
    limit: Offset,
) -> Result<Option<Offset>, RecordsError> {
    header::verify_checksum(batch.header(), &batch.bytes)?;
    let mut full = None;
    each(batch, |data, record, offset| {
        if offset >= limit {
            return false;
        }
        let key = record.key.clone().filter(|_| offset >= from);
        let has_room = key.is_none_or(|key| map.note(&data[key], offset));
        full = (!has_room).then_some(offset);
        has_room
    })?;
    Ok(full)
}

/// Decides about a batch, and counts.
///
/// # Errors
/// The batch is damaged, or takes too much memory.
pub(crate) fn filter(
    pass: &Pass,
    map: &OffsetMap,
    fates: &Fates,
    kept: &mut Kept,
    batch: &Batch,
    counts: &mut Counts,
) -> Result<Filtered, RecordsError> {
    header::verify_checksum(batch.header(), &batch.bytes)?;
    if batch.header().count == 0 {
        // Offsets without records.
        return Ok((Fate::Gone, None));
    }
    if batch.base_offset >= pass.end {
        kept.note(batch);
        counts.kept += u64::try_from(batch.header().count).unwrap_or_default();
        return Ok((Fate::Same, None));
    }
    if batch.header().is_control() {
        return Ok((filter_marker(pass, kept, batch)?, None));
    }
    let is_covered = batch.next_offset() <= pass.end;
    let known = pass.horizon_of(batch);
    let is_over = known.is_some_and(|horizon| horizon <= pass.now);
    let is_aborted = fates.aborts(batch);
    let (mut stays, mut left, mut tombstones, mut max_timestamp) = (Vec::new(), 0, false, -1);
    let data = each(batch, |data, record, offset| {
        let keeps = pass.keeps(map, data, record, offset, is_aborted, is_over);
        tombstones |= keeps && record.value.is_none() && record.key.is_some();
        left += usize::from(keeps);
        if keeps {
            max_timestamp = time_of(batch.header(), record).max(max_timestamp);
        }
        stays.push(keeps);
        true
    })?;
    counts.kept += left as u64;
    counts.removed += (stays.len() - left) as u64;
    if left == 0 {
        return Ok((Fate::Gone, None));
    }
    kept.note(batch);
    let horizon = (tombstones && is_covered && known.is_none()).then_some(pass.horizon);
    if left == stays.len() && horizon.is_none() {
        return Ok((Fate::Same, Some(max_timestamp)));
    }
    Ok((Fate::Changed(rewrite(batch, &data, &stays, horizon)?), Some(max_timestamp)))
}

/// The time of a record as its readers see it.
fn time_of(header: &Header, record: &Raw) -> i64 {
    match header.is_log_append_time() {
        true => header.max_timestamp,
        // Wraps as Kafka's own arithmetic does.
        false => header.base_timestamp.wrapping_add(record.timestamp_delta),
    }
}

/// Decides about a marker: it stays while records of its transaction do, and then as long as a tombstone.
fn filter_marker(pass: &Pass, kept: &mut Kept, batch: &Batch) -> Result<Fate, RecordsError> {
    let is_needed = kept.end(batch);
    if is_needed || batch.next_offset() > pass.end || batch.last_offset() == pass.newest {
        return Ok(Fate::Same);
    }
    match pass.horizon_of(batch) {
        Some(horizon) if horizon <= pass.now => Ok(Fate::Gone),
        Some(_) => Ok(Fate::Same),
        None => {
            let data = each(batch, |_, _, _| true)?;
            Ok(Fate::Changed(rewrite(batch, &data, &[true], Some(pass.horizon))?))
        }
    }
}

impl Pass {
    /// The horizon that an earlier pass wrote.
    fn horizon_of(&self, batch: &Batch) -> Option<i64> {
        batch.header().delete_horizon().filter(|_| batch.next_offset() <= self.covered)
    }

    fn keeps(
        &self,
        map: &OffsetMap,
        data: &[u8],
        record: &Raw,
        offset: Offset,
        is_aborted: bool,
        is_over: bool,
    ) -> bool {
        if offset >= self.end || offset == self.newest {
            return self.bug != Some(PlantedBug::DropsNewest) || offset != self.newest;
        }
        let Some(key) = record.key.clone() else { return false };
        let is_over = is_over || self.bug == Some(PlantedBug::DropsTombstones);
        if is_aborted || (record.value.is_none() && is_over) {
            return false;
        }
        // The map has no key of records that an earlier pass left, unless a later record has it.
        match (map.last(&data[key]), self.bug) {
            (Some(last), Some(PlantedBug::KeepsOlder)) => offset < last,
            (_, Some(PlantedBug::KeepsSome)) if offset.0 % 3 == 0 => true,
            (last, _) => last.is_none_or(|last| offset >= last),
        }
    }
}

/// Hands each record of a batch whose checksum was compared to `each`, until that returns `false`, and returns the
/// decompressed records.
fn each(batch: &Batch, mut each: impl FnMut(&[u8], &Raw, Offset) -> bool) -> Result<Bytes, RecordsError> {
    let header = batch.header();
    let body = batch.bytes.slice(HEADER_BYTES..);
    let bytes_max = usize::try_from(DECOMPRESSED_BYTES_MAX).unwrap_or(usize::MAX);
    let data = match header.compression()? {
        Compression::None => body,
        codec => codec.decompress_in(&body, bytes_max, &mut |_| true)?,
    };
    raw::each(&data, header.count, header.last_offset_delta, |record| {
        each(&data, record, batch.base_offset.plus(record.delta.cast_unsigned()))
    })?;
    Ok(data)
}

/// The batch with those of its records that stay.
fn rewrite(batch: &Batch, data: &[u8], stays: &[bool], horizon: Option<i64>) -> Result<Bytes, RecordsError> {
    let header: &Header = batch.header();
    let (mut records, mut count, mut max_timestamp) = (Vec::new(), 0, -1);
    let mut stays = stays.iter();
    raw::each(data, header.count, header.last_offset_delta, |record| {
        if !stays.next().copied().unwrap_or(false) {
            return true;
        }
        count += 1;
        max_timestamp = time_of(header, record).max(max_timestamp);
        match horizon {
            Some(horizon) => {
                let time = header.base_timestamp.wrapping_add(record.timestamp_delta);
                raw::put_with_time(&mut records, data, record, time.wrapping_sub(horizon));
            }
            None => records.extend_from_slice(&data[record.whole.clone()]),
        }
        true
    })?;
    let change = Rewrite { base_offset: batch.base_offset.0, count, max_timestamp, delete_horizon: horizon };
    let body = match header.compression()? {
        Compression::None => records,
        codec => codec.compress(&records),
    };
    Ok(header::rewritten(&batch.bytes, change, &body))
}
