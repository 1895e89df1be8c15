//! The job: compaction runs in one broker at a time, under the lease `compaction`, one partition after the other. A
//! pass over a partition is in `pass.rs`.
//!
//! ```text
//! search ──▶ lease ──▶ note keys ──▶ ┌ read ──▶ filter ──▶ PUT ──▶ swap ┐ ──▶ note the end
//!                                    └──────── the next extents ◀───────┘
//! ```
//! Each commit renews the lease and is refused once another broker has taken it. It also looks whether the topic is
//! still compacted, and compares the extents with those that were read. If retention, a client or a merge was first,
//! the pass reads again what is there now: what it knows about keys stays true, because no offset ever gets another
//! record.
//!
//! What a crash leaves: some extents with fewer records, and the dirty part as it was. The log means the same at every
//! moment, because a record goes only while a later one of its key is there, or a tombstone whose key has no earlier
//! record any more. An object that was put and not committed is under a lease, and becomes trash.

use std::sync::{Arc, OnceLock};

use floe_env::{Env, Timestamp};
use floe_meta::lease::{self, Lease, LeaseError, Watch};
use floe_meta::{CommitError, DecodeError, Envelope, Meta, Snapshot, Tx};
use floe_store::Store;
use tokio::time::Instant;

use crate::clean::retainer::{Needs, Retainer, next_of};
use crate::compact::commit::check;
use crate::compact::error::{PassError, RoundError};
use crate::compact::plan::{self, Dirty, Policy};
use crate::config::{Compaction, Config, Times};
use crate::limits::{COMPACTION_CACHE_BYTES, RETENTION_PARTITIONS_PER_COMMIT};
use crate::map::format_level::{self, WITH_LSNS};
use crate::map::ids::PartitionId;
use crate::map::mark::Mark;
use crate::map::partition;
use crate::map::topic::{self, Topic};
use crate::map::topic_config::TopicConfig;
use crate::read::attribution::Attributions;
use crate::read::damage::Damages;
use crate::read::frames::Frames;
use crate::read::reader::Reader;
use crate::start::session::OwnSession;
use crate::write::leases::{Ids, TakenId};
use crate::write::merged::MergeError;
use crate::write::uploader::Uploader;

/// The name of the lease, and the cause in the envelopes of its commits.
const COMPACTION: &str = "compaction";

/// Compacts, one partition after the other. Only the broker that holds the lease does.
#[derive(Clone)]
pub(crate) struct Compactor {
    pub(super) env: Env,
    pub(super) meta: Meta,
    pub(super) store: Arc<dyn Store>,
    pub(super) reader: Reader,
    pub(super) attributions: Attributions,
    pub(super) ids: Ids,
    pub(super) session: OwnSession,
    /// The views that read the log.
    needs: Arc<OnceLock<Vec<Needs>>>,
    pub(super) damages: Damages,
    pub(super) config: Compaction,
    times: Times,
    /// This process's name as a holder of the lease.
    owner: String,
    /// Serialises the rounds of this process.
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

/// What a round remembers for the next one.
#[derive(Default)]
pub(super) struct Turn {
    /// The lease while another process holds it.
    watch: Watch,
    held: Option<Held>,
    /// An object id that was taken and not used.
    pub(super) spare: Option<TakenId>,
}

/// This process's lease.
#[derive(Clone, Copy)]
struct Held {
    epoch: u64,
    renewed: Instant,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionRound {
    /// Partitions that were due.
    pub due: u64,
    /// Passes that came to their end.
    pub passes: u64,
    /// Commits that swapped extents.
    pub swaps: u64,
    /// Records that passes looked at and left.
    pub kept: u64,
    /// Records that are gone.
    pub removed: u64,
    /// Bytes of batches that the passes read.
    pub bytes_in: u64,
    /// Bytes of the objects that they wrote.
    pub bytes_out: u64,
}

impl Compactor {
    /// Nothing is compacted before [`Compactor::run`].
    pub(crate) fn new(
        uploader: &Uploader,
        ids: &Ids,
        session: &OwnSession,
        frames: &Frames,
        retainer: &Retainer,
        damages: &Damages,
        config: &Config,
    ) -> Compactor {
        let Uploader { env, store, cache, .. } = uploader.clone();
        let (ids, meta) = (ids.clone(), retainer.meta.clone());
        let apart = cache.apart("compaction", config.cache.cold.min(COMPACTION_CACHE_BYTES));
        Compactor {
            reader: Reader::new(meta.clone(), apart.clone(), frames.clone(), damages.clone()),
            attributions: Attributions::new(env.clone(), meta.clone(), apart, damages.clone()),
            env,
            meta,
            store,
            owner: format!("{:032x}", ids.owner()),
            ids,
            session: session.clone(),
            needs: Arc::clone(&retainer.needs),
            damages: damages.clone(),
            config: config.compaction,
            times: config.times,
            turn: Arc::default(),
        }
    }

    /// Compacts until the task is dropped.
    pub(crate) async fn run(self) {
        loop {
            match self.round().await {
                Ok(_) => {}
                // Another broker does it.
                Err(RoundError::Lease(CommitError::Refused(LeaseError::Held { .. }))) => {}
                Err(error) => {
                    tracing::warn!(%error, "compaction was cut short, trying again later");
                    metrics::counter!("floe_log_compaction_errors_total").increment(1);
                }
            }
            tokio::time::sleep(self.config.pause).await;
        }
    }

    /// Gives the lease back, so that nobody has to wait for it.
    pub(crate) async fn close(&self) {
        let mut turn = self.turn.lock().await;
        turn.spare = None;
        let Some(Held { epoch, .. }) = turn.held.take() else { return };
        let release = move |tx: &mut Tx<'_>| lease::release(tx, COMPACTION, epoch);
        if let Err(error) = self.meta.commit_deletion(Envelope::broker(COMPACTION), release).await {
            tracing::warn!(%error, "the lease on compaction was not given back; it will expire");
        }
    }

    /// A pass over every partition that is due.
    pub(crate) async fn round(&self) -> Result<CompactionRound, RoundError> {
        let mut turn = self.turn.lock().await;
        let now = self.env.monotonic();
        let snapshot = self.meta.snapshot();
        turn.watch.look(&snapshot, COMPACTION, now)?;
        let mut done = CompactionRound::default();
        if format_level::get(&snapshot)? < WITH_LSNS {
            return Ok(done);
        }
        let found = self.search(snapshot).await?;
        let dirty: u64 = found.iter().map(|(dirty, _)| dirty.bytes).sum();
        metrics::gauge!("floe_log_compaction_dirty_bytes").set(dirty as f64);
        let marks: Vec<_> =
            found.iter().filter(|(dirty, _)| dirty.wants_mark).map(|(d, _)| d.partition).collect();
        let mut due: Vec<(Dirty, Policy)> = found.into_iter().filter(|(dirty, _)| dirty.is_due).collect();
        metrics::gauge!("floe_log_compaction_due_partitions").set(due.len() as f64);
        due.retain(|(dirty, _)| !self.damages.holds_from_compaction(dirty.partition, now));
        done.due = due.len() as u64;
        if due.is_empty() && marks.is_empty() {
            return Ok(done);
        }
        if self.damages.is_full() {
            return Err(RoundError::Damage);
        }
        self.hold_lease(&mut turn, now).await?;
        self.mark(&mut turn, marks).await?;
        // What gains most comes first.
        due.sort_by(|(one, _), (two, _)| two.ratio.total_cmp(&one.ratio));
        for (dirty, policy) in due {
            match self.pass(&mut turn, &dirty, &policy, &mut done).await {
                Ok(()) => done.passes += 1,
                Err(PassError::Changed) => {
                    tracing::debug!(partition = %dirty.partition, "a pass of compaction begins anew later");
                }
                Err(PassError::Damage(what)) => {
                    let partition = dirty.partition;
                    tracing::error!(%partition, what, "a partition cannot be compacted, it stays as it is");
                }
                Err(PassError::Round(error)) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Looks at every partition of compacted topics, on a thread beside the tasks.
    async fn search(&self, snapshot: Snapshot) -> Result<Vec<(Dirty, Policy)>, DecodeError> {
        let (config, now) = (self.config, self.env.now());
        let needs = self.needs.get().cloned().unwrap_or_default();
        let search = move || {
            let mut found = Vec::new();
            for topic in topic::all(&snapshot)? {
                let Some(policy) = Policy::of(&TopicConfig::of(&topic)) else { continue };
                // The others are compacted all the same.
                if let Err(error) = search_topic(&snapshot, &needs, &topic, policy, now, &config, &mut found)
                {
                    tracing::warn!(topic = topic.name, %error, "compaction leaves a topic alone");
                }
            }
            Ok(found)
        };
        self.env.blocking(search).await
    }

    /// Takes the lease, or finds that it is still this process's.
    async fn hold_lease(&self, turn: &mut Turn, now: Instant) -> Result<(), RoundError> {
        let held = self.meta.snapshot().get::<Lease>(&COMPACTION.to_owned())?;
        let is_own = |lease: &Lease| {
            lease.owner.as_ref() == Some(&self.owner) && turn.held.is_some_and(|own| own.epoch == lease.epoch)
        };
        if held.as_ref().is_some_and(is_own) {
            return self.keep_lease(turn).await;
        }
        turn.held = None;
        let stale = turn.watch.stale(now, self.times.cleaner_lease);
        let (owner, ttl) = (self.owner.clone(), self.times.cleaner_lease);
        let take = move |tx: &mut Tx<'_>| lease::acquire(tx, COMPACTION, &owner, stale.as_ref(), ttl);
        let epoch = self.meta.commit_deletion(Envelope::broker(COMPACTION), take).await?.reply;
        turn.held = Some(Held { epoch, renewed: self.env.monotonic() });
        Ok(())
    }

    /// Renews the lease if that is due: a pass may read for long between two commits.
    pub(super) async fn keep_lease(&self, turn: &mut Turn) -> Result<(), RoundError> {
        let Some(held) = turn.held else { return Ok(()) };
        let (now, ttl) = (self.env.monotonic(), self.times.cleaner_lease);
        if now.duration_since(held.renewed) < ttl / 4 {
            return Ok(());
        }
        let renew = move |tx: &mut Tx<'_>| lease::renew(tx, COMPACTION, held.epoch, ttl).map(drop);
        self.meta.commit_deletion(Envelope::broker(COMPACTION), renew).await?;
        turn.held = Some(Held { renewed: now, ..held });
        Ok(())
    }

    /// Runs a command of a pass under the lease.
    pub(super) async fn commit<F>(
        &self,
        turn: &mut Turn,
        partition: PartitionId,
        command: F,
    ) -> Result<(), PassError>
    where
        F: Fn(&mut Tx<'_>) -> Result<(), MergeError> + Send + 'static,
    {
        let ttl = self.times.cleaner_lease;
        let epoch = turn.held.map_or(0, |held| held.epoch);
        let renewal = self.session.due();
        let work = move |tx: &mut Tx<'_>| {
            lease::renew(tx, COMPACTION, epoch, ttl)?;
            if let Some(renewal) = &renewal {
                renewal.apply(tx)?;
            }
            check(tx, partition)?;
            command(tx)
        };
        match self.meta.commit_deletion(Envelope::broker(COMPACTION), work).await {
            Ok(_) => {
                let renewed = self.env.monotonic();
                turn.held = turn.held.map(|held| Held { renewed, ..held });
                Ok(())
            }
            Err(CommitError::Refused(MergeError::Changed(_))) => Err(PassError::Changed),
            Err(error) => Err(RoundError::Commit(error).into()),
        }
    }

    /// Leaves marks at partitions whose records do not tell their age.
    async fn mark(&self, turn: &mut Turn, partitions: Vec<PartitionId>) -> Result<(), RoundError> {
        let ttl = self.times.cleaner_lease;
        let epoch = turn.held.map_or(0, |held| held.epoch);
        for some in partitions.chunks(RETENTION_PARTITIONS_PER_COMMIT) {
            let some = some.to_vec();
            let leave = move |tx: &mut Tx<'_>| {
                lease::renew(tx, COMPACTION, epoch, ttl)?;
                for partition in &some {
                    if let Some(head) = partition::head(tx, *partition)? {
                        tx.put(partition, &Mark { time: tx.now(), next: head.next });
                    }
                }
                Ok(())
            };
            self.meta.commit_deletion(Envelope::broker(COMPACTION), leave).await?;
        }
        Ok(())
    }
}

fn search_topic(
    map: &Snapshot,
    needs: &[Needs],
    topic: &Topic,
    policy: Policy,
    now: Timestamp,
    config: &Compaction,
    found: &mut Vec<(Dirty, Policy)>,
) -> Result<(), DecodeError> {
    let mut unread = Vec::new();
    for needs in needs {
        unread.extend(needs(map, topic)?.filter(|unread| unread.always || policy.waits));
    }
    for partition in topic.partition_ids() {
        let ceiling = unread.iter().map(|unread| next_of(unread, partition)).min();
        let dirty = plan::look(map, &policy, partition, ceiling, now, config)?;
        found.extend(dirty.map(|dirty| (dirty, policy)));
    }
    Ok(())
}
