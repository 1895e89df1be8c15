//! The job: compaction runs in one broker at a time, under the lease `compaction`, one partition after the other.
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

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use floe_env::{Env, Timestamp};
use floe_meta::lease::{self, Lease, LeaseError, Watch};
use floe_meta::{CommitError, DecodeError, Envelope, Meta, Snapshot, Tx};
use floe_store::{Store, StoreError};
use tokio::time::Instant;

use crate::clean::retainer::{Needs, Retainer, next_of};
use crate::compact::commit::{check, finish, vacate};
use crate::compact::filter::{self, Counts, Fate, Pass};
use crate::compact::offset_map::OffsetMap;
use crate::compact::plan::{self, Dirty, Policy};
use crate::compact::transactions::{Fates, Kept};
use crate::compact::trouble::{CompactionTrouble, Troubles};
use crate::config::{Compaction, Config, Times};
use crate::format::batch::Batch;
use crate::format::segment::{Origin, SegmentBuilder, WriterRun};
use crate::limits::{
    COMPACTION_CACHE_BYTES, COMPACTION_EXTENTS_MAX, COMPACTION_READ_BYTES, COMPACTION_RUNS_MAX,
    COMPACTION_STEP_PAUSE, COMPACTION_TRIES_MAX, COMPACTION_TROUBLE_PAUSE, RETENTION_PARTITIONS_PER_COMMIT,
};
use crate::map::extent::{Data, Extent, ExtentKey, WrittenBy};
use crate::map::format_level::{self, WITH_LSNS};
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::mark::Mark;
use crate::map::object::{self, Level, object_key};
use crate::map::partition;
use crate::map::topic::{self, Topic};
use crate::map::topic_config::TopicConfig;
use crate::read::attribution::Attributions;
use crate::read::frames::Frames;
use crate::read::pins::Pinned;
use crate::read::reader::Reader;
use crate::read::source::Source;
use crate::read::walk::{self, ReadError};
use crate::start::session::OwnSession;
use crate::write::leases::{Ids, TakenId};
use crate::write::merged::{MergeError, Merged, Swap, merge};
use crate::write::uploader::Uploader;

/// The name of the lease, and the cause in the envelopes of its commits.
const COMPACTION: &str = "compaction";

/// Compacts, one partition after the other. Only the broker that holds the lease does.
#[derive(Clone)]
pub(crate) struct Compactor {
    pub(crate) env: Env,
    pub(crate) meta: Meta,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) reader: Reader,
    pub(crate) attributions: Attributions,
    pub(crate) ids: Ids,
    pub(crate) session: OwnSession,
    /// The views that read the log.
    pub(crate) needs: Arc<OnceLock<Vec<Needs>>>,
    pub(crate) troubles: Troubles,
    config: Compaction,
    times: Times,
    /// This process's name as a holder of the lease.
    owner: String,
    /// Serialises the rounds of this process.
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

/// What a round remembers for the next one.
#[derive(Default)]
struct Turn {
    /// The lease while another process holds it.
    watch: Watch,
    held: Option<Held>,
    /// An object id that was taken and not used.
    spare: Option<TakenId>,
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

/// Why a round ended early. The next round begins anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error(transparent)]
    Lease(#[from] CommitError<LeaseError>),
    #[error(transparent)]
    Commit(CommitError<MergeError>),
    #[error(transparent)]
    Metadata(#[from] DecodeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no object id: {0}")]
    Id(String),
    #[error("{0}")]
    Read(ReadError),
    #[error(
        "too many partitions are damaged: nothing is compacted until some are repaired. `floe check` names them"
    )]
    Damage,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
enum PassError {
    /// The topic or its settings have changed, or its extents change all the time.
    #[error("the partition has changed")]
    Changed,
    /// Some of it cannot be read.
    #[error("it is damaged: {}", .0.what)]
    Damage(Box<CompactionTrouble>),
    #[error(transparent)]
    Round(#[from] RoundError),
}

impl From<DecodeError> for PassError {
    fn from(error: DecodeError) -> PassError {
        PassError::Round(error.into())
    }
}

/// A pass under way.
struct Under {
    partition: PartitionId,
    pass: Pass,
    map: Arc<OffsetMap>,
    fates: Arc<Fates>,
}

/// Adjacent extents that one commit swaps.
#[derive(Clone, Debug, Default)]
struct Unit {
    extents: Vec<(Offset, Extent)>,
    end: Offset,
    bytes: u64,
}

/// A segment under way.
struct Rewriting {
    builder: SegmentBuilder,
    kept: Kept,
    counts: Counts,
    max_timestamp: i64,
    /// Whether anything is to change.
    touched: bool,
}

impl Compactor {
    /// Nothing is compacted before [`Compactor::run`].
    pub(crate) fn new(
        uploader: &Uploader,
        ids: &Ids,
        session: &OwnSession,
        frames: &Frames,
        retainer: &Retainer,
        config: &Config,
    ) -> Compactor {
        let Uploader { env, store, cache, .. } = uploader.clone();
        let (ids, meta) = (ids.clone(), retainer.meta.clone());
        let apart = cache.apart("compaction", config.cache.cold.min(COMPACTION_CACHE_BYTES));
        Compactor {
            reader: Reader::new(meta.clone(), apart.clone(), frames.clone()),
            attributions: Attributions::new(env.clone(), meta.clone(), apart),
            env,
            meta,
            store,
            owner: format!("{:032x}", ids.owner()),
            ids,
            session: session.clone(),
            needs: Arc::clone(&retainer.needs),
            troubles: Troubles::default(),
            config: config.compaction,
            times: config.times,
            turn: Arc::default(),
        }
    }

    /// Compacts until the task is dropped.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(self.config.pause).await;
            match self.round().await {
                Ok(_) => {}
                // Another broker does it.
                Err(RoundError::Lease(CommitError::Refused(LeaseError::Held { .. }))) => {}
                Err(error) => {
                    tracing::warn!(%error, "compaction was cut short, trying again later");
                    metrics::counter!("floe_log_compaction_errors_total").increment(1);
                }
            }
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
        due.retain(|(dirty, _)| !self.troubles.holds(dirty.partition, now, COMPACTION_TROUBLE_PAUSE));
        done.due = due.len() as u64;
        if due.is_empty() && marks.is_empty() {
            return Ok(done);
        }
        if self.troubles.is_full() {
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
                Err(PassError::Damage(trouble)) => self.troubles.note(*trouble, self.env.monotonic()),
                Err(PassError::Round(error)) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Looks at every partition of compacted topics, on a thread beside the tasks.
    async fn search(&self, snapshot: Snapshot) -> Result<Vec<(Dirty, Policy)>, DecodeError> {
        let (config, now) = (self.config, self.env.now());
        let needs = self.needs.get().cloned().unwrap_or_default();
        let troubles = self.troubles.clone();
        let search = move || {
            let mut found = Vec::new();
            let mut policies = BTreeMap::new();
            for topic in topic::all(&snapshot)? {
                let Some(policy) = Policy::of(&TopicConfig::of(&topic)) else { continue };
                policies.insert(topic.id, policy);
                // The others are compacted all the same.
                if let Err(error) = search_topic(&snapshot, &needs, &topic, policy, now, &config, &mut found)
                {
                    tracing::warn!(topic = topic.name, %error, "compaction leaves a topic alone");
                }
            }
            troubles.retain(|trouble| policies.contains_key(&trouble.partition.topic));
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
    async fn keep_lease(&self, turn: &mut Turn) -> Result<(), RoundError> {
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
    async fn commit<F>(&self, turn: &mut Turn, partition: PartitionId, command: F) -> Result<(), PassError>
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

    /// One pass over a partition.
    async fn pass(
        &self,
        turn: &mut Turn,
        dirty: &Dirty,
        policy: &Policy,
        done: &mut CompactionRound,
    ) -> Result<(), PassError> {
        let begun = self.env.monotonic();
        let partition = dirty.partition;
        let pinned = self.session.pins.pin();
        let head = partition::head(&*pinned, partition)?.ok_or(PassError::Changed)?;
        let now = self.env.now().0;
        let (map, fates, end) = self.note_keys(turn, &pinned, dirty, done).await?;
        drop(pinned);
        if end <= dirty.from {
            // An open transaction is in front.
            return Ok(());
        }
        let pass = Pass {
            covered: dirty.covered,
            end,
            newest: Offset(head.next.0 - 1),
            now,
            horizon: now.saturating_add(policy.delete_retention_ms),
            bug: self.config.planted,
        };
        let under = Under { partition, pass, map: Arc::new(map), fates };
        let (mut at, mut kept) = (head.log_start, Kept::default());
        while at < end {
            at = self.step(turn, &under, at, &mut kept, done).await?;
            // So that commits of brokers and clients go first.
            tokio::time::sleep(COMPACTION_STEP_PAUSE).await;
        }
        self.commit(turn, partition, move |tx| Ok(finish(tx, partition, end)?)).await?;
        let took = self.env.monotonic() - begun;
        metrics::histogram!("floe_log_compaction_pass_seconds").record(took.as_secs_f64());
        metrics::counter!("floe_log_compaction_passes_total").increment(1);
        Ok(())
    }

    /// Reads the dirty part and notes the last offset of each key. Returns how transactions ended, and the offset up to
    /// which the map knows all keys.
    async fn note_keys(
        &self,
        turn: &mut Turn,
        pinned: &Pinned,
        dirty: &Dirty,
        done: &mut CompactionRound,
    ) -> Result<(OffsetMap, Arc<Fates>, Offset), PassError> {
        let (partition, from) = (dirty.partition, dirty.from);
        let (mut limit, mut at) = (dirty.limit, from);
        let keys = limit.0.abs_diff(from.0);
        let mut map = OffsetMap::new(self.env.random_u128(), self.config.map_bytes, keys);
        let mut fates: Option<Arc<Fates>> = None;
        while at < limit {
            self.keep_lease(turn).await?;
            let batches = self.read(pinned, partition, at, done).await?;
            let Some(next) = batches.last().map(Batch::next_offset) else { break };
            let is_of_one = |batch: &Batch| batch.has_records() && batch.header().is_transactional();
            if fates.is_none() && batches.iter().any(is_of_one) {
                let (scanned, end) = self.scan(turn, pinned, partition, at, limit).await?;
                (fates, limit) = (Some(Arc::new(scanned)), end);
            }
            let (end, known) = (limit, fates.clone());
            let note = move || {
                let mut full = Ok(None);
                for batch in batches.iter().filter(|batch| batch.has_records() && batch.base_offset < end) {
                    if known.as_ref().is_some_and(|fates| fates.aborts(batch)) {
                        continue;
                    }
                    full =
                        filter::note(&mut map, batch, from, end).map_err(|error| (batch.base_offset, error));
                    if !matches!(full, Ok(None)) {
                        break;
                    }
                }
                (map, full)
            };
            let noted;
            (map, noted) = self.env.blocking(note).await;
            match noted {
                Ok(None) => at = next,
                Ok(Some(full)) => {
                    metrics::counter!("floe_log_compaction_full_maps_total").increment(1);
                    (limit, at) = (full, full);
                }
                Err((offset, error)) => return Err(damage(pinned, partition, offset, error.to_string())),
            }
        }
        metrics::gauge!("floe_log_compaction_map_keys").set(map.keys() as f64);
        Ok((map, fates.unwrap_or_default(), limit))
    }

    /// Finds how transactions ended from an offset on. Returns that and the offset up to which it is known.
    async fn scan(
        &self,
        turn: &mut Turn,
        pinned: &Pinned,
        partition: PartitionId,
        from: Offset,
        limit: Offset,
    ) -> Result<(Fates, Offset), PassError> {
        let (mut fates, mut at, mut limit) = (Fates::default(), from, limit);
        while at < limit {
            self.keep_lease(turn).await?;
            let batches = self.read(pinned, partition, at, &mut CompactionRound::default()).await?;
            let Some(next) = batches.last().map(Batch::next_offset) else { break };
            for batch in batches.iter().filter(|batch| batch.base_offset < limit) {
                let looked = fates.look(batch);
                let known = looked
                    .map_err(|error| damage(pinned, partition, batch.base_offset, error.to_string()))?;
                if !known {
                    limit = batch.base_offset;
                    break;
                }
            }
            at = next;
        }
        let end = fates.first_open().map_or(limit, |open| open.min(limit));
        Ok((fates, end))
    }

    /// Rewrites the next extents from `at` on, and returns the offset behind them. Tries again when others have changed
    /// them meanwhile.
    async fn step(
        &self,
        turn: &mut Turn,
        under: &Under,
        at: Offset,
        kept: &mut Kept,
        done: &mut CompactionRound,
    ) -> Result<Offset, PassError> {
        for _ in 0..COMPACTION_TRIES_MAX {
            let pinned = self.session.pins.pin();
            let head = partition::head(&*pinned, under.partition)?.ok_or(PassError::Changed)?;
            let at = at.max(head.log_start);
            if at >= under.pass.end {
                return Ok(at);
            }
            let unit = self.unit(&pinned, under, at)?;
            let taken = match turn.spare.take() {
                Some(taken) => taken,
                None => self.ids.take().await.map_err(RoundError::Id)?,
            };
            let rewriting = self.rewrite(turn, &pinned, under, &unit, at, taken.id, kept.clone(), done).await;
            let rewriting = match rewriting {
                Ok(rewriting) => rewriting,
                Err(error) => {
                    turn.spare = Some(taken);
                    return Err(error);
                }
            };
            let (after, counts) = (rewriting.kept.clone(), rewriting.counts);
            match self.swap(turn, under, &unit, taken, rewriting, done).await {
                Ok(()) => {
                    *kept = after;
                    done.kept += counts.kept;
                    done.removed += counts.removed;
                    metrics::counter!("floe_log_compaction_records_total", "fate" => "kept")
                        .increment(counts.kept);
                    let removed = metrics::counter!("floe_log_compaction_records_total", "fate" => "removed");
                    removed.increment(counts.removed);
                    return Ok(unit.end);
                }
                Err(PassError::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(PassError::Changed)
    }

    /// The extents from `at` on that one commit swaps: as many as make one object.
    fn unit(&self, map: &Snapshot, under: &Under, at: Offset) -> Result<Unit, PassError> {
        let mut unit = Unit { end: at, ..Unit::default() };
        for pair in walk::extents(map, under.partition, at)? {
            let (ExtentKey { base, .. }, extent) = pair?;
            if base >= under.pass.end || unit.extents.len() == COMPACTION_EXTENTS_MAX {
                break;
            }
            let bytes = unit.bytes.saturating_add(extent.bytes());
            if !unit.extents.is_empty() && bytes > self.config.object_bytes {
                break;
            }
            (unit.bytes, unit.end) = (bytes, extent.next_offset(base));
            unit.extents.push((base, extent));
        }
        match unit.extents.is_empty() {
            true => Err(PassError::Changed),
            false => Ok(unit),
        }
    }

    /// Reads the batches of a unit and lays out what stays of them. What lies below `at` was filtered before.
    #[allow(clippy::too_many_arguments, reason = "what a pass has, and one unit of it")]
    async fn rewrite(
        &self,
        turn: &mut Turn,
        pinned: &Pinned,
        under: &Under,
        unit: &Unit,
        at: Offset,
        object: ObjectId,
        kept: Kept,
        done: &mut CompactionRound,
    ) -> Result<Rewriting, PassError> {
        let partition = under.partition;
        let (first, _) = unit.extents[0];
        let mut builder = SegmentBuilder::new(object);
        builder.begin(partition, first);
        let is_gap = |(_, extent): &(Offset, Extent)| matches!(extent, Extent::Gap(_));
        // Gaps become one.
        let touched = unit.extents.len() > 1 && unit.extents.iter().all(is_gap);
        let mut rewriting =
            Rewriting { builder, kept, counts: Counts::default(), max_timestamp: -1, touched };
        let log_start = partition::head(&**pinned, partition)?.ok_or(PassError::Changed)?.log_start;
        let mut next = first.max(log_start);
        while next < unit.end {
            self.keep_lease(turn).await?;
            let mut batches = self.read(pinned, partition, next, done).await?;
            batches.retain(|batch| batch.base_offset < unit.end);
            let Some(end) = batches.last().map(Batch::next_offset) else { break };
            let end = end.min(unit.end);
            let runs = self.writers(pinned, partition, next, end).await?;
            let (pass, map, fates) = (under.pass, Arc::clone(&under.map), Arc::clone(&under.fates));
            let extents = unit.extents.clone();
            let lay_out = move || {
                let mut rewriting = rewriting;
                for batch in &batches {
                    let laid_out = rewriting.take(&pass, &map, &fates, batch, next, at, &runs, &extents);
                    if let Err(what) = laid_out {
                        return Err((batch.base_offset, what));
                    }
                }
                Ok(rewriting)
            };
            rewriting = match self.env.blocking(lay_out).await {
                Ok(rewriting) => rewriting,
                Err((offset, what)) => return Err(damage(pinned, partition, offset, what)),
            };
            next = end;
        }
        Ok(rewriting)
    }

    /// Who wrote the batches between two offsets.
    async fn writers(
        &self,
        pinned: &Pinned,
        partition: PartitionId,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<WriterRun>, PassError> {
        let (mut runs, mut next) = (Vec::new(), from);
        while next < to {
            let found = self.attributions.of(pinned, partition, next..to, COMPACTION_RUNS_MAX).await;
            let found = found.map_err(|error| self.unreadable(pinned, partition, next, error))?;
            if found.next <= next {
                return Err(damage(pinned, partition, next, "nobody knows who wrote it".to_owned()));
            }
            runs.extend(found.runs);
            next = found.next;
        }
        Ok(runs)
    }

    /// Puts a segment and swaps the extents of a unit, if anything is to change.
    async fn swap(
        &self,
        turn: &mut Turn,
        under: &Under,
        unit: &Unit,
        taken: TakenId,
        rewriting: Rewriting,
        done: &mut CompactionRound,
    ) -> Result<(), PassError> {
        let partition = under.partition;
        let Rewriting { mut builder, touched, max_timestamp, .. } = rewriting;
        if !touched {
            turn.spare = Some(taken);
            return Ok(());
        }
        let old = unit.extents.clone();
        let Some(section) = builder.end(unit.end, max_timestamp) else {
            turn.spare = Some(taken);
            self.commit(turn, partition, move |tx| vacate(tx, partition, &old)).await?;
            done.swaps += 1;
            return Ok(());
        };
        let mut payload = builder.take();
        let (rest, size) = builder.finish();
        payload.extend(rest);
        let object = taken.id;
        self.put(object, payload).await?;
        let data = Data { written_by: written_by(&old), ..section.data };
        let new = vec![(section.key.base, Extent::Data(data))];
        let large = size >= self.config.object_bytes / 2;
        let merged = Merged {
            object,
            owner: self.ids.owner(),
            size,
            // A small one is gathered with others.
            level: if large { Level::Sorted } else { Level::Gathered },
            continues: false,
            swaps: vec![Swap { partition, old, new }],
        };
        let swapped = self.commit(turn, partition, move |tx| merge(tx, &merged)).await;
        if object::is_named(&self.meta.snapshot(), object) {
            taken.named();
        }
        swapped?;
        done.swaps += 1;
        done.bytes_out += size;
        metrics::counter!("floe_log_compaction_swaps_total").increment(1);
        metrics::counter!("floe_log_compaction_bytes_total", "way" => "written").increment(size);
        Ok(())
    }

    async fn put(&self, object: ObjectId, payload: Vec<Bytes>) -> Result<(), PassError> {
        let put = self.store.put(&object_key(object), payload).await;
        put.map_err(|error| RoundError::Store(error).into())
    }

    /// The next batches of a partition.
    async fn read(
        &self,
        pinned: &Pinned,
        partition: PartitionId,
        from: Offset,
        done: &mut CompactionRound,
    ) -> Result<Vec<Batch>, PassError> {
        let read = self.reader.read(pinned, partition, from, COMPACTION_READ_BYTES).await;
        match read {
            Ok(read) => {
                let bytes = read.batches.iter().map(|batch| batch.bytes.len() as u64).sum();
                done.bytes_in += bytes;
                metrics::counter!("floe_log_compaction_bytes_total", "way" => "read").increment(bytes);
                Ok(read.batches)
            }
            Err(error @ ReadError::Corrupt(_)) => {
                let (at, error) = self.locate(pinned, partition, from, error).await;
                Err(self.unreadable(pinned, partition, at, error))
            }
            Err(error) => Err(self.unreadable(pinned, partition, from, error)),
        }
    }

    /// The first offset that cannot be read: a read of many extents fails for one of them.
    async fn locate(
        &self,
        pinned: &Pinned,
        partition: PartitionId,
        from: Offset,
        error: ReadError,
    ) -> (Offset, ReadError) {
        let mut at = from;
        for _ in 0..COMPACTION_READ_BYTES {
            match self.reader.read(pinned, partition, at, 1).await {
                Ok(read) => match read.batches.last() {
                    Some(last) => at = last.next_offset(),
                    None => break,
                },
                Err(error @ ReadError::Corrupt(_)) => return (at, error),
                Err(_) => break,
            }
        }
        (from, error)
    }

    fn unreadable(
        &self,
        pinned: &Snapshot,
        partition: PartitionId,
        at: Offset,
        error: ReadError,
    ) -> PassError {
        let is_there = walk::check(&self.meta.snapshot(), partition, at).is_ok();
        match error {
            ReadError::Corrupt(what) if is_there => damage(pinned, partition, at, what),
            ReadError::Corrupt(_) | ReadError::UnknownPartition | ReadError::OutOfRange { .. } => {
                PassError::Changed
            }
            error => RoundError::Read(error).into(),
        }
    }
}

impl Rewriting {
    /// Takes what stays of a batch. `from` is where the read began, and what lies below `at` was filtered before.
    #[allow(clippy::too_many_arguments, reason = "what a pass has, and one batch of it")]
    fn take(
        &mut self,
        pass: &Pass,
        map: &OffsetMap,
        fates: &Fates,
        batch: &Batch,
        from: Offset,
        at: Offset,
        runs: &[WriterRun],
        extents: &[(Offset, Extent)],
    ) -> Result<(), String> {
        let filtered = match batch.next_offset() <= at && batch.header().count > 0 {
            true => Ok((Fate::Same, None)),
            false => filter::filter(pass, map, fates, &mut self.kept, batch, &mut self.counts),
        };
        let (fate, max_timestamp) = filtered.map_err(|error| error.to_string())?;
        let stays = match fate {
            Fate::Gone => {
                self.touched |= batch.header().count > 0;
                return Ok(());
            }
            Fate::Same => batch.clone(),
            Fate::Changed(bytes) => {
                self.touched = true;
                Batch::new(batch.base_offset, bytes).map_err(|error| error.to_string())?
            }
        };
        let begin = batch.base_offset.max(from);
        if batch.has_records() {
            // Of a batch that nobody has looked at, its extent tells the largest time.
            let told = max_timestamp.unwrap_or_else(|| extent_time(extents, begin));
            self.max_timestamp = self.max_timestamp.max(told);
        }
        let at = runs.partition_point(|run| run.end <= begin);
        let run = runs.get(at).filter(|run| run.first <= begin);
        let run = run.ok_or("nobody knows who wrote it")?;
        self.builder.push(&stays, Origin { writer: run.writer.as_ref(), lsn: run.lsn });
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

/// Who wrote the extents: their writer, or the footer has them.
fn written_by(old: &[(Offset, Extent)]) -> WrittenBy {
    let mut writers = old.iter().filter_map(|(_, extent)| extent.data()).map(|data| data.written_by);
    match writers.next() {
        Some(first) if writers.all(|other| other == first) => first,
        _ => WrittenBy::Footer,
    }
}

/// The largest time of the extent at an offset.
fn extent_time(extents: &[(Offset, Extent)], at: Offset) -> i64 {
    let behind = extents.partition_point(|(base, _)| *base <= at);
    behind.checked_sub(1).map_or(-1, |index| extents[index].1.max_timestamp())
}

/// Damage of the extent at an offset.
fn damage(map: &Snapshot, partition: PartitionId, at: Offset, what: String) -> PassError {
    let found = walk::extents(map, partition, at).ok().and_then(|mut extents| extents.next());
    let (from, to, source) = match found {
        Some(Ok((key, extent))) => {
            let source = extent.data().map_or_else(String::new, |data| Source::of(data).to_string());
            (key.base, extent.next_offset(key.base), source)
        }
        _ => (at, at, String::new()),
    };
    PassError::Damage(Box::new(CompactionTrouble { partition, from, to, source, what }))
}
