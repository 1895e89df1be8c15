//! The cleaner runs in one broker at a time, under the lease `cleaner`. It ends expired leases on object ids and the
//! sessions of dead brokers, lets deleted topics and removed records go for good when their time is over, or when the
//! disk is nearly full (`pressure.rs`), and frees what they left. It
//! deletes objects that have been trash for the grace period and that no session's oldest snapshot refers to, and only
//! then forgets them. It also forgets idle producers. Deleting twice is harmless, so the next round continues after any
//! crash.
//!
//! The grace counts on the monotonic clock of this process, from its first look at the trash: a wall clock that jumps
//! ahead would end it for a reader that still needs the object. What fell before the start of the only broker has no
//! readers left, and needs no grace.

use std::collections::BTreeMap;
use std::sync::Arc;

use floe_env::{Ages, Env, Grace, Timestamp};
use floe_meta::lease::{self, Lease, LeaseError, Watch};
use floe_meta::{CommitError, DecodeError, Envelope, Lsn, Meta, Tx};
use floe_store::{Store, StoreError};
use futures::future::join_all;

use crate::clean::pressure::{self, Pressure};
use crate::config::{Config, Times};
use crate::error::OpenError;
use crate::limits::{
    CLEANER_STEP_PAUSE, DELETED_EXTENTS_MAX, DELETED_PARTITION_MAP_BYTES, DELETED_PER_COMMIT,
    DELETED_TOPIC_MAP_BYTES, DELETES_AT_ONCE, EXTENT_MAP_BYTES, LEASES_ENDED_PER_ROUND, PRODUCER_IDLE_MIN,
    PRODUCER_TTL, PRODUCERS_EXPIRED_MAX, PRODUCERS_MANY, PRODUCERS_PER_COMMIT, TRASH_PER_ROUND,
};
use crate::map::deleted::{self, Deleted};
use crate::map::extent;
use crate::map::identity;
use crate::map::ids::{ObjectId, TopicId};
use crate::map::object::{self, ObjectLease, Trash, object_key};
use crate::map::producer::{self, Producer};
use crate::map::producer_count;
use crate::map::remains::{self, SWEEP_RECORDS_MAX};
use crate::map::session::{self, Session};
use crate::map::writer_number::WriterNumber;
use crate::read::cache::Cache;
use crate::read::frames::Frames;
use crate::read::source::Source;
use crate::start::former::Former;
use crate::start::session::OwnSession;
use crate::write::leases::end_ids;
use crate::write::uploader::Uploader;

const CLEANER: &str = "cleaner";

/// Deletes what nobody needs, one round at a time. Only the broker that holds the lease cleans.
#[derive(Clone)]
pub(crate) struct Cleaner {
    pub(crate) env: Env,
    pub(crate) meta: Meta,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cache: Cache,
    pub(crate) times: Times,
    /// What is kept of deleted topics.
    pub(crate) trash: deleted::Trash,
    /// The process whose place this one took.
    pub(crate) former: Former,
    pub(crate) session: OwnSession,
    pub(crate) frames: Frames,
    /// This process's name as a holder of the lease: random bits.
    pub(crate) owner: u128,
    /// Serialises the rounds of this process. They share the owner, so the lease does not keep them apart.
    pub(crate) turn: Arc<tokio::sync::Mutex<Turn>>,
}

/// What a round remembers for the next one.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// The hour up to which idle producers were forgotten; another search within that hour would find none.
    producers_hour: Option<u32>,
    /// The lease of the cleaner while another process holds it.
    watch: Watch,
    /// Leases on object ids with their last renewal.
    leases: Ages<SeenLease>,
    /// Sessions with their last renewal.
    sessions: Ages<(WriterNumber, Session)>,
    /// How old trash is; `None` before the first look.
    grace: Option<Grace>,
    /// Trash that is not older than a mark of the grace can tell, because the time of commits stands still.
    youngest: Ages<ObjectId>,
    /// How many extents deleted topics have that can come back, at most: merging makes fewer of them.
    extents: BTreeMap<(TopicId, Lsn), u64>,
    /// Whether the disk is nearly full.
    pressure: Pressure,
    /// Where the last round stopped. The next one begins there, so that objects that cannot be deleted do not keep all
    /// others.
    trash_next: Option<ObjectId>,
}

/// The first id of a lease, its owner and its last renewal.
type SeenLease = (ObjectId, u128, Timestamp);

fn seen(first: ObjectId, lease: &ObjectLease) -> SeenLease {
    (first, lease.owner, lease.expires)
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Expired leases on object ids that the round ended.
    pub leases: usize,
    /// Objects that the round deleted from the store.
    pub objects: usize,
    /// Commits whose bytes the round released in the journal.
    pub frames: usize,
    /// Whether more work is due at once.
    pub more: bool,
}

/// Why a round ended early. The next round continues.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CleanError {
    #[error(transparent)]
    Lease(#[from] CommitError<LeaseError>),
    #[error(transparent)]
    Metadata(#[from] DecodeError),
    #[error(transparent)]
    Store(#[from] OpenError),
}

impl Cleaner {
    pub(crate) fn new(
        uploader: &Uploader,
        meta: &Meta,
        config: &Config,
        former: Former,
        session: OwnSession,
        frames: Frames,
    ) -> Cleaner {
        let Uploader { env, store, ids, cache } = uploader.clone();
        let (times, trash) = (config.times, config.trash);
        Cleaner {
            env,
            meta: meta.clone(),
            store,
            cache,
            times,
            trash,
            former,
            session,
            frames,
            owner: ids.owner(),
            turn: Arc::default(),
        }
    }

    /// Cleans until the task is dropped.
    pub(crate) async fn run(self) {
        loop {
            match self.round().await {
                // Pause, so that commits of brokers and clients go first.
                Ok(cleaned) if cleaned.more => {
                    tokio::time::sleep(CLEANER_STEP_PAUSE).await;
                    continue;
                }
                Ok(_) => {}
                // Another broker cleans.
                Err(CleanError::Lease(CommitError::Refused(LeaseError::Held { .. }))) => {}
                Err(error) => tracing::warn!(%error, "cleaning was cut short, trying again later"),
            }
            tokio::time::sleep(self.times.cleaner_pause).await;
        }
    }

    /// Ends expired leases, frees what deleted topics left, deletes trash that is old enough, and forgets idle
    /// producers.
    pub(crate) async fn round(&self) -> Result<Cleaned, CleanError> {
        let mut turn = self.turn.lock().await;
        let stale = self.look(&mut turn)?;
        let owner = format!("{:032x}", self.owner);
        let ttl = self.times.cleaner_lease;
        // Its own trash waits for this broker, too.
        let renewal = self.session.renewal();
        let take = move |tx: &mut Tx<'_>| {
            let epoch = lease::acquire(tx, CLEANER, &owner, stale.as_ref(), ttl)?;
            renewal.apply(tx)?;
            Ok((epoch, tx.now()))
        };
        let taken = self.meta.commit_deletion(Envelope::broker(CLEANER), take).await;
        // Whoever cleans, and also when no commit finds room any more: this is what makes room.
        let frames = self.frames.release(&self.meta, self.session.oldest_of_all()?);
        frames.iter().for_each(|lsn| self.cache.forget(Source::Frame(*lsn)));
        let (epoch, time) = taken?.reply;
        self.end_sessions(&turn, epoch).await?;
        let leases = self.end_leases(&turn, epoch).await?;
        self.expire_topics(&mut turn, epoch).await?;
        let remains = self.sweep_topics(epoch).await?;
        let objects = self.empty_trash(&mut turn, epoch, time).await?;
        let idle = self.expire_producers(&mut turn, epoch).await?;
        metrics::counter!("floe_log_cleaned_objects_total").increment(objects as u64);
        metrics::counter!("floe_log_cleaned_leases_total").increment(leases as u64);
        let more = remains || idle || leases == LEASES_ENDED_PER_ROUND || objects == TRASH_PER_ROUND;
        Ok(Cleaned { leases, objects, frames: frames.len(), more })
    }

    /// Notes which leases there are, also while another process cleans: that one may die. Returns the cleaner's lease
    /// if nobody has renewed it for its time to live.
    fn look(&self, turn: &mut Turn) -> Result<Option<Lease>, DecodeError> {
        let (snapshot, now) = (self.meta.snapshot(), self.env.monotonic());
        let leases = snapshot.range::<ObjectLease>(..).collect::<Result<Vec<_>, _>>()?;
        turn.leases.look(leases.iter().map(|(first, lease)| seen(*first, lease)), now);
        turn.sessions.look(session::all(&snapshot)?, now);
        turn.watch.look(&snapshot, CLEANER, now)?;
        Ok(turn.watch.stale(now, self.times.cleaner_lease))
    }

    /// Runs a command that is refused once another cleaner has taken over.
    async fn fenced<F, T>(&self, epoch: u64, mut command: F) -> Result<T, CommitError<LeaseError>>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, DecodeError> + Send + 'static,
        T: Send + 'static,
    {
        let work = move |tx: &mut Tx<'_>| {
            tx.check_lease(CLEANER, epoch)?;
            command(tx).map_err(LeaseError::from)
        };
        self.meta.commit_deletion(Envelope::broker(CLEANER), work).await.map(|committed| committed.reply)
    }

    async fn end_leases(&self, turn: &Turn, epoch: u64) -> Result<usize, CleanError> {
        let now = self.env.monotonic();
        let mut expired = Vec::new();
        let snapshot = self.meta.snapshot();
        for pair in snapshot.range::<ObjectLease>(..) {
            let (first, lease) = pair?;
            let is_old = turn.leases.age(&seen(first, &lease), now) >= self.times.lease_ttl;
            let is_stale = is_old && !object::hangs_on_session(&snapshot, first.writer())?;
            if is_stale && expired.len() < LEASES_ENDED_PER_ROUND {
                expired.push((first, lease));
            }
        }
        for (first, lease) in &expired {
            let (first, lease) = (*first, *lease);
            self.fenced(epoch, move |tx| end_expired(tx, first, lease)).await?;
        }
        Ok(expired.len())
    }

    /// Ends the sessions of brokers that are dead, or have slept for so long that they have to begin anew.
    async fn end_sessions(&self, turn: &Turn, epoch: u64) -> Result<(), CleanError> {
        let now = self.env.monotonic();
        for (number, session) in session::all(&self.meta.snapshot())? {
            let is_stale = turn.sessions.age(&(number, session), now) >= self.times.session_ttl;
            if is_stale && !self.session.is_own(number) {
                tracing::info!(writer = number.0, "the session of a broker is over");
                self.fenced(epoch, move |tx| session::end(tx, number, session)).await?;
            }
        }
        Ok(())
    }

    /// Lets deleted topics go for good that are beyond their time or the bounds on them. The search runs on a snapshot,
    /// beside the commits: there may be a million extents to count.
    async fn expire_topics(&self, turn: &mut Turn, epoch: u64) -> Result<(), CleanError> {
        let (snapshot, counted) = (self.meta.snapshot(), std::mem::take(&mut turn.extents));
        let totals = deleted::totals(&snapshot)?;
        if totals == deleted::Totals::default() {
            turn.pressure = Pressure::default();
            measure(&[], totals, 0);
            return Ok(());
        }
        let count = move || {
            let all = deleted::all(&snapshot)?;
            let count = |known: Option<&BTreeMap<(TopicId, Lsn), u64>>| {
                let of = |deleted: &Deleted| {
                    let key = (deleted.topic.id, deleted.lsn);
                    let known = known.and_then(|known| match deleted.removed {
                        Some(removed) => Some(removed.extents),
                        None => known.get(&key).copied(),
                    });
                    (key, known.unwrap_or_else(|| extent::count_of(&snapshot, deleted.topic.id)))
                };
                all.iter().map(of).collect::<BTreeMap<_, _>>()
            };
            let mut extents = count(Some(&counted));
            if extents.values().sum::<u64>() > DELETED_EXTENTS_MAX {
                extents = count(None);
            }
            Ok::<_, DecodeError>((all, extents))
        };
        let (all, extents) = self.env.blocking(count).await?;
        measure(&all, totals, extents.values().sum());
        let of = |deleted: &Deleted| extents[&(deleted.topic.id, deleted.lsn)];
        let due = deleted::due(&all, self.trash, self.env.now(), of);
        turn.extents = extents;
        metrics::counter!("floe_log_expired_topics_total").increment(self.let_go(&due, epoch).await?);
        let room = self.store.room().await;
        let bytes = turn.pressure.look(room, self.env.monotonic());
        // Those that are due make room first, if there are any.
        let first = if due.is_empty() { bytes } else { 0 };
        let first = pressure::first(&self.meta.snapshot(), &all, first)?;
        if !first.is_empty() {
            self.give_way(&first, room.map_or(0, |room| room.free), epoch).await?;
        }
        Ok(())
    }

    /// Lets deleted topics go before their time while the disk is nearly full.
    async fn give_way(&self, first: &[(TopicId, Lsn)], free: u64, epoch: u64) -> Result<(), CleanError> {
        let topics = self.let_go(first, epoch).await?;
        tracing::warn!(
            topics,
            free,
            "the disk is nearly full: deleted topics and removed records go before their time, the oldest first"
        );
        metrics::counter!("floe_log_yielded_topics_total").increment(topics);
        Ok(())
    }

    /// Lets deleted topics go for good that are still as they were seen. Returns how many did.
    async fn let_go(&self, seen: &[(TopicId, Lsn)], epoch: u64) -> Result<u64, CleanError> {
        let mut gone = 0;
        for some in seen.chunks(DELETED_PER_COMMIT) {
            let some = some.to_vec();
            gone += self.fenced(epoch, move |tx| deleted::expire(tx, &some)).await?.topics;
        }
        Ok(gone)
    }

    /// Frees one step of the first deleted topic that still has extents or producers. Returns whether more remain.
    async fn sweep_topics(&self, epoch: u64) -> Result<bool, CleanError> {
        if remains::any(&self.meta.snapshot()) {
            self.fenced(epoch, |tx| remains::sweep(tx, SWEEP_RECORDS_MAX).map(drop)).await?;
        }
        Ok(remains::any(&self.meta.snapshot()))
    }

    async fn empty_trash(&self, turn: &mut Turn, epoch: u64, time: Timestamp) -> Result<usize, CleanError> {
        let mut due = self.due_trash(turn, time)?;
        let of_former = |id: &ObjectId| id.writer() == self.former.number;
        if due.iter().any(of_former) && self.former.lived_on().await? {
            due.retain(|id| !of_former(id));
        }
        let mut deleted = 0;
        let mut failure = None;
        for some in due.chunks(DELETES_AT_ONCE) {
            let deletions = some.iter().map(|id| self.delete(*id));
            let mut gone = Vec::new();
            for (id, deletion) in some.iter().zip(join_all(deletions).await) {
                match deletion {
                    Ok(()) => gone.push(*id),
                    Err(error) => failure = failure.or(Some((*id, error))),
                }
            }
            deleted += gone.len();
            if !gone.is_empty() {
                let forget = move |tx: &mut Tx<'_>| {
                    gone.iter().for_each(|id| tx.delete::<Trash>(id));
                    Ok(())
                };
                self.fenced(epoch, forget).await?;
            }
        }
        if let Some((object, error)) = failure {
            // They stay trash, and the next round tries again. One line, however many they are.
            let failed = due.len() - deleted;
            tracing::warn!(failed, %object, %error, "objects cannot be deleted, the first of them for this reason");
        }
        Ok(deleted)
    }

    /// Trash whose grace is over and that nobody reads, from where the last round stopped. Commits had come to `time`
    /// when this round began.
    fn due_trash(&self, turn: &mut Turn, time: Timestamp) -> Result<Vec<ObjectId>, DecodeError> {
        let (now, period) = (self.env.monotonic(), self.times.trash_grace);
        let grace = turn.grace.get_or_insert_with(|| Grace::new(period));
        grace.look(time, now);
        let (over, snapshot) = (grace.over(), self.meta.snapshot());
        let oldest = self.session.oldest_of_all()?;
        let (mut due, mut youngest, mut pinned) = (Vec::new(), Vec::new(), 0);
        let next = turn.trash_next.take().unwrap_or(ObjectId(0));
        for pair in snapshot.range::<Trash>(next..).chain(snapshot.range::<Trash>(..next)) {
            let (id, trash) = pair?;
            let aged = trash.since < over || turn.youngest.age(&id, now) >= period;
            let is_over = aged || self.former.left(&trash);
            if is_over && trash.lsn > oldest {
                pinned += 1;
            } else if is_over {
                due.push(id);
                if due.len() == TRASH_PER_ROUND {
                    turn.trash_next = Some(ObjectId(id.0.saturating_add(1)));
                    return Ok(due);
                }
            }
            if trash.since >= time {
                youngest.push(id);
            }
        }
        metrics::gauge!("floe_log_pinned_objects").set(f64::from(pinned));
        // In the order of ids, so that the same ones are looked at in every round until they are gone.
        youngest.sort_unstable();
        youngest.truncate(TRASH_PER_ROUND);
        turn.youngest.look(youngest, now);
        Ok(due)
    }

    async fn delete(&self, id: ObjectId) -> Result<(), StoreError> {
        self.store.delete(&object_key(id)).await?;
        self.cache.forget(Source::Object(id));
        Ok(())
    }

    /// Forgets idle producers once an hour, because their last use is known to the hour. Returns whether there are
    /// more. The search runs on a snapshot, beside the commits: there may be a million producers, nearly all of
    /// them in use.
    async fn expire_producers(&self, turn: &mut Turn, epoch: u64) -> Result<bool, CleanError> {
        let snapshot = self.meta.snapshot();
        let producers = producer_count::in_all(&snapshot)?;
        metrics::gauge!("floe_log_producers").set(producers as f64);
        metrics::gauge!("floe_log_writers").set(identity::writers(&snapshot)? as f64);
        let idle = if producers < PRODUCERS_MANY { PRODUCER_TTL } else { PRODUCER_IDLE_MIN };
        let before = self.env.now() - idle;
        let hour = Producer::hour(before);
        if turn.producers_hour == Some(hour) {
            return Ok(false);
        }
        let search = move || producer::idle(&snapshot, before, PRODUCERS_EXPIRED_MAX);
        let idle = self.env.blocking(search).await?;
        for some in idle.chunks(PRODUCERS_PER_COMMIT) {
            let some = some.to_vec();
            self.fenced(epoch, move |tx| producer_count::forget(tx, before, &some)).await?;
        }
        let more = idle.len() == PRODUCERS_EXPIRED_MAX;
        if !more {
            turn.producers_hour = Some(hour);
        }
        Ok(more)
    }
}

/// Tells the metrics how much there is of deleted topics that can come back.
fn measure(all: &[Deleted], totals: deleted::Totals, extents: u64) {
    let parts = all.iter().filter(|deleted| deleted.removed.is_some()).count();
    metrics::gauge!("floe_log_removed_parts").set(parts as f64);
    metrics::gauge!("floe_log_deleted_topics").set(totals.topics as f64);
    metrics::gauge!("floe_log_deleted_topics_bytes").set(totals.bytes as f64);
    metrics::gauge!("floe_log_deleted_topics_extents").set(extents as f64);
    let map_bytes = extents * EXTENT_MAP_BYTES
        + totals.topics * DELETED_TOPIC_MAP_BYTES
        + totals.partitions * DELETED_PARTITION_MAP_BYTES;
    metrics::gauge!("floe_log_deleted_topics_map_bytes").set(map_bytes as f64);
}

/// Command: ends a lease that nobody has renewed since it was `seen`, whoever owns it. The sequencer refuses the
/// owner's commits from then on, so its uploads are useless.
fn end_expired(tx: &mut Tx<'_>, first: ObjectId, seen: ObjectLease) -> Result<(), DecodeError> {
    match tx.get::<ObjectLease>(&first)? {
        Some(lease) if lease == seen => end_ids(tx, lease.owner, first, lease.end),
        _ => Ok(()),
    }
}
