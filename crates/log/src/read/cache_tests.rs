//! Tests of the cache with a store that is slow and counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use floe_env::Task;
use floe_meta::{Attachment, CounterKey, Envelope, MemoryJournal, Options, Tx};

use super::*;
use crate::format::codec::Compression;
use crate::format::header;
use crate::format::records::Builder;
use crate::map::identity::Writer;
use crate::map::ids::{ObjectId, PartitionId, TopicId};
use crate::map::object::object_key;
use floe_store::MemoryStore;
use floe_store::faulty::{Fault, FaultyStore, Operation};

/// A store that answers after a second and counts GETs.
struct Remote {
    objects: MemoryStore,
    gets: Arc<AtomicUsize>,
}

impl Remote {
    fn new() -> (Remote, FaultyStore) {
        let (objects, gets) = (MemoryStore::new(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&gets);
        let store = FaultyStore::new(objects.clone(), move |operation, _| {
            if operation == Operation::Get {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Fault::Slow(Duration::from_secs(1))
        });
        (Remote { objects, gets }, store)
    }

    fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }
}

const OBJECT: ObjectId = ObjectId(7);
const SOURCE: Source = Source::Object(OBJECT);

fn source(object: u64) -> Source {
    Source::Object(ObjectId(object))
}

fn pattern(bytes: u64) -> Bytes {
    (0..bytes).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into()
}

async fn world(object_bytes: u64, capacity: Capacity) -> (Env, Remote, Cache) {
    let env = Env::simulated(1);
    let (remote, store) = Remote::new();
    remote.objects.plant(&object_key(OBJECT), pattern(object_bytes));
    let journal = Arc::new(MemoryJournal::carrying());
    let meta = Meta::open(env.clone(), journal, Options::default()).await.expect("the journal works");
    let cache = Cache::new(env.clone(), Arc::new(store), meta, capacity);
    (env, remote, cache)
}

const LARGE: Capacity = Capacity { tail: 64 << 20, cold: 64 << 20, reads: 64 << 20 };

fn joined(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect()
}

/// Reads one range without a budget.
async fn read(cache: &Cache, source: Source, size: u64, range: Range<u64>) -> Result<Vec<Piece>, StoreError> {
    let reserved = Reserved { _share: None };
    cache.read(source, size, &[range], 0, &reserved).await.map(|mut read| read.remove(0))
}

#[tokio::test(start_paused = true)]
async fn any_ranges_of_either_lane_are_the_bytes_of_the_object() {
    let size = 3 * BLOCK_BYTES + 1000;
    let (_env, remote, cache) = world(size, LARGE).await;
    let whole = pattern(size);
    let edges = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, size - 1, size];
    for tail in [false, true] {
        if tail {
            let piece = |from: u64, to: u64| whole.slice(from as usize..to as usize);
            cache.copy(SOURCE, &[piece(0, 16), piece(16, 5000), Bytes::new(), piece(5000, size)]);
        }
        for (index, &start) in edges.iter().enumerate() {
            for &end in &edges[index..] {
                let ranges = [start..end, end..size];
                let reserved = cache.reserve(size).await;
                let read = cache.read(SOURCE, size, &ranges, 0, &reserved).await.expect("the store works");
                assert_eq!(joined(&read[0]), &whole[start as usize..end as usize]);
                assert_eq!(joined(&read[1]), &whole[end as usize..]);
            }
        }
    }
    assert_eq!(remote.gets(), 1, "each block is fetched once, neighbours together");
    let beyond = read(&cache, SOURCE, size, size..size + 1).await;
    assert!(matches!(beyond, Err(StoreError::Corrupt(_))));
}

#[tokio::test(start_paused = true)]
async fn many_readers_share_one_flight_and_survive_the_one_who_began_it() {
    let (env, remote, cache) = world(1000, LARGE).await;
    let reader = |cache: Cache| async move { read(&cache, SOURCE, 1000, 10..20).await };
    let first = env.spawn("first", reader(cache.clone()));
    let others: Vec<_> = (0..5).map(|_| env.spawn("other", reader(cache.clone()))).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(remote.gets(), 1, "it is under way");
    first.abort();
    for other in others {
        let read = other.await.expect("not aborted").expect("read");
        assert_eq!(joined(&read), &pattern(1000)[10..20]);
    }
    assert_eq!(remote.gets(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_flight_is_told_to_all_and_not_kept() {
    let (_env, remote, cache) = world(0, LARGE).await;
    remote.objects.delete(&object_key(OBJECT)).await.expect("delete");
    let missing = read(&cache, SOURCE, 10, 0..10).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
    remote.objects.plant(&object_key(OBJECT), pattern(10));
    assert!(read(&cache, SOURCE, 10, 0..10).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn old_reads_do_not_push_out_the_tail_and_lanes_stay_in_bounds() {
    let block = BLOCK_BYTES as usize + CACHE_BLOCK_OVERHEAD;
    let capacity = Capacity { tail: 10_000, cold: 2 * block, reads: 10 * block };
    let (_env, remote, cache) = world(5 * BLOCK_BYTES, capacity).await;
    cache.copy(source(1), &[pattern(4000)]);
    cache.copy(source(2), &[pattern(4000)]);
    for block in 0..5 {
        let range = block * BLOCK_BYTES..block * BLOCK_BYTES + 1;
        read(&cache, SOURCE, 5 * BLOCK_BYTES, range).await.expect("read");
    }
    assert_eq!(cache.shared.lock().cold.kept.keys(..).len(), 2);
    let before = remote.gets();
    // Object 1 was used last, so the third object evicts object 2.
    read(&cache, source(1), 4000, 0..4000).await.expect("in the tail");
    cache.copy(source(3), &[pattern(4000)]);
    read(&cache, source(1), 4000, 0..4000).await.expect("in the tail");
    assert_eq!(remote.gets(), before);
    assert!(read(&cache, source(2), 4000, 0..4000).await.is_err(), "gone, not in store");
    let held = 2 * (4000 + CACHE_OBJECT_OVERHEAD + CACHE_CHUNK_OVERHEAD);
    assert_eq!(cache.shared.lock().tail.kept.weight(), held);
    cache.copy(source(4), &[pattern(10_001)]);
    assert_eq!(cache.shared.lock().tail.kept.weight(), held, "larger than the lane: not kept");
}

/// Batches are slices of frames that may be much larger.
#[test]
fn a_copy_keeps_no_buffer_of_a_client_and_no_batch_in_two_chunks() {
    let buffers: Vec<Bytes> = (0..10).map(|_| pattern(8192)).collect();
    let small = |at: usize| buffers[at].slice(100..200);
    let large = pattern(CACHE_CHUNK_BYTES as u64 + 1);
    let mut payload: Vec<Bytes> = (0..5).map(small).collect();
    payload.push(large.clone());
    payload.extend((5..10).map(small));
    let whole = payload.concat();
    let written = Written::new(&payload, &[]);
    drop(payload);
    assert!(buffers.iter().chain([&large]).all(Bytes::is_unique), "no buffer is kept");
    assert_eq!(written.chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [500, large.len(), 500]);
    assert_eq!(written.held_bytes(), whole.len() + CACHE_OBJECT_OVERHEAD + 3 * CACHE_CHUNK_OVERHEAD);
    for range in [0..1000, 0..whole.len(), 450..550, 499..500 + large.len() + 1] {
        let cut = written.cut(&(range.start as u64..range.end as u64));
        assert_eq!(joined(&cut), &whole[range]);
        assert!(cut.iter().all(|piece| piece.buffer == 500 || piece.buffer == large.len()));
    }
    let thousand: Vec<Bytes> = (0..1000).map(|_| pattern(1000)).collect();
    let many = Written::new(&thousand, &[]);
    assert!(
        many.chunks.iter().all(|chunk| chunk.len().is_multiple_of(1000) && chunk.len() <= CACHE_CHUNK_BYTES)
    );
    assert_eq!(many.chunks.len(), 8);
}

#[test]
fn a_piece_that_is_alone_is_kept_as_it_is_and_counts_with_the_rest_of_its_buffer() {
    let alone = pattern(CACHE_CHUNK_BYTES as u64);
    let payload = [pattern(10), alone.clone(), pattern(20), pattern(30)];
    let written = Written::new(&payload, &[false, true, false, false]);
    assert_eq!(written.chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [10, alone.len(), 50]);
    assert_eq!(written.chunks[1].as_ptr(), alone.as_ptr(), "it is not copied");
    let cut = written.cut(&(0..written.end));
    assert_eq!(joined(&cut), payload.concat());
    let counted = written.held_bytes() - CACHE_OBJECT_OVERHEAD - 3 * CACHE_CHUNK_OVERHEAD;
    assert!(counted >= 60 + alone.len() * 8 / 7, "{counted}");
}

#[test]
fn a_batch_is_alone_if_it_is_large_and_others_of_its_buffer_are_few() {
    let marks = |sizes: &[usize], buffer| {
        let entry = |size: &usize| {
            let bytes = Builder::new(Compression::None).push(1, None, Some(&vec![7; *size]), &[]).build();
            let header = header::validate(&bytes).expect("it is a batch");
            let (partition, writer) =
                (PartitionId { topic: TopicId(1), index: 0 }, Writer::new("User:a", "a"));
            WalEntry { partition, writer, header, bytes, follows: false, alone: false }
        };
        let mut entries: Vec<WalEntry> = sizes.iter().map(entry).collect();
        keep_alone(&mut entries, buffer);
        entries.iter().map(|entry| entry.alone).collect::<Vec<_>>()
    };
    let large = CACHE_CHUNK_BYTES;
    assert_eq!(marks(&[large], large + 200), [true]);
    assert_eq!(marks(&[large], large * 2), [false], "the buffer is twice as large");
    assert_eq!(marks(&[large], usize::MAX), [false], "nobody knows its buffer");
    assert_eq!(
        marks(&[large, large], 2 * large + 400),
        [false, false],
        "a reader of one would keep the other"
    );
    assert_eq!(marks(&[large * 8, 100], large * 8 + 600), [true, false]);
    assert_eq!(marks(&[100], 300), [false], "it is small");
}

#[tokio::test(start_paused = true)]
async fn blocks_that_are_read_wait_for_their_share_and_a_flight_keeps_its_own() {
    let block = BLOCK_BYTES as usize;
    let capacity = Capacity { tail: 0, cold: 0, reads: 4 * block };
    let (env, remote, cache) = world(8 * BLOCK_BYTES, capacity).await;
    let reader = |cache: Cache, number: u64| async move {
        let reserved = cache.reserve(2 * BLOCK_BYTES).await;
        let range = number * BLOCK_BYTES..(number + 2) * BLOCK_BYTES;
        cache.read(SOURCE, 8 * BLOCK_BYTES, &[range], 0, &reserved).await.map(|read| (read, reserved))
    };
    let begin = |numbers: [u64; 2]| numbers.map(|number| env.spawn("reader", reader(cache.clone(), number)));
    let available = || cache.shared.reads.available_permits();
    let first = begin([0, 2]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let later = begin([4, 6]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((remote.gets(), available()), (2, 0));
    // Their blocks are still on the way, and take memory when they come.
    first.iter().for_each(Task::abort);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((remote.gets(), available()), (2, 0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((remote.gets(), available()), (4, 0));
    for reader in later {
        drop(reader.await.expect("not aborted").expect("read"));
    }
    assert_eq!(available(), 4 * block);
    let all = cache.reserve(u64::MAX).await;
    assert_eq!(available(), 0, "a larger read gets all of it");
    drop(all);
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_a_commit_are_read_from_the_journal_and_a_missing_one_is_not_found() {
    let (_env, remote, cache) = world(0, LARGE).await;
    let (meta, whole) = (cache.shared.meta.clone(), pattern(2 * BLOCK_BYTES + 5));
    let attachment = Attachment::of(vec![whole.clone()]);
    let put = |tx: &mut Tx<'_>| tx.next_counter(&CounterKey::named("test"));
    let committed = meta.commit_attached(Envelope::broker("test"), attachment, |_, _| {}, put).await;
    let lsn = committed.expect("the journal works").lsn;
    let beyond = read(&cache, Source::Frame(lsn), 3 * BLOCK_BYTES, 0..3 * BLOCK_BYTES).await;
    assert!(matches!(beyond, Err(StoreError::Corrupt(_))), "{beyond:?}");
    let range = BLOCK_BYTES - 3..2 * BLOCK_BYTES + 5;
    let read_back =
        read(&cache, Source::Frame(lsn), whole.len() as u64, range.clone()).await.expect("it is there");
    assert_eq!(joined(&read_back), whole[range.start as usize..range.end as usize]);
    assert!(read_back.iter().all(|piece| piece.from_disk));
    let missing = read(&cache, Source::Frame(lsn.next()), 10, 0..10).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))), "{missing:?}");
    assert_eq!(remote.gets(), 0, "it is not in the store");
}
