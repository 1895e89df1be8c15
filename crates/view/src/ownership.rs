//! One owner for each topic of a view: the lease, and what comes with it.

use std::{collections::BTreeMap, time::Duration};

use floe_env::LogLines;
use floe_log::{
    Offset, PartitionId, TopicId, deleted,
    topic::{self, Topic},
};
use floe_meta::lease::{self, Lease};
use floe_meta::{DecodeError, Envelope, Lookup, Snapshot, Tx};
use tracing::info;

use crate::{contract::View, error::ViewError, limits, progress, shared::Shared};

/// What the owner of a topic knows.
pub(crate) struct Owned<V: View> {
    /// The epoch of the lease.
    pub(crate) epoch: u64,
    /// The next offset to read, by partition.
    pub(crate) progress: BTreeMap<u32, Offset>,
    pub(crate) output: V::Output,
}

impl<V: View> Owned<V> {
    /// The next offset to read of a partition.
    pub(crate) fn next(&self, partition: u32) -> Offset {
        self.progress.get(&partition).copied().unwrap_or(Offset::ZERO)
    }
}

/// The name of the lease on a topic of the view that is called `view`.
pub fn lease_name(view: &str, topic: TopicId) -> String {
    format!("view/{view}/{topic}")
}

/// The epoch of the lease, if `owner` holds it.
pub(crate) fn epoch_of(snapshot: &Snapshot, lease: &String, owner: &str) -> Result<Option<u64>, DecodeError> {
    let held = snapshot.get::<Lease>(lease)?;
    Ok(held.filter(|lease| lease.owner.as_deref() == Some(owner)).map(|lease| lease.epoch))
}

static TAKEN_OVER_LINES: LogLines = LogLines::new(limits::TOPIC_LINES_PER_MINUTE, Duration::from_secs(60));

/// Takes the lease of a topic and loads what the last owner left. `stale` is the lease if nobody has renewed it for its
/// time to live.
pub(crate) async fn take_over<V: View>(
    shared: &Shared<V>,
    snapshot: &Snapshot,
    topic: &Topic,
    stale: Option<Lease>,
) -> Result<Owned<V>, ViewError> {
    let found = shared.view.find(snapshot, topic).await?;
    let (topic_then, owner) = (topic.clone(), shared.owner.clone());
    let command = move |tx: &mut Tx<'_>| {
        let id = topic_then.id;
        topic::by_id(tx, id)?.ok_or(ViewError::TopicGone)?;
        let name = lease_name(V::NAME, id);
        let epoch = lease::acquire(tx, &name, &owner, stale.as_ref(), limits::LEASE_TTL)?;
        let taken = V::take_over(tx, &topic_then, epoch)?;
        Ok((epoch, taken, progress::progress_of::<V::Progress>(tx, id)?))
    };
    let envelope = Envelope::broker(&format!("{} view of {}", V::NAME, topic.name));
    let committed = shared.log.meta().commit(envelope, command).await;
    // If the answer was lost, the next attempt takes the lease again.
    let (epoch, taken, progress) = committed.map_err(ViewError::from_commit)?.reply;
    if let Some(left_out) = TAKEN_OVER_LINES.next(shared.env.monotonic()) {
        info!(view = V::NAME, topic = %topic.name, epoch, left_out, "took over the view");
    }
    let output = shared.view.open(topic, epoch, found, taken).await?;
    Ok(Owned { epoch, progress, output })
}

/// The topics that have a lease of this view: all that ever had an owner, and were not forgotten.
pub(crate) fn owned_topics<V: View>(map: &impl Lookup) -> Result<Vec<TopicId>, DecodeError> {
    let prefix = format!("view/{}/", V::NAME);
    // The character after the slash.
    let end = format!("view/{}0", V::NAME);
    let mut topics = Vec::new();
    for found in map.range::<Lease>(prefix.clone()..end) {
        let (name, _) = found?;
        topics.extend(name.strip_prefix(&prefix).and_then(|id| id.parse().ok()).map(TopicId));
    }
    topics.sort_unstable();
    Ok(topics)
}

/// Removes everything of the view of a topic, if the topic is gone for good.
pub(crate) fn forget<V: View>(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
    if deleted::exists(tx, topic)? {
        return Ok(());
    }
    V::forget(tx, topic)?;
    for index in progress::progress_of::<V::Progress>(tx, topic)?.into_keys() {
        tx.delete::<V::Progress>(&PartitionId::new(topic, index));
    }
    // No process takes this lease again: the topic is gone, and its id is not used twice.
    tx.delete::<Lease>(&lease_name(V::NAME, topic));
    Ok(())
}

/// Gives the leases that `owner` holds on these topics back.
pub(crate) fn release<V: View>(tx: &mut Tx<'_>, topics: &[TopicId], owner: &str) -> Result<(), ViewError> {
    for topic in topics {
        let name = lease_name(V::NAME, *topic);
        let held = tx.get::<Lease>(&name)?;
        if let Some(held) = held.filter(|held| held.owner.as_deref() == Some(owner)) {
            lease::release(tx, &name, held.epoch)?;
        }
    }
    Ok(())
}
