//! The sequencer against a naive model that keeps the whole history, and a test for each of its rules.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use floe_env::Env;
use floe_meta::{MemoryJournal, Meta, Options};
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::map::extent::ExtentKey;
use crate::map::identity;
use crate::map::ids::TopicId;
use crate::map::object::{Object, Trash};
use crate::map::partition::{self, Head};
use crate::map::producer::{self, BATCHES_REMEMBERED, Producer};
use crate::map::producer_count::{self, Room};
use crate::write::sequencer::{AppendError, Appended, sequence, sequence_within};

const SEQUENCES: u64 = 1 << 31;

/// Everything that was appended to one partition. The model forgets and packs nothing.
#[derive(Clone, Debug, Default)]
struct Model {
    batches: Vec<Kept>,
    next: u64,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    producer: Option<(i64, i16)>,
    /// The sequence number without wrapping.
    sequence: u64,
    count: u64,
    offset: u64,
    object: u64,
    position: u64,
    size: u64,
    writer: usize,
}

impl Model {
    fn of_epoch(&self, id: i64, epoch: i16) -> Vec<&Kept> {
        self.batches.iter().filter(|kept| kept.producer == Some((id, epoch))).collect()
    }

    fn newest_epoch(&self, id: i64) -> Option<i16> {
        self.batches.iter().filter_map(|kept| kept.producer).filter(|p| p.0 == id).map(|p| p.1).max()
    }

    /// `Ok` with the unwrapped sequence if the batch is to be appended, otherwise the answer.
    fn judge(&self, header: &Header) -> Result<u64, Result<u64, AppendError>> {
        if header.producer_id < 0 {
            return Ok(0);
        }
        let (first, count) = (header.base_sequence as u64, header.count as u64);
        let Some(newest) = self.newest_epoch(header.producer_id) else {
            return Ok(first);
        };
        if header.producer_epoch < newest {
            return Err(Err(AppendError::InvalidProducerEpoch));
        }
        let history = self.of_epoch(header.producer_id, header.producer_epoch);
        let remembered = &history[history.len().saturating_sub(BATCHES_REMEMBERED)..];
        for kept in remembered {
            if kept.sequence % SEQUENCES == first && kept.count == count {
                return Err(Ok(kept.offset));
            }
        }
        let next = history.last().map_or(0, |kept| kept.sequence + kept.count);
        if first == next % SEQUENCES {
            return Ok(next);
        }
        Err(Err(AppendError::OutOfOrderSequence))
    }

    fn append(&mut self, placed: &Placed, object: u64, writer: usize) -> Result<(u64, bool), AppendError> {
        let header = &placed.header;
        let sequence = match self.judge(header) {
            Ok(sequence) => sequence,
            Err(Ok(offset)) => return Ok((offset, true)),
            Err(Err(error)) => return Err(error),
        };
        let producer = (header.producer_id >= 0).then_some((header.producer_id, header.producer_epoch));
        let (count, offset, size) = (header.count as u64, self.next, header.size as u64);
        let position = placed.position;
        self.batches.push(Kept { producer, sequence, count, offset, object, position, size, writer });
        self.next += count;
        self.bytes += size;
        Ok((offset, false))
    }
}

/// The next action of a client. It is resolved against the model, so that most steps are meaningful.
#[derive(Clone, Debug)]
struct Step {
    partition: u32,
    writer: usize,
    producer: i64,
    kind: StepKind,
    count: i32,
}

#[derive(Clone, Debug)]
enum StepKind {
    Plain,
    Next,
    /// Sends the batch again that was appended this many batches ago.
    Again(usize),
    /// Misses the next sequence number by this much.
    Off(i32),
    NewEpoch,
    OldEpoch,
}

const PARTITIONS: u32 = 2;

fn step_strategy() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        2 => Just(StepKind::Plain),
        8 => Just(StepKind::Next),
        4 => (0usize..8).prop_map(StepKind::Again),
        2 => (-3i32..4).prop_map(StepKind::Off),
        1 => Just(StepKind::NewEpoch),
        1 => Just(StepKind::OldEpoch),
    ];
    // Two batches of a large count pass the end of the sequence numbers.
    let count = prop_oneof![4 => 1i32..4, 1 => Just(1 << 30), 1 => Just(i32::MAX)];
    let partition = prop_oneof![6 => 0..PARTITIONS, 1 => Just(PARTITIONS)];
    (partition, 0usize..2, 0i64..2, kind, count).prop_map(|(partition, writer, producer, kind, count)| Step {
        partition,
        writer,
        producer,
        kind,
        count,
    })
}

fn header(step: &Step, model: &Model) -> Header {
    let mut header = header_of(&plain(1, 0));
    let newest = model.newest_epoch(step.producer);
    let epoch = newest.unwrap_or(0);
    let history = model.of_epoch(step.producer, epoch);
    let next = history.iter().map(|kept| kept.count).sum::<u64>() % SEQUENCES;
    let wrapped = |number: i64| number.rem_euclid(SEQUENCES as i64) as i32;
    let (epoch, first, count) = match step.kind {
        StepKind::Plain => (-1, -1, step.count),
        StepKind::Next => (epoch, next as i32, step.count),
        StepKind::Again(back) => match history.iter().rev().nth(back) {
            Some(kept) => (epoch, (kept.sequence % SEQUENCES) as i32, kept.count as i32),
            None => (epoch, next as i32, step.count),
        },
        StepKind::Off(by) => (epoch, wrapped(next as i64 + i64::from(by)), step.count),
        StepKind::NewEpoch => (epoch + 1, if step.count == 2 { 1 } else { 0 }, step.count),
        StepKind::OldEpoch => ((epoch - 1).max(0), next as i32, step.count),
    };
    header.producer_id = if epoch < 0 { -1 } else { step.producer };
    header.producer_epoch = epoch;
    header.base_sequence = first;
    header.count = count;
    header.last_offset_delta = count - 1;
    header.max_timestamp = i64::from(count % 1000);
    header.size = 61 + (count % 7) as usize;
    header
}

/// Checks that everything in the map follows from the model.
fn compare(tx: &Tx<'_>, topic: TopicId, models: &[Model], writers: &[Writer]) {
    for (index, model) in (0..).zip(models) {
        let partition = PartitionId::new(topic, index);
        let head = partition::head(tx, partition).unwrap().unwrap();
        assert_eq!((head.next.0 as u64, head.bytes), (model.next, model.bytes));
        let mut kept = model.batches.iter().peekable();
        let mut before: Option<(ExtentKey, Data)> = None;
        for pair in tx.prefix::<Extent>(|out| partition.put(out)) {
            let (key, extent) = pair.unwrap();
            let (end, extent) = (extent.next_offset(key.base).0 as u64, data(extent));
            let (mut offset, mut position) = (key.base.0 as u64, extent.position);
            if let Some((earlier_key, earlier)) = before {
                let next = Extent::Data(earlier).next_offset(earlier_key.base);
                assert_eq!(next, key.base, "no gap, no overlap");
                let adjacent = earlier.place == extent.place && earlier.end() == extent.position;
                let fits = earlier.offsets + extent.offsets <= u64::from(u32::MAX);
                let same = earlier.written_by == extent.written_by;
                assert!(!(adjacent && fits && same), "adjacent extents are one");
            }
            while offset < end {
                let batch = kept.next().expect("every extent holds batches of the model");
                let place = Place::Object(ObjectId(batch.object));
                assert_eq!((batch.offset, batch.position, place), (offset, position, extent.place));
                let writer = Extent::Data(extent).writer().unwrap();
                assert_eq!(Writer::by_id(tx, writer).unwrap().as_ref(), Some(&writers[batch.writer]));
                offset += batch.count;
                position += batch.size;
            }
            assert_eq!((offset, position), (end, extent.end()));
            before = Some((key, extent));
        }
        assert!(kept.next().is_none(), "every batch has an extent");
    }
    assert_eq!(identity::miscounted(tx).unwrap(), [""; 0]);
    assert_eq!(producer_count::miscounted(tx).unwrap(), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_sequencer_does_what_the_model_does(
        objects in prop::collection::vec(prop::collection::vec(step_strategy(), 1..7), 1..6),
    ) {
        in_tx(|tx| {
            let topic = create(tx, "t", PARTITIONS).id;
            lease(tx, 1, 100);
            let writers = [Writer::new("User:a", "x"), Writer::new("User:b", "x")];
            let mut models = vec![Model::default(); PARTITIONS as usize];
            for (id, steps) in (1..).zip(&objects) {
                let mut position = 16;
                let mut placed = Vec::new();
                let mut expected = Vec::new();
                for step in steps {
                    let none = Model::default();
                    let header = header(step, models.get(step.partition as usize).unwrap_or(&none));
                    let (partition, writer) = (PartitionId::new(topic, step.partition), writers[step.writer].clone());
                    let batch = Placed { partition, writer, position, header, follows: false };
                    position += header.size as u64;
                    expected.push(match models.get_mut(step.partition as usize) {
                        Some(model) => model.append(&batch, id, step.writer),
                        None => Err(AppendError::UnknownPartition),
                    });
                    placed.push(batch);
                }
                // Batches may be listed in another order than they lie in the object.
                placed.reverse();
                expected.reverse();
                let object = Uploaded { object: ObjectId(id), owner: OWNER, size: position, batches: placed };
                let results = sequence(tx, &object);
                let results = results.into_iter();
                let results: Vec<_> =
                    results.map(|result| result.map(|a| (a.base_offset.0 as u64, a.duplicate))).collect();
                assert_eq!(results, expected, "object {id}");
                compare(tx, topic, &models, &writers);
                let extents = tx.range::<Extent>(..);
                let extents = extents.filter(|pair| pair.as_ref().unwrap().1.object() == Some(ObjectId(id))).count();
                let record = tx.get::<Object>(&ObjectId(id)).unwrap();
                assert_eq!(record.map_or(0, |object| object.extents as usize), extents);
                let trash = tx.get::<Trash>(&ObjectId(id)).unwrap();
                assert_eq!(trash.is_some(), extents == 0, "useless objects are trash");
            }
        });
    }
}

/// The comparison must see each kind of damage, or the test above proves nothing.
#[test]
fn the_comparison_sees_planted_damage() {
    type Damage = fn(&mut Tx<'_>, ExtentKey, Data);
    let damages: [(&str, Damage); 7] = [
        ("an extent is lost", |tx, key, _| tx.delete::<Extent>(&key)),
        ("offsets are shifted", |tx, key, data| {
            tx.delete::<Extent>(&key);
            tx.put(&ExtentKey::new(key.partition, key.base.plus(1)), &Extent::Data(data));
        }),
        ("an extent is too long", |tx, key, data| {
            tx.put(&key, &Extent::Data(Data { offsets: data.offsets + 1, ..data }));
        }),
        ("the bytes are others", |tx, key, data| {
            tx.put(&key, &Extent::Data(Data { position: data.position + 1, ..data }));
        }),
        ("the object is another", |tx, key, data| {
            tx.put(&key, &Extent::Data(Data { place: Place::Object(ObjectId(9)), ..data }));
        }),
        ("the writer is another", |tx, key, data| {
            let writer = Writer::new("User:b", "x").intern(tx, 1).unwrap();
            tx.put(&key, &Extent::Data(Data { written_by: WrittenBy::One(writer), ..data }));
        }),
        ("the head went back", |tx, key, _| tx.put(&key.partition, &Head::default())),
    ];
    let check = |damage: Option<Damage>| {
        in_tx(|tx| {
            let topic = create(tx, "t", 1).id;
            lease(tx, 1, 100);
            let writers = [Writer::new("User:a", "x"), Writer::new("User:b", "x")];
            let mut model = Model::default();
            for id in 1..4 {
                let bytes = plain(2, 0);
                let object = uploaded(id, &[(PartitionId::new(topic, 0), &writers[0], &bytes)]);
                model.append(&object.batches[0], id, 0).unwrap();
                assert!(sequence(tx, &object)[0].is_ok());
            }
            if let Some(damage) = damage {
                let (key, extent) = tx.range::<Extent>(..).nth(1).unwrap().unwrap();
                damage(tx, key, data(extent));
            }
            compare(tx, topic, &[model], &writers);
        });
    };
    check(None);
    for (what, damage) in damages {
        assert!(std::panic::catch_unwind(|| check(Some(damage))).is_err(), "{what}");
    }
}

fn one(tx: &mut Tx<'_>, object: u64, partition: PartitionId, bytes: &Bytes) -> Result<Appended, AppendError> {
    let writer = Writer::new("User:a", "c");
    sequence(tx, &uploaded(object, &[(partition, &writer, bytes)])).remove(0)
}

#[test]
fn a_story_of_one_producer() {
    in_tx(|tx| {
        let partition = PartitionId::new(create(tx, "t", 1).id, 0);
        lease(tx, 1, 100);
        let mut object = 0;
        let mut send = |epoch, first, count, expected: Result<(i64, bool), AppendError>| {
            object += 1;
            let got = one(tx, object, partition, &idempotent(9, epoch, first, count));
            let got = got.map(|a| (a.base_offset.0, a.duplicate));
            assert_eq!(got, expected, "epoch {epoch}, sequence {first}, {count} records");
        };
        send(3, 0, 2, Ok((0, false)));
        send(3, 0, 2, Ok((0, true)));
        send(3, 0, 1, Err(AppendError::OutOfOrderSequence));
        send(3, 3, 1, Err(AppendError::OutOfOrderSequence));
        for index in 0..5 {
            send(3, 2 + index, 1, Ok((i64::from(2 + index), false)));
        }
        send(3, 2, 1, Ok((2, true)));
        send(3, 0, 2, Err(AppendError::OutOfOrderSequence));
        send(2, 7, 1, Err(AppendError::InvalidProducerEpoch));
        send(4, 7, 1, Err(AppendError::OutOfOrderSequence));
        send(4, 0, 1, Ok((7, false)));
        send(3, 7, 1, Err(AppendError::InvalidProducerEpoch));
    });
}

#[test]
fn sequence_numbers_wrap_inside_and_between_batches() {
    assert_eq!(producer::sequence_plus(i32::MAX, 1), 0);
    assert_eq!(producer::sequence_plus(i32::MAX - 1, 3), 1);
    assert_eq!(producer::sequence_minus(0, 1), i32::MAX);
    assert_eq!(producer::sequence_minus(2, 4), i32::MAX - 1);
}

#[test]
fn an_object_is_refused_whole_without_its_lease() {
    in_tx(|tx| {
        let partition = PartitionId::new(create(tx, "t", 1).id, 0);
        let refused = |tx: &mut Tx<'_>, object: u64, owner: u128| {
            let writer = Writer::new("User:a", "c");
            let bytes = plain(1, 0);
            let mut object = uploaded(object, &[(partition, &writer, &bytes), (partition, &writer, &bytes)]);
            object.owner = owner;
            let results = sequence(tx, &object);
            assert_eq!(results.len(), 2);
            results.iter().all(|result| matches!(result, Err(AppendError::Unavailable(_))))
        };
        assert!(refused(tx, 5, OWNER), "no lease");
        lease(tx, 1, 5);
        assert!(refused(tx, 5, OWNER), "a lease on others");
        lease(tx, 5, 6);
        assert!(refused(tx, 5, OWNER + 1), "somebody else's lease");
        assert_eq!(partition::head(tx, partition).unwrap(), Some(Head::default()), "nothing was changed");
        assert!(!refused(tx, 5, OWNER));
        assert!(refused(tx, 5, OWNER), "an object is sequenced once");
        assert_eq!(partition::head(tx, partition).unwrap().unwrap().next, Offset(2));
        // A deleted object does not come back either.
        crate::map::object::release(tx, ObjectId(5), 1).unwrap();
        assert!(refused(tx, 5, OWNER));
    });
}

#[test]
fn writers_partitions_and_holes_part_extents() {
    in_tx(|tx| {
        let topic = create(tx, "t", 2).id;
        let [p0, p1] = [0, 1].map(|index| PartitionId::new(topic, index));
        lease(tx, 1, 10);
        let (a, b) = (Writer::new("User:a", "c"), Writer::new("User:b", "c"));
        let (new, old) = (idempotent(1, 0, 0, 1), plain(1, 9));
        let object = uploaded(
            1,
            &[
                (p0, &a, &old),
                (p0, &a, &old),
                (p0, &b, &old),
                (p0, &b, &new),
                (p0, &b, &new),
                (p0, &b, &old),
                (p1, &b, &old),
            ],
        );
        let results: Vec<_> = sequence(tx, &object).into_iter().map(Result::unwrap).collect();
        let offsets: Vec<_> = results.iter().map(|a| (a.base_offset.0, a.duplicate)).collect();
        assert_eq!(
            offsets,
            [(0, false), (1, false), (2, false), (3, false), (3, true), (4, false), (0, false)]
        );
        let extents: Vec<_> = tx.range::<Extent>(..).map(Result::unwrap).collect();
        let shapes: Vec<_> = extents
            .iter()
            .map(|(k, e)| (k.partition.index, k.base.0, e.offsets(), e.writer().unwrap().0))
            .collect();
        assert_eq!(shapes, [(0, 0, 2, 1), (0, 2, 2, 2), (0, 4, 1, 2), (1, 0, 1, 2)]);
        assert_eq!(tx.get::<Object>(&ObjectId(1)).unwrap().unwrap().extents, 4);
    });
}

#[test]
fn idle_producers_are_forgotten_in_steps() {
    in_tx(|tx| {
        let partition = PartitionId::new(create(tx, "t", 1).id, 0);
        lease(tx, 1, 100);
        for id in 0..5u32 {
            one(tx, u64::from(id) + 1, partition, &idempotent(i64::from(id), 0, 0, 1)).unwrap();
        }
        let now = tx.now();
        assert_eq!(producer::idle(tx, now, 10).unwrap(), [], "all were active this hour");
        let later = Timestamp(now.0 + 2 * 3_600_000);
        let idle = producer::idle(tx, later, 3).unwrap();
        assert_eq!(idle.iter().map(|key| key.producer_id).collect::<Vec<_>>(), [0, 1, 2]);
        // One of them came back after the search.
        let active = tx.get::<Producer>(&idle[1]).unwrap().unwrap();
        tx.put(&idle[1], &Producer { active_hour: Producer::hour(later), ..active });
        producer_count::forget(tx, later, &idle).unwrap();
        let left: Vec<_> = tx.range::<Producer>(..).map(|pair| pair.unwrap().0.producer_id).collect();
        assert_eq!(left, [1, 3, 4]);
    });
}

/// A map whose commits have times in hours.
struct Hours {
    meta: Meta,
    started: Instant,
}

impl Hours {
    async fn begin() -> Hours {
        let env = Env::simulated(1);
        let (journal, started) = (Arc::new(MemoryJournal::new()), env.monotonic());
        let meta = Meta::open(env, journal, Options::default()).await.unwrap();
        Hours { meta, started }
    }

    async fn at<T: Send + 'static>(
        &self,
        hour: u64,
        mut command: impl FnMut(&mut Tx<'_>) -> T + Send + 'static,
    ) -> T {
        tokio::time::sleep_until(self.started + Duration::from_secs(hour * 3600)).await;
        let command = move |tx: &mut Tx<'_>| Ok::<_, Infallible>(command(tx));
        self.meta.commit(Envelope::broker("test"), command).await.unwrap().reply
    }

    /// A topic of three partitions, and leases for the objects.
    async fn topic(&self) -> [PartitionId; 3] {
        let create = |tx: &mut Tx<'_>| {
            cluster::open(tx, 1 << 64).unwrap();
            lease(tx, 1, 100);
            create(tx, "t", 3).id
        };
        let topic = self.at(0, create).await;
        [0, 1, 2].map(|index| PartitionId::new(topic, index))
    }

    /// Which of these new batches are taken.
    async fn taken<const N: usize>(
        &self,
        hour: u64,
        object: u64,
        room: Room,
        of: [(PartitionId, i64, i32); N],
    ) -> Vec<bool> {
        self.at(hour, move |tx| taken(tx, object, room, &of)).await
    }

    fn producers_of(&self, partition: PartitionId) -> Vec<i64> {
        let snapshot = self.meta.snapshot();
        let all = snapshot.range::<Producer>(..).map(|pair| pair.unwrap().0);
        all.filter(|key| key.partition == partition).map(|key| key.producer_id).collect()
    }
}

/// Appends one object with a batch of each of these producers, and says which were taken.
fn taken(tx: &mut Tx<'_>, object: u64, room: Room, of: &[(PartitionId, i64, i32)]) -> Vec<bool> {
    let writer = Writer::new("User:a", "c");
    let batch =
        |(partition, id, sequence): &(PartitionId, i64, i32)| (*partition, idempotent(*id, 0, *sequence, 1));
    let batches: Vec<_> = of.iter().map(batch).collect();
    let batches: Vec<_> = batches.iter().map(|(partition, bytes)| (*partition, &writer, bytes)).collect();
    let answers = sequence_within(tx, &uploaded(object, &batches), room);
    let refused = |error: &AppendError| matches!(error, AppendError::TooManyProducers { .. });
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(refused), "{answers:?}");
    assert_eq!(producer_count::miscounted(tx).unwrap(), [""; 0]);
    answers.iter().map(Result::is_ok).collect()
}

#[tokio::test(start_paused = true)]
async fn a_full_partition_forgets_idle_producers_and_refuses_new_ones_beside_busy_ones() {
    let hours = Hours::begin().await;
    let room = Room { per_partition: 3, in_all: 100 };
    let [p, q, _] = hours.topic().await;
    let four = [(p, 1, 0), (p, 2, 0), (p, 3, 0), (p, 4, 0), (q, 4, 0)];
    assert_eq!(hours.taken(0, 1, room, four).await, [true, true, true, false, true]);
    let one_hour_later = hours.taken(1, 2, room, [(p, 1, 1), (p, 4, 0)]).await;
    assert_eq!(
        one_hour_later,
        [true, false],
        "the others were idle for less than an hour, as far as is known"
    );
    // The second and the third are idle. The third comes in the same commit and keeps its place.
    assert_eq!(hours.taken(2, 3, room, [(p, 3, 1), (p, 4, 0), (p, 5, 0)]).await, [true, true, false]);
    assert_eq!(hours.producers_of(p), [1, 3, 4]);
    // All are idle. A forgotten one comes back behind another in the same commit.
    assert_eq!(hours.taken(9, 4, room, [(p, 8, 0), (p, 1, 7)]).await, [true, true]);
    assert_eq!(hours.producers_of(p), [1, 8]);
}

#[tokio::test(start_paused = true)]
async fn all_partitions_together_have_a_limit() {
    let hours = Hours::begin().await;
    let room = Room { per_partition: 3, in_all: 4 };
    let [p, q, r] = hours.topic().await;
    let six = [(p, 0, 0), (q, 1, 0), (r, 2, 0), (p, 3, 0), (q, 4, 0), (r, 5, 0)];
    assert_eq!(hours.taken(0, 1, room, six).await, [true, true, true, true, false, false]);
    let later = hours.taken(2, 2, room, [(q, 4, 0), (r, 5, 0)]).await;
    assert_eq!(later, [true, true], "idle ones of the same partition make room");
    let delete = move |tx: &mut Tx<'_>| {
        topic::delete(tx, p.topic).unwrap();
        assert_eq!(producer_count::in_all(tx).unwrap(), 0);
        assert_eq!(producer_count::miscounted(tx).unwrap(), [""; 0]);
        assert_eq!(identity::miscounted(tx).unwrap(), [""; 0]);
    };
    hours.at(2, delete).await;
}
