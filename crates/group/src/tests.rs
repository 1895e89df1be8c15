//! Committed offsets over weeks, and their limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::Env;
use floe_log::topic::{self, NewTopic};
use floe_log::{PartitionId, cluster};
use floe_meta::{Envelope, MemoryJournal, Meta, Options, Tx};

use crate::limits::{GROUPS_STORED_BYTES_MAX, GROUPS_STORED_MAX, OFFSETS_RETENTION};
use crate::{
    Coordinator, Failure, GroupRecord, Join, NewOffset, Protocol, Rules, Speaker, Stored, Sync,
    committed_offsets,
};

const RULES: Rules = Rules { initial_delay_ms: 0, members_max: 10, bytes_max: 1 << 20 };
const HOUR: Duration = Duration::from_secs(3600);

struct World {
    env: Env,
    meta: Meta,
    groups: Coordinator,
    /// The partitions of the topics `t` and `u`.
    t: PartitionId,
    u: PartitionId,
}

impl World {
    async fn begin() -> World {
        let env = Env::simulated(7);
        let journal = Arc::new(MemoryJournal::new());
        let meta = Meta::open(env.clone(), journal, Options::default()).await.expect("opens");
        let create = |tx: &mut Tx<'_>| {
            cluster::open(tx, 1 << 64).expect("readable");
            let mut create = |name: &str| {
                let new = NewTopic { name: name.to_owned(), partitions: 1, ..NewTopic::default() };
                topic::create(tx, &new).map(|topic| PartitionId { topic: topic.id, index: 0 })
            };
            Ok((create("t")?, create("u")?))
        };
        let created = meta.commit::<_, topic::TopicError, _>(Envelope::broker("test"), create).await;
        let (t, u) = created.expect("created").reply;
        let groups = Coordinator::start(&env, &meta, RULES, OFFSETS_RETENTION);
        World { env, meta, groups, t, u }
    }

    /// The broker starts again.
    fn restart(&mut self) {
        self.groups = Coordinator::start(&self.env, &self.meta, RULES, OFFSETS_RETENTION);
    }

    /// Joins as the only member, whose subscription is `metadata`, and commits the offsets. Returns the generation.
    async fn member(&self, group: &str, metadata: &'static [u8], offsets: &[PartitionId]) -> i32 {
        let join = Join {
            member_id: String::new(),
            fresh_id: "m".to_owned(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/host".to_owned(),
            session_timeout_ms: 1_800_000,
            rebalance_timeout_ms: 1_800_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol { name: "range".to_owned(), metadata: Bytes::from_static(metadata) }],
            require_known_id: false,
            can_skip_assignment: false,
        };
        let generation = self.groups.join(group, join).await.expect("joined").generation;
        let sync = Sync {
            generation,
            member_id: "m".to_owned(),
            instance_id: None,
            protocol_type: None,
            protocol: None,
            assignments: vec![("m".to_owned(), Bytes::from_static(b"all"))],
        };
        self.groups.sync(group, sync).await.expect("assigned");
        self.commit(group, generation, offsets, "").await.expect("committed");
        generation
    }

    async fn commit(
        &self,
        group: &str,
        generation: i32,
        offsets: &[PartitionId],
        metadata: &str,
    ) -> Result<(), Failure> {
        let offset = |partition: &PartitionId| NewOffset {
            partition: *partition,
            offset: 5,
            leader_epoch: -1,
            metadata: metadata.to_owned(),
        };
        let offsets = offsets.iter().map(offset).collect();
        self.groups.commit(Envelope::broker("test"), group, speaker(generation), generation, offsets).await
    }

    fn committed(&self, group: &str) -> Vec<PartitionId> {
        let all = committed_offsets(&self.meta.snapshot(), group).expect("readable");
        all.into_iter().map(|(partition, _)| partition).collect()
    }

    fn stored(&self) -> Stored {
        Stored::of(&self.meta.snapshot()).expect("readable")
    }
}

fn speaker(generation: i32) -> Speaker<'static> {
    Speaker { member_id: if generation < 0 { "" } else { "m" }, instance_id: None }
}

#[tokio::test(start_paused = true)]
async fn offsets_go_a_week_after_the_last_member_whatever_restarts() {
    let mut world = World::begin().await;
    let (t, u) = (world.t, world.u);
    world.member("g", b"", &[t, u]).await;
    world.commit("plain", -1, &[t], "").await.expect("committed");
    assert_eq!(world.stored(), Stored { groups: 2, offsets: 3, bytes: 5 * 300 + 3 + 2 * 5 });
    // The member stays for three days, and the broker does not.
    for _ in 0..72 * 3 {
        tokio::time::sleep(HOUR / 3).await;
        world.groups.heartbeat("g", speaker(1), 1).expect("heard");
    }
    world.restart();
    tokio::time::sleep(HOUR * (24 * 7 - 72 - 1)).await;
    assert_eq!(world.committed("plain"), [t]);
    tokio::time::sleep(HOUR * 2).await;
    assert_eq!(world.committed("plain"), [], "a week after its commit");
    world.restart();
    tokio::time::sleep(HOUR * (72 - 2)).await;
    assert_eq!(world.committed("g"), [t, u], "less than a week after the restart that ended its members");
    tokio::time::sleep(HOUR * 2).await;
    assert_eq!(world.committed("g"), []);
    assert!(
        world.groups.list(&world.meta.snapshot()).expect("readable").iter().all(|one| one.group != "plain")
    );
    assert_eq!(world.meta.snapshot().get::<GroupRecord>(&"g".to_owned()), Ok(None));
    assert_eq!(world.stored(), Stored::default());
}

#[tokio::test(start_paused = true)]
async fn a_group_that_comes_back_keeps_its_offsets() {
    let mut world = World::begin().await;
    let t = world.t;
    world.member("g", b"", &[t]).await;
    world.groups.leave("g", speaker(1)).expect("left");
    tokio::time::sleep(HOUR * 24 * 6).await;
    // A member comes, and commits nothing. The broker starts again when the old week is over.
    let generation = world.member("g", b"", &[]).await;
    for _ in 0..48 * 3 {
        tokio::time::sleep(HOUR / 3).await;
        world.groups.heartbeat("g", speaker(generation), generation).expect("heard");
    }
    world.restart();
    tokio::time::sleep(HOUR * 24 * 6).await;
    assert_eq!(world.committed("g"), [t]);
    tokio::time::sleep(HOUR * 25).await;
    assert_eq!(world.committed("g"), []);
}

#[tokio::test(start_paused = true)]
async fn an_active_group_loses_the_offsets_of_topics_that_nobody_subscribes_to() {
    let world = World::begin().await;
    let (t, u) = (world.t, world.u);
    let generation = world.member("g", b"\0\0\0\0\0\x01\0\x01t\0\0\0\0", &[t, u]).await;
    for _ in 0..8 * 24 * 3 {
        tokio::time::sleep(HOUR / 3).await;
        world.groups.heartbeat("g", speaker(generation), generation).expect("heard");
    }
    assert_eq!(world.committed("g"), [t]);
    assert_eq!(world.stored(), Stored { groups: 1, offsets: 1, bytes: 602 });
}

#[tokio::test(start_paused = true)]
async fn groups_and_their_bytes_are_limited_and_those_that_are_there_go_on() {
    let world = World::begin().await;
    let (t, u) = (world.t, world.u);
    world.commit("old", -1, &[t, t], "long").await.expect("committed");
    assert_eq!(world.stored(), Stored { groups: 1, offsets: 1, bytes: 2 * 303 + 4 });
    let plant = |stored: Stored| {
        let plant = move |tx: &mut Tx<'_>| {
            stored.put(tx);
            Ok::<_, floe_meta::DecodeError>(())
        };
        world.meta.commit(Envelope::broker("test"), plant)
    };
    plant(Stored { groups: GROUPS_STORED_MAX, ..world.stored() }).await.expect("planted");
    let refused = world.commit("new", -1, &[t], "").await;
    assert_eq!(refused, Err(Failure::Full { limit: GROUPS_STORED_MAX, what: "groups" }));
    world.commit("old", -1, &[t, u], "").await.expect("it is there already");

    plant(Stored { groups: 1, bytes: GROUPS_STORED_BYTES_MAX, ..world.stored() }).await.expect("planted");
    for (group, offsets, metadata) in [("new", [t], ""), ("old", [t], "longer")] {
        let refused = world.commit(group, -1, &offsets, metadata).await;
        assert!(matches!(refused, Err(Failure::Full { limit: GROUPS_STORED_BYTES_MAX, .. })), "{refused:?}");
    }
    world.commit("old", -1, &[t, u], "").await.expect("it grows no more");
    world.groups.delete(Envelope::broker("test"), "old").await.expect("deleted");
    world.commit("new", -1, &[t], "").await.expect("there is room now");
}
