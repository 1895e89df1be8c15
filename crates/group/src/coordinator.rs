//! The coordinator: the entrance to all groups of a broker, and the timer of their deadlines.
//!
//! Members are in memory only. After a restart every group is empty: its members learn that they are unknown, join
//! again, and continue from their committed offsets. So a restart causes one rebalance, of static members, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;
use floe_env::Env;
use floe_meta::{DecodeError, Envelope, Meta, Snapshot};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant};

use crate::classic::{
    Group, GroupState, Join, Joined, Member, Moment, Refusal, Reply, Rules, Speaker, Sync, Synced,
};
use crate::commits::{Failure, NewOffset, delete_group, settled, write_offsets};
use crate::groups::{GroupSlot, Groups, Sleeper};
use crate::limits;
use crate::map::GroupRecord;
use crate::retention::{CONSUMER, Standing, topics_of};
use crate::sweep::{self, Members};

/// The groups of one broker. Clones share them.
#[derive(Clone)]
pub struct Coordinator(Arc<Shared>);

struct Shared {
    env: Env,
    meta: Meta,
    rules: Rules,
    retention: Duration,
    started: Instant,
    groups: Mutex<Groups>,
    wake: Arc<Notify>,
    sweep: Arc<Notify>,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub group: String,
    /// `consumer`, …
    pub protocol_type: String,
    /// Its state.
    pub state: GroupState,
}

/// A description of a group.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its state.
    pub state: GroupState,
    /// `consumer`, …
    pub protocol_type: String,
    /// The chosen protocol; empty between generations.
    pub protocol: String,
    /// Its members, with the metadata for the chosen protocol.
    pub members: Vec<Member>,
}

impl Coordinator {
    /// A coordinator without groups in memory. Groups in the map are loaded when they are used. Committed offsets that
    /// nobody uses are kept for `retention`.
    pub fn start(env: &Env, meta: &Meta, rules: Rules, retention: Duration) -> Coordinator {
        let wake = Arc::new(Notify::new());
        let sweeper = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            env: env.clone(),
            meta: meta.clone(),
            rules,
            retention,
            started: env.monotonic(),
            groups: Mutex::new(Groups::default()),
            wake: wake.clone(),
            sweep: sweeper.clone(),
        });
        sweep::observe(meta, &sweeper);
        env.spawn("offset sweep", sweep::run(Arc::downgrade(&shared), sweeper));
        env.spawn_vital("groups", keep_time(Arc::downgrade(&shared), wake));
        Coordinator(shared)
    }

    /// Joins a group. Returns when the rebalance is over.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn join(&self, group: &str, join: Join) -> Result<Joined, Refusal> {
        let answered = {
            let mut groups = self.0.lock();
            if !join.member_id.is_empty() && !groups.slots.contains_key(group) {
                return Err(Refusal::UnknownMember);
            }
            groups.room_for_bytes()?;
            let (send, receive) = oneshot::channel();
            let waiter = groups.sleep(Sleeper::Join(send));
            let joined =
                self.0.with(&mut groups, group, |group, now, out| group.join(now, waiter, join, out));
            if let Err(refusal) = joined {
                groups.sleepers.remove(&waiter);
                return Err(refusal);
            }
            receive
        };
        answered.await.unwrap_or(Err(Refusal::NotAvailable))
    }

    /// Asks for an assignment. Returns when the leader has assigned.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn sync(&self, group: &str, sync: Sync) -> Result<Synced, Refusal> {
        let answered = {
            let mut groups = self.0.lock();
            if !groups.slots.contains_key(group) {
                return Err(Refusal::UnknownMember);
            }
            if !sync.assignments.is_empty() {
                groups.room_for_bytes()?;
            }
            let (send, receive) = oneshot::channel();
            let waiter = groups.sleep(Sleeper::Sync(send));
            self.0.with(&mut groups, group, |group, now, out| group.sync(now, waiter, sync, out))?;
            receive
        };
        answered.await.unwrap_or(Err(Refusal::NotAvailable))
    }

    /// Keeps the session of a member alive.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn heartbeat(&self, group: &str, speaker: Speaker<'_>, generation: i32) -> Result<(), Refusal> {
        let mut groups = self.0.lock();
        let slot = groups.slots.get_mut(group).ok_or(Refusal::UnknownMember)?;
        // A heartbeat only moves the deadline further away: the alarm may stay.
        slot.group.heartbeat(self.0.now(), speaker, generation)
    }

    /// Removes a member.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn leave(&self, group: &str, speaker: Speaker<'_>) -> Result<(), Refusal> {
        let mut groups = self.0.lock();
        if !groups.slots.contains_key(group) {
            return Err(Refusal::UnknownMember);
        }
        self.0.with(&mut groups, group, |group, now, out| group.leave(now, speaker, out))?
    }

    /// Commits offsets, all or none. Without offsets it only keeps the session alive.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn commit(
        &self,
        envelope: Envelope,
        group: &str,
        speaker: Speaker<'_>,
        generation: i32,
        offsets: Vec<NewOffset>,
    ) -> Result<(), Failure> {
        let committed = {
            let mut groups = self.0.lock();
            let protocol_type = self.0.may_commit(&mut groups, group, speaker, generation)?;
            if offsets.is_empty() {
                return Ok(());
            }
            let record = GroupRecord { protocol_type, generation: generation.max(0), empty_since: None };
            let group = group.to_owned();
            // It is enqueued under the lock, so commits of a group keep the order in which they were checked.
            self.0.meta.commit(envelope, move |tx| write_offsets(tx, &group, &record, &offsets))
        };
        let settled = settled(committed.await);
        if let Err(Failure::Full { what, .. }) = &settled {
            metrics::counter!("floe_kafka_groups_refused_total", "limit" => *what).increment(1);
        }
        settled
    }

    /// Deletes a group without members, and its offsets.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn delete(&self, envelope: Envelope, group: &str) -> Result<(), Failure> {
        let committed = {
            let mut groups = self.0.lock();
            let held = groups.slots.contains_key(group);
            if held {
                self.0.with(&mut groups, group, |group, _, _| group.delete())??;
                groups.forget(group);
            }
            let group = group.to_owned();
            self.0.meta.commit_deletion(envelope, move |tx| delete_group(tx, &group, held))
        };
        settled(committed.await)
    }

    /// All groups with members or with records in the map.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn list(&self, snapshot: &Snapshot) -> Result<Vec<Listed>, DecodeError> {
        let mut all = BTreeMap::new();
        for entry in snapshot.range::<GroupRecord>(..) {
            let (group, record) = entry?;
            all.insert(group, (record.protocol_type, GroupState::Empty));
        }
        for (name, slot) in self.0.lock().slots.iter().filter(|(_, slot)| !slot.group.fresh()) {
            let group = &slot.group;
            all.insert(name.clone(), (group.protocol_type().to_owned(), group.state()));
        }
        let listed = |(group, (protocol_type, state))| Listed { group, protocol_type, state };
        Ok(all.into_iter().map(listed).collect())
    }

    /// Describes a group; `None` if there is none of this name.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn describe(&self, snapshot: &Snapshot, name: &str) -> Result<Option<Described>, DecodeError> {
        if let Some(slot) = self.0.lock().slots.get(name).filter(|slot| !slot.group.fresh()) {
            let group = &slot.group;
            return Ok(Some(Described {
                state: group.state(),
                protocol_type: group.protocol_type().to_owned(),
                protocol: group.protocol().to_owned(),
                members: group.members().cloned().collect(),
            }));
        }
        let record = snapshot.get::<GroupRecord>(&name.to_owned())?;
        Ok(record.map(|record| Described {
            state: GroupState::Empty,
            protocol_type: record.protocol_type,
            protocol: String::new(),
            members: Vec::new(),
        }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(|_| {
            // The timer is a vital task. Woken up it panics on the same lock, and that ends the process; a panic in the
            // task of a connection does not.
            self.wake.notify_one();
            panic!("a group broke an invariant, the groups of this broker are lost");
        })
    }

    fn now(&self) -> Moment {
        let since = self.env.monotonic().saturating_duration_since(self.started);
        Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs one command on a group, which is made if need be, and hands out its replies.
    fn with<T>(
        &self,
        groups: &mut Groups,
        name: &str,
        command: impl FnOnce(&mut Group, Moment, &mut Vec<Reply>) -> T,
    ) -> Result<T, Refusal> {
        if !groups.slots.contains_key(name) {
            groups.room()?;
            let GroupRecord { generation, protocol_type, .. } = self.remembered(name);
            let group = Group::new(self.rules, generation, &protocol_type);
            groups.slots.insert(name.to_owned(), GroupSlot { group, alarm: None, bytes: 0 });
        }
        let slot = groups.slots.get_mut(name).expect("just made");
        let mut replies = Vec::new();
        let outcome = command(&mut slot.group, self.now(), &mut replies);
        groups.weigh(name);
        if groups.rearm(name) {
            self.wake.notify_one();
        }
        groups.answer(replies);
        groups.tidy(name);
        Ok(outcome)
    }

    /// The record of a group in the map. A record that cannot be decoded counts as none here; commits report it.
    fn remembered(&self, name: &str) -> GroupRecord {
        self.recorded(name).unwrap_or_default()
    }

    fn recorded(&self, name: &str) -> Option<GroupRecord> {
        self.meta.snapshot().get::<GroupRecord>(&name.to_owned()).ok().flatten()
    }

    /// Checks a commit. Returns the group's protocol type.
    fn may_commit(
        &self,
        groups: &mut Groups,
        name: &str,
        speaker: Speaker<'_>,
        generation: i32,
    ) -> Result<String, Refusal> {
        if name.len() > limits::GROUP_NAME_BYTES_MAX {
            return Err(Refusal::InvalidGroupId);
        }
        let now = self.now();
        if let Some(slot) = groups.slots.get_mut(name) {
            slot.group.commit(now, speaker, generation)?;
            return Ok(slot.group.protocol_type().to_owned());
        }
        let recorded = self.recorded(name);
        if recorded.is_none() && generation >= 0 {
            // There is no such group, so there is no such generation of it.
            return Err(Refusal::IllegalGeneration);
        }
        let remembered = recorded.unwrap_or_default();
        let mut group = Group::new(self.rules, remembered.generation, &remembered.protocol_type);
        group.commit(now, speaker, generation)?;
        Ok(remembered.protocol_type)
    }
}

impl Members for Shared {
    fn env(&self) -> &Env {
        &self.env
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn retention(&self) -> Duration {
        self.retention
    }

    fn has_members(&self, group: &str) -> bool {
        self.lock().slots.get(group).is_some_and(|slot| !slot.group.idle())
    }

    fn standing(&self, group: &str) -> Standing {
        let unknown = Standing::Active { subscribed: None };
        let metadata: Vec<Bytes> = {
            let groups = self.lock();
            let Some(slot) = groups.slots.get(group).filter(|slot| !slot.group.idle()) else {
                return Standing::Empty;
            };
            let group = &slot.group;
            if group.state() != GroupState::Stable || group.protocol_type() != CONSUMER {
                return unknown;
            }
            group.members().map(|member| member.metadata(group.protocol())).collect()
        };
        let mut subscribed = BTreeSet::new();
        for metadata in &metadata {
            let Some(topics) = topics_of(metadata) else { return unknown };
            subscribed.extend(topics.into_iter().map(str::to_owned));
        }
        Standing::Active { subscribed: Some(subscribed) }
    }
}

/// The timer of all groups. It ends when the coordinator is gone.
async fn keep_time(shared: Weak<Shared>, wake: Arc<Notify>) {
    loop {
        let next = match shared.upgrade() {
            None => return,
            Some(shared) => {
                let now = shared.now();
                let next = shared.lock().expire(now);
                // Moments are rounded down, so it waits one millisecond more.
                next.map(|next| shared.started + Duration::from_millis(next.0 + 1))
            }
        };
        match next {
            None => wake.notified().await,
            Some(next) => tokio::select! {
                biased;
                () = wake.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            },
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wake.notify_one();
        self.sweep.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use floe_log::PartitionId;
    use floe_meta::{MemoryJournal, Options};

    use super::*;
    use crate::classic::{Protocol, Waiter};

    const PART: &str = "FLOE_KAFKA_TEST_PART";

    async fn coordinator() -> Coordinator {
        let env = Env::simulated(7);
        let journal = Arc::new(MemoryJournal::new());
        let meta = Meta::open(env.clone(), journal, Options::default()).await.expect("opens");
        const RULES: Rules = Rules { initial_delay_ms: 0, members_max: 10, bytes_max: 1 << 20 };
        Coordinator::start(&env, &meta, RULES, limits::OFFSETS_RETENTION)
    }

    fn join() -> Join {
        Join {
            member_id: String::new(),
            fresh_id: "m".to_owned(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/host".to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol { name: "range".to_owned(), metadata: "m".into() }],
            require_known_id: false,
            can_skip_assignment: false,
        }
    }

    /// The child process of the test below: a group breaks in the timer or in a command.
    #[tokio::test(start_paused = true)]
    async fn child_with_a_broken_group() {
        let Ok(part) = std::env::var(PART) else { return };
        let groups = coordinator().await;
        groups.join("g", join()).await.expect("joined");
        match part.as_str() {
            "timer" => {
                let mut held = groups.0.lock();
                let group = &mut held.slots.get_mut("g").expect("joined").group;
                group.instances.insert("instance".to_owned(), "nobody".to_owned());
            }
            "command" => {
                let theirs = groups.clone();
                let task = groups.0.env.spawn("connection", async move {
                    let mut held = theirs.0.lock();
                    theirs.0.with(&mut held, "g", |group, _, _| assert!(group.idle(), "planted"))
                });
                assert!(task.await.is_err(), "the command panics");
                let speaker = Speaker { member_id: "m", instance_id: None };
                let asks = groups.clone();
                groups.0.env.spawn("another", async move { asks.heartbeat("g", speaker, 1) });
            }
            part => unreachable!("no part {part}"),
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    #[test]
    fn a_broken_group_ends_the_process_and_does_not_linger() {
        for part in ["timer", "command"] {
            let mut command = Command::new(std::env::current_exe().expect("this test"));
            let child = "coordinator::tests::child_with_a_broken_group";
            let output = command.args([child, "--exact"]).env(PART, part).output().expect("runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), None, "{part} ended with {}: {said}", output.status);
            assert!(said.contains("task 'groups' panicked, ending the process"), "{part}: {said}");
        }
    }

    /// A full broker is not a full group: members may try again.
    #[tokio::test(start_paused = true)]
    async fn a_broker_that_is_full_asks_to_come_again() {
        let groups = coordinator().await;
        let joined = groups.join("g", join()).await.expect("joined");
        let assigns = |assignments| Sync {
            generation: joined.generation,
            member_id: "m".to_owned(),
            instance_id: None,
            protocol_type: None,
            protocol: None,
            assignments,
        };
        let ours = std::mem::replace(&mut groups.0.lock().bytes, limits::GROUPS_BYTES_MAX);
        assert_eq!(groups.join("other", join()).await, Err(Refusal::NotAvailable));
        let assigned = groups.sync("g", assigns(vec![("m".to_owned(), "all".into())])).await;
        assert_eq!(assigned, Err(Refusal::NotAvailable));
        groups.0.lock().bytes = ours;

        let mut told = join();
        told.require_known_id = true;
        let mut all = Groups::default();
        for number in 0..limits::GROUPS_MAX {
            let mut group = Group::new(groups.0.rules, 0, "");
            group.join(Moment(0), Waiter(0), told.clone(), &mut Vec::new());
            all.slots.insert(format!("g{number}"), GroupSlot { group, alarm: None, bytes: 0 });
        }
        assert_eq!(all.room(), Err(Refusal::NotAvailable), "somebody is on the way to each");
        all.slots.insert(
            "g7".to_owned(),
            GroupSlot { group: Group::new(groups.0.rules, 0, ""), alarm: None, bytes: 0 },
        );
        assert_eq!(all.room(), Ok(()));
        assert!(!all.slots.contains_key("g7"), "nobody misses it");
    }

    /// The topic was deleted after the commit was checked: it writes nothing, because no sweep would follow.
    #[tokio::test(start_paused = true)]
    async fn a_commit_behind_the_deletion_of_its_topic_writes_nothing() {
        let groups = coordinator().await;
        let deleted = PartitionId { topic: floe_log::TopicId(9), index: 0 };
        let offset = NewOffset { partition: deleted, offset: 1, leader_epoch: -1, metadata: String::new() };
        let speaker = Speaker { member_id: "", instance_id: None };
        let committed = groups.commit(Envelope::broker("test"), "g", speaker, -1, vec![offset]).await;
        assert_eq!(committed, Ok(()));
        assert!(groups.0.meta.snapshot().is_empty());
    }
}
