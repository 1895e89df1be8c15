//! Deletes committed offsets of deleted topics, and expired ones.
//!
//! Offsets are ordered by group, so a round checks all of them. A round runs at start, because the process may have
//! ended between a deletion and its sweep, and after a topic was deleted. Every [`limits::OFFSETS_EXPIRY_INTERVAL`] a
//! round also deletes expired offsets (`retention.rs`). Before it does, it writes down which groups have no members,
//! and since when, because that is in memory only. A step checks [`limits::OFFSETS_PER_SWEEP_STEP`] records and makes
//! one commit. A commit that was checked before a topic's deletion writes nothing after it (`commits.rs`), so no orphan
//! comes behind the sweep.

use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

use floe_env::{Env, Timestamp};
use floe_log::{deleted, topic};
use floe_meta::{CommitError, DecodeError, Envelope, Meta, Snapshot, Tx};
use tokio::sync::Notify;

use crate::limits;
use crate::map::{GroupRecord, OffsetKey, OffsetRecord};
use crate::retention::{Standing, expired};
use crate::stored::Stored;
use crate::topics::KnownTopics;

/// What the sweep needs to know of the broker.
pub(crate) trait Members: Send + Sync {
    fn env(&self) -> &Env;
    fn meta(&self) -> &Meta;
    fn retention(&self) -> Duration;
    fn has_members(&self, group: &str) -> bool;
    fn standing(&self, group: &str) -> Standing;
}

/// Wakes the sweeper when a topic is deleted.
pub(crate) fn observe(meta: &Meta, wake: &Arc<Notify>) {
    let wake = wake.clone();
    meta.observe(move |applied| {
        let is_known = |key: &[u8]| topic::is_topic(key) || deleted::is_deleted(key);
        if applied.changes.iter().any(|change| change.value.is_none() && is_known(&change.key)) {
            wake.notify_one();
        }
    });
}

/// The sweeper. It ends when the coordinator is gone, which also wakes it.
pub(crate) async fn run<M: Members>(held: Weak<M>, wake: Arc<Notify>) {
    let now = || held.upgrade().map(|members| members.env().monotonic());
    let Some(mut expiry) = now() else { return };
    expiry += limits::OFFSETS_EXPIRY_INTERVAL;
    let mut expires = false;
    loop {
        match round(&held, expires).await {
            Ok(()) => {}
            Err(CommitError::Closed) => return,
            Err(failure) => {
                tracing::warn!(%failure, "offsets that nobody needs are not freed, trying again later");
                wake.notify_one();
            }
        }
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(expiry) => {
                    let Some(now) = now() else { return };
                    (expires, expiry) = (true, now + limits::OFFSETS_EXPIRY_INTERVAL);
                    break;
                }
                () = wake.notified() => {
                    expires = false;
                    // More topics may be about to be deleted.
                    tokio::time::sleep(limits::OFFSET_SWEEP_DELAY).await;
                    break;
                }
                () = tokio::time::sleep(limits::STORED_LOOK_INTERVAL) => {
                    let Some(members) = held.upgrade() else { return };
                    if let Err(failure) = measure(&*members) {
                        tracing::warn!(%failure, "what groups store is not counted, trying again later");
                    }
                }
            }
        }
    }
}

type Failure = CommitError<DecodeError>;

async fn round<M: Members>(held: &Weak<M>, expires: bool) -> Result<(), Failure> {
    if expires {
        mark_all(held).await?;
    }
    let mut from = Bound::Unbounded;
    loop {
        let Some(members) = held.upgrade() else { return Err(CommitError::Closed) };
        let Some(last) = step(&*members, from, expires).await? else {
            return measure(&*members);
        };
        from = Bound::Excluded(last);
        drop(members);
        tokio::time::sleep(limits::OFFSET_SWEEP_STEP_PAUSE).await;
    }
}

/// Tells the metrics what is stored.
fn measure<M: Members>(members: &M) -> Result<(), Failure> {
    let stored = Stored::of(&members.meta().snapshot()).map_err(CommitError::Refused)?;
    metrics::gauge!("floe_kafka_groups_stored").set(stored.groups as f64);
    metrics::gauge!("floe_kafka_groups_stored_bytes").set(stored.bytes as f64);
    metrics::gauge!("floe_kafka_offsets_stored").set(stored.offsets as f64);
    Ok(())
}

/// Writes down which groups have no members.
async fn mark_all<M: Members>(held: &Weak<M>) -> Result<(), Failure> {
    let mut from = Bound::Unbounded;
    loop {
        let Some(members) = held.upgrade() else { return Err(CommitError::Closed) };
        let Some(last) = mark(&*members, from).await? else { return Ok(()) };
        from = Bound::Excluded(last);
        drop(members);
        tokio::time::sleep(limits::OFFSET_SWEEP_STEP_PAUSE).await;
    }
}

/// Writes down which of the next groups have no members. Returns the group to continue after.
async fn mark<M: Members>(members: &M, from: Bound<String>) -> Result<Option<String>, Failure> {
    let (mut changed, mut last, mut count) = (Vec::new(), None, 0);
    let snapshot = members.meta().snapshot();
    let groups = snapshot.range::<GroupRecord>((from, Bound::Unbounded));
    for entry in groups.take(limits::OFFSETS_PER_SWEEP_STEP) {
        let (group, record) = entry.map_err(CommitError::Refused)?;
        count += 1;
        let is_empty = !members.has_members(&group);
        // A group that never had members is not marked: its offsets expire by themselves.
        if !record.protocol_type.is_empty() && record.empty_since.is_some() != is_empty {
            changed.push((group.clone(), is_empty));
        }
        last = Some(group);
    }
    if !changed.is_empty() {
        let command = move |tx: &mut Tx<'_>| -> Result<(), DecodeError> {
            for (group, is_empty) in &changed {
                if let Some(record) = tx.get::<GroupRecord>(group)? {
                    let empty_since = is_empty.then_some(tx.now().0);
                    tx.put(group, &GroupRecord { empty_since, ..record });
                }
            }
            Ok(())
        };
        members.meta().commit(Envelope::broker("note groups without members"), command).await?;
    }
    let more = count == limits::OFFSETS_PER_SWEEP_STEP;
    Ok(last.filter(|_| more))
}

/// Checks the next offsets, and deletes those that nobody needs. Returns the offset to continue after.
async fn step<M: Members>(
    members: &M,
    from: Bound<OffsetKey>,
    expires: bool,
) -> Result<Option<OffsetKey>, Failure> {
    let meta = members.meta();
    let (useless, last) = useless(members, &meta.snapshot(), from, expires).map_err(CommitError::Refused)?;
    if !useless.is_empty() {
        let expired = useless.iter().filter(|one| one.expired.is_some()).count() as u64;
        let orphans = useless.len() as u64 - expired;
        let envelope = Envelope::broker("free offsets that are orphaned or expired");
        meta.commit_deletion(envelope, move |tx| free(tx, &useless)).await?;
        metrics::counter!("floe_kafka_offsets_freed_total").increment(orphans);
        metrics::counter!("floe_kafka_offsets_expired_total").increment(expired);
    }
    Ok(last)
}

/// An offset to delete.
struct Useless {
    key: OffsetKey,
    /// Its record and its group's, which were found to be expired; `None` if its topic is gone.
    expired: Option<(GroupRecord, OffsetRecord)>,
}

/// The group of an offset; offsets of one group follow each other.
struct OfGroup {
    name: String,
    record: GroupRecord,
    standing: Standing,
}

fn useless<M: Members>(
    members: &M,
    snapshot: &Snapshot,
    from: Bound<OffsetKey>,
    expires: bool,
) -> Result<(Vec<Useless>, Option<OffsetKey>), DecodeError> {
    let (now, retention) = (members.env().now(), members.retention());
    let (mut useless, mut last, mut count) = (Vec::new(), None, 0);
    let mut topics = KnownTopics::default();
    let mut group: Option<OfGroup> = None;
    let offsets = snapshot.range::<OffsetRecord>((from, Bound::Unbounded));
    for entry in offsets.take(limits::OFFSETS_PER_SWEEP_STEP) {
        let (key, record) = entry?;
        count += 1;
        let is_old = expires && Timestamp(record.committed) <= now - retention;
        match topics.name(snapshot, key.partition.topic)? {
            None => useless.push(Useless { key: key.clone(), expired: None }),
            Some(topic) if is_old => {
                if group.as_ref().is_none_or(|group| group.name != key.group) {
                    group = Some(of_group(members, snapshot, &key.group)?);
                }
                let group = group.as_ref().expect("it was just found");
                if expired(&group.record, &group.standing, topic, &record, now, retention) {
                    useless.push(Useless { key: key.clone(), expired: Some((group.record.clone(), record)) });
                }
            }
            Some(_) => {}
        }
        last = Some(key);
    }
    let more = count == limits::OFFSETS_PER_SWEEP_STEP;
    Ok((useless, last.filter(|_| more)))
}

fn of_group<M: Members>(members: &M, snapshot: &Snapshot, name: &str) -> Result<OfGroup, DecodeError> {
    let record = snapshot.get::<GroupRecord>(&name.to_owned())?.unwrap_or_default();
    Ok(OfGroup { name: name.to_owned(), record, standing: members.standing(name) })
}

/// Command: deletes these offsets, and the records of groups without other offsets. Their members write them again with
/// their next commit. An offset that was committed anew is not expired any more.
fn free(tx: &mut Tx<'_>, useless: &[Useless]) -> Result<(), DecodeError> {
    let mut topics = KnownTopics::default();
    let mut stored = Stored::of(tx)?;
    for Useless { key, expired } in useless {
        let Some(record) = tx.get::<OffsetRecord>(key)? else { continue };
        let is_useless = match expired {
            None => !topics.exists(tx, key.partition.topic)?,
            Some((group, judged)) => {
                record == *judged && tx.get::<GroupRecord>(&key.group)?.unwrap_or_default() == *group
            }
        };
        if is_useless {
            stored.remove_offset(key, &record);
            tx.delete::<OffsetRecord>(key);
        }
    }
    for of_group in useless.chunk_by(|one, other| one.key.group == other.key.group) {
        let group = &of_group[0].key.group;
        let is_empty = tx.range::<OffsetRecord>(OffsetKey::of_group(group)).next().is_none();
        if is_empty && tx.get::<GroupRecord>(group)?.is_some() {
            stored.remove_group(group);
            tx.delete::<GroupRecord>(group);
        }
    }
    stored.put(tx);
    Ok(())
}
