//! Leases: named, fenced, expiring rights to run a job.
//!
//! The record of a lease stays after a release, so its epoch only grows. It is removed only when its purpose is
//! gone and nobody can ever take the name again. Safety comes from the epoch alone. Work under a lease commits with
//! [`crate::Tx::check_lease`] in the same command, and a stale epoch is refused, whatever the clocks say. Expiry
//! only decides when another owner may try.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::tx::Tx;
use floe_env::Timestamp;

/// The state of a lease. Its key is its name, for example `view/7`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The holder; `None` after a release.
    pub owner: Option<String>,
    /// Raised with every acquisition; the first is 1.
    pub epoch: u64,
    /// When another owner may take the lease.
    pub expires: Timestamp,
}

crate::postcard_record!(Lease, 3, 1, String);

/// Why a lease was not taken, or no longer counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else holds it.
    #[error("lease {name} is held by {owner} until {expires} ms")]
    Held {
        /// The lease's name.
        name: String,
        /// Its holder.
        owner: String,
        /// When another owner may take the lease.
        expires: Timestamp,
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

/// Takes the lease if it is free, expired, or the same owner's, and returns the new epoch. An owner that takes its
/// own lease again fences its former self, so every start of a process needs a new owner name.
///
/// # Errors
/// Somebody else holds it.
pub fn acquire(tx: &mut Tx<'_>, name: &str, owner: &str, ttl: Duration) -> Result<u64, LeaseError> {
    let key = name.to_owned();
    let current = tx.get::<Lease>(&key)?;
    if let Some(Lease { owner: Some(holder), expires, .. }) = &current
        && holder != owner
        && *expires > tx.now()
    {
        return Err(LeaseError::Held { name: key, owner: holder.clone(), expires: *expires });
    }
    let epoch = current.map_or(0, |lease| lease.epoch) + 1;
    tx.put(&key, &Lease { owner: Some(owner.to_owned()), epoch, expires: tx.now() + ttl });
    Ok(epoch)
}

/// Renews the lease and returns its new expiry. An expired lease that nobody took is still good.
///
/// # Errors
/// The epoch is over.
pub fn renew(tx: &mut Tx<'_>, name: &str, epoch: u64, ttl: Duration) -> Result<Timestamp, LeaseError> {
    let mut lease = check(tx, name, epoch)?;
    lease.expires = lease.expires.max(tx.now() + ttl);
    tx.put(&name.to_owned(), &lease);
    Ok(lease.expires)
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

    #[test]
    fn one_owner_at_a_time_and_stale_epochs_are_refused() {
        let map = &mut Snapshot::default();
        let lost = |epoch, current| LeaseError::Lost { name: "job".into(), epoch, current };
        assert_eq!(at(map, 0, |tx| tx.check_lease("job", 0)), Err(lost(0, 0)));
        assert_eq!(at(map, 0, |tx| acquire(tx, "job", "a", TTL)), Ok(1));
        let held = LeaseError::Held { name: "job".into(), owner: "a".into(), expires: Timestamp(10_000) };
        assert_eq!(at(map, 9, |tx| acquire(tx, "job", "b", TTL)), Err(held));
        assert_eq!(at(map, 9, |tx| renew(tx, "job", 1, TTL)), Ok(Timestamp(19_000)));
        assert_eq!(at(map, 9, |tx| renew(tx, "job", 1, Duration::ZERO)), Ok(Timestamp(19_000)));
        // Expired, but nobody took it: still good.
        assert_eq!(at(map, 20, |tx| tx.check_lease("job", 1)), Ok(()));
        assert_eq!(at(map, 20, |tx| acquire(tx, "job", "b", TTL)), Ok(2));
        assert_eq!(at(map, 20, |tx| tx.check_lease("job", 1)), Err(lost(1, 2)));
        assert_eq!(at(map, 20, |tx| renew(tx, "job", 1, TTL)), Err(lost(1, 2)));
        assert_eq!(at(map, 20, |tx| release(tx, "job", 1)), Err(lost(1, 2)));
        // The same owner fences its former self. A release frees the lease at once, and the epoch grows on.
        assert_eq!(at(map, 21, |tx| acquire(tx, "job", "b", TTL)), Ok(3));
        assert_eq!(at(map, 21, |tx| release(tx, "job", 3)), Ok(()));
        assert_eq!(at(map, 21, |tx| tx.check_lease("job", 3)), Err(lost(3, 3)));
        assert_eq!(at(map, 21, |tx| acquire(tx, "job", "a", TTL)), Ok(4));
    }
}
