//! Readers that wait for the log to grow.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use floe_meta::{Applied, Meta, Snapshot};
use tokio::sync::Notify;

use crate::map::ids::{Offset, PartitionId};
use crate::map::partition::Head;

/// Readers that wait for a partition to grow, woken by the commits that touch it.
#[derive(Clone, Default)]
pub(crate) struct Waiters {
    shared: Arc<Mutex<Registered>>,
}

#[derive(Default)]
struct Registered {
    partitions: BTreeMap<PartitionId, BTreeMap<u64, Waiter>>,
    next: u64,
}

/// Someone who waits for an offset of one partition, and maybe of others as well.
struct Waiter {
    past: Offset,
    wake: Arc<Notify>,
}

impl Waiters {
    /// Wakes those whose partition has grown past their offset or is gone. Quick: looks only at partitions that
    /// changed and that someone waits for.
    pub(crate) fn applied(&self, applied: &Applied<'_>) {
        let mut registered = self.lock();
        if registered.partitions.is_empty() {
            return;
        }
        for key in applied.keys::<Head>() {
            let Ok(partition) = key else {
                tracing::error!("the key of a partition cannot be read");
                continue;
            };
            if let Some(waiting) = registered.partitions.get_mut(&partition) {
                waiting.retain(|_, waiter| {
                    let wait = waits(applied.snapshot, partition, waiter.past);
                    if !wait {
                        waiter.wake.notify_one();
                    }
                    wait
                });
            }
        }
    }

    /// Returns when one of the partitions has an offset after the one given, or is gone.
    pub(crate) fn wait(
        &self,
        meta: &Meta,
        partitions: &[(PartitionId, Offset)],
    ) -> impl Future<Output = ()> + use<> {
        let wake = Arc::new(Notify::new());
        let waiting = self.register(partitions, &wake);
        // Looked at after registering: a commit in between is seen here or wakes.
        let snapshot = meta.snapshot();
        let ready = partitions.iter().any(|(partition, past)| !waits(&snapshot, *partition, *past));
        async move {
            if !ready {
                wake.notified().await;
            }
            drop(waiting);
        }
    }

    fn register(&self, partitions: &[(PartitionId, Offset)], wake: &Arc<Notify>) -> Waiting {
        let mut registered = self.lock();
        registered.next += 1;
        let id = registered.next;
        for (partition, past) in partitions {
            let waiter = Waiter { past: *past, wake: Arc::clone(wake) };
            registered.partitions.entry(*partition).or_default().insert(id, waiter);
        }
        let partitions = partitions.iter().map(|(partition, _)| *partition).collect();
        Waiting { waiters: self.clone(), id, partitions }
    }

    fn lock(&self) -> MutexGuard<'_, Registered> {
        floe_env::lock(&self.shared)
    }
}

/// Whether there is nothing after `past` yet. A record that cannot be read ends the wait: the read will say why.
fn waits(snapshot: &Snapshot, partition: PartitionId, past: Offset) -> bool {
    matches!(snapshot.get::<Head>(&partition), Ok(Some(head)) if head.next <= past)
}

/// A registration; ends when dropped.
struct Waiting {
    waiters: Waiters,
    id: u64,
    partitions: Vec<PartitionId>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut registered = self.waiters.lock();
        for partition in &self.partitions {
            if let Some(waiting) = registered.partitions.get_mut(partition) {
                waiting.remove(&self.id);
                if waiting.is_empty() {
                    registered.partitions.remove(partition);
                }
            }
        }
    }
}
