//! Markers of transactions and offsets without records, as clients get them.

use floe_client::Wait;
use floe_log::extent::{Extent, ExtentKey, Gap, Outcome};
use floe_log::partition::Head;
use floe_log::{Offset, PartitionId, marker, topic};
use floe_meta::{DecodeError, Envelope, Lsn, Tx};

use crate::harness::*;

/// More offsets than one batch covers.
const WIDE: u64 = (1 << 31) + 10;

async fn partition(world: &World) -> PartitionId {
    let topic = topic::by_name(&world.log.meta().snapshot(), "t").expect("readable").expect("it is there");
    PartitionId::new(topic.id, 0)
}

async fn mark(world: &World, partition: PartitionId, outcome: Outcome) {
    let work = move |tx: &mut Tx<'_>| marker::mark(tx, &[partition], (4_001, 3), outcome);
    world.log.meta().commit(Envelope::broker("test"), work).await.expect("committed");
}

/// Leaves offsets without records, as compaction will.
async fn leave_out(world: &World, partition: PartitionId, offsets: u64) {
    let work = move |tx: &mut Tx<'_>| -> Result<(), DecodeError> {
        let head = tx.get::<Head>(&partition)?.expect("it is there");
        let gap = Extent::Gap(Gap { offsets, lsn: Lsn(1) });
        tx.put(&ExtentKey::new(partition, head.next), &gap);
        tx.put(&partition, &Head { next: gap.next_offset(head.next), ..head });
        Ok(())
    };
    world.log.meta().commit(Envelope::broker("test"), work).await.expect("committed");
}

/// Base offset, records by the header, and whether it is a control batch, of each batch of a fetch.
async fn fetched(client: &mut TestClient, from: i64) -> Vec<(i64, i32, bool)> {
    let wait = Wait { max_ms: 0, min_bytes: 0, max_bytes: 1 << 20 };
    let fetched = client.fetch("t", 0, from, wait).await.expect("fetched");
    let batches = fetched.batches().expect("whole batches");
    batches.iter().map(|b| (b.base_offset.0, b.header().count, b.header().is_control())).collect()
}

#[tokio::test(start_paused = true)]
async fn clients_get_control_batches_and_pass_over_what_has_no_records() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let partition = partition(&world).await;
    produce(&mut client, "t", &["a", "b"]).await.expect("produced");
    mark(&world, partition, Outcome::Abort).await;
    leave_out(&world, partition, 5).await;
    mark(&world, partition, Outcome::Commit).await;
    assert_eq!(produce(&mut client, "t", &["c"]).await.expect("produced"), 9);
    // Aborted records stay readable for clients that read uncommitted ones.
    assert_eq!(values(&mut client, "t").await, ["a", "b", "c"]);
    let all = [(0, 2, false), (2, 1, true), (8, 1, true), (9, 1, false)];
    assert_eq!(fetched(&mut client, 0).await, all);
    assert_eq!(fetched(&mut client, 2).await, all[1..]);
    assert_eq!(fetched(&mut client, 5).await, all[2..], "from within the gap");

    // Where there is nothing else to answer, an empty batch says where to go on, one after the other.
    leave_out(&world, partition, WIDE).await;
    mark(&world, partition, Outcome::Commit).await;
    let (mut at, mut empty) = (10, 0);
    while let [(base, 0, false)] = fetched(&mut client, at).await[..] {
        assert_eq!(base, at);
        let snapshot = world.log.pin();
        let read = world.log.read(&snapshot, partition, Offset(at), 1).await.expect("read");
        (at, empty) = (read.batches[0].next_offset().0, empty + 1);
    }
    assert_eq!((at, empty), (10 + (1 << 31), 1));
    assert_eq!(fetched(&mut client, at).await, [(10 + WIDE.cast_signed(), 1, true)]);
}
