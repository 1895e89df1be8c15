//! The state that handles and committer share: the published map, its observers and its watchers.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use floe_env::{lock, watch};

use crate::error::DecodeError;
use crate::journal::{Change, Envelope, Journal, Lsn};
use crate::record::{MapRecord, decode_key};
use crate::snapshot::Snapshot;

/// One commit that was applied to this broker's map, as [`Meta::observe`] shows it.
#[derive(Debug)]
pub struct Applied<'a> {
    /// The LSN of the commit.
    pub lsn: Lsn,
    /// Who made the commit, when and why.
    pub envelope: &'a Envelope,
    /// The changes in key order.
    pub changes: &'a [Change],
    /// The map now. It includes this commit, and maybe later ones.
    pub snapshot: &'a Snapshot,
}

impl Applied<'_> {
    /// Whether a record of this type was written or removed.
    pub fn touches<R: MapRecord>(&self) -> bool {
        self.changes.iter().any(|change| change.key.first() == Some(&R::KIND))
    }

    /// The keys of this type of record that were written or removed.
    pub fn keys<R: MapRecord>(&self) -> impl Iterator<Item = Result<R::Key, DecodeError>> {
        self.changes
            .iter()
            .filter(|change| change.key.first() == Some(&R::KIND))
            .map(|c| decode_key::<R>(&c.key))
    }
}

/// Ends the commits of this broker for ever, because a newer one has taken its place. Clones share it.
///
/// An observer may close it. It is called for the commits of others before this broker runs a command over them. So
/// once a commit that closes the fence is in the journal, no commit of this broker comes after it.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<OnceLock<String>>);

impl Fence {
    /// Refuses every commit from now on. The first reason stays.
    pub fn close(&self, reason: String) {
        let _ = self.0.set(reason);
    }

    /// Why nothing is committed any more, if so.
    pub fn reason(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

pub(crate) type Observer = Arc<dyn Fn(&Applied<'_>) + Send + Sync>;

/// The published map. It also holds the journal, so that each handle keeps the journal open.
pub(crate) struct Published {
    pub(crate) journal: Arc<dyn Journal>,
    snapshot: RwLock<Snapshot>,
    pub(crate) observers: Mutex<Vec<Observer>>,
    pub(crate) lsn: watch::Sender<Lsn>,
    pub(crate) fence: Fence,
}

impl Published {
    pub(crate) fn new(snapshot: Snapshot, journal: Arc<dyn Journal>) -> Published {
        let lsn = watch::Sender::new(snapshot.lsn());
        Published {
            journal,
            snapshot: RwLock::new(snapshot),
            observers: Mutex::default(),
            lsn,
            fence: Fence::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes durable commits visible: snapshot, then observers, then watchers.
    pub(crate) fn publish<'a>(
        &self,
        snapshot: &'a Snapshot,
        commits: impl Iterator<Item = (Lsn, &'a Envelope, &'a [Change])>,
    ) {
        let observers = {
            // The snapshot and the observers change under one lock, so that an observer misses no commit after the
            // snapshot that it was given.
            let observers = lock(&self.observers);
            let mut published = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            assert!(published.lsn() <= snapshot.lsn(), "the map never goes back");
            *published = snapshot.clone();
            observers.clone()
        };
        for (lsn, envelope, changes) in commits {
            for observer in &observers {
                observer(&Applied { lsn, envelope, changes, snapshot });
            }
        }
        self.lsn.send_replace(snapshot.lsn());
        metrics::gauge!("floe_meta_lsn").set(snapshot.lsn().0 as f64);
        metrics::gauge!("floe_meta_keys").set(snapshot.len() as f64);
    }
}
