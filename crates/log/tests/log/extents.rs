//! Reads of extents of every shape: counted and stamped batches, markers, gaps. A merge that does not exist yet is
//! imitated: the test writes the objects and the extents.

use std::collections::BTreeMap;

use bytes::Bytes;
use floe_env::{Env, Timestamp};
use floe_log::codec::Compression;
use floe_log::extent::{Data, Extent, ExtentKey, Gap, Marker, Outcome, Place, Spacing, WrittenBy};
use floe_log::object::{Object, ObjectKind, object_key};
use floe_log::partition::Head;
use floe_log::records::Builder;
use floe_log::stamp::stamp;
use floe_log::walk::{At, ReadError};
use floe_log::{Log, ObjectId, Offset, PartitionId, WriterId, WriterNumber, marker, session};
use floe_meta::{DecodeError, Envelope, Lsn, Tx};
use floe_store::Store as _;

use crate::world::{World, append, config, open, values, writer};

/// Seeds of the comparison with the model.
const SEEDS: u64 = 300;
/// More offsets than one batch covers.
const WIDE: u64 = (1 << 31) + 5;

/// What a partition has, offset by offset.
#[derive(Clone, Debug, Default)]
struct Model {
    records: BTreeMap<i64, String>,
    markers: BTreeMap<i64, Outcome>,
    next: i64,
}

/// A partition that is being laid out in one object.
struct Layout {
    env: Env,
    partition: PartitionId,
    model: Model,
    extents: Vec<(Offset, Extent)>,
    bytes: Vec<u8>,
    object: ObjectId,
}

impl Layout {
    fn new(env: &Env, partition: PartitionId, kind: ObjectKind) -> Layout {
        let object = ObjectId::new(kind, WriterNumber(1), 1_000);
        let bytes = vec![7; 100];
        Layout { env: env.clone(), partition, model: Model::default(), extents: Vec::new(), bytes, object }
    }

    fn below(&self, most: u64) -> u64 {
        self.env.random_u64() % most
    }

    /// A batch of a few records that begins at the next offset. Returns how many.
    fn batch(&mut self, stamped: bool) -> u64 {
        let count = 1 + self.below(3);
        let mut builder = Builder::new(Compression::None);
        for _ in 0..count {
            let value = format!("v{}", self.model.next);
            builder.push(self.model.next, None, Some(value.as_bytes()), &[]);
            self.model.records.insert(self.model.next, value);
            self.model.next += 1;
        }
        let mut bytes = builder.build().to_vec();
        if stamped {
            let base = Offset(self.model.next - count.cast_signed());
            let stamped = stamp(self.partition, base, &bytes);
            bytes[..stamped.len()].copy_from_slice(&stamped);
        }
        self.bytes.extend_from_slice(&bytes);
        count
    }

    fn data(&mut self, stamped: bool) {
        let (base, position) = (self.model.next, self.bytes.len() as u64);
        let gap = |layout: &mut Layout| {
            if stamped && layout.below(2) == 0 {
                let wide = layout.below(20) == 0;
                layout.model.next += (if wide { WIDE } else { 1 + layout.below(4) }).cast_signed();
            }
        };
        for _ in 0..=self.below(3) {
            gap(self);
            self.batch(stamped);
        }
        gap(self);
        let data = Data {
            place: Place::Object(self.object),
            position,
            bytes: self.bytes.len() as u64 - position,
            offsets: (self.model.next - base).cast_unsigned(),
            spacing: if stamped { Spacing::Stamped } else { Spacing::Counted },
            max_timestamp: *self.model.records.keys().next_back().expect("it has records"),
            written_by: if stamped { WrittenBy::Footer } else { WrittenBy::One(WriterId(1)) },
            lsn: Lsn(1),
        };
        self.extents.push((Offset(base), Extent::Data(data)));
    }

    fn marker(&mut self) {
        let outcome = if self.below(2) == 0 { Outcome::Commit } else { Outcome::Abort };
        let time = Timestamp(1 << 40);
        let marker = Marker { producer_id: 9, producer_epoch: 1, outcome, time, lsn: Lsn(1) };
        self.extents.push((Offset(self.model.next), Extent::Marker(marker)));
        self.model.markers.insert(self.model.next, outcome);
        self.model.next += 1;
    }

    fn gap(&mut self) {
        let offsets = if self.below(10) == 0 { 2 * WIDE } else { 1 + self.below(5) };
        self.extents.push((Offset(self.model.next), Extent::Gap(Gap { offsets, lsn: Lsn(1) })));
        self.model.next += offsets.cast_signed();
    }

    fn draw(env: &Env, partition: PartitionId) -> Layout {
        let kind = if env.random_u64().is_multiple_of(2) { ObjectKind::Wal } else { ObjectKind::Segment };
        let mut layout = Layout::new(env, partition, kind);
        for _ in 0..1 + layout.below(8) {
            match layout.below(5) {
                0 => layout.data(false),
                1 | 2 => layout.data(true),
                3 => layout.marker(),
                _ => layout.gap(),
            }
        }
        // A partition never ends with a gap.
        layout.marker();
        layout
    }

    /// Puts the object and commits the extents, as a merge would.
    async fn publish(&self, world: &World, partition: PartitionId) {
        world.memory.put(&object_key(self.object), vec![Bytes::from(self.bytes.clone())]).await.expect("put");
        let (object, size, next) = (self.object, self.bytes.len() as u64, Offset(self.model.next));
        let extents = self.extents.clone();
        let work = move |tx: &mut Tx<'_>| -> Result<(), DecodeError> {
            for (base, extent) in &extents {
                tx.put(&ExtentKey::new(partition, *base), extent);
            }
            let named = extents.iter().filter(|(_, extent)| extent.object().is_some()).count();
            tx.put(&object, &Object::raw(size, u32::try_from(named).expect("a few")));
            let bytes = extents.iter().map(|(_, extent)| extent.bytes()).sum();
            let head = tx.get::<Head>(&partition)?.expect("it exists");
            tx.put(&partition, &Head { next, bytes, ..head });
            Ok(())
        };
        world.log.meta().commit(Envelope::broker("merge"), work).await.expect("committed");
    }
}

/// Compares one read with the model. Returns the offset after its last batch.
async fn compare(
    log: &Log,
    partition: PartitionId,
    from: i64,
    max_bytes: usize,
    model: &Model,
) -> Result<i64, String> {
    let snapshot = log.pin();
    let read = log.read(&snapshot, partition, Offset(from), max_bytes).await;
    let read = read.map_err(|error| error.to_string())?;
    let mut next = None;
    for batch in &read.batches {
        let begin = batch.base_offset.0;
        if next.is_some_and(|next| next != begin) || next.is_none() && begin > from {
            return Err(format!("a batch at {begin} follows {next:?}"));
        }
        next = Some(batch.next_offset().0);
        let range = begin..batch.next_offset().0;
        let wanted: Vec<_> = model.records.range(range.clone()).map(|(at, v)| (*at, v.clone())).collect();
        let records = batch.records(1 << 20).map_err(|error| error.to_string())?;
        let found = records.iter().filter(|_| batch.has_records());
        let value = |value: &Bytes| String::from_utf8(value.to_vec()).expect("text");
        let found: Vec<_> =
            found.map(|record| (record.offset.0, value(record.value.as_ref().expect("a value")))).collect();
        if found != wanted {
            return Err(format!("{range:?} has {found:?} instead of {wanted:?}"));
        }
        let is_marker = model.markers.contains_key(&begin);
        if batch.header().is_control() != is_marker {
            return Err(format!("{begin} is a marker: {is_marker}"));
        }
    }
    next.filter(|next| *next > from).ok_or_else(|| format!("nothing at {from}"))
}

/// Reads from everywhere, with small and large budgets, and all of it from the start.
async fn compare_all(world: &World, partition: PartitionId, model: &Model) -> Result<(), String> {
    let below = |most: i64| (world.env.random_u64() % most.cast_unsigned().max(1)).cast_signed();
    // Offsets beside everything that there is: wide gaps would swallow most random ones.
    let interesting: Vec<i64> = model.records.keys().chain(model.markers.keys()).copied().collect();
    for _ in 0..30 {
        let near = interesting[usize::try_from(below(interesting.len() as i64)).expect("an index")];
        let from = (near + below(5) - 2).clamp(0, model.next - 1);
        let max_bytes = usize::try_from(below(600)).expect("small");
        compare(&world.log, partition, from, max_bytes, model).await?;
    }
    let (mut from, max_bytes) = (0, usize::try_from(below(400)).expect("small"));
    while from < model.next {
        from = compare(&world.log, partition, from, max_bytes, model).await?;
    }
    Ok(())
}

async fn run(seed: u64, spoil: impl Fn(&mut Layout)) -> Result<(), String> {
    let world = World::new(seed).await;
    let partition = PartitionId::new(world.topic("t", 1).await.id, 0);
    let mut layout = Layout::draw(&world.env, partition);
    let model = layout.model.clone();
    spoil(&mut layout);
    layout.publish(&world, partition).await;
    compare_all(&world, partition, &model).await
}

#[tokio::test(start_paused = true)]
async fn every_shape_is_read_as_the_model_has_it() {
    for seed in 0..SEEDS {
        run(seed, |_| {}).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// The comparison must see what a reader could do wrong, or the test above proves nothing.
#[tokio::test(start_paused = true)]
async fn the_comparison_sees_planted_bugs() {
    let spoil_data = |layout: &mut Layout, spoil: fn(&mut Data)| {
        for (_, extent) in &mut layout.extents {
            if let Extent::Data(data) = extent {
                spoil(data);
            }
        }
    };
    let stamped_counted = |layout: &mut Layout| spoil_data(layout, |data| data.spacing = Spacing::Counted);
    let counted_stamped = |layout: &mut Layout| spoil_data(layout, |data| data.spacing = Spacing::Stamped);
    let one_byte_late = |layout: &mut Layout| spoil_data(layout, |data| data.position += 1);
    let marker_as_record = |layout: &mut Layout| {
        let at = *layout.model.markers.keys().next().expect("there is one");
        let mut builder = Builder::new(Compression::None);
        builder.push(0, None, Some(b"marker"), &[]);
        let (position, batch) = (layout.bytes.len() as u64, builder.build());
        layout.bytes.extend_from_slice(&batch);
        let data = Data {
            place: Place::Object(layout.object),
            position,
            bytes: batch.len() as u64,
            offsets: 1,
            spacing: Spacing::Counted,
            max_timestamp: 0,
            written_by: WrittenBy::Footer,
            lsn: Lsn(1),
        };
        let found = layout.extents.iter_mut().find(|(base, _)| base.0 == at).expect("it has an extent");
        found.1 = Extent::Data(data);
    };
    type Spoil<'s> = &'s dyn Fn(&mut Layout);
    let bugs: [(&str, Spoil<'_>); 4] = [
        ("stamped offsets are counted", &stamped_counted),
        ("counted offsets are taken from the batches", &counted_stamped),
        ("an extent begins a byte late", &one_byte_late),
        ("a marker is a record", &marker_as_record),
    ];
    for (what, spoil) in bugs {
        let mut found = 0;
        for seed in 0..20 {
            found += usize::from(run(seed, spoil).await.is_err());
        }
        assert!(found > 5, "{what}: found in {found} of 20 seeds");
    }
}

/// A stamped offset has no checksum of the client's. One that cannot be right is damage.
#[tokio::test(start_paused = true)]
async fn a_stamped_offset_out_of_order_is_damage() {
    for found in [i64::MIN, -1, 0, 3, 7, i64::MAX] {
        let world = World::new(1).await;
        let partition = PartitionId::new(world.topic("t", 1).await.id, 0);
        let mut layout = Layout::new(&world.env, partition, ObjectKind::Segment);
        // One extent of the offsets 4 to 7, whose second batch is stamped.
        layout.model.next = 4;
        let position = layout.bytes.len() as u64;
        for _ in 0..2 {
            let mut builder = Builder::new(Compression::None);
            builder.push(0, None, Some(b"v"), &[]);
            let mut bytes = builder.build().to_vec();
            // The second one has another offset than it should, and a sum that goes with it.
            let base = if layout.model.next == 4 { 4 } else { found };
            let stamped = stamp(partition, Offset(base), &bytes);
            bytes[..stamped.len()].copy_from_slice(&stamped);
            layout.bytes.extend_from_slice(&bytes);
            layout.model.next += 1;
        }
        let data = Data {
            place: Place::Object(layout.object),
            position,
            bytes: layout.bytes.len() as u64 - position,
            offsets: 3,
            spacing: Spacing::Stamped,
            max_timestamp: 0,
            written_by: WrittenBy::Footer,
            lsn: Lsn(1),
        };
        layout.model.next = 7;
        layout.extents =
            vec![(Offset(0), Extent::Gap(Gap { offsets: 4, lsn: Lsn(1) })), (Offset(4), Extent::Data(data))];
        layout.publish(&world, partition).await;
        let read = world.log.read(&world.log.pin(), partition, Offset(4), 1_000).await;
        assert!(
            matches!(&read, Err(ReadError::Corrupt(what)) if what.contains("begins at")),
            "{found}: {read:?}"
        );
    }
}

/// Markers through the doors of the log: offsets, lookups by time, deletion, retention.
#[tokio::test(start_paused = true)]
async fn a_marker_takes_an_offset_and_is_no_record() {
    let world = World::new(3).await;
    let log = &world.log;
    let topic = world.topic("t", 2).await;
    let (both, partition) =
        ([0, 1].map(|index| PartitionId::new(topic.id, index)), PartitionId::new(topic.id, 0));
    append(log, partition, &["a", "b"]).await.expect("appended");
    let work = move |tx: &mut Tx<'_>| marker::mark(tx, &both, (9, 3), Outcome::Abort);
    let marked = log.meta().commit(Envelope::broker("test"), work).await.expect("committed");
    assert_eq!(marked.reply, [Offset(2), Offset(0)]);
    append(log, partition, &["c"]).await.expect("appended");

    let read = log.read(&log.pin(), partition, Offset(1), 1_000).await.expect("read");
    let seen: Vec<_> = read.batches.iter().map(|b| (b.base_offset.0, b.has_records())).collect();
    assert_eq!(seen, [(0, true), (2, false), (3, true)]);
    let marker = &read.batches[1];
    assert_eq!((marker.header().producer_id, marker.header().producer_epoch), (9, 3));

    // Its time is that of the commit, later than all records: no lookup answers with it.
    let snapshot = log.pin();
    let at = |at| log.offset_at(&snapshot, partition, at);
    assert_eq!(at(At::MaxTimestamp).await, Ok(Some((Offset(1), Timestamp(1001)))));
    assert_eq!(at(At::Timestamp(Timestamp(1002))).await, Ok(None));
    assert_eq!(at(At::Latest).await, Ok(Some((Offset(4), Timestamp(-1)))));
    let empty = log.offset_at(&snapshot, both[1], At::Timestamp(Timestamp(0))).await;
    assert_eq!(empty, Ok(None), "a partition of one marker has no record");

    let below = |offset| floe_log::Below { partition, offset: Some(Offset(offset)) };
    assert_eq!(log.delete_records(&writer(), &[below(3)]).await, [Ok(Offset(3))]);
    assert!(matches!(log.read(&log.pin(), partition, Offset(2), 9).await, Err(ReadError::OutOfRange { .. })));
    let read = log.read(&log.pin(), partition, Offset(3), 9).await.expect("read");
    assert_eq!(read.batches.len(), 1);
    log.delete_topic(&writer(), topic.id).await.expect("deleted");
    assert_eq!(log.meta().snapshot().range::<Extent>(..).count(), 0, "markers go with their topic");
}

/// A map of level 1 is read and written on, first as it is, and in the new formats once the level has risen.
#[tokio::test(start_paused = true)]
async fn old_formats_are_read_and_written_on() {
    let old = floe_log::Config { format_level: floe_log::format_level::FIRST, ..config() };
    let world = World::with(4, old).await;
    let partition = PartitionId::new(world.topic("t", 1).await.id, 0);
    append(&world.log, partition, &["a"]).await.expect("appended");
    let work = move |tx: &mut Tx<'_>| marker::mark(tx, &[partition], (1, 0), Outcome::Commit);
    let refused =
        world.log.meta().commit(Envelope::broker("test"), work).await.expect_err("not at this level");
    assert!(refused.to_string().contains("upgrade all brokers"), "{refused}");
    let versions = |log: &Log| {
        let snapshot = log.meta().snapshot();
        let pairs = snapshot.pairs().filter(|(key, _)| key[0] == 13);
        pairs.map(|(_, value)| value[0]).collect::<Vec<u8>>()
    };
    assert_eq!(versions(&world.log), [1]);

    // Another broker joins that could write more: the level stays while the first one is there.
    let second = world.reopened().await;
    append(&second, partition, &["b"]).await.expect("appended");
    assert_eq!(versions(&second), [1, 1]);
    let World { env, journal, memory, log } = world;
    log.close().await;
    assert_eq!(session::all(&second.meta().snapshot()).expect("readable").len(), 1);
    // The level rises with the next start.
    let third = open(&env.scope(), &journal, std::sync::Arc::new(memory.clone()), config()).await;
    append(&third, partition, &["c"]).await.expect("appended");
    assert_eq!(versions(&third), [1, 1, 2]);
    let named = ["a", "b", "c"].map(str::to_owned);
    assert_eq!(values(&third, partition).await, (0..).zip(named).collect::<Vec<_>>());

    // And an old broker does not come back.
    let meta = third.meta().clone();
    let refused =
        Log::open(env.scope(), meta, std::sync::Arc::new(memory), old).await.err().expect("refused");
    assert!(refused.to_string().contains("format level 2"), "{refused}");
}
