//! Leases: named, fenced, expiring rights to run a job.
//!
//! The record of a lease stays after a release, so its epoch only grows. It is removed only when its purpose is
//! gone and nobody can ever take the name again. Safety comes from the epoch alone. Work under a lease commits with
//! [`crate::Tx::check_lease`] in the same command, and a stale epoch is refused, whatever the clocks say. Expiry
//! only decides when another owner may try.
//!
//! No wall clock decides that. A process that waits keeps a [`Watch`]: the record as it saw it, and since when by its
//! own monotonic clock. Each renewal changes the record. When it has not changed for the time to live, the watcher may
//! replace exactly that record; a renewal that comes first wins, because the record then differs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::DecodeError;
use crate::snapshot::Lookup;
use crate::tx::Tx;
use floe_env::Timestamp;

/// The state of a lease. Its key is its name, for example `view/7`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The holder; `None` after a release.
    pub owner: Option<String>,
    /// Raised with every acquisition; the first is 1.
    pub epoch: u64,
    /// The last renewal, or the end of what its owner counts on by the clock of its commits. It grows with every
    /// renewal, so that watchers see one. Nobody compares it with a clock.
    pub expires: Timestamp,
}

crate::postcard_record!(Lease, 3, 1, String);

/// Why a lease was not taken, or no longer counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else holds it.
    #[error("lease {name} is held by {owner}")]
    Held {
        /// The lease's name.
        name: String,
        /// Its holder.
        owner: String,
    },
    /// The lease was released, or another owner took it. The holder of this epoch must stop.
    #[error("epoch {epoch} of lease {name} is over, the current one is {current}")]
    Lost {
        /// The lease's name.
        name: String,
        /// The stale epoch of the caller.
        epoch: u64,
        /// The epoch in force.
        current: u64,
    },
    /// The lease's record cannot be read.
    #[error(transparent)]
    Metadata(#[from] DecodeError),
}

/// What a process that waits for a lease saw of it, on its own monotonic clock.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Option<(Lease, Instant)>,
}

impl Watch {
    /// Looks at the lease. A record that differs from the last look begins a new wait.
    ///
    /// # Errors
    /// The lease's record cannot be read.
    pub fn look(&mut self, map: &impl Lookup, name: &str, now: Instant) -> Result<(), DecodeError> {
        let found = map.get::<Lease>(&name.to_owned())?;
        if self.seen.as_ref().map(|(lease, _)| lease) != found.as_ref() {
            self.seen = found.map(|lease| (lease, now));
        }
        Ok(())
    }

    /// The record, if nobody has renewed it for `ttl`: [`acquire`] may replace it.
    pub fn stale(&self, now: Instant, ttl: Duration) -> Option<Lease> {
        self.seen
            .as_ref()
            .filter(|(_, since)| now.duration_since(*since) >= ttl)
            .map(|(lease, _)| lease.clone())
    }

    /// How long it takes until the record is stale if nobody renews it; zero if nothing was seen.
    pub fn left(&self, now: Instant, ttl: Duration) -> Duration {
        self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| ttl.saturating_sub(now.duration_since(*since)))
    }
}

/// Takes the lease if it is free, is the same owner's, or is still the record `stale` that a [`Watch`] found stale.
/// Returns the new epoch. An owner that takes its own lease again fences its former self, so every start of a process
/// needs a new owner name.
///
/// # Errors
/// Somebody else holds it.
pub fn acquire(
    tx: &mut Tx<'_>,
    name: &str,
    owner: &str,
    stale: Option<&Lease>,
    ttl: Duration,
) -> Result<u64, LeaseError> {
    let key = name.to_owned();
    let current = tx.get::<Lease>(&key)?;
    if let Some(Lease { owner: Some(holder), .. }) = &current
        && holder != owner
        && current.as_ref() != stale
    {
        return Err(LeaseError::Held { name: key, owner: holder.clone() });
    }
    let epoch = current.map_or(0, |lease| lease.epoch) + 1;
    tx.put(&key, &Lease { owner: Some(owner.to_owned()), epoch, expires: tx.now() + ttl });
    Ok(epoch)
}

/// Renews the lease and returns its new expiry. A lease that nobody took is good, however old.
///
/// # Errors
/// The epoch is over.
pub fn renew(tx: &mut Tx<'_>, name: &str, epoch: u64, ttl: Duration) -> Result<Timestamp, LeaseError> {
    let mut lease = check(tx, name, epoch)?;
    // The time of commits may stand still for long, when a clock that was ahead was put right.
    lease.expires = (lease.expires + RENEWED).max(tx.now() + ttl);
    tx.put(&name.to_owned(), &lease);
    Ok(lease.expires)
}

/// The least by which a renewal moves the expiry, so that watchers see the renewal.
const RENEWED: Duration = Duration::from_millis(1);

/// Releases every lease. Call it where all holders are known to be dead: at the start of the one process that may use a
/// data directory.
///
/// # Errors
/// A record cannot be read.
pub fn release_all(tx: &mut Tx<'_>) -> Result<usize, DecodeError> {
    let held: Vec<(String, Lease)> = tx.range::<Lease>(..).collect::<Result<_, _>>()?;
    let held: Vec<_> = held.into_iter().filter(|(_, lease)| lease.owner.is_some()).collect();
    for (name, lease) in &held {
        tx.put(name, &Lease { owner: None, ..lease.clone() });
    }
    Ok(held.len())
}

/// Releases the lease, so that another owner need not wait for its expiry.
///
/// # Errors
/// The epoch is over.
pub fn release(tx: &mut Tx<'_>, name: &str, epoch: u64) -> Result<(), LeaseError> {
    let lease = check(tx, name, epoch)?;
    tx.put(&name.to_owned(), &Lease { owner: None, expires: tx.now(), ..lease });
    Ok(())
}

fn check(tx: &Tx<'_>, name: &str, epoch: u64) -> Result<Lease, LeaseError> {
    let lease = tx.get::<Lease>(&name.to_owned())?;
    let current = lease.as_ref().map_or(0, |lease| lease.epoch);
    match lease {
        Some(lease) if lease.epoch == epoch && lease.owner.is_some() => Ok(lease),
        _ => Err(LeaseError::Lost { name: name.to_owned(), epoch, current }),
    }
}

impl Tx<'_> {
    /// Refuses a command whose lease is over. Call it in every command that does the lease's work.
    ///
    /// # Errors
    /// The epoch is over.
    pub fn check_lease(&self, name: &str, epoch: u64) -> Result<(), LeaseError> {
        check(self, name, epoch).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Envelope, Snapshot};
    use floe_env::Env;

    const TTL: Duration = Duration::from_secs(10);

    /// Runs one command over the map at a time in seconds, and applies its changes.
    fn at<T>(map: &mut Snapshot, seconds: i64, command: impl FnOnce(&mut Tx<'_>) -> T) -> T {
        let mut envelope = Envelope::broker("test");
        envelope.time = Timestamp(seconds * 1000);
        let mut tx = Tx::new(map, &envelope);
        let reply = command(&mut tx);
        let changes = tx.into_changes();
        map.apply(map.lsn().next(), &changes);
        reply
    }

    /// A watch that saw the lease as it is now, so long ago that it is stale.
    fn stale(map: &Snapshot) -> Lease {
        let (mut watch, begun) = (Watch::default(), Env::simulated(1).monotonic());
        watch.look(map, "job", begun).unwrap();
        watch.stale(begun + TTL, TTL).unwrap()
    }

    #[test]
    fn one_owner_at_a_time_and_stale_epochs_are_refused() {
        let map = &mut Snapshot::default();
        let lost = |epoch, current| LeaseError::Lost { name: "job".into(), epoch, current };
        assert_eq!(at(map, 0, |tx| tx.check_lease("job", 0)), Err(lost(0, 0)));
        assert_eq!(at(map, 0, |tx| acquire(tx, "job", "a", None, TTL)), Ok(1));
        let held = || Err(LeaseError::Held { name: "job".into(), owner: "a".into() });
        let before = stale(map);
        assert_eq!(at(map, 9, |tx| renew(tx, "job", 1, TTL)), Ok(Timestamp(19_000)));
        // However late it is by the clock of commits: nobody saw the lease for so long.
        assert_eq!(at(map, 1_000_000, |tx| acquire(tx, "job", "b", None, TTL)), held());
        // A renewal came first.
        assert_eq!(at(map, 20, |tx| acquire(tx, "job", "b", Some(&before), TTL)), held());
        // Old, but nobody took it: still good.
        assert_eq!(at(map, 20, |tx| tx.check_lease("job", 1)), Ok(()));
        let seen = stale(map);
        assert_eq!(at(map, 20, |tx| acquire(tx, "job", "b", Some(&seen), TTL)), Ok(2));
        assert_eq!(at(map, 20, |tx| tx.check_lease("job", 1)), Err(lost(1, 2)));
        assert_eq!(at(map, 20, |tx| renew(tx, "job", 1, TTL)), Err(lost(1, 2)));
        assert_eq!(at(map, 20, |tx| release(tx, "job", 1)), Err(lost(1, 2)));
        // The same owner fences its former self. A release frees the lease at once, and the epoch grows on.
        assert_eq!(at(map, 21, |tx| acquire(tx, "job", "b", None, TTL)), Ok(3));
        assert_eq!(at(map, 21, |tx| release(tx, "job", 3)), Ok(()));
        assert_eq!(at(map, 21, |tx| tx.check_lease("job", 3)), Err(lost(3, 3)));
        assert_eq!(at(map, 21, |tx| acquire(tx, "job", "a", None, TTL)), Ok(4));
        assert_eq!(at(map, 21, release_all), Ok(1));
        assert_eq!(at(map, 21, release_all), Ok(0));
        assert_eq!(at(map, 21, |tx| renew(tx, "job", 4, TTL)), Err(lost(4, 4)));
        assert_eq!(at(map, 21, |tx| acquire(tx, "job", "b", None, TTL)), Ok(5));
    }

    #[test]
    fn a_watch_counts_from_the_last_change_on_its_own_clock() {
        let map = &mut Snapshot::default();
        let (mut watch, begun) = (Watch::default(), Env::simulated(1).monotonic());
        let second = Duration::from_secs(1);
        watch.look(map, "job", begun).unwrap();
        assert_eq!((watch.stale(begun + TTL, TTL), watch.left(begun, TTL)), (None, Duration::ZERO));
        at(map, 100, |tx| acquire(tx, "job", "a", None, TTL)).unwrap();
        watch.look(map, "job", begun + second).unwrap();
        watch.look(map, "job", begun + second * 9).unwrap();
        assert_eq!(watch.left(begun + second * 9, TTL), second * 2);
        // A renewal changes the record even where the time of commits stands still.
        at(map, 100, |tx| renew(tx, "job", 1, TTL)).unwrap();
        watch.look(map, "job", begun + second * 10).unwrap();
        assert_eq!(watch.stale(begun + second * 11, TTL), None);
        assert_eq!(watch.left(begun + second * 19, TTL), second);
        assert!(watch.stale(begun + second * 20, TTL).is_some());
    }
}
