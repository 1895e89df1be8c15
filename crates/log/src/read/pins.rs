//! Snapshots that this process reads. While one is in use, nothing is deleted that it refers to.
//!
//! A reader takes the newest snapshot under the lock of the list, so none ever begins with an older one than the list
//! told before. The session of this process tells the others (`start/session.rs`).

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use floe_env::Env;
use floe_meta::{Lsn, Meta, Snapshot};
use tokio::time::Instant;

use crate::limits::PINNED_TIME_MAX;

/// The snapshots in use. Clones share the list.
#[derive(Clone)]
pub(crate) struct Pins {
    env: Env,
    meta: Meta,
    list: Arc<Mutex<BTreeMap<Lsn, InUse>>>,
}

/// The uses of one snapshot.
struct InUse {
    count: usize,
    /// When the last of them began.
    since: Instant,
}

/// A snapshot of the metadata. Until the last clone is dropped, no object of the log is deleted that it refers to, for
/// at most [`PINNED_TIME_MAX`].
#[derive(Clone)]
pub struct Pinned {
    snapshot: Snapshot,
    _use: Arc<Use>,
}

struct Use {
    pins: Pins,
    lsn: Lsn,
}

impl Pins {
    pub(crate) fn new(env: Env, meta: Meta) -> Pins {
        Pins { env, meta, list: Arc::default() }
    }

    /// The newest snapshot, in use from now on.
    pub(crate) fn pin(&self) -> Pinned {
        let mut list = floe_env::lock(&self.list);
        let snapshot = self.meta.snapshot();
        let (lsn, since) = (snapshot.lsn(), self.env.monotonic());
        let in_use = list.entry(lsn).or_insert(InUse { count: 0, since });
        (in_use.count, in_use.since) = (in_use.count + 1, since);
        metrics::gauge!("floe_log_pinned_snapshots").set(list.len() as f64);
        drop(list);
        Pinned { snapshot, _use: Arc::new(Use { pins: self.clone(), lsn }) }
    }

    /// No reader of this process uses a snapshot before this commit, and none ever will.
    pub(crate) fn oldest(&self) -> Lsn {
        let list = floe_env::lock(&self.list);
        let now = self.env.monotonic();
        let held = list.iter().find(|(_, in_use)| now.duration_since(in_use.since) < PINNED_TIME_MAX);
        held.map_or_else(|| self.meta.snapshot().lsn(), |(lsn, _)| *lsn)
    }
}

impl Deref for Pinned {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pinned({})", self.snapshot.lsn())
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut list = floe_env::lock(&self.pins.list);
        let in_use = list.get_mut(&self.lsn).expect("it is in use");
        in_use.count -= 1;
        if in_use.count == 0 {
            list.remove(&self.lsn);
        }
        metrics::gauge!("floe_log_pinned_snapshots").set(list.len() as f64);
    }
}
