//! The edge of the groups: all of a broker's [`Group`]s, those who wait for their answers, the one timer, and the
//! commits that make offsets durable.
//!
//! Members live in memory: after a restart every group is empty, its members are told that they are unknown and
//! join again, and go on from their committed offsets. Static members, too, then cause one rebalance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use floe_env::Env;
use floe_log::PartitionId;
use floe_meta::{CommitError, DecodeError, Envelope, Meta, Snapshot, Tx};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant};

use crate::limits;
use crate::map::{GroupRecord, OffsetKey, OffsetRecord};
use crate::{
    classic::{Group, Join, Joined, Moment, Refusal, Reply, Rules, Speaker, State, Sync, Synced, Waiter},
    sweep,
};

/// The groups of one broker. Clones are the same groups.
#[derive(Clone)]
pub struct Coordinator(Arc<Shared>);

pub(super) struct Shared {
    env: Env,
    pub(super) meta: Meta,
    rules: Rules,
    started: Instant,
    groups: Mutex<Groups>,
    wake: Arc<Notify>,
    sweep: Arc<Notify>,
}

#[derive(Default)]
struct Groups {
    slots: BTreeMap<String, Slot>,
    /// When which group wants to be woken; never later than its true deadline.
    alarms: BTreeSet<(Moment, String)>,
    sleepers: BTreeMap<Waiter, Sleeper>,
    waiters: u64,
    /// Metadata and assignments of all groups.
    bytes: usize,
}

struct Slot {
    group: Group,
    alarm: Option<Moment>,
    /// What of [`Groups::bytes`] is this group's.
    bytes: usize,
}

enum Sleeper {
    Join(oneshot::Sender<Result<Joined, Refusal>>),
    Sync(oneshot::Sender<Result<Synced, Refusal>>),
}

/// Why a durable command of a group did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The group refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing was written; it may be tried again.
    #[error("the metadata journal is not available: {0}")]
    Unavailable(String),
    /// It may have been written.
    #[error("it is not known whether the commit was written: {0}")]
    Unknown(String),
    /// What the map holds cannot be read.
    #[error("a group's metadata cannot be read: {0}")]
    Corrupt(DecodeError),
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Failure {
        Failure::Corrupt(error)
    }
}

/// One offset of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOffset {
    /// The partition; it exists.
    pub partition: PartitionId,
    /// The next offset to read.
    pub offset: i64,
    /// -1 for none.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: String,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub group: String,
    /// `consumer`, …
    pub protocol_type: String,
    /// What it is doing.
    pub state: State,
}

/// A group in full.
#[derive(Debug, Clone)]
pub struct Described {
    /// What it is doing.
    pub state: State,
    /// `consumer`, …
    pub protocol_type: String,
    /// The chosen protocol.
    pub protocol: String,
    /// Its members, with the metadata for the chosen protocol.
    pub members: Vec<super::Member>,
}

impl Coordinator {
    /// No groups in memory; those of the map are found when they are asked for.
    pub fn start(env: &Env, meta: &Meta, rules: Rules) -> Coordinator {
        let wake = Arc::new(Notify::new());
        let sweeper = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            env: env.clone(),
            meta: meta.clone(),
            rules,
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

    /// Joins; returns when the rebalance is over.
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

    /// Synchronises; returns when the leader has.
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

    /// A sign of life.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn heartbeat(&self, group: &str, speaker: Speaker<'_>, generation: i32) -> Result<(), Refusal> {
        let mut groups = self.0.lock();
        let slot = groups.slots.get_mut(group).ok_or(Refusal::UnknownMember)?;
        // A sign of life only moves the deadline away: the alarm may stay.
        slot.group.heartbeat(self.0.now(), speaker, generation)
    }

    /// Takes a member out.
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

    /// Makes offsets durable, all or none. No offsets are no more than a sign of life.
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
            let record = GroupRecord { protocol_type, generation: generation.max(0) };
            let group = group.to_owned();
            // Enqueued under the lock: commits of a group keep the order in which they were checked.
            self.0.meta.commit(envelope, move |tx| write_offsets(tx, &group, &record, &offsets))
        };
        settled(committed.await)
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
            self.0.meta.commit(envelope, move |tx| delete_group(tx, &group, held))
        };
        settled(committed.await)
    }

    /// All groups: those with members, and those of which the map knows offsets.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn list(&self, snapshot: &Snapshot) -> Result<Vec<Listed>, DecodeError> {
        let mut all = BTreeMap::new();
        for entry in snapshot.range::<GroupRecord>(..) {
            let (group, record) = entry?;
            all.insert(group, (record.protocol_type, State::Empty));
        }
        for (name, slot) in self.0.lock().slots.iter().filter(|(_, slot)| !slot.group.fresh()) {
            let group = &slot.group;
            all.insert(name.clone(), (group.protocol_type().to_owned(), group.state()));
        }
        let listed = |(group, (protocol_type, state))| Listed { group, protocol_type, state };
        Ok(all.into_iter().map(listed).collect())
    }

    /// One group, if there is such a one.
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
            state: State::Empty,
            protocol_type: record.protocol_type,
            protocol: String::new(),
            members: Vec::new(),
        }))
    }
}

/// The committed offset of one partition.
///
/// # Errors
/// The map cannot be read.
pub fn offset(
    snapshot: &Snapshot,
    group: &str,
    partition: PartitionId,
) -> Result<Option<OffsetRecord>, DecodeError> {
    snapshot.get::<OffsetRecord>(&OffsetKey { group: group.to_owned(), partition })
}

/// All committed offsets of a group, by topic and partition.
///
/// # Errors
/// The map cannot be read.
pub fn offsets(snapshot: &Snapshot, group: &str) -> Result<Vec<(PartitionId, OffsetRecord)>, DecodeError> {
    let entries = snapshot.range::<OffsetRecord>(OffsetKey::of_group(group));
    entries.map(|entry| entry.map(|(key, record)| (key.partition, record))).collect()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(|_| {
            // The timer is a vital task: it finds the same and ends the process, which a connection's task cannot.
            self.wake.notify_one();
            panic!("a group broke an invariant, the groups of this broker are lost");
        })
    }

    fn now(&self) -> Moment {
        let since = self.env.monotonic().saturating_duration_since(self.started);
        Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs one command on a group, which is made if need be; hands out the answers that it releases.
    fn with<T>(
        &self,
        groups: &mut Groups,
        name: &str,
        command: impl FnOnce(&mut Group, Moment, &mut Vec<Reply>) -> T,
    ) -> Result<T, Refusal> {
        if !groups.slots.contains_key(name) {
            groups.room()?;
            let GroupRecord { generation, protocol_type } = self.remembered(name);
            let group = Group::new(self.rules, generation, &protocol_type);
            groups.slots.insert(name.to_owned(), Slot { group, alarm: None, bytes: 0 });
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

    /// What the map knows of a group. A record that cannot be read counts as none here: commits will report it.
    fn remembered(&self, name: &str) -> GroupRecord {
        let found = self.meta.snapshot().get::<GroupRecord>(&name.to_owned()).ok().flatten();
        found.unwrap_or(GroupRecord { protocol_type: String::new(), generation: 0 })
    }

    /// Checks a commit, and returns the group's protocol type.
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
        let remembered = self.remembered(name);
        let mut group = Group::new(self.rules, remembered.generation, &remembered.protocol_type);
        group.commit(now, speaker, generation)?;
        Ok(remembered.protocol_type)
    }
}

impl Groups {
    fn sleep(&mut self, sleeper: Sleeper) -> Waiter {
        self.waiters += 1;
        let waiter = Waiter(self.waiters);
        self.sleepers.insert(waiter, sleeper);
        waiter
    }

    fn answer(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            // A closed channel means that the member's connection is gone; its session will end it.
            match reply {
                Reply::Join(waiter, answer) => match self.sleepers.remove(&waiter) {
                    Some(Sleeper::Join(send)) => drop(send.send(answer)),
                    _ => unreachable!("a join is answered once, to the one who waits for it"),
                },
                Reply::Sync(waiter, answer) => match self.sleepers.remove(&waiter) {
                    Some(Sleeper::Sync(send)) => drop(send.send(answer)),
                    _ => unreachable!("a sync is answered once, to the one who waits for it"),
                },
            }
        }
    }

    /// Counts the group's bytes anew after it changed.
    fn weigh(&mut self, name: &str) {
        let slot = self.slots.get_mut(name).expect("only known groups are weighed");
        let bytes = slot.group.bytes();
        self.bytes = self.bytes + bytes - std::mem::replace(&mut slot.bytes, bytes);
        self.gauge();
    }

    /// Sets the group's alarm to its next deadline; true when it is now the first of all.
    fn rearm(&mut self, name: &str) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        let next = slot.group.next_deadline();
        if next == slot.alarm {
            return false;
        }
        if let Some(old) = slot.alarm.take() {
            self.alarms.remove(&(old, name.to_owned()));
        }
        slot.alarm = next;
        let Some(next) = next else { return false };
        self.alarms.insert((next, name.to_owned()));
        self.alarms.first().is_some_and(|first| first.0 == next)
    }

    /// Whether there is room for what a member or a leader brings. The limit is the broker's and not the group's:
    /// the client may try again, while "the group is full" would end it.
    fn room_for_bytes(&self) -> Result<(), Refusal> {
        if self.bytes < limits::GROUPS_BYTES_MAX {
            return Ok(());
        }
        metrics::counter!("floe_kafka_groups_refused_total", "limit" => "bytes").increment(1);
        Err(Refusal::NotAvailable)
    }

    /// Room for one more group, if need be by forgetting one without members: what matters of it is in the map.
    fn room(&mut self) -> Result<(), Refusal> {
        if self.slots.len() < limits::GROUPS_MAX {
            return Ok(());
        }
        let idle = self.slots.iter().find(|(_, slot)| slot.group.idle()).map(|(name, _)| name.clone());
        let Some(name) = idle else {
            metrics::counter!("floe_kafka_groups_refused_total", "limit" => "groups").increment(1);
            return Err(Refusal::NotAvailable);
        };
        self.forget(&name);
        Ok(())
    }

    /// Forgets a group that nobody joined: a refused join leaves nothing behind.
    fn tidy(&mut self, name: &str) {
        let group = &self.slots.get(name).expect("only known groups are tidied").group;
        if group.state() == State::Empty && group.fresh() && group.idle() {
            self.forget(name);
        }
    }

    fn forget(&mut self, name: &str) {
        let slot = self.slots.remove(name).expect("only known groups are forgotten");
        self.bytes -= slot.bytes;
        if let Some(alarm) = slot.alarm {
            self.alarms.remove(&(alarm, name.to_owned()));
        }
        self.gauge();
    }

    fn gauge(&self) {
        metrics::gauge!("floe_kafka_groups").set(self.slots.len() as f64);
        metrics::gauge!("floe_kafka_groups_bytes").set(self.bytes as f64);
    }

    /// Lets happen what was due until `now`; returns the next alarm.
    fn expire(&mut self, now: Moment) -> Option<Moment> {
        while let Some((alarm, name)) = self.alarms.first().cloned() {
            if alarm > now {
                return Some(alarm);
            }
            self.alarms.pop_first();
            let slot = self.slots.get_mut(&name).expect("an alarm belongs to a group");
            slot.alarm = None;
            let mut replies = Vec::new();
            slot.group.expire(now, &mut replies);
            self.weigh(&name);
            self.rearm(&name);
            self.answer(replies);
            self.tidy(&name);
        }
        None
    }
}

/// The one timer of all groups; ends when the coordinator is gone.
async fn keep_time(shared: Weak<Shared>, wake: Arc<Notify>) {
    loop {
        let next = match shared.upgrade() {
            None => return,
            Some(shared) => {
                let now = shared.now();
                let next = shared.lock().expire(now);
                // One millisecond more, because moments are rounded down.
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

fn write_offsets(
    tx: &mut Tx<'_>,
    group: &str,
    record: &GroupRecord,
    offsets: &[NewOffset],
) -> Result<(), Failure> {
    let name = group.to_owned();
    let known = tx.get::<GroupRecord>(&name)?;
    let newest = known.as_ref().map_or(0, |known| known.generation);
    // Generation 0 comes from consumers without membership, whose commits the group itself has allowed.
    if record.generation > 0 && record.generation < newest {
        return Err(Refusal::IllegalGeneration.into());
    }
    // Without the topics that were deleted since the commit was checked: their offsets would outlive the sweep.
    let mut topics = sweep::Topics::default();
    let mut left = Vec::with_capacity(offsets.len());
    for new in offsets {
        if topics.exists(tx, new.partition.topic)? {
            left.push(new);
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let mut record = GroupRecord { generation: record.generation.max(newest), ..record.clone() };
    if let Some(known) = known.as_ref().filter(|_| record.protocol_type.is_empty()) {
        record.protocol_type.clone_from(&known.protocol_type);
    }
    if known.as_ref() != Some(&record) {
        tx.put(&name, &record);
    }
    for new in left {
        let key = OffsetKey { group: name.clone(), partition: new.partition };
        let value = OffsetRecord {
            offset: new.offset,
            leader_epoch: new.leader_epoch,
            metadata: new.metadata.clone(),
            committed: tx.now().0,
        };
        tx.put(&key, &value);
    }
    Ok(())
}

fn delete_group(tx: &mut Tx<'_>, group: &str, held: bool) -> Result<(), Failure> {
    let name = group.to_owned();
    let known = tx.get::<GroupRecord>(&name)?.is_some();
    if !known && !held {
        return Err(Refusal::NotFound.into());
    }
    if known {
        tx.delete::<GroupRecord>(&name);
    }
    let keys: Result<Vec<OffsetKey>, DecodeError> =
        tx.range::<OffsetRecord>(OffsetKey::of_group(group)).map(|entry| entry.map(|(key, _)| key)).collect();
    for key in keys? {
        tx.delete::<OffsetRecord>(&key);
    }
    Ok(())
}

fn settled<T>(outcome: Result<floe_meta::Committed<T>, CommitError<Failure>>) -> Result<T, Failure> {
    match outcome {
        Ok(committed) => Ok(committed.reply),
        Err(CommitError::Refused(failure)) => Err(failure),
        Err(CommitError::NotApplied(reason)) => Err(Failure::Unavailable(reason)),
        Err(CommitError::Unknown(reason)) => Err(Failure::Unknown(reason)),
        Err(CommitError::Closed) => Err(Failure::Unknown("the broker is shutting down".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use floe_meta::{MemoryJournal, Options};

    use super::*;

    const PART: &str = "FLOE_KAFKA_TEST_PART";

    async fn coordinator() -> Coordinator {
        let env = Env::simulated(7);
        let journal = Arc::new(MemoryJournal::new());
        let meta = Meta::open(env.clone(), journal, Options::default()).await.expect("opens");
        Coordinator::start(&env, &meta, Rules { initial_delay_ms: 0, members_max: 10, bytes_max: 1 << 20 })
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
            protocols: vec![crate::Protocol { name: "range".to_owned(), metadata: "m".into() }],
            require_known_id: false,
            can_skip_assignment: false,
        }
    }

    /// What the child of the test below does: a group breaks, in the timer or in somebody's command.
    #[tokio::test(start_paused = true)]
    async fn child_with_a_broken_group() {
        let Ok(part) = std::env::var(PART) else { return };
        let groups = coordinator().await;
        groups.join("g", join()).await.expect("joined");
        match part.as_str() {
            "timer" => {
                let mut held = groups.0.lock();
                let group = &mut held.slots.get_mut("g").expect("joined").group;
                group.instances.insert("seat".to_owned(), "nobody".to_owned());
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
            let child = "group::coordinator::tests::child_with_a_broken_group";
            let output = command.args([child, "--exact"]).env(PART, part).output().expect("runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), None, "{part} ended with {}: {said}", output.status);
            assert!(said.contains("task 'groups' panicked, ending the process"), "{part}: {said}");
        }
    }

    /// The limits of the broker are not the group's: its members may try again.
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
            all.slots.insert(format!("g{number}"), Slot { group, alarm: None, bytes: 0 });
        }
        assert_eq!(all.room(), Err(Refusal::NotAvailable), "somebody is on the way to each");
        all.slots.insert(
            "g7".to_owned(),
            Slot { group: Group::new(groups.0.rules, 0, ""), alarm: None, bytes: 0 },
        );
        assert_eq!(all.room(), Ok(()));
        assert!(!all.slots.contains_key("g7"), "nobody misses it");
    }

    /// The commit was allowed, then the topic was deleted: nothing is written that the sweep would not find.
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
