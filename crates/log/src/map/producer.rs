//! The state of an idempotent producer in one partition: its epoch and its last five batches.
//!
//! Source: KIP-98, and the protocol guide on `max.in.flight.requests.per.connection`. A producer has at most five
//! requests in flight, so a retry is always among the last five batches.

use floe_env::Timestamp;
use floe_meta::key::put_i64;
use floe_meta::key::{Key, KeyReader};
use floe_meta::{DecodeError, Lookup, MapRecord};
use floe_meta::{put_postcard, take_postcard};
use serde::{Deserialize, Serialize};

use crate::map::ids::{Offset, PartitionId};

/// Batches that a producer's state remembers.
pub const BATCHES_REMEMBERED: usize = 5;
/// Milliseconds per unit of a producer's last use. An hour count fits in three bytes.
const HOUR_MS: i64 = 3_600_000;

/// The key of a producer's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerKey {
    /// The partition that the producer wrote to.
    pub partition: PartitionId,
    /// The id that the broker gave to the producer.
    pub producer_id: i64,
}

/// What a partition remembers of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// The newest epoch that appended; older ones are fenced.
    pub epoch: i16,
    /// The hour (since the epoch) of the last append. Idle producers are found by it.
    pub active_hour: u32,
    /// The last batches of this epoch, oldest first; at least one. Their sequences are contiguous.
    pub seen: Vec<Seen>,
}

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The sequence number of the first record.
    pub base_sequence: i32,
    /// The sequence number of the last record; less than the first if the numbers wrapped.
    pub last_sequence: i32,
    /// The offset of the first record.
    pub base_offset: Offset,
}

/// The stored form. Sequences are contiguous and offsets grow, so only the newest batch is written in full.
#[derive(Serialize, Deserialize)]
struct Packed {
    epoch: i16,
    active_hour: u32,
    last_sequence: i32,
    last_base_offset: i64,
    /// For each batch, newest first: its number of records, and how far before the next newer batch it begins (0
    /// for the newest).
    batches: Vec<(u32, u64)>,
}

impl Producer {
    /// The hour of a time, in the unit of [`Producer::active_hour`].
    pub fn hour(time: Timestamp) -> u32 {
        u32::try_from(time.0 / HOUR_MS).unwrap_or(0)
    }

    /// The newest batch.
    pub fn newest(&self) -> &Seen {
        self.seen.last().expect("a producer's state begins with its first batch")
    }

    fn pack(&self) -> Packed {
        assert!(self.seen.len() <= BATCHES_REMEMBERED, "older batches are forgotten");
        let newest = self.newest();
        let mut batches = Vec::with_capacity(self.seen.len());
        let mut newer = newest.base_offset.0;
        for seen in self.seen.iter().rev() {
            let distance = u64::try_from(newer - seen.base_offset.0).expect("offsets grow");
            batches.push((records_between(seen.base_sequence, seen.last_sequence), distance));
            newer = seen.base_offset.0;
        }
        Packed {
            epoch: self.epoch,
            active_hour: self.active_hour,
            last_sequence: newest.last_sequence,
            last_base_offset: newest.base_offset.0,
            batches,
        }
    }

    fn unpack(packed: &Packed) -> Result<Producer, DecodeError> {
        let corrupt = |what| DecodeError::corrupt(format!("producer state: {what}"));
        if packed.batches.is_empty() || packed.batches.len() > BATCHES_REMEMBERED {
            return Err(corrupt("it remembers no batch or too many"));
        }
        if packed.last_sequence < 0 {
            return Err(corrupt("a sequence is negative"));
        }
        let mut seen = Vec::with_capacity(packed.batches.len());
        let (mut last_sequence, mut offset) = (packed.last_sequence, packed.last_base_offset);
        for &(records, distance) in &packed.batches {
            let records = i32::try_from(records).ok().filter(|&records| records > 0);
            let records = records.ok_or_else(|| corrupt("a batch has no records"))?;
            offset = i64::try_from(distance)
                .ok()
                .and_then(|distance| offset.checked_sub(distance))
                .ok_or_else(|| corrupt("an offset is out of range"))?;
            let base_sequence = sequence_minus(last_sequence, records - 1);
            seen.push(Seen { base_sequence, last_sequence, base_offset: Offset(offset) });
            last_sequence = sequence_minus(base_sequence, 1);
        }
        seen.reverse();
        Ok(Producer { epoch: packed.epoch, active_hour: packed.active_hour, seen })
    }
}

impl MapRecord for Producer {
    const KIND: u8 = 14;
    const VERSION: u8 = 1;
    type Key = ProducerKey;
    fn encode(&self, out: &mut Vec<u8>) {
        put_postcard(&self.pack(), out);
    }
    fn decode(version: u8, body: &[u8]) -> Result<Producer, DecodeError> {
        if version != 1 {
            return Err(DecodeError::corrupt(format!("version {version} was never written")));
        }
        Producer::unpack(&take_postcard(body)?)
    }
}

impl Key for ProducerKey {
    fn encode(&self, out: &mut Vec<u8>) {
        self.partition.put(out);
        put_i64(out, self.producer_id);
    }
    fn decode(bytes: &[u8]) -> Result<ProducerKey, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let key = ProducerKey { partition: PartitionId::take(&mut reader)?, producer_id: reader.i64()? };
        reader.finish().map(|()| key)
    }
}

/// The sequence number `count` after; 0 follows 2^31-1.
pub(crate) fn sequence_plus(sequence: i32, count: i32) -> i32 {
    assert!(sequence >= 0 && count >= 0, "sequence numbers are not negative");
    (sequence.cast_unsigned().wrapping_add(count.cast_unsigned()) & i32::MAX.cast_unsigned()).cast_signed()
}

/// The sequence number `count` before; 2^31-1 precedes 0.
pub(crate) fn sequence_minus(sequence: i32, count: i32) -> i32 {
    assert!(sequence >= 0 && count >= 0, "sequence numbers are not negative");
    (sequence.cast_unsigned().wrapping_sub(count.cast_unsigned()) & i32::MAX.cast_unsigned()).cast_signed()
}

/// The number of sequence numbers from `first` to `last`, both included.
fn records_between(first: i32, last: i32) -> u32 {
    sequence_minus(last, first).cast_unsigned() + 1
}

/// Producers whose last append was before `before`, at most `producers_max`. Scans the producers in key order.
///
/// # Errors
/// A record cannot be read.
pub fn idle(
    map: &impl Lookup,
    before: Timestamp,
    producers_max: usize,
) -> Result<Vec<ProducerKey>, DecodeError> {
    let mut idle = Vec::new();
    for pair in map.range::<Producer>(..) {
        let (key, producer) = pair?;
        if idle.len() == producers_max {
            break;
        }
        if producer.active_hour < Producer::hour(before) {
            idle.push(key);
        }
    }
    Ok(idle)
}
