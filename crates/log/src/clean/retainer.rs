//! Retention removes records that are older than their topic wants them, or more than it wants (`retention.rs`), in
//! rounds.
//!
//! A round looks at the oldest extent of every partition, on a snapshot, beside the commits. What is due goes in
//! bounded commits, in turn if one partition has more than fits. Each commit takes the lease `retention` and decides
//! anew, so a round that dies leaves nothing half done, and two brokers do no harm to each other. A round without work
//! makes no commit.
//!
//! Objects that lose their last extent become trash, and the cleaner deletes them after its grace: readers that began
//! before still read them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use floe_env::{Env, Timestamp};
use floe_meta::lease::{self, Lease, LeaseError, Watch};
use floe_meta::{CommitError, DecodeError, Envelope, Meta, Snapshot, Tx};

use crate::clean::retention::{self, Defaults, Due, Found, Policy, Taken};
use crate::config::{Config, Times};
use crate::limits::{RETENTION_EXTENTS_PER_COMMIT, RETENTION_PARTITIONS_PER_COMMIT, RETENTION_STEP_PAUSE};
use crate::map::ids::{Offset, PartitionId};
use crate::map::topic::{self, Topic};
use crate::map::topic_config::TopicConfig;

/// The name of the lease, and the cause in the envelopes of its commits.
const RETENTION: &str = "retention";

/// What somebody has not read of a topic yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// By partition, the first offset that it has not read; 0 for those that are not in it.
    pub next: BTreeMap<u32, Offset>,
    /// Whether retention waits for it although the topic does not ask for that.
    pub always: bool,
}

/// Says what a kind of views has not read of a topic; none if the topic has no such view.
pub type Needs = fn(&Snapshot, &Topic) -> Result<Option<Unread>, DecodeError>;

/// Lets old records go, one round at a time. Only the broker that holds the lease does.
#[derive(Clone)]
pub(crate) struct Retainer {
    env: Env,
    pub(crate) meta: Meta,
    times: Times,
    pub(crate) defaults: Defaults,
    /// Whether this broker competes for the lease.
    pub(crate) competes: bool,
    /// The views that read the log.
    pub(crate) needs: Arc<OnceLock<Vec<Needs>>>,
    /// This process's name as a holder of the lease.
    owner: String,
    /// Serialises the rounds of this process, and watches the lease while another one holds it.
    turn: Arc<tokio::sync::Mutex<Watch>>,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Records that can be read no more.
    pub records: u64,
    /// Bytes of the extents that left the map.
    pub bytes: u64,
    /// Partitions whose records would go if no view needed them.
    pub waiting: u64,
}

/// Why a round ended early. The next round continues.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetainError {
    #[error(transparent)]
    Commit(#[from] CommitError<LeaseError>),
    #[error(transparent)]
    Metadata(#[from] DecodeError),
}

/// What a look at all partitions found.
#[derive(Default)]
struct Search {
    due: Vec<Due>,
    waiting: u64,
    /// Why some topics were left out.
    unreadable: Option<DecodeError>,
}

impl Retainer {
    /// Nothing is removed before [`Retainer::run`]. `owner` is the process: random bits.
    pub(crate) fn new(env: &Env, meta: &Meta, config: &Config, owner: u128) -> Retainer {
        Retainer {
            env: env.clone(),
            meta: meta.clone(),
            times: config.times,
            defaults: config.retention,
            competes: config.cleaner,
            needs: Arc::default(),
            owner: format!("{owner:032x}"),
            turn: Arc::default(),
        }
    }

    /// Works until the task is dropped. It begins with a pause, in which views see the topics.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(self.times.retention_pause).await;
            match self.round().await {
                Ok(_) => {}
                // Another broker does it.
                Err(RetainError::Commit(CommitError::Refused(LeaseError::Held { .. }))) => {}
                Err(error) => tracing::warn!(%error, "retention was cut short, trying again later"),
            }
        }
    }

    /// Removes everything that is due.
    pub(crate) async fn round(&self) -> Result<Retained, RetainError> {
        let mut watch = self.turn.lock().await;
        let (begun, now) = (self.env.monotonic(), self.env.now());
        watch.look(&self.meta.snapshot(), RETENTION, begun)?;
        let stale = watch.stale(begun, self.times.cleaner_lease);
        let Search { due, waiting, unreadable } = self.search(now).await?;
        if let Some(error) = unreadable {
            tracing::warn!(%error, "retention leaves topics alone whose metadata cannot be read");
        }
        metrics::gauge!("floe_log_retention_waiting_partitions").set(waiting as f64);
        let mut done = Retained { waiting, ..Retained::default() };
        let (mut due, mut width) = (VecDeque::from(due), RETENTION_PARTITIONS_PER_COMMIT);
        while !due.is_empty() {
            let some: Vec<Due> = due.iter().take(width).copied().collect();
            let taken = match self.commit(some, now, stale.clone()).await {
                // Only the partition with the unreadable record stays as it is.
                Err(CommitError::Refused(LeaseError::Metadata(error))) => {
                    if width == 1 {
                        tracing::warn!(%error, "retention leaves a partition alone");
                        due.pop_front();
                    }
                    width = 1;
                    continue;
                }
                taken => taken?,
            };
            note("retention", taken.records, taken.bytes);
            done.records += taken.records;
            done.bytes += taken.bytes;
            due.drain(..taken.partitions);
            if taken.extents == RETENTION_EXTENTS_PER_COMMIT
                && let Some(unfinished) = due.pop_front()
            {
                due.push_back(unfinished);
            }
            // So that commits of brokers and clients go first.
            if !due.is_empty() {
                tokio::time::sleep(RETENTION_STEP_PAUSE).await;
            }
        }
        let took = self.env.monotonic() - begun;
        metrics::histogram!("floe_log_retention_round_seconds").record(took.as_secs_f64());
        Ok(done)
    }

    /// Looks at every partition on a snapshot, beside the tasks: there may be half a million.
    async fn search(&self, now: Timestamp) -> Result<Search, DecodeError> {
        let (snapshot, defaults) = (self.meta.snapshot(), self.defaults);
        let needs = self.needs.get().cloned().unwrap_or_default();
        self.env.blocking(move || search(&snapshot, &needs, defaults, now)).await
    }

    async fn commit(
        &self,
        due: Vec<Due>,
        now: Timestamp,
        stale: Option<Lease>,
    ) -> Result<Taken, CommitError<LeaseError>> {
        let (owner, ttl) = (self.owner.clone(), self.times.cleaner_lease);
        let defaults = self.defaults;
        let work = move |tx: &mut Tx<'_>| {
            lease::acquire(tx, RETENTION, &owner, stale.as_ref(), ttl)?;
            // A clock that was ahead when this broker looked may have been put right since.
            let now = now.min(tx.now());
            Ok(retention::take(tx, &due, defaults, now, RETENTION_EXTENTS_PER_COMMIT)?)
        };
        Ok(self.meta.commit_deletion(Envelope::broker(RETENTION), work).await?.reply)
    }
}

/// Counts records that were removed, by whom.
pub(crate) fn note(by: &'static str, records: u64, bytes: u64) {
    metrics::counter!("floe_log_removed_records_total", "by" => by).increment(records);
    metrics::counter!("floe_log_removed_bytes_total", "by" => by).increment(bytes);
}

/// The partitions at which retention has something to do.
fn search(
    map: &Snapshot,
    needs: &[Needs],
    defaults: Defaults,
    now: Timestamp,
) -> Result<Search, DecodeError> {
    let mut found = Search::default();
    for topic in topic::all(map)? {
        let Some(policy) = Policy::of(&TopicConfig::of(&topic), defaults) else { continue };
        if let Err(error) = search_topic(map, needs, &topic, policy, now, &mut found) {
            found.unreadable = Some(error);
        }
    }
    Ok(found)
}

fn search_topic(
    map: &Snapshot,
    needs: &[Needs],
    topic: &Topic,
    policy: Policy,
    now: Timestamp,
    found: &mut Search,
) -> Result<(), DecodeError> {
    let unread = needs.iter().filter_map(|needs| needs(map, topic).transpose());
    let mut unread = unread.collect::<Result<Vec<Unread>, _>>()?;
    unread.retain(|unread| unread.always || policy.waits);
    for partition in topic.partition_ids() {
        let ceiling = unread.iter().map(|unread| next_of(unread, partition)).min();
        let due = Due { partition, ceiling };
        match retention::look(map, policy, due, now)? {
            Found::Nothing => {}
            Found::Work => found.due.push(due),
            Found::Waits => found.waiting += 1,
        }
    }
    Ok(())
}

/// The first offset of a partition that has not been read.
pub(crate) fn next_of(unread: &Unread, partition: PartitionId) -> Offset {
    unread.next.get(&partition.index).copied().unwrap_or(Offset::ZERO)
}
