//! Fetch: waiting, sessions, limits of bytes, fairness.

use std::time::Duration;

use floe_wire::ErrorCode;
use floe_wire::fetch::*;
use tokio::time::Instant;

use crate::harness::*;

fn want(partition: i32, fetch_offset: i64, partition_max_bytes: i32) -> FetchPartition {
    FetchPartition { partition, fetch_offset, partition_max_bytes, ..Default::default() }
}

fn fetch(partitions: Vec<FetchPartition>) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 10_000,
        min_bytes: 1,
        topics: vec![FetchTopic { topic: "t".to_owned(), partitions, ..Default::default() }],
        ..Default::default()
    }
}

async fn ask(client: &mut TestClient, request: &FetchRequest) -> FetchResponse {
    let sent = client.send_at_most(request, 12).await.expect("sent");
    client.receive(sent).await.expect("answered")
}

/// Partition, error, high watermark and bytes of each partition in the answer.
fn show(response: &FetchResponse) -> Vec<(i32, i16, i64, usize)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let shown = |one: &PartitionData| {
        let bytes = one.records.as_ref().map_or(0, floe_wire::Rope::len);
        (one.partition_index, one.error_code, one.high_watermark, bytes)
    };
    partitions.map(shown).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_records_and_not_longer() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 2, &[]).await.expect("created");
    let begun = Instant::now();
    let response = ask(&mut client, &fetch(vec![want(0, 0, 1_000), want(1, 0, 1_000)])).await;
    assert_eq!(show(&response), [(0, 0, 0, 0), (1, 0, 0, 0)]);
    assert_eq!(begun.elapsed().as_secs(), 10, "nothing came, the whole time was waited");

    let mut producer = world.client();
    let begun = Instant::now();
    let both = fetch(vec![want(0, 0, 1_000), want(1, 0, 1_000)]);
    let (response, ()) = tokio::join!(ask(&mut client, &both), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        produce(&mut producer, "t", &["a"]).await.expect("produced");
    });
    let size = batch(&["a"]).len();
    assert_eq!(show(&response), [(0, 0, 1, size), (1, 0, 0, 0)]);
    assert_eq!(begun.elapsed().as_secs(), 3, "woken by the record");

    let begun = Instant::now();
    let patient = FetchRequest { min_bytes: size as i32 + 1, ..fetch(vec![want(0, 0, 1_000)]) };
    let (response, ()) = tokio::join!(ask(&mut client, &patient), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        produce(&mut producer, "t", &["b"]).await.expect("produced");
    });
    assert_eq!(show(&response), [(0, 0, 2, 2 * size)]);
    assert_eq!(begun.elapsed().as_secs(), 2, "one batch was not enough, two were");
}

#[tokio::test(start_paused = true)]
async fn errors_are_answered_at_once() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    produce(&mut client, "t", &["a"]).await.expect("produced");
    let begun = Instant::now();
    let beyond = show(&ask(&mut client, &fetch(vec![want(0, 2, 1_000)])).await);
    assert_eq!((beyond[0].1, beyond[0].2), (ErrorCode::OffsetOutOfRange.number(), 1));
    let before = show(&ask(&mut client, &fetch(vec![want(0, -1, 1_000)])).await);
    assert_eq!(before[0].1, ErrorCode::OffsetOutOfRange.number());
    let unknown = show(&ask(&mut client, &fetch(vec![want(7, 0, 1_000)])).await);
    assert_eq!(unknown[0].1, ErrorCode::UnknownTopicOrPartition.number());
    let epoch = FetchPartition { current_leader_epoch: 3, ..want(0, 0, 1_000) };
    let epoch = show(&ask(&mut client, &fetch(vec![epoch])).await);
    assert_eq!(epoch[0].1, ErrorCode::UnknownLeaderEpoch.number());
    let by_id = FetchRequest {
        topics: vec![FetchTopic {
            topic_id: uuid::Uuid::from_u128(9),
            partitions: vec![want(0, 0, 1_000)],
            ..Default::default()
        }],
        ..fetch(Vec::new())
    };
    let by_id = show(&call(&mut client, &by_id).await);
    assert_eq!(by_id[0].1, ErrorCode::UnknownTopicId.number());
    assert_eq!(begun.elapsed().as_secs(), 0);
}

/// One batch per request comes whatever its size. The others keep within the limits.
#[tokio::test(start_paused = true)]
async fn the_first_batch_is_granted_once_per_request() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 2, &[]).await.expect("created");
    for partition in [0, 1] {
        for _ in 0..3 {
            client.produce("t", partition, batch(&["0123456789"]), -1).await.expect("produced");
        }
    }
    let size = batch(&["0123456789"]).len();
    let one = size as i32;
    let tiny = fetch(vec![want(0, 0, 1), want(1, 0, 1)]);
    assert_eq!(show(&ask(&mut client, &tiny).await), [(0, 0, 3, size), (1, 0, 3, 0)]);
    let request = FetchRequest { max_bytes: 1, ..fetch(vec![want(1, 0, 1_000), want(0, 0, 1_000)]) };
    assert_eq!(show(&ask(&mut client, &request).await), [(1, 0, 3, size), (0, 0, 3, 0)]);
    let nothing = FetchRequest { max_bytes: 0, ..fetch(vec![want(1, 0, 0), want(0, 0, 0)]) };
    assert_eq!(show(&ask(&mut client, &nothing).await), [(1, 0, 3, size), (0, 0, 3, 0)], "as from Kafka");
    let twice = fetch(vec![want(0, 0, 1), want(1, 0, 1), want(0, 2, 1_000)]);
    assert_eq!(show(&ask(&mut client, &twice).await), [(0, 0, 3, size), (1, 0, 3, 0)], "each once");
    let request =
        FetchRequest { max_bytes: 4 * one, ..fetch(vec![want(0, 0, 2 * one + 1), want(1, 0, 10 * one)]) };
    assert_eq!(show(&ask(&mut client, &request).await), [(0, 0, 3, 2 * size), (1, 0, 3, 2 * size)]);
}

#[tokio::test(start_paused = true)]
async fn a_session_names_only_what_is_news_and_serves_everybody_in_turn() {
    let world = world().await;
    let mut client = world.client();
    let mut producer = world.client();
    client.create_topic("t", 3, &[]).await.expect("created");
    let size = batch(&["a"]).len();
    let quick = |request: FetchRequest| FetchRequest { max_wait_ms: 100, ..request };
    let first = FetchRequest {
        session_epoch: 0,
        ..quick(fetch(vec![want(0, 0, 1_000), want(1, 0, 1_000), want(2, 0, 1_000)]))
    };
    let opened = ask(&mut client, &first).await;
    let session_id = opened.session_id;
    assert!(session_id > 0);
    assert_eq!(show(&opened).len(), 3);
    let next = |session_epoch, partitions: Vec<FetchPartition>| {
        let mut request =
            FetchRequest { session_id, session_epoch, max_bytes: 1, ..quick(fetch(partitions)) };
        request.topics.retain(|topic| !topic.partitions.is_empty());
        request
    };
    let idle = ask(&mut client, &next(1, vec![])).await;
    assert_eq!((idle.error_code, idle.session_id, show(&idle)), (0, session_id, vec![]));

    for partition in [0, 1] {
        producer.produce("t", partition, batch(&["a"]), -1).await.expect("produced");
    }
    // The request asks for one byte, so one partition gets its batch and moves to the end of the order.
    assert_eq!(show(&ask(&mut client, &next(2, vec![])).await), [(0, 0, 1, size), (1, 0, 1, 0)]);
    assert_eq!(show(&ask(&mut client, &next(3, vec![])).await), [(1, 0, 1, size)]);
    let moved = next(4, vec![want(0, 1, 1_000), want(1, 1, 1_000)]);
    assert_eq!(show(&ask(&mut client, &moved).await), vec![]);
    let stale = ask(&mut client, &next(4, vec![])).await;
    assert_eq!(stale.error_code, ErrorCode::InvalidFetchSessionEpoch.number());
    let unknown = FetchRequest { session_id: session_id + 1, ..next(5, vec![]) };
    assert_eq!(ask(&mut client, &unknown).await.error_code, ErrorCode::FetchSessionIdNotFound.number());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_ends_with_its_connection_and_holds_up_nobody_else() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let forgotten = client.send_at_most(&fetch(vec![want(0, 0, 1_000)]), 12).await.expect("sent");
    drop((client, forgotten));
    let mut other = world.client();
    let begun = Instant::now();
    assert_eq!(produce(&mut other, "t", &["a"]).await.ok(), Some(0));
    assert_eq!(begun.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_is_told_that_its_topic_is_gone() {
    let world = world().await;
    let (mut client, mut admin) = (world.client(), world.client());
    for name in ["t", "u"] {
        client.create_topic(name, 1, &[]).await.expect("created");
    }
    produce(&mut client, "t", &["a"]).await.expect("produced");
    let begun = Instant::now();
    let other =
        FetchTopic { topic: "u".to_owned(), partitions: vec![want(0, 0, 1_000)], ..Default::default() };
    let mut request = fetch(vec![want(0, 1, 1_000)]);
    request.topics.push(other);
    let (response, ()) = tokio::join!(ask(&mut client, &request), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        admin.delete_topic("t").await.expect("deleted");
    });
    let gone = ErrorCode::UnknownTopicOrPartition.number();
    assert_eq!(show(&response), [(0, gone, -1, 0), (0, 0, 0, 0)]);
    assert_eq!(begun.elapsed().as_secs(), 3, "woken by the deletion");
}
