//! What clients can make the broker hold, measured.
//!
//! The allocator counts for the whole process, so the tests of this binary take turns.

use bytes::Bytes;
use floe_env::Timestamp;
use floe_log::codec::Compression;
use floe_log::extent::Extent;
use floe_log::limits::BATCHES_PER_REQUEST_MAX;
use floe_log::records::Builder;
use floe_log::walk::At;
use floe_log::{Append, Offset, PartitionId, Writer, sequencer::AppendError};
use peak_alloc::PeakAlloc;
use tokio::sync::{Mutex, MutexGuard};

#[expect(dead_code, reason = "these tests need a part of it")]
#[path = "log/world.rs"]
mod world;

use world::{World, append, batch, config, writer};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

static TURN: Mutex<()> = Mutex::const_new(());

/// A measurement from now on, the only one at this time.
struct Measured(usize, MutexGuard<'static, ()>);

impl Measured {
    async fn begin() -> Measured {
        let turn = TURN.lock().await;
        Measured(0, turn).again()
    }

    fn again(self) -> Measured {
        ALLOCATOR.reset_peak_usage();
        Measured(ALLOCATOR.current_usage(), self.1)
    }

    /// Bytes that were held at most, beside those held at the beginning.
    fn peak(&self) -> usize {
        ALLOCATOR.peak_usage().saturating_sub(self.0)
    }
}

/// A batch of one record of a producer.
fn of_producer(id: i64, base_sequence: i32) -> Bytes {
    let mut builder = Builder::new(Compression::None).producer(id, 0, base_sequence);
    builder.push(0, None, Some(b"v"), &[]).build()
}

/// Each batch would leave an extent or a producer, so a commit of them all would be too large, for every client whose
/// batches lie in the same object.
#[tokio::test(start_paused = true)]
async fn a_request_of_very_many_batches_fails_alone_and_in_bounded_memory() {
    const BATCHES: usize = 60_000;
    let measured = Measured::begin().await;
    let world = World::with(1, floe_log::Config { object_bytes: 64 << 20, ..config() }).await;
    let partition = PartitionId::new(world.topic("t", 1).await.id, 0);
    let batches = (0..BATCHES).map(|id| (partition, of_producer(id as i64, 0))).collect();
    let measured = measured.again();
    let many = world.log.append(Append { writer: writer(), batches });
    let beside = append(&world.log, partition, &["beside"]).await;
    assert!(beside.is_ok(), "{beside:?}");
    let answers = many.await;
    let (taken, refused) = answers.split_at(BATCHES_PER_REQUEST_MAX);
    assert!(taken.iter().all(Result::is_ok));
    assert!(refused.iter().all(|answer| *answer == Err(AppendError::TooManyBatches)));
    assert!(measured.peak() < 64 << 20, "{} bytes", measured.peak());

    // Sent again, they find room. What stands behind a refused one waits until it has come.
    let last = BATCHES as i64 - 1;
    let again = |sequence| append_one(&world, partition, last, sequence);
    assert!(matches!(again(1).await, Err(AppendError::Unavailable(_))));
    assert!(again(0).await.is_ok() && again(1).await.is_ok());
}

async fn append_one(
    world: &World,
    partition: PartitionId,
    id: i64,
    sequence: i32,
) -> Result<floe_log::sequencer::Appended, AppendError> {
    let batches = vec![(partition, of_producer(id, sequence))];
    world.log.append(Append { writer: writer(), batches }).await.remove(0)
}

/// Each client id is in the map as long as an extent names it, and no longer. More of them come than may be kept apart
/// at a time. What is measured is the map, because the journal of a test keeps its history in memory.
#[tokio::test(start_paused = true)]
async fn client_ids_go_with_their_records() {
    const ROUNDS: usize = 18;
    const CLIENTS: usize = 4_000;
    const { assert!((ROUNDS * CLIENTS) as u64 > floe_log::WRITERS_MAX) };
    let _turn = TURN.lock().await;
    let world = World::with(1, floe_log::Config { object_bytes: 8 << 20, ..config() }).await;
    let bytes_of_map = || -> usize {
        let snapshot = world.log.meta().snapshot();
        snapshot.pairs().map(|(key, value)| key.len() + value.len()).sum()
    };
    let mut after_first = 0;
    for round in 0..ROUNDS {
        let topic = world.topic("t", 1).await;
        let partition = PartitionId::new(topic.id, 0);
        let named = |client: usize| Writer::new("User:a", &format!("client {client} of round {round}"));
        let send = |client| {
            world.log.append(Append { writer: named(client), batches: vec![(partition, batch(&["v"]))] })
        };
        for ticket in (0..CLIENTS).map(send).collect::<Vec<_>>() {
            assert!(ticket.await[0].is_ok());
        }
        let snapshot = world.log.meta().snapshot();
        let extents = snapshot.range::<Extent>(..).map(|pair| pair.expect("readable").1);
        let writers = extents.filter_map(|extent| extent.writer());
        let named_in_map = writers.map(|writer| Writer::by_id(&snapshot, writer).expect("readable"));
        assert!(
            named_in_map.flatten().any(|writer| writer == named(CLIENTS - 1)),
            "it has a name of its own"
        );
        world.log.delete_topic(&writer(), topic.id).await.expect("deleted");
        tokio::time::sleep(std::time::Duration::from_secs(200)).await;
        if round == 0 {
            after_first = bytes_of_map();
        }
    }
    let left = bytes_of_map();
    assert!(left < after_first + 1_000, "{left} bytes after {ROUNDS} rounds, {after_first} after the first");
}

/// A batch of a million records takes some kilobytes, and a hundred megabytes once it is decoded.
#[tokio::test(start_paused = true)]
async fn a_lookup_by_time_holds_no_records() {
    const RECORDS: i64 = 1_000_000;
    let measured = Measured::begin().await;
    let world = World::with(1, config()).await;
    let partition = PartitionId::new(world.topic("t", 1).await.id, 0);
    let mut builder = Builder::new(Compression::Zstd);
    for number in 0..RECORDS {
        builder.push(1_000 + number / (RECORDS - 1), None, None, &[]);
    }
    let batches = vec![(partition, builder.build())];
    drop(builder);
    world.log.append(Append { writer: writer(), batches }).await.remove(0).expect("appended");
    let log = world.reopened().await;
    let measured = measured.again();
    let snapshot = log.meta().snapshot();
    for at in [At::Timestamp(Timestamp(1_001)), At::MaxTimestamp] {
        let found = log.offset_at(&snapshot, partition, at).await;
        assert_eq!(found, Ok(Some((Offset(RECORDS - 1), Timestamp(1_001)))), "{at:?}");
    }
    assert_eq!(log.offset_at(&snapshot, partition, At::Timestamp(Timestamp(1_002))).await, Ok(None));
    assert!(measured.peak() < 16 << 20, "{} bytes", measured.peak());
}
