//! How many producers there are, and room for one more.
//!
//! Each producer takes memory of every broker until it was idle for a day. So the producers of a partition are limited,
//! and those of all partitions. At a limit, producers of the partition that were idle for an hour are forgotten first.
//! If all are in use, a new one is refused for now. A producer that was forgotten may come back: it begins anew.

use floe_env::Timestamp;
use floe_meta::key::put_u32;
use floe_meta::key::put_u64;
use floe_meta::{Counter, CounterKey, DecodeError, Lookup, Tx, postcard_record};
use serde::{Deserialize, Serialize};

use crate::limits::{PRODUCER_IDLE_MIN, PRODUCERS_MAX, PRODUCERS_PER_PARTITION_MAX};
use crate::map::ids::PartitionId;
use crate::map::producer::{Producer, ProducerKey};

/// Producers of all partitions.
const ALL: CounterKey = CounterKey::named("producers remembered");

/// The producers of one partition (kind 19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProducerCount {
    pub(crate) producers: u64,
    /// None of them was idle since before this hour, as far as is known. So a full partition is searched for idle ones
    /// once an hour, and not for every new producer.
    pub(crate) oldest_hour: u32,
}

postcard_record!(ProducerCount, 19, 1, PartitionId);

/// How many producers may be remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) per_partition: u64,
    pub(crate) in_all: u64,
}

impl Default for Room {
    fn default() -> Room {
        Room { per_partition: PRODUCERS_PER_PARTITION_MAX, in_all: PRODUCERS_MAX }
    }
}

/// Which limit leaves no room for a new producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Partition,
    All,
}

impl Room {
    pub(crate) fn full(self, count: &ProducerCount, all: u64) -> Option<Full> {
        match (count.producers >= self.per_partition, all >= self.in_all) {
            (true, _) => Some(Full::Partition),
            (false, true) => Some(Full::All),
            (false, false) => None,
        }
    }
}

/// The producers of a partition, divided at the time before which they count as idle.
pub(crate) struct Searched {
    pub(crate) idle: Vec<ProducerKey>,
    /// The count without them.
    pub(crate) left: ProducerCount,
}

/// Searches a partition for producers that were idle for [`PRODUCER_IDLE_MIN`]; `None` if there are none for certain.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn search(
    map: &impl Lookup,
    partition: PartitionId,
    count: &ProducerCount,
    now: Timestamp,
) -> Result<Option<Searched>, DecodeError> {
    let hour = Producer::hour(now - PRODUCER_IDLE_MIN);
    if count.oldest_hour >= hour {
        return Ok(None);
    }
    let mut searched =
        Searched { idle: Vec::new(), left: ProducerCount { producers: 0, oldest_hour: Producer::hour(now) } };
    let of_partition = |out: &mut Vec<u8>| {
        put_u64(out, partition.topic.0);
        put_u32(out, partition.index);
    };
    for pair in map.prefix::<Producer>(of_partition) {
        let (key, producer) = pair?;
        if producer.active_hour < hour {
            searched.idle.push(key);
        } else {
            searched.left.producers += 1;
            searched.left.oldest_hour = searched.left.oldest_hour.min(producer.active_hour);
        }
    }
    Ok(Some(searched))
}

pub(crate) fn of_partition(map: &impl Lookup, partition: PartitionId) -> Result<ProducerCount, DecodeError> {
    Ok(map.get::<ProducerCount>(&partition)?.unwrap_or_default())
}

/// The producers that all partitions remember together.
///
/// # Errors
/// The count cannot be read.
pub(crate) fn in_all(map: &impl Lookup) -> Result<u64, DecodeError> {
    Ok(map.get::<Counter>(&ALL)?.unwrap_or_default().0)
}

pub(crate) fn put_all(tx: &mut Tx<'_>, producers: u64) {
    tx.put(&ALL, &Counter(producers));
}

/// Command: forgets the given producers whose last append is still before `before`. A forgotten producer that comes
/// back must begin a new epoch, which clients do by themselves.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn forget(
    tx: &mut Tx<'_>,
    before: Timestamp,
    producers: &[ProducerKey],
) -> Result<(), DecodeError> {
    let mut gone = Vec::new();
    for key in producers {
        if tx.get::<Producer>(key)?.is_some_and(|producer| producer.active_hour < Producer::hour(before)) {
            gone.push(*key);
        }
    }
    delete(tx, &gone)
}

/// Command: deletes producers, and counts them out.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn delete(tx: &mut Tx<'_>, producers: &[ProducerKey]) -> Result<(), DecodeError> {
    for of_one in producers.chunk_by(|one, other| one.partition == other.partition) {
        let (partition, gone) = (of_one[0].partition, of_one.len() as u64);
        // Saturating, because producers of old maps were not counted.
        let count = of_partition(tx, partition)?;
        match count.producers.saturating_sub(gone) {
            0 => tx.delete::<ProducerCount>(&partition),
            producers => tx.put(&partition, &ProducerCount { producers, ..count }),
        }
        of_one.iter().for_each(|key| tx.delete::<Producer>(key));
    }
    let all = in_all(tx)?.saturating_sub(producers.len() as u64);
    put_all(tx, all);
    Ok(())
}

/// Partitions whose count differs from the producers that there are, for checkers. Looks at every producer.
///
/// # Errors
/// A record cannot be read.
pub fn miscounted(map: &impl Lookup) -> Result<Vec<String>, DecodeError> {
    let mut counts = std::collections::BTreeMap::new();
    for pair in map.range::<Producer>(..) {
        counts.entry(pair?.0.partition).or_insert((0u64, 0u64)).0 += 1;
    }
    for pair in map.range::<ProducerCount>(..) {
        let (partition, count) = pair?;
        counts.entry(partition).or_default().1 = count.producers;
    }
    let all: u64 = counts.values().map(|(found, _)| found).sum();
    let wrong = counts.into_iter().filter(|(_, (found, counted))| found != counted);
    let mut wrong: Vec<String> = wrong
        .map(|(partition, (found, counted))| {
            format!("{found} producers of partition {partition} are counted as {counted}")
        })
        .collect();
    let counted = in_all(map)?;
    if all != counted {
        wrong.push(format!("{all} producers are counted as {counted}"));
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use floe_meta::MapRecord as _;

    use super::*;

    // Users' journals hold these bytes, so they never change.
    #[test]
    fn counts_are_as_they_were() {
        let (count, mut body) = (ProducerCount { producers: 300, oldest_hour: 490_896 }, Vec::new());
        count.encode(&mut body);
        assert_eq!((ProducerCount::KIND, ProducerCount::VERSION), (19, 1));
        assert_eq!(body, [0xac, 0x02, 0x90, 0xfb, 0x1d]);
        assert_eq!(ProducerCount::decode(1, &body), Ok(count));
    }
}
