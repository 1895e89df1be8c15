//! Groups as their members see them; the machine itself is tested in `group/tests.rs`.

use std::time::Duration;

use floe_kafka::Config;
use floe_wire::ErrorCode;
use floe_wire::group_offsets::*;
use floe_wire::groups::*;
use tokio::time::Instant;

use crate::harness::*;

async fn join(client: &mut Peer, member_id: &str) -> JoinGroupResponse {
    let mut join = JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: member_id.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: "m".into() }],
        ..Default::default()
    };
    let mut joined = call(client, &join).await;
    if joined.error_code == ErrorCode::MemberIdRequired.number() {
        join.member_id.clone_from(&joined.member_id);
        joined = call(client, &join).await;
    }
    joined
}

async fn sync(client: &mut Peer, joined: &JoinGroupResponse) -> SyncGroupResponse {
    let assignment = |member: &JoinGroupResponseMember| SyncGroupRequestAssignment {
        member_id: member.member_id.clone(),
        assignment: member.member_id.clone().into(),
    };
    let request = SyncGroupRequest {
        group_id: "g".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: joined.members.iter().map(assignment).collect(),
        ..Default::default()
    };
    call(client, &request).await
}

async fn heartbeat(client: &mut Peer, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    call(client, &request).await.error_code
}

async fn commit(client: &mut Peer, generation: i32, member_id: &str, offset: i64) -> i16 {
    let partitions = vec![OffsetCommitRequestPartition {
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    }];
    let request = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: generation,
        member_id: member_id.to_owned(),
        topics: vec![OffsetCommitRequestTopic { name: "t".to_owned(), partitions }],
        ..Default::default()
    };
    call(client, &request).await.topics[0].partitions[0].error_code
}

async fn committed(client: &mut Peer) -> i64 {
    let topics = vec![OffsetFetchRequestTopics { name: "t".to_owned(), partition_indexes: vec![0] }];
    let groups = vec![OffsetFetchRequestGroup {
        group_id: "g".to_owned(),
        topics: Some(topics),
        ..Default::default()
    }];
    let fetched = call(client, &OffsetFetchRequest { groups, ..Default::default() }).await;
    fetched.groups[0].topics[0].partitions[0].committed_offset
}

#[tokio::test(start_paused = true)]
async fn members_share_a_generation_and_the_dead_are_replaced() {
    let world = world().await;
    let (mut one, mut two) = (world.client(), world.client());
    let begun = Instant::now();
    let (first, second) = tokio::join!(join(&mut one, ""), join(&mut two, ""));
    assert!(begun.elapsed() < Duration::from_secs(3), "the initial delay, not the rebalance time-out");
    assert_eq!((first.generation_id, second.generation_id), (1, 1));
    assert_eq!(first.members.len() + second.members.len(), 2, "one leader, who sees both");
    let (synced, other) = tokio::join!(sync(&mut one, &first), sync(&mut two, &second));
    assert_eq!(
        (&*synced.assignment, &*other.assignment),
        (first.member_id.as_bytes(), second.member_id.as_bytes())
    );
    assert_eq!(heartbeat(&mut two, &second).await, 0);

    // The second dies without a word. The first keeps its heartbeat, is asked to join again when the session of the
    // dead has ended, and is alone.
    drop(two);
    let mut waited = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        waited += 1;
        match heartbeat(&mut one, &first).await {
            0 => assert!(waited < 12, "the dead member is never noticed"),
            code => break assert_eq!(code, ErrorCode::RebalanceInProgress.number()),
        }
    }
    assert!(waited >= 9, "expelled after {waited} s of 10 s");
    let rejoined = join(&mut one, &first.member_id).await;
    assert_eq!((rejoined.generation_id, rejoined.members.len()), (2, 1));
    assert_eq!(heartbeat(&mut one, &first).await, ErrorCode::IllegalGeneration.number());
}

#[tokio::test(start_paused = true)]
async fn offsets_survive_a_restart_and_are_fenced_by_generation() {
    let disk = disk();
    let world = World::open(&disk, Config::default()).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    assert_eq!(commit(&mut client, -1, "", 5).await, 0, "without membership");
    let joined = join(&mut client, "").await;
    sync(&mut client, &joined).await;
    assert_eq!(commit(&mut client, 1, &joined.member_id, 17).await, 0);
    assert_eq!(commit(&mut client, 0, &joined.member_id, 18).await, ErrorCode::IllegalGeneration.number());
    assert_eq!(commit(&mut client, 1, "stranger", 18).await, ErrorCode::UnknownMemberId.number());
    assert_eq!(commit(&mut client, -1, "", 18).await, ErrorCode::UnknownMemberId.number());
    assert_eq!(committed(&mut client).await, 17);
    drop(client);
    world.close().await;

    let world = World::open(&disk, Config::default()).await;
    let mut client = world.client();
    assert_eq!(committed(&mut client).await, 17);
    let listed = call(&mut client, &ListGroupsRequest::default()).await;
    assert_eq!((&*listed.groups[0].group_id, &*listed.groups[0].group_state), ("g", "Empty"));
    let none = ListGroupsRequest { states_filter: vec!["stable".to_owned()], ..Default::default() };
    assert_eq!(call(&mut client, &none).await.groups, []);
    assert_eq!(commit(&mut client, 1, &joined.member_id, 18).await, ErrorCode::UnknownMemberId.number());
    let rejoined = join(&mut client, "").await;
    assert_eq!(rejoined.generation_id, 2, "generations go on where they were");
    let delete = DeleteGroupsRequest { groups_names: vec!["g".to_owned()] };
    assert_eq!(call(&mut client, &delete).await.results[0].error_code, ErrorCode::NonEmptyGroup.number());
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(call(&mut client, &delete).await.results[0].error_code, 0, "everybody's session has ended");
    assert_eq!(committed(&mut client).await, -1);
}

/// A topic that is deleted and created again is another one: its readers start anew.
#[tokio::test(start_paused = true)]
async fn offsets_belong_to_the_topic_and_not_to_its_name() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    assert_eq!(commit(&mut client, -1, "", 5).await, 0);
    client.delete_topic("t").await.expect("deleted");
    assert_eq!(commit(&mut client, -1, "", 6).await, ErrorCode::UnknownTopicOrPartition.number());
    client.create_topic("t", 1, &[]).await.expect("created");
    assert_eq!(committed(&mut client).await, -1);
}
