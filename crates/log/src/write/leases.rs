//! Ids of objects before their use.
//!
//! Ids come in leased ranges (`map/object.rs` draws the life of an object). A process takes a range before it
//! uploads anything. It ends the lease once every id of the range is settled: committed, or known to be useless, which
//! makes the object trash. A lease hangs on the session of its process (`map/session.rs`): when a process dies, its
//! session ends, and then its leases. Where brokers may share the map that know no sessions, below format level 2, the
//! process renews the lease while it lives.
//!
//! An id whose upload or commit failed is made trash soon, and before many of them are there no more ids are given out.
//! So a process that dies leaves few objects that no record names, and a start can tell them from objects whose commits
//! the journal has lost (`start/compare.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use floe_env::Env;
use floe_meta::{CommitError, DecodeError, Envelope, Lsn, Meta, Tx, lease};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Times;
use crate::limits::{DETACHED_UPLOAD_TTL, DETACHED_UPLOADS_MAX, USELESS_IDS_MAX};
use crate::map::ids::ObjectId;
use crate::map::object::{self, Object, ObjectKind, ObjectLease, Trash};
use crate::map::writer_number::WriterNumber;
use crate::start::writers::OwnWater;

/// Command: leases `count` new ids of one kind and of `writer` to `owner`; returns the first.
///
/// # Errors
/// A record cannot be read.
pub fn lease_ids(
    tx: &mut Tx<'_>,
    kind: ObjectKind,
    writer: WriterNumber,
    owner: u128,
    count: u64,
    ttl: Duration,
) -> Result<ObjectId, DecodeError> {
    let first = ObjectId::new(kind, writer, tx.take_counter(&object::IDS, count)?);
    let lease = ObjectLease { end: ObjectId(first.0 + count), owner, expires: tx.now() + ttl };
    tx.put(&first, &lease);
    Ok(first)
}

/// Command: renews the leases of `owner` that begin at `firsts`. Skips those that it no longer holds.
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
            // Every renewal changes the record, also while the time of commits stands still: others see it by that.
            let expires = (lease.expires + RENEWED).max(tx.now() + ttl);
            tx.put(first, &ObjectLease { expires, ..lease });
        }
    }
    Ok(())
}

/// The least by which a renewal moves the expiry.
const RENEWED: Duration = Duration::from_millis(1);

/// Ends every lease: those on object ids, and the named ones. Call it at the start of the one process that may use a
/// data directory: their holders are dead, and nobody has to wait for their time to live. Returns how many there were.
///
/// # Errors
/// The journal cannot be written, or a record cannot be read.
pub async fn end_former_leases(meta: &Meta) -> Result<usize, CommitError<DecodeError>> {
    let envelope = || Envelope::broker("leases of the former process");
    let mut ended = meta.commit_deletion(envelope(), lease::release_all).await?.reply;
    let leases = meta.snapshot().range::<ObjectLease>(..).collect::<Result<Vec<_>, _>>();
    for (first, held) in leases.map_err(CommitError::Refused)? {
        // One range in one commit: a range that is not known to be unused leaves a record for each of its ids.
        meta.commit_deletion(envelope(), move |tx| end_ids(tx, held.owner, first, held.end)).await?;
        ended += 1;
    }
    Ok(ended)
}

/// Command: ends the lease that begins at `first`. Ids below `used` may have been uploaded; those that no record
/// names become trash. Does nothing if the lease is gone or has another owner.
///
/// # Errors
/// A record cannot be read.
pub fn end_ids(tx: &mut Tx<'_>, owner: u128, first: ObjectId, used: ObjectId) -> Result<(), DecodeError> {
    let Some(lease) = tx.get::<ObjectLease>(&first)?.filter(|lease| lease.owner == owner) else {
        return Ok(());
    };
    for id in (first.0..used.0.min(lease.end.0)).map(ObjectId) {
        if tx.get::<Object>(&id)?.is_none() && tx.get::<Trash>(&id)?.is_none() {
            object::discard(tx, id, 0);
        }
    }
    tx.delete::<ObjectLease>(&first);
    Ok(())
}

/// Command: makes ids useless that `owner` holds and that no record names.
///
/// # Errors
/// A record cannot be read.
pub fn give_up_ids(tx: &mut Tx<'_>, owner: u128, ids: &[ObjectId]) -> Result<(), DecodeError> {
    for id in ids {
        let held = object::lease_of(tx, *id)?.is_some_and(|(_, lease)| lease.owner == owner);
        if held && tx.get::<Object>(id)?.is_none() && tx.get::<Trash>(id)?.is_none() {
            object::discard(tx, *id, 0);
        }
    }
    Ok(())
}

/// The object ids of one kind that this process may use. Clones share them.
#[derive(Clone)]
pub(crate) struct Ids {
    env: Env,
    meta: Meta,
    kind: ObjectKind,
    owner: u128,
    water: OwnWater,
    times: Times,
    shared: Arc<LeasedRanges>,
}

#[derive(Default)]
struct LeasedRanges {
    ranges: Mutex<VecDeque<Leased>>,
    /// Held by the one that takes a range. The range is in it between its commit and its note in the store.
    refill: tokio::sync::Mutex<Option<Pending>>,
    /// Ids whose upload or commit failed, which the journal does not know yet.
    useless: Mutex<Vec<ObjectId>>,
    /// Ids of detached uploads, and until when their callers may commit them.
    detached: Mutex<BTreeMap<ObjectId, Instant>>,
    /// Notified when the loop has work: few ids are left, or a range is settled.
    wake: Notify,
}

/// A range that is leased and not noted in the store.
#[derive(Debug)]
struct Pending {
    range: Leased,
    lsn: Lsn,
}

/// A leased range of ids.
#[derive(Debug)]
struct Leased {
    first: ObjectId,
    next: ObjectId,
    end: ObjectId,
    /// Ids that were taken and are not settled yet.
    open: u64,
    /// Until then, a detached upload may still commit an id of this range.
    detached_until: Option<Instant>,
}

/// An object id in use. Dropping it settles the id.
pub(crate) struct TakenId {
    pub(crate) id: ObjectId,
    shared: Arc<LeasedRanges>,
    first: ObjectId,
    /// Whether a record of the map names the id, or its caller sees to that.
    named: bool,
}

impl TakenId {
    /// Settles the id of an object that is committed, or that the sequencer refused for a reason that is in the map.
    pub(crate) fn named(mut self) {
        self.named = true;
    }
}

impl Drop for TakenId {
    fn drop(&mut self) {
        if !self.named {
            floe_env::lock(&self.shared.useless).push(self.id);
            self.shared.wake.notify_one();
        }
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

impl LeasedRanges {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Leased>> {
        floe_env::lock(&self.ranges)
    }
}

impl Ids {
    pub(crate) fn new(env: Env, meta: Meta, kind: ObjectKind, water: OwnWater, times: Times) -> Ids {
        assert!(times.lease_ids > 0, "a lease has at least one id");
        let owner = env.random_u128();
        Ids { env, meta, kind, owner, water, times, shared: Arc::default() }
    }

    pub(crate) fn writer(&self) -> WriterNumber {
        self.water.number
    }

    pub(crate) fn owner(&self) -> u128 {
        self.owner
    }

    /// Takes an id that nobody else uses. Waits for the journal only when no leased id is left.
    pub(crate) async fn take(&self) -> Result<TakenId, String> {
        if floe_env::lock(&self.shared.useless).len() >= USELESS_IDS_MAX {
            self.give_up_useless().await?;
        }
        if let Some(taken) = self.take_leased() {
            return Ok(taken);
        }
        let mut pending = self.shared.refill.lock().await;
        if let Some(taken) = self.take_leased() {
            return Ok(taken);
        }
        self.lease(&mut pending).await?;
        self.take_leased().ok_or_else(|| "the lease on object ids ended at once, try again".to_owned())
    }

    /// Whether the store knows that this process writes. A journal that does not know this process is too old then.
    pub(crate) fn noted(&self) -> bool {
        !self.shared.lock().is_empty()
    }

    /// Refuses when too many detached uploads wait for their commits.
    pub(crate) fn check_detached(&self) -> Result<(), String> {
        self.settle_detached();
        match floe_env::lock(&self.shared.detached).len() < DETACHED_UPLOADS_MAX {
            true => Ok(()),
            false => {
                Err(format!("{DETACHED_UPLOADS_MAX} uploads wait for their commits already, try again later"))
            }
        }
    }

    /// Forgets detached uploads that a record names. Those that are too old are useless.
    fn settle_detached(&self) {
        let (snapshot, now) = (self.meta.snapshot(), self.env.monotonic());
        let mut late = Vec::new();
        floe_env::lock(&self.shared.detached).retain(|id, until| {
            let open = !object::is_named(&snapshot, *id);
            if open && *until <= now {
                late.push(*id);
            }
            open && *until > now
        });
        floe_env::lock(&self.shared.useless).extend(late);
    }

    /// Keeps the lease on a taken id long enough for its caller to commit the upload.
    pub(crate) fn detach(&self, taken: &TakenId) {
        let until = self.env.monotonic() + DETACHED_UPLOAD_TTL;
        floe_env::lock(&self.shared.detached).insert(taken.id, until);
        if let Some(range) = self.shared.lock().iter_mut().find(|range| range.first == taken.first) {
            range.detached_until = Some(until);
        }
    }

    /// Renews leases, leases the next range ahead of use, and ends settled leases, until the task is dropped.
    pub(crate) async fn run(self) {
        let mut renew_at = self.env.monotonic() + self.times.lease_ttl / 3;
        loop {
            tokio::select! {
                biased;
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(renew_at) => {
                    renew_at = self.env.monotonic() + self.times.lease_ttl / 3;
                    self.renew().await;
                    self.settle_detached();
                }
            }
            if let Err(error) = self.give_up_useless().await {
                tracing::warn!(error, "cannot give up object ids whose upload failed, trying again");
            }
            self.end_settled(false).await;
            // Segments are rare, and a merge can wait for its id.
            let ahead = self.kind == ObjectKind::Wal;
            if ahead && self.left() < self.times.lease_ids / 2 {
                let mut pending = self.shared.refill.lock().await;
                if let Err(error) = self.lease(&mut pending).await {
                    // A caller that needs an id asks again and gets the error.
                    tracing::warn!(error, "cannot lease object ids ahead of use");
                }
            }
        }
    }

    /// Ends every lease, so that nobody has to wait for its expiry.
    pub(crate) async fn close(&self) {
        self.end_settled(true).await;
        if let Err(error) = self.water.raise(self.meta.snapshot().lsn(), 0).await {
            tracing::warn!(%error, "cannot note the last commit in the store");
        }
    }

    /// Makes the ids whose upload or commit failed trash, while their lease lasts.
    async fn give_up_useless(&self) -> Result<(), String> {
        let ids = floe_env::lock(&self.shared.useless).clone();
        if ids.is_empty() {
            return Ok(());
        }
        let (owner, given_up) = (self.owner, ids.clone());
        let work = move |tx: &mut Tx<'_>| give_up_ids(tx, owner, &ids);
        self.meta.commit(Envelope::broker("object ids"), work).await.map_err(|error| error.to_string())?;
        floe_env::lock(&self.shared.useless).retain(|id| !given_up.contains(id));
        Ok(())
    }

    fn take_leased(&self) -> Option<TakenId> {
        let mut ranges = self.shared.lock();
        // The snapshot is taken under the lock. A range is added after its commit, so this snapshot knows every
        // range in the list.
        let snapshot = self.meta.snapshot();
        // Drops ranges whose lease somebody ended because this process slept past its expiry.
        ranges.retain(|range| range.left() == 0 || self.holds(&snapshot, range.first));
        let left_before: u64 = ranges.iter().map(Leased::left).sum();
        let range = ranges.iter_mut().find(|range| range.left() > 0)?;
        let id = range.next;
        range.next = ObjectId(id.0 + 1);
        range.open += 1;
        if left_before - 1 < self.times.lease_ids / 2 {
            self.shared.wake.notify_one();
        }
        Some(TakenId { id, shared: Arc::clone(&self.shared), first: range.first, named: false })
    }

    fn holds(&self, snapshot: &floe_meta::Snapshot, first: ObjectId) -> bool {
        let lease = snapshot.get::<ObjectLease>(&first);
        matches!(lease, Ok(Some(lease)) if lease.owner == self.owner)
    }

    fn left(&self) -> u64 {
        self.shared.lock().iter().map(Leased::left).sum()
    }

    /// Takes a range: first in the journal, then in the store. Only then its ids are used, so that the store never has
    /// an object above the high water of its writer.
    async fn lease(&self, pending: &mut Option<Pending>) -> Result<(), String> {
        let held = pending.as_ref().is_some_and(|p| self.holds(&self.meta.snapshot(), p.range.first));
        if !held {
            let (kind, writer, owner) = (self.kind, self.water.number, self.owner);
            let (count, ttl) = (self.times.lease_ids, self.times.lease_ttl);
            let leased = self
                .meta
                .commit(Envelope::broker("object ids"), move |tx| {
                    lease_ids(tx, kind, writer, owner, count, ttl)
                })
                .await
                .map_err(|error| error.to_string())?;
            let (first, end) = (leased.reply, ObjectId(leased.reply.0 + count));
            let range = Leased { first, next: first, end, open: 0, detached_until: None };
            *pending = Some(Pending { range, lsn: leased.lsn });
        }
        let Some(Pending { range, lsn }) = pending.as_ref() else { return Ok(()) };
        let last = ObjectId(range.end.0 - 1).count();
        self.water.raise(*lsn, last).await.map_err(|error| error.to_string())?;
        self.shared.lock().extend(pending.take().map(|pending| pending.range));
        Ok(())
    }

    async fn renew(&self) {
        let snapshot = self.meta.snapshot();
        let hangs = object::hangs_on_session(&snapshot, self.water.number);
        if matches!(hangs, Ok(true)) {
            return;
        }
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

    /// Ends the leases of ranges that are used up and settled; with `closing`, also of ranges with ids left.
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
        let ended = self.meta.commit_deletion(Envelope::broker("object ids"), move |tx| {
            done.iter().try_for_each(|(first, used)| end_ids(tx, owner, *first, *used))
        });
        if let Err(error) = ended.await {
            tracing::warn!(%error, "cannot end a lease on object ids; it will expire");
        }
    }
}
