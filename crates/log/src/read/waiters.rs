//! Readers that wait for the log to grow.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use floe_meta::{Applied, Meta, Snapshot};
use tokio::sync::Notify;

use crate::map::ids::{Offset, PartitionId};
use crate::map::partition::Head;

/// Readers that wait for a partition to grow. The commits that touch the partition wake them.
#[derive(Clone, Default)]
pub(crate) struct Waiters {
    shared: Arc<Mutex<Registered>>,
}

#[derive(Default)]
struct Registered {
    partitions: BTreeMap<PartitionId, BTreeMap<u64, Waiter>>,
    next: u64,
}

/// A reader that waits for one partition to grow past an offset. It may also wait for other partitions.
struct Waiter {
    past: Offset,
    wake: Arc<Notify>,
}

impl Waiters {
    /// Waiters that the commits of `meta` wake.
    pub(crate) fn of(meta: &Meta) -> Waiters {
        let waiters = Waiters::default();
        let woken = waiters.clone();
        meta.observe(move |applied| woken.applied(applied));
        waiters
    }

    /// Wakes the waiters whose partition has grown past their offset or is gone. It looks only at changed
    /// partitions that have waiters, so it is quick.
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

    /// Returns when the high watermark of one of the partitions is above its given offset, or the partition is
    /// gone.
    pub(crate) fn wait(
        &self,
        meta: &Meta,
        partitions: &[(PartitionId, Offset)],
    ) -> impl Future<Output = ()> + use<> {
        let wake = Arc::new(Notify::new());
        let registration = self.register(partitions, &wake);
        // The snapshot is taken after registering, so a commit in between is either in it or wakes the waiter.
        let snapshot = meta.snapshot();
        let ready = partitions.iter().any(|(partition, past)| !waits(&snapshot, *partition, *past));
        async move {
            if !ready {
                wake.notified().await;
            }
            drop(registration);
        }
    }

    fn register(&self, partitions: &[(PartitionId, Offset)], wake: &Arc<Notify>) -> Registration {
        let mut registered = self.lock();
        registered.next += 1;
        let id = registered.next;
        for (partition, past) in partitions {
            let waiter = Waiter { past: *past, wake: Arc::clone(wake) };
            registered.partitions.entry(*partition).or_default().insert(id, waiter);
        }
        let partitions = partitions.iter().map(|(partition, _)| *partition).collect();
        Registration { waiters: self.clone(), id, partitions }
    }

    fn lock(&self) -> MutexGuard<'_, Registered> {
        floe_env::lock(&self.shared)
    }
}

/// Whether the partition's high watermark is still at or below `past`. An unreadable record ends the wait, because
/// the read will report it.
fn waits(snapshot: &Snapshot, partition: PartitionId, past: Offset) -> bool {
    matches!(snapshot.get::<Head>(&partition), Ok(Some(head)) if head.next <= past)
}

/// The entries of one waiter. Dropping it removes them.
struct Registration {
    waiters: Waiters,
    id: u64,
    partitions: Vec<PartitionId>,
}

impl Drop for Registration {
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
