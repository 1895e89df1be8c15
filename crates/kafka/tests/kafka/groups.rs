//! Groups as members see them. The state machine is tested in floe-group, `classic/tests.rs`.

use std::time::Duration;

use floe_group::OffsetRecord;
use floe_kafka::Config;
use floe_wire::ErrorCode;
use floe_wire::group_offsets::*;
use floe_wire::groups::*;
use tokio::time::Instant;

use crate::harness::*;

async fn join(client: &mut TestClient, member_id: &str) -> JoinGroupResponse {
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

async fn sync(client: &mut TestClient, joined: &JoinGroupResponse) -> SyncGroupResponse {
    let assignment = |member: &JoinGroupResponseMember| SyncGroupRequestAssignment {
        member_id: member.member_id.clone(),
        assignment: member.member_id.clone().into(),
    };
    let request = SyncGroupRequest {
        group_id: "g".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: joined.protocol_type.clone(),
        protocol_name: joined.protocol_name.clone(),
        assignments: joined.members.iter().map(assignment).collect(),
        ..Default::default()
    };
    call(client, &request).await
}

async fn heartbeat(client: &mut TestClient, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    call(client, &request).await.error_code
}

async fn commit(client: &mut TestClient, generation: i32, member_id: &str, offset: i64) -> i16 {
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

async fn committed(client: &mut TestClient) -> i64 {
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

    // The second member dies. The first sends heartbeats, is asked to rejoin when the session of the second has ended,
    // and is alone then.
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

/// A topic that is deleted and created again is another topic: its readers start from the beginning.
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

/// A topic that comes back has the offsets that were committed, also under another name. Until then nobody sees them.
#[tokio::test(start_paused = true)]
async fn offsets_come_back_with_their_topic() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[("floe.trash.ms", "3600000")]).await.expect("created");
    assert_eq!(commit(&mut client, -1, "", 5).await, 0);
    client.delete_topic("t").await.expect("deleted");
    assert_eq!(committed(&mut client).await, -1);
    client.create_topic("t", 1, &[]).await.expect("its name is free at once");
    assert_eq!(committed(&mut client).await, -1);
    // The broker closes connections that were idle for longer.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(offsets_kept(&world), 1, "no sweep takes it");

    let who = floe_log::Writer::new("User:a", "c");
    let which = || floe_log::deleted::Which::Name("t".to_owned());
    let taken = world.log.undelete_topic(&who, which(), None).await.expect_err("the name is taken");
    assert!(taken.to_string().contains("--as"), "{taken}");
    client.delete_topic("t").await.expect("deleted for good");
    world.log.undelete_topic(&who, which(), None).await.expect("it is there");
    assert_eq!(committed(&mut client).await, 5);

    client.delete_topic("t").await.expect("deleted");
    world.log.purge_topics(&who, which()).await.expect("purged");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(offsets_kept(&world), 0);
}

/// A name takes a few bytes, its answer megabytes. So each is answered once, and one request cannot fill the memory.
#[tokio::test(start_paused = true)]
async fn an_answer_about_many_groups_is_bounded() {
    const GROUPS: i32 = 20;
    const PARTITIONS: i32 = 1_000;
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", PARTITIONS, &[]).await.expect("created");
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 1,
        committed_metadata: Some("x".repeat(1_000)),
        ..OffsetCommitRequestPartition::default()
    };
    let partitions: Vec<_> = (0..PARTITIONS).map(partition).collect();
    let mut names: Vec<String> = Vec::new();
    for number in 0..GROUPS {
        let group_id = format!("g{number}");
        let topics = vec![OffsetCommitRequestTopic { name: "t".to_owned(), partitions: partitions.clone() }];
        let commit = OffsetCommitRequest {
            group_id: group_id.clone(),
            generation_id_or_member_epoch: -1,
            topics,
            ..Default::default()
        };
        assert_eq!(call(&mut client, &commit).await.topics[0].partitions[0].error_code, 0);
        names.extend([group_id.clone(), group_id]);
    }

    let full = ErrorCode::CoordinatorLoadInProgress.number();
    let mut asked = names.clone();
    let mut rounds = Vec::new();
    while !asked.is_empty() {
        let group = |group_id: &String| OffsetFetchRequestGroup {
            group_id: group_id.clone(),
            topics: None,
            ..Default::default()
        };
        let groups = asked.iter().map(group).collect();
        let fetched = call(&mut client, &OffsetFetchRequest { groups, ..Default::default() }).await.groups;
        rounds.push((fetched.len(), fetched.iter().filter(|group| group.error_code == 0).count()));
        let whole =
            |group: &OffsetFetchResponseGroup| group.topics[0].partitions.len() == PARTITIONS as usize;
        assert!(fetched.iter().all(|group| group.error_code == full || whole(group)));
        asked = fetched
            .into_iter()
            .filter(|group| group.error_code == full)
            .map(|group| group.group_id)
            .collect();
    }
    assert!(matches!(rounds[..], [(20, 10..20), (..10, _)]), "{rounds:?}");

    let topics =
        vec![OffsetFetchRequestTopics { name: "t".to_owned(), partition_indexes: vec![0; 100] }; 100];
    let group =
        OffsetFetchRequestGroup { group_id: "g0".to_owned(), topics: Some(topics), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let fetched = call(&mut client, &request).await.groups.remove(0);
    assert_eq!(fetched.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 1);

    let described = call(&mut client, &DescribeGroupsRequest { groups: names, ..Default::default() }).await;
    let shown: Vec<_> = described.groups.iter().map(|group| &*group.group_state).collect();
    assert_eq!(shown, ["Empty"; GROUPS as usize]);
    let keys: Vec<String> = (0..20_000).map(|number| format!("k{number}")).collect();
    let request = FindCoordinatorRequest { coordinator_keys: keys, ..Default::default() };
    assert_eq!(call(&mut client, &request).await.coordinators.len(), 10_000);
}

/// The metadata of one group may be as large as an answer may be.
#[tokio::test(start_paused = true)]
async fn a_description_of_large_groups_is_cut_between_groups() {
    let world = world().await;
    let mut client = world.client();
    let mut groups = Vec::new();
    for number in 0..18 {
        let metadata = vec![b'm'; 1_000_000].into();
        let join = JoinGroupRequest {
            group_id: format!("g{number}"),
            session_timeout_ms: 1_000_000,
            rebalance_timeout_ms: 60_000,
            group_instance_id: Some("i".to_owned()),
            protocol_type: "consumer".to_owned(),
            protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata }],
            ..Default::default()
        };
        let joined = call(&mut client, &join).await;
        let sync = SyncGroupRequest {
            group_id: join.group_id.clone(),
            generation_id: joined.generation_id,
            member_id: joined.member_id,
            group_instance_id: join.group_instance_id,
            protocol_type: joined.protocol_type,
            protocol_name: joined.protocol_name,
            ..Default::default()
        };
        assert_eq!(call(&mut client, &sync).await.error_code, 0);
        groups.push(join.group_id);
    }
    let described = call(&mut client, &DescribeGroupsRequest { groups, ..Default::default() }).await.groups;
    let full = |group: &&DescribedGroup| group.error_code == ErrorCode::CoordinatorLoadInProgress.number();
    assert_eq!((described.len(), described.iter().filter(full).count()), (18, 1));
    assert_eq!(described[16].members[0].member_metadata.len(), 1_000_000);
    let groups = vec![described[17].group_id.clone()];
    let rest = call(&mut client, &DescribeGroupsRequest { groups, ..Default::default() }).await.groups;
    assert_eq!(&*rest[0].group_state, "Stable");
}

async fn listed(client: &mut TestClient) -> Vec<(String, String, String)> {
    let listed = call(client, &ListGroupsRequest::default()).await;
    let group = |group: ListedGroup| (group.group_id, group.protocol_type, group.group_state);
    listed.groups.into_iter().map(group).collect()
}

/// A refused request leaves no group behind, neither in memory nor in the map.
#[tokio::test(start_paused = true)]
async fn refused_requests_make_no_groups() {
    let disk = disk();
    let world = World::open(&disk, Config::default()).await;
    let mut client = world.client();
    let unknown = ErrorCode::UnknownTopicOrPartition.number();
    assert_eq!(commit(&mut client, -1, "", 5).await, unknown);
    let hurried = JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 1,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: "m".into() }],
        ..Default::default()
    };
    let refused = call(&mut client, &hurried).await;
    assert_eq!(refused.error_code, ErrorCode::InvalidSessionTimeout.number());
    let told = JoinGroupRequest { session_timeout_ms: 10_000, ..hurried };
    assert_eq!(call(&mut client, &told).await.error_code, ErrorCode::MemberIdRequired.number());
    assert_eq!(listed(&mut client).await, []);
    tokio::time::sleep(Duration::from_secs(11)).await;
    let delete = DeleteGroupsRequest { groups_names: vec!["g".to_owned()] };
    let not_found = ErrorCode::GroupIdNotFound.number();
    assert_eq!(call(&mut client, &delete).await.results[0].error_code, not_found, "the told never came back");
    drop(client);
    world.close().await;
    let world = World::open(&disk, Config::default()).await;
    assert_eq!(listed(&mut world.client()).await, []);
}

/// The protocol type survives a restart, whichever request comes first.
#[tokio::test(start_paused = true)]
async fn a_group_keeps_its_protocol_type() {
    let disk = disk();
    let world = World::open(&disk, Config::default()).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let joined = join(&mut client, "").await;
    sync(&mut client, &joined).await;
    assert_eq!(commit(&mut client, 1, &joined.member_id, 17).await, 0);
    let empty = [("g".to_owned(), "consumer".to_owned(), "Empty".to_owned())];
    drop(client);
    world.close().await;

    let world = World::open(&disk, Config::default()).await;
    let mut client = world.client();
    let told = JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: "m".into() }],
        ..Default::default()
    };
    assert_eq!(call(&mut client, &told).await.error_code, ErrorCode::MemberIdRequired.number());
    assert_eq!(commit(&mut client, -1, "", 3).await, 0, "by an administrator");
    assert_eq!(listed(&mut client).await, empty);
    drop(client);
    world.close().await;
    let world = World::open(&disk, Config::default()).await;
    assert_eq!(listed(&mut world.client()).await, empty);
}

fn offsets_kept(world: &World) -> usize {
    world.log.meta().snapshot().range::<OffsetRecord>(..).count()
}

/// Deleting topics deletes the offsets committed to them, and groups without other offsets, even if the broker stopped
/// before the sweep. Other offsets stay.
#[tokio::test(start_paused = true)]
async fn offsets_of_deleted_topics_are_freed() {
    const MANY: i32 = 1_500;
    let disk = disk();
    let world = World::open(&disk, Config::default()).await;
    let mut client = world.client();
    for topic in ["t", "kept", "later"] {
        client.create_topic(topic, MANY, &[]).await.expect("created");
    }
    let commit = |group: &str, topics: &[&str]| {
        let partition = |partition_index| OffsetCommitRequestPartition {
            partition_index,
            committed_offset: 1,
            ..OffsetCommitRequestPartition::default()
        };
        let partitions: Vec<_> = (0..MANY).map(partition).collect();
        let topic = |name: &&str| OffsetCommitRequestTopic {
            name: (*name).to_owned(),
            partitions: partitions.clone(),
        };
        OffsetCommitRequest {
            group_id: group.to_owned(),
            generation_id_or_member_epoch: -1,
            topics: topics.iter().map(topic).collect(),
            ..Default::default()
        }
    };
    call(&mut client, &commit("a", &["t", "kept", "later"])).await;
    call(&mut client, &commit("b", &["t"])).await;
    call(&mut client, &commit("c", &["later"])).await;
    assert_eq!(offsets_kept(&world), 5 * MANY as usize);
    client.delete_topic("t").await.expect("deleted");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(offsets_kept(&world), 3 * MANY as usize);
    let names =
        |listed: Vec<(String, String, String)>| listed.into_iter().map(|one| one.0).collect::<Vec<_>>();
    assert_eq!(names(listed(&mut client).await), ["a", "c"]);
    client.delete_topic("later").await.expect("deleted");
    drop(client);
    world.close().await;

    let world = World::open(&disk, Config::default()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(offsets_kept(&world), MANY as usize);
    assert_eq!(names(listed(&mut world.client()).await), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_says_which_protocol_it_speaks_and_a_generation_needs_a_group() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let gone = commit(&mut client, 3, "a member of before", 5).await;
    assert_eq!(gone, ErrorCode::IllegalGeneration.number(), "there is no such group");
    let joined = join(&mut client, "").await;
    let silent = SyncGroupRequest {
        group_id: "g".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    let answer = call_at(&mut client, 5, &silent).await;
    assert_eq!(answer.error_code, ErrorCode::InconsistentGroupProtocol.number());
    assert_eq!(call_at(&mut client, 4, &silent).await.error_code, 0, "version 4 has no names");
}
