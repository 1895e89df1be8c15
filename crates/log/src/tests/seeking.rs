//! Seeks into large sections, by offset and by time, against a model: a scan of all batches.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use floe_env::Env;
use floe_meta::{MemoryJournal, Meta, Options};
use floe_store::{Listed, MemoryStore, PutIfAbsent, Store, StoreError};
use std::sync::Mutex;

use super::*;
use crate::config::Config;
use crate::format::batch::Batch;
use crate::format::seek::INDEX_BYTES_MAX;
use crate::format::segment::{Origin, PlantedBug, SegmentBuilder};
use crate::handle::Log;
use crate::limits::BLOCK_BYTES;
use crate::map::extent::{ExtentKey, Gap, Marker, Outcome};
use crate::map::object::{Level, Object, ObjectKind, object_key};
use crate::map::partition::{self, Head};
use crate::map::writer_number::WriterNumber;
use crate::read::walk::{At, ReadError};

/// A store that notes what is read.
#[derive(Clone)]
struct Noted {
    inner: MemoryStore,
    reads: Arc<Mutex<Vec<Range<u64>>>>,
}

impl Noted {
    fn take(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }
}

#[async_trait]
impl Store for Noted {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        self.inner.put(key, payload).await
    }
    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        self.inner.put_if_absent(key, payload).await
    }
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        if key.starts_with("segment/") {
            self.reads.lock().unwrap().extend(range.clone());
        }
        self.inner.get(key, range).await
    }
    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.inner.size(key).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix, after, count).await
    }
    fn url(&self, key: &str) -> String {
        self.inner.url(key)
    }
    fn remote(&self) -> bool {
        true
    }
}

struct World {
    env: Env,
    journal: MemoryJournal,
    store: Noted,
    log: Log,
    partition: PartitionId,
    object: ObjectId,
    /// Whether all of the partition can be read. Otherwise its log start may be anywhere.
    whole: bool,
}

/// What the partition has, batch by batch. Each record with its time.
#[derive(Default)]
struct Model {
    batches: Vec<(Batch, Vec<(i64, i64)>)>,
    origins: Vec<(Option<Writer>, Lsn)>,
    extents: Vec<(Offset, Extent)>,
    next: i64,
}

impl Model {
    /// The first record at `start` or behind it that is not older than `time`.
    fn at(&self, start: i64, time: i64) -> Option<(Offset, Timestamp)> {
        let records = self.batches.iter().flat_map(|(_, records)| records);
        let mut wanted = records.filter(|(offset, of)| *offset >= start && *of >= time);
        wanted.next().map(|(offset, time)| (Offset(*offset), Timestamp(*time)))
    }

    fn max(&self, start: i64) -> Option<(Offset, Timestamp)> {
        let records = self.batches.iter().flat_map(|(_, records)| records);
        let times = records.filter(|(offset, _)| *offset >= start).map(|(_, time)| *time);
        times.max().filter(|time| *time >= 0).and_then(|time| self.at(start, time))
    }
}

impl World {
    async fn new(seed: u64) -> World {
        let env = Env::simulated(seed);
        let journal = MemoryJournal::new();
        let store = Noted { inner: MemoryStore::new(), reads: Arc::default() };
        let log = open(&env, &journal, &store).await;
        let new = NewTopic { name: "t".into(), partitions: 3, configs: BTreeMap::new() };
        let topic = log.create_topic(&Writer::new("User:a", "c"), new, false).await.unwrap();
        let object = ObjectId::new(ObjectKind::Segment, WriterNumber(1), 1_000);
        let partition = PartitionId::new(topic.id, 1);
        World { env, journal, store, log, partition, object, whole: false }
    }

    /// A log with nothing in its memory.
    async fn cold(&self) -> Log {
        let log = open(&self.env.scope(), &self.journal, &self.store).await;
        self.store.take();
        log
    }

    fn below(&self, most: u64) -> u64 {
        self.env.random_u64() % most
    }

    /// A batch of a few records; times go forward, but for some.
    fn batch(&self, model: &mut Model, builder: &mut SegmentBuilder) -> i64 {
        let (base, count) = (model.next, 1 + self.below(3).cast_signed());
        let (mut records, mut built) = (Vec::new(), crate::format::records::Builder::new(Compression::None));
        for at in base..base + count {
            let time = match self.below(40) {
                0 => -1,
                1 => self.below(1_000).cast_signed(),
                2 => at + 1_000,
                _ => at * 2,
            };
            let value = vec![b'v'; self.below(20_000) as usize];
            built.push(time, None, Some(&value), &[]);
            records.push((at, time));
        }
        let batch = Batch::new(Offset(base), built.build()).unwrap();
        let writer = Writer::new("User:a", &format!("c{}", self.below(3)));
        let lsn = Lsn(1 + model.batches.len() as u64 / 3);
        builder.push(&batch, Origin { writer: Some(&writer), lsn });
        model.origins.push((Some(writer), lsn));
        let max = batch.header().max_timestamp;
        model.next = batch.next_offset().0;
        model.batches.push((batch, records));
        max
    }

    fn marker(&self, model: &mut Model) -> (Offset, Marker) {
        let (offset, time) = (Offset(model.next), Timestamp(1 << 50));
        let marker =
            Marker { producer_id: 9, producer_epoch: 1, outcome: Outcome::Commit, time, lsn: Lsn(1) };
        model.batches.push((Batch::of_marker(offset, &marker), Vec::new()));
        model.origins.push((None, Lsn(1)));
        model.next += 1;
        (offset, marker)
    }

    /// Some sections of the partition in one segment, with markers and gaps in and between them, and sections of its
    /// neighbours before and behind them.
    async fn fill(&self, bytes: u64, bug: Option<PlantedBug>) -> Model {
        let (mut model, mut builder) = (Model::default(), SegmentBuilder::new(self.object));
        let neighbour = |builder: &mut SegmentBuilder, index: u32| {
            builder.begin(PartitionId::new(self.partition.topic, index), Offset(0));
            self.batch(&mut Model::default(), builder);
            builder.end(Offset(10), 1);
        };
        neighbour(&mut builder, 0);
        builder.bug = bug;
        for _ in 0..1 + self.below(3) {
            match self.below(4) {
                0 => {
                    let (offset, marker) = self.marker(&mut model);
                    model.extents.push((offset, Extent::Marker(marker)));
                }
                1 => {
                    let offsets = 1 + self.below(9);
                    model.extents.push((Offset(model.next), Extent::Gap(Gap { offsets, lsn: Lsn(1) })));
                    model.next += offsets.cast_signed();
                }
                _ => {}
            }
            let base = Offset(model.next);
            builder.begin(self.partition, base);
            let (mut time, end) = (-1, builder.size() + bytes / 2 + self.below(bytes));
            while builder.size() < end {
                match self.below(20) {
                    0 => {
                        let (offset, marker) = self.marker(&mut model);
                        builder.push_marker(offset, &marker);
                    }
                    1 => model.next += 1 + self.below(5).cast_signed(),
                    _ => time = time.max(self.batch(&mut model, &mut builder)),
                }
            }
            let section = builder.end(Offset(model.next), time).unwrap();
            model.extents.push((base, Extent::Data(section.data)));
        }
        let (offset, marker) = self.marker(&mut model);
        model.extents.push((offset, Extent::Marker(marker)));
        builder.bug = None;
        neighbour(&mut builder, 2);
        self.publish(builder, &model).await;
        model
    }

    async fn publish(&self, builder: SegmentBuilder, model: &Model) {
        let (pieces, size) = builder.finish();
        self.store.put(&object_key(self.object), pieces).await.unwrap();
        let (object, partition, next) = (self.object, self.partition, Offset(model.next));
        let extents = model.extents.clone();
        let log_start = Offset(if self.whole || self.below(2) == 0 {
            0
        } else {
            self.below(next.0 as u64).cast_signed()
        });
        let work = move |tx: &mut Tx<'_>| {
            let mut kept = 0;
            for (base, extent) in
                extents.iter().filter(|(base, extent)| extent.next_offset(*base) > log_start)
            {
                tx.put(&ExtentKey::new(partition, *base), extent);
                kept += u32::from(extent.object().is_some());
            }
            tx.put(&object, &Object::raw(size, kept));
            let max_timestamp = extents.iter().filter_map(|(_, extent)| extent.data());
            let max_timestamp = max_timestamp.map(|data| data.max_timestamp).max().unwrap_or(-1);
            tx.put(&partition, &Head { next, bytes: size, log_start, max_timestamp });
            Ok::<(), floe_meta::DecodeError>(())
        };
        self.log.meta().commit(Envelope::broker("merge"), work).await.unwrap();
    }

    /// Compares reads from random offsets, each by a log that has read nothing yet, or has.
    async fn compare(&self, model: &Model) -> Result<(), ReadError> {
        let log = self.cold().await;
        let pin = log.pin();
        let start = partition::head(&*pin, self.partition).unwrap().unwrap().log_start.0;
        for _ in 0..20 {
            let from = start + self.below((model.next - start) as u64).cast_signed();
            let most = self.below(40_000) as usize;
            let read = log.read(&pin, self.partition, Offset(from), most).await?;
            let mut next = None;
            for batch in &read.batches {
                assert!(next.map_or(batch.base_offset.0 <= from, |next| next == batch.base_offset.0));
                next = Some(batch.next_offset().0);
                let at =
                    model.batches.binary_search_by_key(&batch.base_offset, |(batch, _)| batch.base_offset);
                let is_made = !batch.has_records() && !batch.header().is_control();
                match at {
                    Ok(at) => assert_eq!(batch.stamped(), model.batches[at].0.stamped()),
                    Err(at) => {
                        let behind =
                            model.batches.get(at).map_or(model.next, |(batch, _)| batch.base_offset.0);
                        assert!(is_made && batch.next_offset().0 <= behind, "only gaps have no batch");
                    }
                }
            }
            assert!(next.is_some_and(|next| next > from));
        }
        for _ in 0..20 {
            let time = self.below(model.next as u64 * 2 + 100).cast_signed();
            let found = log.offset_at(&pin, self.partition, At::Timestamp(Timestamp(time))).await?;
            assert_eq!(found, model.at(start, time), "from {time} on, log start {start}");
        }
        let found = log.offset_at(&pin, self.partition, At::MaxTimestamp).await?;
        assert_eq!(found, model.max(start));
        Ok(())
    }
}

async fn open(env: &Env, journal: &MemoryJournal, store: &Noted) -> Log {
    let meta = Meta::open(env.clone(), Arc::new(journal.clone()), Options::default()).await.unwrap();
    let config = Config { cleaner: false, ..Config::default() };
    Log::open(env.clone(), meta, Arc::new(store.clone()), config).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn seeks_find_what_a_scan_finds() {
    for seed in 0..12 {
        let world = World::new(seed).await;
        let model = world.fill(3 << 20, None).await;
        world.compare(&model).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// A section of 10 MiB, and a read in the middle of it.
#[tokio::test(start_paused = true)]
async fn a_cold_seek_reads_one_small_range_and_a_block() {
    let world = World { whole: true, ..World::new(5).await };
    let model = world.fill(20 << 20, None).await;
    let sections: Vec<Data> = model.extents.iter().filter_map(|(_, extent)| extent.data().copied()).collect();
    let section = sections.iter().max_by_key(|data| data.bytes).unwrap();
    let base = model.extents.iter().find(|(_, extent)| extent.data() == Some(section)).unwrap().0;
    let log = world.cold().await;
    let (pin, middle) = (log.pin(), Offset(base.0 + section.offsets.cast_signed() * 3 / 4));
    log.read(&pin, world.partition, middle, 1_000).await.unwrap();
    let reads = world.store.take();
    let [index, blocks] = &reads[..] else { panic!("{reads:?}") };
    assert_eq!((index.start, index.end - index.start), (section.end(), INDEX_BYTES_MAX as u64));
    assert!(blocks.end - blocks.start <= 3 * BLOCK_BYTES, "{reads:?}");
    assert!(blocks.start > section.position + section.bytes / 2, "{reads:?}");
    // The index is kept: a second seek reads no more than blocks.
    log.read(&pin, world.partition, Offset(base.0 + 9), 1_000).await.unwrap();
    let reads = world.store.take();
    assert_eq!(reads.len(), 1, "{reads:?}");
    assert!(reads[0].start <= section.position);
    // A lookup by time of a cold log: the index, and the blocks of one interval.
    let log = world.cold().await;
    let time = Timestamp(middle.0 * 2);
    let found = log.offset_at(&log.pin(), world.partition, At::Timestamp(time)).await.unwrap();
    assert_eq!(found, model.at(0, time.0));
    let reads = world.store.take();
    let bytes: u64 = reads.iter().map(|range| range.end - range.start).sum();
    assert!(bytes <= 5 * BLOCK_BYTES, "{reads:?}");
}

/// One GET of 8 MiB after the other, and nothing twice.
#[tokio::test(start_paused = true)]
async fn a_cold_reader_that_goes_on_fetches_ahead() {
    let world = World::new(9).await;
    let model = world.fill(20 << 20, None).await;
    let log = world.cold().await;
    let pin = log.pin();
    let start = partition::head(&*pin, world.partition).unwrap().unwrap().log_start;
    let (mut from, mut bytes) = (start, 0);
    while from.0 < model.next {
        let read = log.read(&pin, world.partition, from, 1 << 20).await.unwrap();
        bytes += read.batches.iter().map(|batch| batch.bytes.len() as u64).sum::<u64>();
        from = read.batches.last().unwrap().next_offset();
    }
    let mut reads = world.store.take();
    reads.retain(|read| read.end - read.start > INDEX_BYTES_MAX as u64);
    let fetched: u64 = reads.iter().map(|read| read.end - read.start).sum();
    assert!(fetched <= bytes + 8 * BLOCK_BYTES, "{fetched} for {bytes}: {reads:?}");
    assert!(reads.len() as u64 <= 2 * model.extents.len() as u64 + bytes / (8 * BLOCK_BYTES), "{reads:?}");
    assert!(reads.iter().any(|read| read.end - read.start == 8 * BLOCK_BYTES), "{reads:?}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_index_costs_time_and_nothing_else() {
    for seed in 0..4 {
        let world = World::new(seed).await;
        let model = world.fill(3 << 20, None).await;
        let key = object_key(world.object);
        let mut bytes = world.store.get(&key, None).await.unwrap().to_vec();
        for data in model.extents.iter().filter_map(|(_, extent)| extent.data()) {
            bytes[data.end() as usize + world.below(12) as usize] ^= 1 << world.below(8);
        }
        world.store.put(&key, vec![bytes.into()]).await.unwrap();
        world.compare(&model).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// An index that leads one batch too far would let readers pass over records. Every seek by it fails instead.
#[tokio::test(start_paused = true)]
async fn an_index_that_is_wrong_is_found() {
    let mut found = 0;
    for seed in 0..8 {
        let world = World::new(seed).await;
        let model = world.fill(3 << 20, Some(PlantedBug::IndexOneBatchLate)).await;
        match world.compare(&model).await {
            Ok(()) => {}
            Err(ReadError::Corrupt(what)) if what.contains("the seek index leads to a batch") => found += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(found >= 6, "{found} of 8");
}

/// A flipped bit of a stamped offset is never taken for another offset.
#[tokio::test(start_paused = true)]
async fn a_flipped_bit_in_front_of_a_batch_is_damage() {
    let world = World::new(3).await;
    let model = world.fill(100_000, None).await;
    let key = object_key(world.object);
    let sound = world.store.get(&key, None).await.unwrap();
    let data = model.extents.iter().find_map(|(base, extent)| extent.data().map(|data| (*base, *data)));
    let (base, data) = data.unwrap();
    for bit in 0..21 * 8 {
        let mut bytes = sound.to_vec();
        bytes[data.position as usize + bit / 8] ^= 1 << (bit % 8);
        world.store.put(&key, vec![bytes.into()]).await.unwrap();
        let log = world.cold().await;
        let pin = log.pin();
        let from = partition::head(&*pin, world.partition).unwrap().unwrap().log_start.max(base);
        let read = log.read(&pin, world.partition, from, 1_000).await;
        assert!(matches!(&read, Err(ReadError::Corrupt(what)) if what.contains("object")), "{bit}: {read:?}");
    }
}

/// Compares who wrote a range with the model. A bound on the runs cuts the answer, and it goes on from there.
async fn compare_writers(world: &World, model: &Model, range: Range<i64>, most: usize) -> Result<(), String> {
    let (pin, mut runs, mut next) = (world.log.pin(), Vec::new(), Offset(range.start));
    while next.0 < range.end {
        let wanted = next..Offset(range.end);
        let found = world.log.attribution(&pin, world.partition, wanted, most).await;
        let found = found.map_err(|error| error.to_string())?;
        assert!(found.runs.len() <= most && found.next > next);
        runs.extend(found.runs);
        next = found.next;
    }
    let is_ordered = runs.iter().zip(runs.iter().skip(1)).all(|(run, next)| run.end <= next.first);
    assert!(is_ordered && runs.iter().all(|run| run.first < run.end));
    assert!(runs.first().is_none_or(|run| run.first.0 >= range.start));
    assert!(runs.last().is_none_or(|run| run.end.0 <= range.end));
    for ((batch, _), (writer, lsn)) in model.batches.iter().zip(&model.origins) {
        for offset in batch.base_offset.0.max(range.start)..batch.next_offset().0.min(range.end) {
            let run = runs.iter().find(|run| (run.first.0..run.end.0).contains(&offset));
            let run = run.ok_or_else(|| format!("nobody wrote {offset}"))?;
            if (&run.writer, run.lsn) != (writer, *lsn) {
                return Err(format!("{offset} is of {writer:?} in commit {lsn}, not of {run:?}"));
            }
        }
    }
    Ok(())
}

async fn writers(seed: u64, bug: Option<PlantedBug>) -> Result<(), String> {
    let world = World { whole: bug.is_some(), ..World::new(seed).await };
    let model = world.fill(200_000, bug).await;
    let start = partition::head(&*world.log.pin(), world.partition).unwrap().unwrap().log_start.0;
    compare_writers(&world, &model, start..model.next, usize::MAX).await?;
    for _ in 0..10 {
        let from = start + world.below((model.next - start) as u64).cast_signed();
        let to = (from + 1 + world.below(20).cast_signed()).min(model.next);
        compare_writers(&world, &model, from..to, 1 + world.below(4) as usize).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn footers_tell_who_wrote_what() {
    for seed in 0..20 {
        writers(seed, None).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_footer_that_lacks_a_writer_is_found() {
    for seed in 0..5 {
        let found = writers(seed, Some(PlantedBug::RunsLoseWriter)).await.unwrap_err();
        assert!(found.contains("nobody wrote"), "{found}");
    }
}

/// Extents that name their writer, a marker, and a footer that is damaged or missing.
#[tokio::test(start_paused = true)]
async fn extents_tell_who_wrote_what_and_damage_is_said() {
    let world = World::new(1).await;
    let first = PartitionId::new(world.partition.topic, 0);
    for client in ["a", "b"] {
        let append = crate::handle::Append {
            writer: Writer::new("User:x", client),
            batches: vec![(first, plain(2, 0)), (first, plain(1, 0))],
        };
        assert!(world.log.append(append).await.iter().all(Result::is_ok));
        let mark = move |tx: &mut Tx<'_>| crate::write::marker::mark(tx, &[first], (9, 1), Outcome::Commit);
        world.log.meta().commit(Envelope::broker("test"), mark).await.unwrap();
    }
    let pin = world.log.pin();
    let found = world.log.attribution(&pin, first, Offset(1)..Offset(100), 10).await.unwrap();
    let runs = found.runs.iter().map(|run| {
        let client = run.writer.as_ref().map(|writer| writer.client_id.to_string());
        (run.first.0, run.end.0, client.unwrap_or_default())
    });
    let expected = [(1, 3, "a"), (3, 4, ""), (4, 7, "b"), (7, 8, "")];
    assert_eq!(
        runs.collect::<Vec<_>>(),
        expected.map(|(first, end, client)| (first, end, client.to_owned()))
    );
    assert_eq!(found.next, Offset(8));
    assert!(found.runs.iter().zip(found.runs.iter().skip(1)).all(|(run, next)| run.lsn < next.lsn));

    let model = world.fill(50_000, None).await;
    let key = object_key(world.object);
    let mut bytes = world.store.get(&key, None).await.unwrap().to_vec();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    world.store.put(&key, vec![bytes.into()]).await.unwrap();
    let start = partition::head(&*world.log.pin(), world.partition).unwrap().unwrap().log_start;
    let last = model.extents.iter().rfind(|(_, extent)| extent.data().is_some()).unwrap().0.max(start).0;
    let error = compare_writers(&world, &model, last..last + 1, 10).await.unwrap_err();
    assert!(error.contains("the footer of the segment is damaged") && error.contains("extent of"), "{error}");
}

/// A partition of a hundred in an object is read without the others, and of many readers each block once.
#[tokio::test(start_paused = true)]
async fn few_readers_fetch_what_they_want_and_many_share_blocks() {
    let world = World { whole: true, ..World::new(1).await };
    let new = NewTopic { name: "wide".into(), partitions: 100, configs: BTreeMap::new() };
    let topic = world.log.create_topic(&Writer::new("User:a", "c"), new, false).await.unwrap();
    let mut builder = SegmentBuilder::new(world.object);
    let mut sections = Vec::new();
    for partition in topic.partition_ids() {
        builder.begin(partition, Offset(0));
        let mut model = Model::default();
        for _ in 0..4 {
            world.batch(&mut model, &mut builder);
        }
        sections.push((partition, builder.end(Offset(model.next), 1_000).unwrap().data));
    }
    let (pieces, size) = builder.finish();
    world.store.put(&object_key(world.object), pieces).await.unwrap();
    let (object, all) = (world.object, sections.clone());
    let work = move |tx: &mut Tx<'_>| {
        for (partition, data) in &all {
            tx.put(&ExtentKey::new(*partition, Offset(0)), &Extent::Data(*data));
            let next = Offset(data.offsets.cast_signed());
            tx.put(partition, &Head { next, bytes: data.bytes, log_start: Offset(0), max_timestamp: 1_000 });
        }
        tx.put(&object, &Object { size, extents: 100, level: Level::Sorted });
        Ok::<(), floe_meta::DecodeError>(())
    };
    world.log.meta().commit(Envelope::broker("merge"), work).await.unwrap();
    let read = async |log: &Log, wanted: &[(PartitionId, Data)]| {
        let pin = log.pin();
        for (partition, _) in wanted {
            let read = log.read(&pin, *partition, Offset(0), 1 << 20).await.unwrap();
            assert!(!read.batches.is_empty());
        }
        let reads = world.store.take();
        (reads.len(), reads.iter().map(|range| range.end - range.start).sum::<u64>())
    };
    let log = world.cold().await;
    let bytes = |wanted: &[(PartitionId, Data)]| wanted.iter().map(|(_, data)| data.bytes).sum::<u64>();
    assert_eq!(read(&log, &sections[..2]).await, (2, bytes(&sections[..2])), "not a byte more");
    // A second reader of the same partitions fetches their blocks, and a third finds them.
    let (gets, fetched) = read(&log, &sections[..2]).await;
    assert!(gets <= 2 && fetched >= BLOCK_BYTES);
    assert_eq!(read(&log, &sections[..2]).await, (0, 0));
    let log = world.cold().await;
    let (gets, fetched) = read(&log, &sections).await;
    let blocks = size.div_ceil(BLOCK_BYTES) as usize;
    assert!(
        gets <= 4 + blocks && fetched <= size + bytes(&sections[..4]),
        "{gets} GETs, {fetched} of {size}"
    );
}
