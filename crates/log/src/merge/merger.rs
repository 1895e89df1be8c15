//! The job: merges run in one broker at a time, under the lease `merge`, one after the other.
//!
//! One lease for the cluster, and not one for each part of it: a job reads and writes as fast as one broker's network
//! or disk, which is more than its brokers write on average, and with one job no two ever take the same source. The
//! lease is taken when something is due, and renewed by every commit. A round without work makes no commit.
//!
//! ```text
//! plan ──▶ lease ──▶ read ──▶ verify, lay out ──▶ id ──▶ PUT ──▶ commits, some partitions each
//!   ▲                             │ damage: it is noted, and the plan is made again without it
//!   └─────────────────────────────┘
//! ```
//! What a failure leaves: before the first commit nothing but a leased id, which becomes trash; between two commits an
//! object with fewer extents than batches, and the rest where it was. If the outcome of a commit is not known, the job
//! ends, and the next one plans by what the map says then. Every commit compares the extents with those that were read,
//! so nothing is merged twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use floe_env::{Backoff, Env, Task};
use floe_meta::lease::{self, Lease, LeaseError, Watch};
use floe_meta::{CommitError, DecodeError, Envelope, Meta, Snapshot, Tx};
use floe_store::StoreError;
use tokio::time::Instant;

use crate::clean::retention::Defaults;
use crate::config::{Config, Times};
use crate::format::segment::Footer;
use crate::limits::{
    DAMAGE_PAUSE, MERGE_EXTENTS_PER_COMMIT, MERGE_PLANS_MAX, MERGE_RETRY_PAUSE_MAX, MERGE_RETRY_PAUSE_MIN,
    MERGE_STEP_PAUSE,
};
use crate::map::extent::{Extent, ExtentKey, WrittenBy};
use crate::map::format_level::{self, WITH_LSNS};
use crate::map::identity::Writer;
use crate::map::ids::{ObjectId, PartitionId};
use crate::map::object::{self, Level, Object, ObjectKind, object_key};
use crate::merge::build::{self, Built, Damage, Names};
use crate::merge::index::{Backlog, Index};
use crate::merge::lane::{Fetched, Lane};
use crate::merge::plan::{self, Next, Plan, Rules, Sorting};
use crate::merge::planted::PlantedBug;
use crate::merge::sizes::Sizes;
use crate::read::damage::{Damages, FoundBy, Met};
use crate::read::pins::Pinned;
use crate::read::source::{Source, footer_end};
use crate::start::session::OwnSession;
use crate::write::intake::Intake;
use crate::write::leases::{Ids, TakenId};
use crate::write::merged::{MergeError, Merged, Swap, merge};
use crate::write::uploader::Uploader;

/// The name of the lease, and the cause in the envelopes of its commits.
const MERGE: &str = "merge";

/// Merges, one after the other. Only the broker that holds the lease does.
#[derive(Clone)]
pub(crate) struct Merger {
    env: Env,
    meta: Meta,
    lane: Lane,
    pub(crate) ids: Ids,
    session: OwnSession,
    index: Index,
    damages: Damages,
    sizes: Sizes,
    times: Times,
    retention: Defaults,
    /// Whether this broker competes for the lease.
    competes: bool,
    bug: Option<PlantedBug>,
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
    /// The epoch of this process's lease.
    epoch: Option<u64>,
    /// Sources that are being sorted.
    sorting: Option<Sorting>,
    /// Sources of which a merge has left something, and until when they are left alone.
    left: BTreeMap<Source, Instant>,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeRound {
    /// Segments that it wrote: one, or none if nothing is due.
    pub segments: u64,
    /// Extents that it replaced.
    pub replaced: u64,
    /// Bytes of the batches that it merged.
    pub bytes_in: u64,
    /// Bytes of the segment.
    pub bytes_out: u64,
    /// Whether more may be due.
    pub more: bool,
}

/// Why a round ended early. The next round plans anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error(transparent)]
    Lease(#[from] CommitError<LeaseError>),
    #[error(transparent)]
    Commit(#[from] CommitError<MergeError>),
    #[error(transparent)]
    Metadata(#[from] DecodeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no object id: {0}")]
    Id(String),
    #[error(
        "too many objects are damaged: nothing is merged until some are repaired. `floe check` names them"
    )]
    Damage,
}

impl Merger {
    pub(crate) fn new(
        uploader: &Uploader,
        meta: &Meta,
        intake: &Intake,
        ids: Ids,
        session: OwnSession,
        damages: &Damages,
        config: &Config,
    ) -> Merger {
        Merger {
            env: uploader.env.clone(),
            index: Index::of(meta, config.merge),
            meta: meta.clone(),
            lane: Lane::new(uploader, meta, intake),
            owner: format!("{:032x}", ids.owner()),
            ids,
            session,
            damages: damages.clone(),
            sizes: config.merge,
            times: config.times,
            retention: config.retention,
            competes: config.cleaner,
            bug: config.planted,
            turn: Arc::default(),
        }
    }

    /// Starts the tasks: the ids of segments, and merging where this broker competes for it.
    pub(crate) fn start(&self) -> Vec<Task<()>> {
        let mut tasks = vec![self.env.spawn("segment ids", self.ids.clone().run())];
        tasks.extend(self.competes.then(|| self.env.spawn("merger", self.clone().run())));
        tasks
    }

    /// Merges until the task is dropped.
    async fn run(self) {
        let mut backoff = Backoff::new(&self.env, MERGE_RETRY_PAUSE_MIN, MERGE_RETRY_PAUSE_MAX);
        loop {
            let pause = match self.round().await {
                Ok(done) => {
                    backoff.reset();
                    // A pause all the same, so that commits of brokers and clients go first.
                    if done.more { MERGE_STEP_PAUSE } else { self.times.merge_pause }
                }
                // Another broker does it.
                Err(RoundError::Lease(CommitError::Refused(LeaseError::Held { .. }))) => {
                    self.times.merge_pause
                }
                Err(error) => {
                    tracing::warn!(%error, "a merge was cut short, trying again later");
                    metrics::counter!("floe_log_merge_errors_total").increment(1);
                    backoff.next_pause()
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One merge, if one is due.
    pub(crate) async fn round(&self) -> Result<MergeRound, RoundError> {
        let mut turn = self.turn.lock().await;
        let done = self.merge_one(&mut turn).await;
        let Backlog { sources, bytes, extents } = self.index.backlog();
        metrics::gauge!("floe_log_merge_backlog_sources").set(sources as f64);
        metrics::gauge!("floe_log_merge_backlog_bytes").set(bytes as f64);
        metrics::gauge!("floe_log_merge_backlog_extents").set(extents as f64);
        if done.is_err()
            && let Some(sorting) = &mut turn.sorting
        {
            sorting.again();
        }
        done
    }

    /// Gives the lease back, so that nobody has to wait for it.
    pub(crate) async fn close(&self) {
        let Some(epoch) = self.turn.lock().await.epoch.take() else { return };
        let release = move |tx: &mut Tx<'_>| lease::release(tx, MERGE, epoch);
        if let Err(error) = self.meta.commit_deletion(Envelope::broker(MERGE), release).await {
            tracing::warn!(%error, "the lease on merging was not given back; it will expire");
        }
    }

    async fn merge_one(&self, turn: &mut Turn) -> Result<MergeRound, RoundError> {
        let now = self.env.monotonic();
        let pinned = self.session.pins.pin();
        turn.watch.look(&*pinned, MERGE, now)?;
        self.take_back(turn, &pinned, now);
        if format_level::get(&*pinned)? < WITH_LSNS {
            return Ok(MergeRound::default());
        }
        if turn.sorting.is_none() && !self.is_due() {
            return Ok(MergeRound::default());
        }
        if self.damages.has_too_many_sources() {
            return Err(RoundError::Damage);
        }
        // Somebody else may be at it.
        let epoch = self.hold_lease(turn, now).await?;
        drop(pinned);
        for _ in 0..MERGE_PLANS_MAX {
            let pinned = self.session.pins.pin();
            let Some(plan) = self.plan(turn, &pinned, now).await? else {
                return Ok(MergeRound { more: self.is_due(), ..MergeRound::default() });
            };
            let done = self.carry_out(epoch, &plan, &pinned).await?;
            drop(pinned);
            if let Some(done) = done {
                // What is sorted is left alone when all of it has had its turn.
                if turn.sorting.is_none() {
                    self.leave(turn, &plan.sources(), now);
                }
                return Ok(done);
            }
            // Without what is damaged.
            if let Some(sorting) = &mut turn.sorting {
                sorting.again();
            }
        }
        Ok(MergeRound { more: true, ..MergeRound::default() })
    }

    /// Whether there is something to merge.
    fn is_due(&self) -> bool {
        self.index.due().is_some() || (self.meta.pressed() && !self.index.frames().is_empty())
    }

    /// Takes the lease, or finds that it is still this process's.
    async fn hold_lease(&self, turn: &mut Turn, now: Instant) -> Result<u64, RoundError> {
        let held = self.meta.snapshot().get::<Lease>(&MERGE.to_owned())?;
        let is_own =
            |lease: &Lease| lease.owner.as_ref() == Some(&self.owner) && Some(lease.epoch) == turn.epoch;
        if let Some(lease) = held.filter(is_own) {
            return Ok(lease.epoch);
        }
        (turn.epoch, turn.sorting) = (None, None);
        let stale = turn.watch.stale(now, self.times.cleaner_lease);
        let (owner, ttl) = (self.owner.clone(), self.times.cleaner_lease);
        let take = move |tx: &mut Tx<'_>| lease::acquire(tx, MERGE, &owner, stale.as_ref(), ttl);
        let epoch = self.meta.commit_deletion(Envelope::broker(MERGE), take).await?.reply;
        turn.epoch = Some(epoch);
        Ok(epoch)
    }

    /// What to merge next. The search runs beside the tasks: it may look at a hundred thousand extents.
    async fn plan(
        &self,
        turn: &mut Turn,
        pinned: &Pinned,
        now: Instant,
    ) -> Result<Option<Plan>, DecodeError> {
        let (snapshot, index, damages) = ((**pinned).clone(), self.index.clone(), self.damages.clone());
        let (sizes, retention, pressed) = (self.sizes, self.retention, self.meta.pressed());
        let sorting = turn.sorting.take();
        let cache = self.lane.cache.clone();
        let search = move || {
            let holds = |source: Source, key: &ExtentKey| damages.holds_from_merging(source, *key, now);
            let rules = Rules { sizes, retention, pressed, holds: &holds };
            plan::next(&snapshot, &index, &rules, &|source| cache.in_tail(source), sorting)
        };
        let Next { plan, sorting, over } = self.env.blocking(search).await?;
        turn.sorting = sorting;
        self.leave(turn, &over, now);
        Ok(plan)
    }

    /// Leaves sources alone for a while of which a merge has left something: it is damaged, or its topic is gone.
    fn leave(&self, turn: &mut Turn, sources: &[Source], now: Instant) {
        let snapshot = self.meta.snapshot();
        for source in sources {
            // One that cannot be read is left alone, too.
            if !matches!(self.index.extents(&snapshot, *source), Ok(extents) if extents.is_empty()) {
                self.index.set_aside(*source);
                turn.left.insert(*source, now + DAMAGE_PAUSE);
            }
        }
    }

    /// Sources whose time is over are merged again, and damage that is gone is forgotten.
    fn take_back(&self, turn: &mut Turn, snapshot: &Snapshot, now: Instant) {
        let index = &self.index;
        turn.left.retain(|source, until| {
            if *until <= now {
                index.take_back(*source);
            }
            *until > now
        });
        self.damages.compare(snapshot);
    }

    /// Reads, writes and commits a plan. None if some of it is damaged: that is noted.
    async fn carry_out(
        &self,
        epoch: u64,
        plan: &Plan,
        snapshot: &Snapshot,
    ) -> Result<Option<MergeRound>, RoundError> {
        let begun = self.env.monotonic();
        let fetched = self.lane.read(plan).await?;
        let names = self.names(plan, snapshot).await?;
        let taken = self.ids.take().await.map_err(RoundError::Id)?;
        let (object, all_in_tail) = (taken.id, fetched.all_in_tail);
        let built = match self.build(plan.clone(), object, fetched, names).await {
            Ok(built) => built,
            Err(damages) => {
                self.note(&damages);
                return Ok(None);
            }
        };
        self.lane.give_way().await;
        self.lane.store.put(&object_key(object), built.payload.clone()).await?;
        let (size, payload) = (built.size, built.payload);
        let replaced = self.commit(epoch, &taken, plan.level, size, built.swaps).await?;
        if object::is_named(&self.meta.snapshot(), object) {
            taken.named();
            if all_in_tail {
                self.move_tail(&plan.sources(), object, &payload);
            }
        }
        let took = self.env.monotonic() - begun;
        metrics::histogram!("floe_log_merge_seconds").record(took.as_secs_f64());
        metrics::counter!("floe_log_merge_segments_total").increment(1);
        metrics::counter!("floe_log_merge_in_bytes_total").increment(plan.bytes);
        metrics::counter!("floe_log_merge_out_bytes_total").increment(size);
        metrics::counter!("floe_log_merge_replaced_extents_total").increment(replaced);
        let more = true;
        Ok(Some(MergeRound { segments: 1, replaced, bytes_in: plan.bytes, bytes_out: size, more }))
    }

    /// What readers of the tail find there moves with the extents.
    fn move_tail(&self, sources: &[Source], object: ObjectId, payload: &[Bytes]) {
        let snapshot = self.meta.snapshot();
        for source in sources {
            if matches!(self.index.extents(&snapshot, *source), Ok(extents) if extents.is_empty()) {
                self.lane.cache.forget(*source);
            }
        }
        self.lane.cache.copy(Source::Object(object), payload);
    }

    async fn build(
        &self,
        plan: Plan,
        object: ObjectId,
        fetched: Fetched,
        names: Names,
    ) -> Result<Built, Vec<Damage>> {
        let bug = self.bug;
        self.env.blocking(move || build::build(&plan, object, &fetched, &names, bug)).await
    }

    /// Notes damage, as far as the map has not moved on.
    fn note(&self, damages: &[Damage]) {
        let snapshot = self.meta.snapshot();
        for Damage { part, key, extent, what } in damages {
            let (by, at, what) = (FoundBy::Merging, key.base, what.clone());
            self.damages.met(&snapshot, Met { by, part: *part, key: *key, extent: Some(*extent), at, what });
        }
    }

    /// The writers of a plan's extents: those that they name, and the footers of segments.
    async fn names(&self, plan: &Plan, snapshot: &Snapshot) -> Result<Names, RoundError> {
        let mut names = Names::default();
        let mut objects = BTreeSet::new();
        for data in plan.runs.iter().flat_map(|run| &run.extents).filter_map(|(_, extent)| extent.data()) {
            if let WrittenBy::One(id) = data.written_by
                && !names.writers.contains_key(&id)
            {
                names.writers.extend(Writer::by_id(snapshot, id)?.map(|writer| (id, writer)));
            }
            objects.extend(data.place.object().filter(|id| id.kind() == ObjectKind::Segment));
        }
        for id in objects {
            let size = snapshot.get::<Object>(&id)?.map_or(0, |object| object.size);
            names.footers.insert(id, self.footer(id, size).await?);
        }
        Ok(names)
    }

    /// The footer of a segment, or what is wrong with it.
    async fn footer(&self, id: ObjectId, size: u64) -> Result<Result<Footer, String>, StoreError> {
        let key = object_key(id);
        let end = footer_end(size, |range| self.lane.store.get(&key, Some(range))).await;
        Ok(match end {
            Ok(end) => end.and_then(|end| Footer::decode(size, &end)).map_err(|error| error.to_string()),
            Err(error @ (StoreError::NotFound(_) | StoreError::Corrupt(_))) => Err(error.to_string()),
            Err(error) => return Err(error),
        })
    }

    /// Swaps the extents, some partitions in each commit. A partition that has changed meanwhile stays as it is.
    /// Returns how many extents were replaced.
    async fn commit(
        &self,
        epoch: u64,
        taken: &TakenId,
        level: Level,
        size: u64,
        swaps: Vec<Swap>,
    ) -> Result<u64, RoundError> {
        let (mut replaced, mut continues) = (0, false);
        for part in parts(swaps) {
            let mut part = part;
            loop {
                let extents: u64 = part.iter().map(|swap| swap.old.len() as u64).sum();
                let merged = Merged {
                    object: taken.id,
                    owner: self.ids.owner(),
                    size,
                    level,
                    continues,
                    swaps: part.clone(),
                };
                match self.commit_part(epoch, merged).await {
                    Ok(()) => {
                        (replaced, continues) = (replaced + extents, true);
                        break;
                    }
                    Err(CommitError::Refused(MergeError::Changed(partition))) => {
                        metrics::counter!("floe_log_merge_changed_partitions_total").increment(1);
                        part = self.without_changed(part, partition);
                        if part.is_empty() {
                            break;
                        }
                    }
                    // All of its extents went meanwhile, and it went with them.
                    Err(CommitError::Refused(MergeError::Object(reason))) if continues => {
                        tracing::debug!(reason, "a segment went before all of it was committed");
                        return Ok(replaced);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            tokio::time::sleep(MERGE_STEP_PAUSE).await;
        }
        Ok(replaced)
    }

    /// The swaps whose extents are still as they were read, without those of `partition`.
    fn without_changed(&self, part: Vec<Swap>, partition: PartitionId) -> Vec<Swap> {
        let snapshot = self.meta.snapshot();
        let is_as_read = |swap: &Swap| {
            let key = |base| ExtentKey::new(swap.partition, base);
            swap.old.iter().all(|(base, extent)| snapshot.get::<Extent>(&key(*base)) == Ok(Some(*extent)))
        };
        part.into_iter().filter(|swap| swap.partition != partition && is_as_read(swap)).collect()
    }

    async fn commit_part(&self, epoch: u64, merged: Merged) -> Result<(), CommitError<MergeError>> {
        let (ttl, renewal) = (self.times.cleaner_lease, self.session.due());
        let fenced = self.bug != Some(PlantedBug::IgnoresLease);
        let work = move |tx: &mut Tx<'_>| -> Result<(), MergeError> {
            if fenced {
                lease::renew(tx, MERGE, epoch, ttl)?;
            }
            if let Some(renewal) = &renewal {
                renewal.apply(tx)?;
            }
            merge(tx, &merged)
        };
        self.meta.commit_deletion(Envelope::broker(MERGE), work).await.map(drop)
    }
}

/// Groups swaps so that each commit replaces a bounded number of extents, or those of one run.
fn parts(swaps: Vec<Swap>) -> Vec<Vec<Swap>> {
    let mut parts: Vec<Vec<Swap>> = Vec::new();
    let mut extents = 0;
    for swap in swaps {
        let some = swap.old.len() + swap.new.len();
        if extents + some > MERGE_EXTENTS_PER_COMMIT || parts.is_empty() {
            (extents, _) = (0, parts.push(Vec::new()));
        }
        extents += some;
        parts.last_mut().expect("there is one").push(swap);
    }
    parts
}
