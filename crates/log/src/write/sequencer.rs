//! The pure function that turns batches and the metadata map into offsets and extents. The batches are in an uploaded
//! WAL object, or they ride with the commit itself.
//!
//! It runs inside a command, so all its decisions become visible together or not at all. A view calls it inside the
//! command that also moves the view's progress.
//!
//! It handles the batches in the order of their positions:
//! - The partition must exist.
//! - A batch of an idempotent producer must carry the next sequence number of the producer's newest epoch. A repeat
//!   of one of the last five batches is a duplicate, and is answered with the offset that it already has. The first
//!   batch of a producer that the partition does not know may carry any number.
//! - A producer that is new to the partition needs room for one more (`map/producer_count.rs`).
//! - An accepted batch takes the next offsets.
//!
//! Rejected and duplicate batches stay in the object or the payload as holes. Adjacent batches of one partition and one
//! writer share an extent.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use floe_env::Timestamp;
use floe_meta::{DecodeError, Lsn, Tx};

use crate::format::header::Header;
use crate::limits::BATCHES_PER_REQUEST_MAX;
use crate::map::extent::{Data, Extent, ExtentKey, Place, Spacing, WrittenBy};
use crate::map::format_level::{self, WITH_LSNS};
use crate::map::identity::Writer;
use crate::map::ids::{ObjectId, Offset, PartitionId, WriterId};
use crate::map::object::{self, Object};
use crate::map::partition::Head;
use crate::map::producer::{self, BATCHES_REMEMBERED, Producer, ProducerKey, Seen};
use crate::map::producer_count::{self, Full, ProducerCount, Room};

/// An object that is durable in the store and has no offsets yet.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// The object's id in the store.
    pub object: ObjectId,
    /// The owner of the lease on the object's id.
    pub owner: u128,
    /// Bytes in the store.
    pub size: u64,
    /// The batches in the object, in any order.
    pub batches: Vec<Placed>,
}

/// A validated batch with its place among others.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The partition that the batch is for.
    pub partition: PartitionId,
    /// The client that sent it.
    pub writer: Writer,
    /// The position of the batch's first byte in the object, or in the bytes that ride with the commit.
    pub position: u64,
    /// The result of [`crate::format::header::validate`] for the batch, with the largest timestamp of its records.
    pub header: Header,
    /// An earlier batch of the same producer and partition was in flight when this one arrived. If the partition does
    /// not know the producer now, that batch failed, and this one must not take its place.
    pub follows: bool,
}

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the batch's first record.
    pub base_offset: Offset,
    /// The first readable offset of the partition.
    pub log_start: Offset,
    /// Whether an earlier attempt of the producer had already appended it.
    pub duplicate: bool,
    /// The broker's time that replaced all timestamps, if the topic stamps them; `None` for a duplicate.
    pub append_time: Option<Timestamp>,
}

/// Why a batch is not in the log, or in one case may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no such partition.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// The bytes are not a batch (Kafka: `CORRUPT_MESSAGE`).
    #[error("the batch is damaged: {0}")]
    Corrupt(String),
    /// A whole batch of a kind that clients may not write (Kafka: `INVALID_RECORD`).
    #[error("the batch is not allowed: {0}")]
    Invalid(String),
    /// The batch exceeds the topic's `max.message.bytes`.
    #[error("the batch has {size} bytes, the topic takes {max}: raise max.message.bytes or send less")]
    TooLarge {
        /// The batch's size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// An earlier batch of this producer is missing.
    #[error("the sequence number does not follow the producer's last one")]
    OutOfOrderSequence,
    /// A newer epoch of this producer has written to the partition.
    #[error("a newer epoch of this producer has written to the partition")]
    InvalidProducerEpoch,
    /// No consumer could decode the records (Kafka: `UNKNOWN_SERVER_ERROR`).
    #[error("no consumer could decode the batch: {0}")]
    Undecodable(String),
    /// A record's timestamp is too far from the broker's clock (Kafka: `INVALID_TIMESTAMP`).
    #[error("{0}")]
    Timestamp(String),
    /// A new producer finds no room (Kafka: `NOT_ENOUGH_REPLICAS`, on which clients try again).
    #[error(
        "{whose} remember {max} idempotent producers, all used within the last hour: use fewer producers for longer"
    )]
    TooManyProducers {
        /// Whose limit it is.
        whose: &'static str,
        /// The limit.
        max: u64,
    },
    /// The request held more batches than one may (Kafka: `NOT_ENOUGH_REPLICAS`, on which clients try again).
    #[error(
        "a request may hold {BATCHES_PER_REQUEST_MAX} batches, this one lies behind them: send it in another request"
    )]
    TooManyBatches,
    /// Nothing was appended. The same batch may be sent again.
    #[error("nothing was appended, send it again: {0}")]
    Unavailable(String),
    /// The outcome is not known. Only an idempotent producer may send the batch again.
    #[error("it is not known whether the batch was appended: {0}")]
    Unknown(String),
}

impl AppendError {
    /// Whether the batch was not appended for a reason that may pass, or may have been appended.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        match self {
            AppendError::Unavailable(_)
            | AppendError::Unknown(_)
            | AppendError::TooManyBatches
            | AppendError::TooManyProducers { .. } => true,
            AppendError::UnknownPartition
            | AppendError::Corrupt(_)
            | AppendError::Invalid(_)
            | AppendError::TooLarge { .. }
            | AppendError::OutOfOrderSequence
            | AppendError::InvalidProducerEpoch
            | AppendError::Undecodable(_)
            | AppendError::Timestamp(_) => false,
        }
    }
}

/// Command: assigns offsets to the batches of an uploaded object. Results are in the order of
/// [`Uploaded::batches`]; offsets follow the order of positions.
///
/// Refuses all batches with [`AppendError::Unavailable`] if the lease on the object has ended, because the object
/// may already be deleted. Does the same if the object was sequenced before, or if metadata cannot be read. In
/// these cases nothing changes.
pub fn sequence(tx: &mut Tx<'_>, uploaded: &Uploaded) -> Vec<Result<Appended, AppendError>> {
    sequence_within(tx, uploaded, Room::default())
}

/// [`sequence`] with other limits for producers.
pub(crate) fn sequence_within(
    tx: &mut Tx<'_>,
    uploaded: &Uploaded,
    room: Room,
) -> Vec<Result<Appended, AppendError>> {
    let refuse = |error: AppendError| vec![Err(error); uploaded.batches.len()];
    match object::admit(tx, uploaded.object, uploaded.owner) {
        Ok(None) => {}
        Ok(Some(reason)) => return refuse(AppendError::Unavailable(reason)),
        Err(error) => return refuse(AppendError::Unavailable(error.to_string())),
    }
    sequence_all(tx, Place::Object(uploaded.object), uploaded.size, &uploaded.batches, room)
}

/// Command: assigns offsets to batches that ride with this very commit, in `bytes` bytes. As [`sequence`], without a
/// lease: the bytes are there if and only if the commit is.
pub(crate) fn sequence_attached(
    tx: &mut Tx<'_>,
    bytes: u64,
    batches: &[Placed],
) -> Vec<Result<Appended, AppendError>> {
    sequence_all(tx, Place::Frame, bytes, batches, Room::default())
}

fn sequence_all(
    tx: &mut Tx<'_>,
    place: Place,
    size: u64,
    batches: &[Placed],
    room: Room,
) -> Vec<Result<Appended, AppendError>> {
    let refuse = |error: AppendError| vec![Err(error); batches.len()];
    let mut order: Vec<usize> = (0..batches.len()).collect();
    order.sort_by_key(|&index| batches[index].position);
    let mut results = refuse(AppendError::UnknownPartition);
    let mut run = Run::new(tx, place, size, room);
    for index in order {
        match run.batch(&batches[index]) {
            Ok(result) => results[index] = result,
            Err(error) => return refuse(AppendError::Unavailable(error.to_string())),
        }
    }
    match run.finish() {
        Ok(()) => results,
        Err(error) => refuse(AppendError::Unavailable(error.to_string())),
    }
}

/// The verdict of a producer's state on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Append,
    Duplicate(Offset),
    OutOfOrder,
    Fenced,
    /// The batch in front of it failed.
    Held,
}

/// Source: KIP-98, KIP-360 and KIP-890. As in Kafka since 2.5, a producer that the partition does not know may begin at
/// any number.
fn judge(producer: Option<&Producer>, placed: &Placed) -> Verdict {
    let header = &placed.header;
    let (first, last) = (header.base_sequence, last_sequence(header));
    let Some(producer) = producer else {
        return if placed.follows { Verdict::Held } else { Verdict::Append };
    };
    if header.producer_epoch < producer.epoch {
        return Verdict::Fenced;
    }
    if header.producer_epoch > producer.epoch {
        return if first == 0 { Verdict::Append } else { Verdict::OutOfOrder };
    }
    if let Some(seen) = producer.seen.iter().find(|s| s.base_sequence == first && s.last_sequence == last) {
        return Verdict::Duplicate(seen.base_offset);
    }
    if first == producer::sequence_plus(producer.newest().last_sequence, 1) {
        return Verdict::Append;
    }
    Verdict::OutOfOrder
}

fn held() -> AppendError {
    AppendError::Unavailable("the batch in front of it failed: send both again".to_owned())
}

fn last_sequence(header: &Header) -> i32 {
    producer::sequence_plus(header.base_sequence, header.last_offset_delta)
}

/// The sequencing of the batches of one place. It reads and decides everything first and writes at the end, so that
/// unreadable metadata leaves no half of an object behind.
struct Run<'r, 't> {
    tx: &'r mut Tx<'t>,
    place: Place,
    /// Bytes of that place.
    size: u64,
    hour: u32,
    heads: BTreeMap<PartitionId, Option<Head>>,
    /// `None` for a producer that the partition does not know, or forgets in this commit.
    producers: BTreeMap<ProducerKey, Option<Producer>>,
    forgotten: BTreeSet<ProducerKey>,
    room: Room,
    counts: BTreeMap<PartitionId, ProducerCount>,
    /// The producers of all partitions, once it was asked.
    in_all: Option<u64>,
    extents: Vec<NewExtent<'r>>,
}

/// An extent whose writer has no number yet.
struct NewExtent<'r> {
    key: ExtentKey,
    position: u64,
    bytes: u64,
    offsets: u32,
    max_timestamp: i64,
    writer: &'r Writer,
}

impl<'r, 't> Run<'r, 't> {
    fn new(tx: &'r mut Tx<'t>, place: Place, size: u64, room: Room) -> Run<'r, 't> {
        Run {
            hour: Producer::hour(tx.now()),
            tx,
            place,
            size,
            heads: BTreeMap::new(),
            producers: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            room,
            counts: BTreeMap::new(),
            in_all: None,
            extents: Vec::new(),
        }
    }

    fn batch(&mut self, placed: &'r Placed) -> Result<Result<Appended, AppendError>, DecodeError> {
        let Some(head) = self.head(placed.partition)? else {
            return Ok(Err(AppendError::UnknownPartition));
        };
        let log_start = head.log_start;
        let header = &placed.header;
        if header.is_idempotent() {
            let producer = self.producer(placed)?;
            let is_new = producer.is_none();
            match judge(producer, placed) {
                Verdict::Append if is_new => {
                    if let Some(full) = self.count_in(placed.partition)? {
                        return Ok(Err(self.no_room(full)));
                    }
                }
                Verdict::Append => {}
                Verdict::Duplicate(base_offset) => {
                    return Ok(Ok(Appended { base_offset, log_start, duplicate: true, append_time: None }));
                }
                Verdict::OutOfOrder => return Ok(Err(AppendError::OutOfOrderSequence)),
                Verdict::Fenced => return Ok(Err(AppendError::InvalidProducerEpoch)),
                Verdict::Held => return Ok(Err(held())),
            }
        }
        let base_offset = self.append(placed, head);
        if header.is_idempotent() {
            self.remember(placed, base_offset);
        }
        let append_time = header.is_log_append_time().then_some(Timestamp(header.max_timestamp));
        Ok(Ok(Appended { base_offset, log_start, duplicate: false, append_time }))
    }

    fn head(&mut self, partition: PartitionId) -> Result<Option<Head>, DecodeError> {
        if let Some(head) = self.heads.get(&partition) {
            return Ok(*head);
        }
        let head = self.tx.get::<Head>(&partition)?;
        self.heads.insert(partition, head);
        Ok(head)
    }

    fn producer(&mut self, placed: &Placed) -> Result<Option<&Producer>, DecodeError> {
        let key = key_of(placed);
        if !self.producers.contains_key(&key) {
            let found = self.tx.get::<Producer>(&key)?;
            self.producers.insert(key, found);
        }
        Ok(self.producers[&key].as_ref())
    }

    /// Counts a new producer of a partition, if need be after idle ones are forgotten. Returns the limit that leaves no
    /// room for it.
    fn count_in(&mut self, partition: PartitionId) -> Result<Option<Full>, DecodeError> {
        let mut all = match self.in_all {
            Some(all) => all,
            None => producer_count::in_all(self.tx)?,
        };
        let mut count = match self.counts.get(&partition) {
            Some(count) => *count,
            None => producer_count::of_partition(self.tx, partition)?,
        };
        if self.room.full(&count, all).is_some()
            && let Some(searched) = producer_count::search(self.tx, partition, &count, self.tx.now())?
        {
            // The map does not have those yet that this commit adds.
            let before = producer_count::of_partition(self.tx, partition)?.producers;
            let added = count.producers.saturating_sub(before);
            let mut left = searched.left.producers + added;
            for key in searched.idle {
                match self.producers.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert(None);
                        self.forgotten.insert(key);
                        all = all.saturating_sub(1);
                    }
                    // This commit uses it.
                    Entry::Occupied(_) => left += 1,
                }
            }
            count = ProducerCount { producers: left, ..searched.left };
        }
        let full = self.room.full(&count, all);
        if full.is_none() {
            (count.producers, all) = (count.producers + 1, all + 1);
        }
        self.counts.insert(partition, count);
        self.in_all = Some(all);
        Ok(full)
    }

    fn no_room(&self, full: Full) -> AppendError {
        let (whose, max) = match full {
            Full::Partition => ("the partition", self.room.per_partition),
            Full::All => ("all partitions together", self.room.in_all),
        };
        AppendError::TooManyProducers { whose, max }
    }

    /// Assigns the next offsets. Extends the last extent or begins a new one.
    fn append(&mut self, placed: &'r Placed, mut head: Head) -> Offset {
        let Placed { partition, writer, position, header, .. } = placed;
        let base = head.next;
        let bytes = header.size as u64;
        assert!(position + bytes <= self.size, "a batch lies within its place");
        head.next = base.plus(header.offsets());
        head.max_timestamp = head.max_timestamp.max(header.max_timestamp);
        head.bytes += bytes;
        self.heads.insert(*partition, Some(head));

        if let Some(last) = self.extents.last_mut() {
            let end = last.position + last.bytes;
            assert!(end <= *position, "batches of an object do not overlap");
            let adjacent = last.key.partition == *partition && last.writer == writer && end == *position;
            if adjacent && let Some(offsets) = last.offsets.checked_add(header.offsets()) {
                assert_eq!(last.key.base.plus(last.offsets), base, "adjacent batches have adjacent offsets");
                last.offsets = offsets;
                last.bytes += bytes;
                last.max_timestamp = last.max_timestamp.max(header.max_timestamp);
                return base;
            }
        }
        self.extents.push(NewExtent {
            key: ExtentKey::new(*partition, base),
            position: *position,
            bytes,
            offsets: header.offsets(),
            max_timestamp: header.max_timestamp,
            writer,
        });
        base
    }

    fn remember(&mut self, placed: &Placed, base_offset: Offset) {
        let header = &placed.header;
        let seen =
            Seen { base_sequence: header.base_sequence, last_sequence: last_sequence(header), base_offset };
        let state = self.producers.entry(key_of(placed)).or_default();
        match state {
            Some(producer) if producer.epoch == header.producer_epoch => {
                if producer.seen.len() == BATCHES_REMEMBERED {
                    producer.seen.remove(0);
                }
                producer.seen.push(seen);
                producer.active_hour = self.hour;
            }
            _ => {
                let epoch = header.producer_epoch;
                *state = Some(Producer { epoch, active_hour: self.hour, seen: vec![seen] });
            }
        }
    }

    /// Writes the decisions. Unchanged records cost nothing, because the transaction drops equal values.
    fn finish(self) -> Result<(), DecodeError> {
        let Run { tx, place, size, heads, producers, forgotten, counts, in_all, extents, .. } = self;
        // First, because it may meet a record that cannot be read.
        let writers = intern(tx, &extents)?;
        // Bytes in a frame are found by the commit; they are not there below that level.
        let knows_lsns = place == Place::Frame || format_level::get(tx)? >= WITH_LSNS;
        let lsn = if knows_lsns { tx.lsn() } else { Lsn(0) };
        for (partition, head) in heads {
            if let Some(head) = head {
                tx.put(&partition, &head);
            }
        }
        for (key, producer) in producers {
            match producer {
                Some(producer) => tx.put(&key, &producer),
                None if forgotten.contains(&key) => tx.delete::<Producer>(&key),
                None => {}
            }
        }
        for (partition, count) in counts {
            tx.put(&partition, &count);
        }
        if let Some(producers) = in_all {
            producer_count::put_all(tx, producers);
        }
        for new in &extents {
            let NewExtent { key, position, bytes, offsets, max_timestamp, writer } = *new;
            let data = Data {
                place,
                position,
                bytes,
                offsets: u64::from(offsets),
                spacing: Spacing::Counted,
                max_timestamp,
                written_by: WrittenBy::One(writers[writer]),
                lsn,
            };
            tx.put(&key, &Extent::Data(data));
        }
        let Place::Object(id) = place else { return Ok(()) };
        match u32::try_from(extents.len()).expect("an object has far fewer batches than 2^32") {
            0 => object::discard(tx, id, size),
            extents => tx.put(&id, &Object::raw(size, extents)),
        }
        Ok(())
    }
}

/// The numbers of the writers that these extents name.
fn intern<'r>(
    tx: &mut Tx<'_>,
    extents: &[NewExtent<'r>],
) -> Result<BTreeMap<&'r Writer, WriterId>, DecodeError> {
    let mut named: BTreeMap<&Writer, u32> = BTreeMap::new();
    for extent in extents {
        *named.entry(extent.writer).or_default() += 1;
    }
    named.into_iter().map(|(writer, extents)| Ok((writer, writer.intern(tx, extents)?))).collect()
}

fn key_of(placed: &Placed) -> ProducerKey {
    ProducerKey { partition: placed.partition, producer_id: placed.header.producer_id }
}
