//! Deletes the committed offsets of deleted topics.
//!
//! Offsets are ordered by group, not by topic, so a sweep checks all of them. It runs after a topic was deleted, and at
//! start, because the process may have ended between a deletion and its sweep. A step checks
//! [`limits::OFFSETS_PER_SWEEP_STEP`] offsets and deletes the orphans in one commit. A commit that was checked before
//! a topic's deletion writes nothing after it (`commits.rs`), so no orphan comes behind the sweep.

use std::ops::Bound;
use std::sync::Arc;

use floe_log::TopicId;
use floe_log::topic;
use floe_meta::{CommitError, DecodeError, Envelope, Lookup, Meta, Snapshot, Tx};
use tokio::sync::Notify;

use crate::limits;
use crate::map::{GroupRecord, OffsetKey, OffsetRecord};

/// Wakes the sweeper when a topic is deleted.
pub(crate) fn observe(meta: &Meta, wake: &Arc<Notify>) {
    let wake = wake.clone();
    meta.observe(move |applied| {
        if applied.changes.iter().any(|change| change.value.is_none() && topic::is_topic(&change.key)) {
            wake.notify_one();
        }
    });
}

/// The sweeper. `meta` returns `None` when the coordinator is gone, which also wakes the sweeper: then it ends.
pub(crate) async fn run(meta: impl Fn() -> Option<Meta> + Send, wake: Arc<Notify>) {
    loop {
        let mut from = Bound::Unbounded;
        loop {
            let Some(meta) = meta() else { return };
            match step(&meta, from).await {
                Ok(None) => break,
                Ok(Some(last)) => from = Bound::Excluded(last),
                Err(CommitError::Closed) => return,
                Err(failure) => {
                    tracing::warn!(%failure, "offsets of deleted topics are not freed, trying again later");
                    wake.notify_one();
                    break;
                }
            }
            drop(meta);
            tokio::time::sleep(limits::OFFSET_SWEEP_STEP_PAUSE).await;
        }
        wake.notified().await;
        // More topics may be about to be deleted.
        tokio::time::sleep(limits::OFFSET_SWEEP_DELAY).await;
    }
}

/// Checks the next offsets and deletes the orphans. Returns the offset to continue after.
async fn step(meta: &Meta, from: Bound<OffsetKey>) -> Result<Option<OffsetKey>, CommitError<DecodeError>> {
    let (orphans, last) = orphans(&meta.snapshot(), from).map_err(CommitError::Refused)?;
    if !orphans.is_empty() {
        let freed = orphans.len() as u64;
        let envelope = Envelope::broker("free offsets of deleted topics");
        meta.commit_deletion(envelope, move |tx| free(tx, &orphans)).await?;
        metrics::counter!("floe_kafka_offsets_freed_total").increment(freed);
    }
    Ok(last)
}

/// Whether topics exist. It caches the last topic, because offsets of one topic follow each other.
#[derive(Default)]
pub(crate) struct KnownTopics(Option<(TopicId, bool)>);

impl KnownTopics {
    pub(crate) fn exists(&mut self, map: &impl Lookup, id: TopicId) -> Result<bool, DecodeError> {
        match self.0 {
            Some((known, exists)) if known == id => Ok(exists),
            _ => {
                let exists = topic::by_id(map, id)?.is_some();
                self.0 = Some((id, exists));
                Ok(exists)
            }
        }
    }
}

type Found = (Vec<OffsetKey>, Option<OffsetKey>);

fn orphans(snapshot: &Snapshot, from: Bound<OffsetKey>) -> Result<Found, DecodeError> {
    let (mut orphans, mut last) = (Vec::new(), None);
    let mut topics = KnownTopics::default();
    let mut count = 0;
    for entry in snapshot.range::<OffsetRecord>((from, Bound::Unbounded)).take(limits::OFFSETS_PER_SWEEP_STEP)
    {
        let (key, _) = entry?;
        count += 1;
        if !topics.exists(snapshot, key.partition.topic)? {
            orphans.push(key.clone());
        }
        last = Some(key);
    }
    let more = count == limits::OFFSETS_PER_SWEEP_STEP;
    Ok((orphans, last.filter(|_| more)))
}

/// Command: deletes these offsets, and the records of groups without other offsets. Their members write them again with
/// their next commit.
fn free(tx: &mut Tx<'_>, orphans: &[OffsetKey]) -> Result<(), DecodeError> {
    let mut topics = KnownTopics::default();
    for key in orphans {
        if !topics.exists(tx, key.partition.topic)? {
            tx.delete::<OffsetRecord>(key);
        }
    }
    for of_group in orphans.chunk_by(|one, other| one.group == other.group) {
        let group = &of_group[0].group;
        if tx.range::<OffsetRecord>(OffsetKey::of_group(group)).next().is_none() {
            tx.delete::<GroupRecord>(group);
        }
    }
    Ok(())
}
