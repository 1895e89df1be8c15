//! The ids of objects before they are used, and the objects after they are not used any more: two loops.
//!
//! **Ids** come in leased ranges (`object.rs` has the life of an object). A process takes a range before it uploads
//! anything, renews the lease while it lives, and ends it when every id of the range is settled: committed, or
//! known to be of no use, which makes the object trash. When a process dies, its leases expire.
//!
//! **The cleaner** runs in one broker at a time, under the lease `cleaner`. It ends expired leases, deletes what has
//! been trash for the grace period, and only then forgets it. Whatever crashes, the next round goes on: deleting
//! twice is harmless.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use floe_env::{Env, Timestamp};
use floe_meta::lease::{self, LeaseError};
use floe_meta::{CommitError, CounterKey, DecodeError, Envelope, Meta, Tx};
use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::ids::ObjectId;
use crate::limits::{
    CLEANER_STEP_PAUSE, DELETES_AT_ONCE, DETACHED_UPLOAD_TTL, LEASES_ENDED_PER_ROUND, PRODUCER_TTL,
    PRODUCERS_EXPIRED_MAX, PRODUCERS_PER_COMMIT, TRASH_PER_ROUND,
};
use crate::object::{Object, ObjectLease, Trash, wal_key};
use crate::producer::{self, Producer};
use crate::topic::{self, SWEEP_RECORDS_MAX};
use floe_store::Store;

const COUNTER: CounterKey = CounterKey::named("object");
const CLEANER: &str = "cleaner";

/// Command: takes `count` new ids for `owner`; returns the first.
///
/// # Errors
/// A record cannot be read.
pub fn lease_ids(tx: &mut Tx<'_>, owner: u128, count: u64, ttl: Duration) -> Result<ObjectId, DecodeError> {
    let first = ObjectId(tx.take_counter(&COUNTER, count)?);
    let lease = ObjectLease { end: ObjectId(first.0 + count), owner, expires: tx.now() + ttl };
    tx.put(&first, &lease);
    Ok(first)
}

/// Command: prolongs the leases of `owner` that begin at `firsts`, as far as it still has them.
///
/// # Errors
/// A record cannot be read.
pub fn renew_ids(
    tx: &mut Tx<'_>,
    owner: u128,
    firsts: &[ObjectId],
    ttl: Duration,
) -> Result<(), DecodeError> {
    for first in firsts {
        if let Some(lease) = tx.get::<ObjectLease>(first)?.filter(|lease| lease.owner == owner) {
            let expires = lease.expires.max(tx.now() + ttl);
            tx.put(first, &ObjectLease { expires, ..lease });
        }
    }
    Ok(())
}

/// Command: ends the lease that begins at `first`. The ids below `used` may have been uploaded: those that no record
/// names become trash. Nothing happens if the lease is gone or has another owner.
///
/// # Errors
/// A record cannot be read.
pub fn end_ids(tx: &mut Tx<'_>, owner: u128, first: ObjectId, used: ObjectId) -> Result<(), DecodeError> {
    let Some(lease) = tx.get::<ObjectLease>(&first)?.filter(|lease| lease.owner == owner) else {
        return Ok(());
    };
    for id in (first.0..used.0.min(lease.end.0)).map(ObjectId) {
        if tx.get::<Object>(&id)?.is_none() && tx.get::<Trash>(&id)?.is_none() {
            tx.put(&id, &Trash { since: tx.now(), size: 0 });
        }
    }
    tx.delete::<ObjectLease>(&first);
    Ok(())
}

/// Command of the cleaner: ends a lease that has expired, whoever has it. From here on its owner's commits are
/// refused, so what it uploads is of no use.
fn end_expired(tx: &mut Tx<'_>, first: ObjectId) -> Result<(), DecodeError> {
    match tx.get::<ObjectLease>(&first)? {
        Some(lease) if lease.expires < tx.now() => end_ids(tx, lease.owner, first, lease.end),
        _ => Ok(()),
    }
}

/// How ids are leased and objects cleaned away. Times.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Ids of one lease.
    pub lease_ids: u64,
    /// How long a lease lasts without renewal; renewed after a third of it.
    pub lease_ttl: Duration,
    /// How long trash is kept for readers that still hold an old snapshot, and for uploads that are still on their
    /// way. Longer than any request to the store can take.
    pub trash_grace: Duration,
    /// Pause between two rounds of the cleaner.
    pub cleaner_pause: Duration,
    /// How long a broker has the cleaner's job without showing that it lives; longer than a round should take.
    pub cleaner_lease: Duration,
}

/// The ids that this process may use. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Ids {
    env: Env,
    meta: Meta,
    owner: u128,
    times: Times,
    shared: Arc<IdsShared>,
}

#[derive(Default)]
struct IdsShared {
    ranges: Mutex<VecDeque<Leased>>,
    refill: tokio::sync::Mutex<()>,
    /// Something for the loop to do: few ids are left, or a range is settled.
    wake: Notify,
}

/// A leased range.
#[derive(Debug)]
struct Leased {
    first: ObjectId,
    next: ObjectId,
    end: ObjectId,
    /// Ids that were taken and are not settled.
    open: u64,
    /// An upload whose commit is not ours to see may use an id of this range until then.
    detached_until: Option<Instant>,
}

/// An id in use; settled when dropped.
pub(crate) struct TakenId {
    pub(crate) id: ObjectId,
    shared: Arc<IdsShared>,
    first: ObjectId,
}

impl Drop for TakenId {
    fn drop(&mut self) {
        let mut ranges = self.shared.lock();
        if let Some(range) = ranges.iter_mut().find(|range| range.first == self.first) {
            assert!(range.open > 0, "an id is settled once");
            range.open -= 1;
            if range.open == 0 && range.next == range.end {
                self.shared.wake.notify_one();
            }
        }
    }
}

impl Leased {
    fn settled(&self, now: Instant) -> bool {
        self.open == 0 && self.detached_until.is_none_or(|until| until <= now)
    }

    fn left(&self) -> u64 {
        self.end.0 - self.next.0
    }
}

impl IdsShared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Leased>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ids {
    pub(crate) fn new(env: Env, meta: Meta, times: Times) -> Ids {
        assert!(times.lease_ids > 0, "a lease has at least one id");
        let owner = env.random_u128();
        Ids { env, meta, owner, times, shared: Arc::default() }
    }

    pub(crate) fn owner(&self) -> u128 {
        self.owner
    }

    /// An id that nobody else uses. Waits for the journal only when no leased one is left.
    pub(crate) async fn take(&self) -> Result<TakenId, String> {
        if let Some(taken) = self.take_leased() {
            return Ok(taken);
        }
        let _one_at_a_time = self.shared.refill.lock().await;
        if let Some(taken) = self.take_leased() {
            return Ok(taken);
        }
        self.lease().await?;
        self.take_leased()
            .ok_or_else(|| "the lease on object ids ended at once; is the clock right?".to_owned())
    }

    /// Keeps the lease on a taken id long enough for a commit that somebody else makes.
    pub(crate) fn detach(&self, taken: &TakenId) {
        let until = self.env.monotonic() + DETACHED_UPLOAD_TTL;
        if let Some(range) = self.shared.lock().iter_mut().find(|range| range.first == taken.first) {
            range.detached_until = Some(until);
        }
    }

    /// Renews, prepares the next range, ends what is settled; until the task is dropped.
    pub(crate) async fn run(self) {
        let mut renew_at = self.env.monotonic() + self.times.lease_ttl / 3;
        loop {
            tokio::select! {
                biased;
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(renew_at) => {
                    renew_at = self.env.monotonic() + self.times.lease_ttl / 3;
                    self.renew().await;
                }
            }
            self.end_settled(false).await;
            if self.left() < self.times.lease_ids / 2 {
                let _one_at_a_time = self.shared.refill.lock().await;
                if let Err(error) = self.lease().await {
                    // Whoever needs an id asks again and gets the error.
                    tracing::warn!(error, "cannot lease object ids ahead of use");
                }
            }
        }
    }

    /// Ends every lease, so that nobody has to wait for it to expire.
    pub(crate) async fn close(&self) {
        self.end_settled(true).await;
    }

    fn take_leased(&self) -> Option<TakenId> {
        let mut ranges = self.shared.lock();
        // Taken under the lock: a range is put in after its commit, so this snapshot knows every range that is there.
        let snapshot = self.meta.snapshot();
        // A lease that somebody ended, because this process slept past its expiry, is of no use any more.
        ranges.retain(|range| range.left() == 0 || self.holds(&snapshot, range.first));
        let left_before: u64 = ranges.iter().map(Leased::left).sum();
        let range = ranges.iter_mut().find(|range| range.left() > 0)?;
        let id = range.next;
        range.next = ObjectId(id.0 + 1);
        range.open += 1;
        if left_before - 1 < self.times.lease_ids / 2 {
            self.shared.wake.notify_one();
        }
        Some(TakenId { id, shared: Arc::clone(&self.shared), first: range.first })
    }

    fn holds(&self, snapshot: &floe_meta::Snapshot, first: ObjectId) -> bool {
        let lease = snapshot.get::<ObjectLease>(&first);
        matches!(lease, Ok(Some(lease)) if lease.owner == self.owner)
    }

    fn left(&self) -> u64 {
        self.shared.lock().iter().map(Leased::left).sum()
    }

    async fn lease(&self) -> Result<(), String> {
        let (owner, count, ttl) = (self.owner, self.times.lease_ids, self.times.lease_ttl);
        let leased = self
            .meta
            .commit(Envelope::broker("object ids"), move |tx| lease_ids(tx, owner, count, ttl))
            .await;
        let first = leased.map_err(|error| error.to_string())?.reply;
        let end = ObjectId(first.0 + count);
        self.shared.lock().push_back(Leased { first, next: first, end, open: 0, detached_until: None });
        Ok(())
    }

    async fn renew(&self) {
        let firsts: Vec<ObjectId> = self.shared.lock().iter().map(|range| range.first).collect();
        let (owner, ttl) = (self.owner, self.times.lease_ttl);
        let renewed = self
            .meta
            .commit(Envelope::broker("object ids"), move |tx| renew_ids(tx, owner, &firsts, ttl))
            .await;
        if let Err(error) = renewed {
            tracing::warn!(%error, "cannot renew the leases on object ids");
        }
    }

    /// Ends the leases of ranges that are used up and settled; with `closing` also those with ids left.
    async fn end_settled(&self, closing: bool) {
        let now = self.env.monotonic();
        let done: Vec<(ObjectId, ObjectId)> = {
            let mut ranges = self.shared.lock();
            let (done, rest) = std::mem::take(&mut *ranges)
                .into_iter()
                .partition(|range: &Leased| range.settled(now) && (closing || range.left() == 0));
            *ranges = rest;
            let done: VecDeque<Leased> = done;
            done.into_iter().map(|range| (range.first, range.next)).collect()
        };
        if done.is_empty() {
            return;
        }
        let owner = self.owner;
        let ended = self.meta.commit(Envelope::broker("object ids"), move |tx| {
            done.iter().try_for_each(|(first, used)| end_ids(tx, owner, *first, *used))
        });
        if let Err(error) = ended.await {
            tracing::warn!(%error, "cannot end a lease on object ids; it will expire");
        }
    }
}

/// Deletes what nobody needs. One round at a time, in the broker that holds the lease.
#[derive(Clone)]
pub(crate) struct Cleaner {
    pub(crate) env: Env,
    pub(crate) meta: Meta,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cache: Cache,
    pub(crate) times: Times,
    /// This process, among those that want to clean.
    pub(crate) owner: u128,
    /// Rounds of this process go one after the other: they share the owner, so the lease does not keep them apart.
    pub(crate) turn: Arc<tokio::sync::Mutex<Turn>>,
}

/// What a round remembers for the next.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// The hour up to which idle producers were forgotten: looking again within it finds none.
    producers_hour: Option<u32>,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Expired leases on object ids that were ended.
    pub leases: usize,
    /// Objects deleted from the store.
    pub objects: usize,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// Why a round ended early; the next one goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CleanError {
    #[error(transparent)]
    Lease(#[from] CommitError<LeaseError>),
    #[error(transparent)]
    Metadata(#[from] DecodeError),
}

impl Cleaner {
    /// Cleans for ever.
    pub(crate) async fn run(self) {
        loop {
            match self.round().await {
                // Not at once: what brokers and clients commit goes first.
                Ok(cleaned) if cleaned.more => {
                    tokio::time::sleep(CLEANER_STEP_PAUSE).await;
                    continue;
                }
                Ok(_) => {}
                // Another broker does it.
                Err(CleanError::Lease(CommitError::Refused(LeaseError::Held { .. }))) => {}
                Err(error) => tracing::warn!(%error, "cleaning was cut short, trying again later"),
            }
            tokio::time::sleep(self.times.cleaner_pause).await;
        }
    }

    /// Ends expired leases, frees what deleted topics left, deletes trash that is old enough, forgets old producers.
    pub(crate) async fn round(&self) -> Result<Cleaned, CleanError> {
        let mut turn = self.turn.lock().await;
        let owner = format!("{:032x}", self.owner);
        let ttl = self.times.cleaner_lease;
        let take = move |tx: &mut Tx<'_>| lease::acquire(tx, CLEANER, &owner, ttl);
        let epoch = self.meta.commit(Envelope::broker(CLEANER), take).await?.reply;
        let leases = self.end_leases(epoch).await?;
        let remains = self.sweep_topics(epoch).await?;
        let objects = self.empty_trash(epoch).await?;
        let idle = self.expire_producers(&mut turn, epoch).await?;
        metrics::counter!("floe_log_cleaned_objects_total").increment(objects as u64);
        metrics::counter!("floe_log_cleaned_leases_total").increment(leases as u64);
        let more = remains || idle || leases == LEASES_ENDED_PER_ROUND || objects == TRASH_PER_ROUND;
        Ok(Cleaned { leases, objects, more })
    }

    /// A command that is refused when another cleaner has taken over.
    async fn fenced<F>(&self, epoch: u64, mut command: F) -> Result<(), CommitError<LeaseError>>
    where
        F: FnMut(&mut Tx<'_>) -> Result<(), DecodeError> + Send + 'static,
    {
        let work = move |tx: &mut Tx<'_>| {
            tx.check_lease(CLEANER, epoch)?;
            command(tx).map_err(LeaseError::from)
        };
        self.meta.commit(Envelope::broker(CLEANER), work).await.map(drop)
    }

    async fn end_leases(&self, epoch: u64) -> Result<usize, CleanError> {
        let now = self.env.now();
        let mut expired = Vec::new();
        for pair in self.meta.snapshot().range::<ObjectLease>(..) {
            let (first, lease) = pair?;
            if lease.expires < now && expired.len() < LEASES_ENDED_PER_ROUND {
                expired.push(first);
            }
        }
        for first in &expired {
            let first = *first;
            self.fenced(epoch, move |tx| end_expired(tx, first)).await?;
        }
        Ok(expired.len())
    }

    /// One step for the first deleted topic whose extents are not all freed; whether there is more.
    async fn sweep_topics(&self, epoch: u64) -> Result<bool, CleanError> {
        if topic::has_remains(&self.meta.snapshot()) {
            self.fenced(epoch, |tx| topic::sweep(tx, SWEEP_RECORDS_MAX).map(drop)).await?;
        }
        Ok(topic::has_remains(&self.meta.snapshot()))
    }

    async fn empty_trash(&self, epoch: u64) -> Result<usize, CleanError> {
        let due = self.due_trash()?;
        let mut deleted = 0;
        for some in due.chunks(DELETES_AT_ONCE) {
            let deletions = some.iter().map(|id| self.delete(*id));
            let gone: Vec<ObjectId> = join_all(deletions).await.into_iter().flatten().collect();
            deleted += gone.len();
            if !gone.is_empty() {
                let forget = move |tx: &mut Tx<'_>| {
                    gone.iter().for_each(|id| tx.delete::<Trash>(id));
                    Ok(())
                };
                self.fenced(epoch, forget).await?;
            }
        }
        Ok(deleted)
    }

    fn due_trash(&self) -> Result<Vec<ObjectId>, DecodeError> {
        let before: Timestamp = self.env.now() - self.times.trash_grace;
        let snapshot = self.meta.snapshot();
        let mut due = Vec::new();
        for pair in snapshot.range::<Trash>(..) {
            let (id, trash) = pair?;
            if trash.since <= before {
                due.push(id);
            }
            if due.len() == TRASH_PER_ROUND {
                break;
            }
        }
        Ok(due)
    }

    async fn delete(&self, id: ObjectId) -> Option<ObjectId> {
        match self.store.delete(&wal_key(id)).await {
            Ok(()) => {
                self.cache.forget(id);
                Some(id)
            }
            Err(error) => {
                // It stays trash; the next round tries again.
                tracing::warn!(object = %id, %error, "cannot delete an object");
                None
            }
        }
    }

    /// Forgets producers once in an hour, which is how exactly their last use is known; whether there are more. They
    /// are searched on a snapshot, beside the commits: there may be a million of them, and nearly all are in use.
    async fn expire_producers(&self, turn: &mut Turn, epoch: u64) -> Result<bool, CleanError> {
        let before = self.env.now() - PRODUCER_TTL;
        let hour = Producer::hour(before);
        if turn.producers_hour == Some(hour) {
            return Ok(false);
        }
        let snapshot = self.meta.snapshot();
        let search = move || producer::idle(&snapshot, before, PRODUCERS_EXPIRED_MAX);
        let idle = self.env.blocking(search).await?;
        for some in idle.chunks(PRODUCERS_PER_COMMIT) {
            let some = some.to_vec();
            self.fenced(epoch, move |tx| producer::forget(tx, before, &some)).await?;
        }
        let more = idle.len() == PRODUCERS_EXPIRED_MAX;
        if !more {
            turn.producers_hour = Some(hour);
        }
        Ok(more)
    }
}

/// Counts what the map says about objects, for metrics and checkers.
///
/// # Errors
/// A record cannot be read.
pub fn census(map: &impl floe_meta::Lookup) -> Result<BTreeMap<&'static str, u64>, DecodeError> {
    let mut counts = BTreeMap::from([("live", 0), ("trash", 0), ("leased", 0)]);
    let mut count = |what: &'static str, more: u64| *counts.entry(what).or_default() += more;
    for pair in map.range::<Object>(..) {
        pair?;
        count("live", 1);
    }
    for pair in map.range::<Trash>(..) {
        pair?;
        count("trash", 1);
    }
    for pair in map.range::<ObjectLease>(..) {
        let (first, lease) = pair?;
        count("leased", lease.end.0 - first.0);
    }
    Ok(counts)
}
