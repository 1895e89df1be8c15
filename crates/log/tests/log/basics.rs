//! Appends, reads and waits when nothing fails.

use std::time::Duration;

use floe_log::PartitionId;
use floe_log::topic;
use floe_log::{
    Append, Log,
    sequencer::{AppendError, Appended},
    walk::{At, ReadError},
};
use tokio::time::timeout;

use crate::world::{World, append, batch, offset, request, values, writer};

#[tokio::test(start_paused = true)]
async fn what_is_appended_is_read_back_also_by_a_fresh_broker() {
    let world = World::new(1).await;
    let topic = world.topic("orders", 2).await;
    let [first, second] = [PartitionId::new(topic.id, 0), PartitionId::new(topic.id, 1)];
    let log = &world.log;

    let appended = append(log, first, &["a", "b"]).await.expect("appended");
    let first_offset =
        Appended { base_offset: offset(0), log_start: offset(0), duplicate: false, append_time: None };
    assert_eq!(appended, first_offset);
    let both = Append {
        writer: writer(),
        batches: vec![(second, batch(&["x"])), (first, batch(&["c"])), (second, batch(&["y", "z"]))],
    };
    let answers = log.append(both).await;
    let bases: Vec<i64> = answers.into_iter().map(|answer| answer.expect("appended").base_offset.0).collect();
    assert_eq!(bases, [0, 2, 1], "answers are in the order of the request");

    let fresh = world.reopened().await;
    for log in [log, &fresh] {
        assert_eq!(values(log, first).await, [(0, "a".into()), (1, "b".into()), (2, "c".into())]);
        assert_eq!(values(log, second).await, [(0, "x".into()), (1, "y".into()), (2, "z".into())]);
    }
    assert_eq!(log.cluster_id(), fresh.cluster_id());
}

#[tokio::test(start_paused = true)]
async fn tickets_of_one_caller_share_an_object_and_keep_their_order() {
    let world = World::new(2).await;
    let topic = world.topic("t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    append(&world.log, partition, &["first"]).await.expect("appended");
    let before = world.memory.keys().len();
    let tickets: Vec<_> = (0..50).map(|n| world.log.append(request(partition, &[&n.to_string()]))).collect();
    for (n, ticket) in tickets.into_iter().enumerate() {
        let appended = ticket.await.remove(0).expect("appended");
        assert_eq!(appended.base_offset.0, n as i64 + 1);
    }
    assert!(world.memory.keys().len() <= before + 2, "fifty requests share objects");
    assert_eq!(values(&world.log, partition).await.len(), 51);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_appended_is_refused_alone() {
    let world = World::new(3).await;
    let topic = world.topic("t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    let mut damaged = batch(&["damaged"]).to_vec();
    *damaged.last_mut().expect("not empty") ^= 1;
    let large = "x".repeat(2 << 20);
    let request = Append {
        writer: writer(),
        batches: vec![
            (PartitionId::new(topic.id, 1), batch(&["no such partition"])),
            (partition, damaged.into()),
            (partition, batch(&["good"])),
            (partition, batch(&[&large])),
        ],
    };
    let answers = world.log.append(request).await;
    assert_eq!(answers[0], Err(AppendError::UnknownPartition));
    assert!(matches!(answers[1], Err(AppendError::Corrupt(_))), "{:?}", answers[1]);
    assert_eq!(answers[2].as_ref().expect("appended").base_offset, offset(0));
    assert!(matches!(answers[3], Err(AppendError::TooLarge { .. })), "{:?}", answers[3]);
    assert_eq!(values(&world.log, partition).await, [(0, "good".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_read_keeps_to_its_budget_and_its_bounds() {
    let world = World::new(4).await;
    let topic = world.topic("t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    let tickets: Vec<_> = (0..10).map(|_| world.log.append(request(partition, &["0123456789"; 3]))).collect();
    for ticket in tickets {
        ticket.await.remove(0).expect("appended");
    }
    let size = batch(&["0123456789"; 3]).len();
    let fresh = world.reopened().await;
    for log in [&world.log, &fresh] {
        let snapshot = log.meta().snapshot();
        let read = async |from, max| log.read(&snapshot, partition, offset(from), max).await;
        for max in [0, 1, size, 2 * size - 1] {
            let one = read(4, max).await.expect("read");
            assert_eq!(one.batches.len(), 1, "at least one, at most the budget");
            assert_eq!(one.batches[0].base_offset, offset(3), "the batch that holds the offset");
        }
        assert_eq!(read(6, 2 * size).await.expect("read").batches[1].base_offset, offset(9));
        assert_eq!(read(0, usize::MAX).await.expect("read").batches.len(), 10);
        assert!(read(30, 100).await.expect("the high watermark may be asked for").batches.is_empty());
        for outside in [-1, 31] {
            let error = read(outside, 100).await.expect_err("out of range");
            assert_eq!(error, ReadError::OutOfRange { log_start: offset(0), high_watermark: offset(30) });
        }
        let gone = log.read(&snapshot, PartitionId::new(topic.id, 9), offset(0), 100).await;
        assert_eq!(gone.expect_err("no such partition"), ReadError::UnknownPartition);
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_is_woken_by_its_partition_alone() {
    let world = World::new(5).await;
    let topic = world.topic("t", 2).await;
    let [one, other] = [PartitionId::new(topic.id, 0), PartitionId::new(topic.id, 1)];
    let log = &world.log;
    let soon = Duration::from_secs(3600);

    let waiting = log.wait(&[(one, offset(0))]);
    append(log, other, &["x"]).await.expect("appended");
    assert!(timeout(soon, waiting).await.is_err(), "another partition does not wake");

    log.wait(&[(one, offset(0)), (other, offset(0))]).await; // one of them has data already
    let waiting = log.wait(&[(one, offset(0)), (other, offset(1))]);
    append(log, one, &["a"]).await.expect("appended");
    timeout(soon, waiting).await.expect("woken by the append");

    let waiting = log.wait(&[(one, offset(1))]);
    log.delete_topic(&writer(), topic.id).await.expect("deleted");
    timeout(soon, waiting).await.expect("woken by the deletion");
}

#[tokio::test(start_paused = true)]
async fn brokers_of_one_cluster_share_the_log() {
    let world = World::new(11).await;
    let topic = world.topic("t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    let (one, other) = (&world.log, &world.reopened().await);
    for round in 0..10 {
        let waiting = other.wait(&[(partition, offset(2 * round))]);
        let appended = append(one, partition, &["from one"]).await.expect("appended");
        assert_eq!(appended.base_offset, offset(2 * round));
        timeout(Duration::from_secs(60), waiting).await.expect("woken by another broker's commit");
        let appended = append(other, partition, &["from the other"]).await.expect("appended");
        assert_eq!(appended.base_offset, offset(2 * round + 1));
        one.wait(&[(partition, appended.base_offset)]).await;
        assert_eq!(values(one, partition).await, values(other, partition).await);
    }
    assert_eq!(values(one, partition).await.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn offsets_are_found_by_time() {
    let world = World::new(6).await;
    let topic = world.topic("t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    let log = &world.log;
    let at = async |at| {
        let found = log.offset_at(&log.meta().snapshot(), partition, at).await.expect("looked up");
        found.map(|(offset, time)| (offset.0, time.0))
    };
    assert_eq!(at(At::MaxTimestamp).await, None);
    // Timestamps are 1000, 1001, 1002 in each batch.
    append(log, partition, &["a", "b", "c"]).await.expect("appended");
    append(log, partition, &["d", "e"]).await.expect("appended");
    let time = |ms| At::Timestamp(floe_env::Timestamp(ms));
    assert_eq!(at(At::Earliest).await, Some((0, -1)));
    assert_eq!(at(At::Latest).await, Some((5, -1)));
    assert_eq!(at(At::MaxTimestamp).await, Some((2, 1002)));
    assert_eq!(at(time(0)).await, Some((0, 1000)));
    assert_eq!(at(time(1001)).await, Some((1, 1001)));
    assert_eq!(at(time(1003)).await, None);
}

#[tokio::test(start_paused = true)]
async fn producers_get_ids_and_their_retries_are_told_apart() {
    let world = World::new(7).await;
    let topic = world.topic("t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    let (id, epoch) = world.log.producer_id(&writer()).await.expect("given");
    let (other, _) = world.log.producer_id(&writer()).await.expect("given");
    assert_ne!(id, other);
    let numbered = |sequence: i32| {
        let mut builder =
            floe_log::records::Builder::new(floe_log::codec::Compression::None).producer(id, epoch, sequence);
        builder.push(1, None, Some(b"v"), &[]);
        Append { writer: writer(), batches: vec![(partition, builder.build())] }
    };
    // All three in flight at once, one of them twice.
    let tickets = [0, 1, 1, 2].map(|sequence| world.log.append(numbered(sequence)));
    let mut answers = Vec::new();
    for ticket in tickets {
        let appended = ticket.await.remove(0).expect("appended or known");
        answers.push((appended.base_offset.0, appended.duplicate));
    }
    assert_eq!(answers, [(0, false), (1, false), (1, true), (2, false)]);
    let gap = world.log.append(numbered(4)).await.remove(0);
    assert_eq!(gap, Err(AppendError::OutOfOrderSequence));
    assert_eq!(values(&world.log, partition).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn after_close_appends_are_refused_and_no_lease_is_left() {
    let world = World::new(8).await;
    let topic = world.topic("t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    let log = world.log.clone();
    let ticket = log.append(request(partition, &["last"]));
    world.log.clone().close().await;
    ticket.await.remove(0).expect("what was appended before is finished");
    let refused = append(&log, partition, &["late"]).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    let census = floe_log::object::census(&log.meta().snapshot()).expect("readable");
    assert_eq!((census["leased"], census["trash"], census["live"]), (0, 0, 1), "{census:?}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_checked_without_being_created() {
    let world = World::new(9).await;
    let new = floe_log::topic::NewTopic { name: "t".into(), partitions: 1, ..Default::default() };
    let checked = world.log.create_topic(&writer(), new.clone(), true).await.expect("would work");
    assert_eq!(checked.name, "t");
    assert_eq!(topic::all(&world.log.meta().snapshot()).expect("readable"), []);
    world.log.create_topic(&writer(), new.clone(), false).await.expect("created");
    assert!(world.log.create_topic(&writer(), new, true).await.is_err(), "exists");
    assert!(Log::bounds(&world.log.meta().snapshot(), PartitionId::new(checked.id, 0)).is_some());
}

#[tokio::test(start_paused = true)]
async fn old_data_is_joined_across_the_blocks_of_the_cache() {
    let config = floe_log::Config { object_bytes: 8 << 20, ..crate::world::config() };
    let world = World::with(10, config).await;
    let topic = world.topic("t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    // One extent over several blocks of 1 MiB, with batches of all sizes across the block edges.
    let value = |number: usize| format!("{number}:{}", "x".repeat(number * 7919 % 300_000));
    let first = world.log.append(request(partition, &["first"]));
    let tickets: Vec<_> =
        (0..40).map(|number| world.log.append(request(partition, &[&value(number)]))).collect();
    first.await.remove(0).expect("appended");
    for ticket in tickets {
        ticket.await.remove(0).expect("appended");
    }
    for max_bytes in [1, 100_000, 1_500_000, usize::MAX] {
        for log in [world.log.clone(), world.reopened().await] {
            let snapshot = log.meta().snapshot();
            let mut from = offset(1);
            while from < offset(41) {
                let read = log.read(&snapshot, partition, from, max_bytes).await.expect("read");
                let total: usize = read.batches.iter().map(|batch| batch.bytes.len()).sum();
                assert!(read.batches.len() == 1 || total <= max_bytes, "within the budget");
                for batch in read.batches {
                    assert_eq!(batch.base_offset, from);
                    let records = batch.records(1 << 20).expect("decodes");
                    assert_eq!(records[0].value.as_deref(), Some(value(from.0 as usize - 1).as_bytes()));
                    from = batch.next_offset();
                }
            }
            // Starts in the middle, without having read the beginning.
            let middle = log.read(&snapshot, partition, offset(20), 1).await.expect("read");
            assert_eq!(middle.batches[0].base_offset, offset(20));
        }
    }
}
