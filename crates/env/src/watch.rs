//! A value that many tasks watch. They see the newest value, not its history.
//!
//! tokio has a channel of the same name, but it wakes waiters in an order that it draws at random. No seed controls
//! that order, so two runs of one simulation would differ. Here waiters wake in FIFO order.
//!
//! Take this one wherever several tasks of a simulated broker wait. tokio's is enough where nobody can see the order:
//! for the shutdown signal that a program gives its listeners, and for the threads of the SQLite journal, which no
//! simulation runs.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

/// Changes the value. Dropping it wakes all waiters.
pub struct Sender<T>(Arc<Shared<T>>);

/// Sees the value. Each clone remembers for itself which version it has seen.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The value, read-locked as long as this lives. Do not hold it across an await.
pub struct Ref<'a, T>(RwLockReadGuard<'a, State<T>>);

/// The sender is gone, and the value is not the one waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody changes the watched value any more")]
pub struct Closed;

struct Shared<T> {
    state: RwLock<State<T>>,
    changed: Notify,
    closed: AtomicBool,
}

struct State<T> {
    value: T,
    version: u64,
}

/// A sender and its first receiver. The receiver has seen `value`.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, State<T>> {
        // A panic in the sender's closure leaves a half-changed value. Its task is over anyway.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` returns true. It is called once before the wait and after every change.
    async fn wait(&self, mut found: impl FnMut(&State<T>) -> bool) -> Result<(), Closed> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // This receiver misses no change from here on.
            changed.as_mut().enable();
            if found(&self.read()) {
                return Ok(());
            }
            if self.closed.load(Ordering::SeqCst) {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

impl<T> Sender<T> {
    /// A sender without receivers.
    pub fn new(value: T) -> Sender<T> {
        let state = RwLock::new(State { value, version: 0 });
        Sender(Arc::new(Shared { state, changed: Notify::new(), closed: AtomicBool::new(false) }))
    }

    /// A receiver that has seen the current value.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { seen: self.0.read().version, shared: self.0.clone() }
    }

    /// The current value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    /// Changes the value in place and wakes all waiters in FIFO order.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        modify(&mut state.value);
        state.version += 1;
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Sets the value and returns the previous one.
    pub fn send_replace(&self, value: T) -> T {
        let mut old = value;
        self.send_modify(|current| std::mem::swap(current, &mut old));
        old
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Sender<T> {
        Sender::new(T::default())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl<T> Receiver<T> {
    /// The current value. It does not count as seen.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// The current value. It counts as seen from here on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.read();
        self.seen = state.version;
        Ref(state)
    }

    /// Waits for a value that this receiver has not seen, and marks it as seen.
    ///
    /// # Errors
    /// The sender is gone, and there is no unseen value.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        let Receiver { shared, seen } = self;
        let changed = |state: &State<T>| state.version != std::mem::replace(seen, state.version);
        shared.wait(changed).await
    }

    /// Waits until `wanted` is true of the value, and marks it as seen.
    ///
    /// # Errors
    /// The sender is gone, and `wanted` is false of its last value.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        let Receiver { shared, seen } = self;
        loop {
            shared.wait(|state| wanted(&state.value)).await?;
            let state = shared.read();
            // The value may have changed between the two looks.
            if wanted(&state.value) {
                *seen = state.version;
                return Ok(Ref(state));
            }
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{handle::Env, lock};

    #[tokio::test]
    async fn waiters_wake_in_their_order_and_no_change_is_missed() {
        let env = Env::real();
        let (sender, mut receiver) = channel(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                let (mut receiver, order) = (sender.subscribe(), order.clone());
                env.spawn("waiter", async move {
                    receiver.wait_for(|value| *value == 2).await.expect("the sender lives");
                    lock(&order).push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.send_replace(1);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(*receiver.borrow(), 1);
        assert_eq!(sender.send_replace(2), 1);
        for task in tasks {
            task.await.expect("ends");
        }
        assert_eq!(*lock(&order), (0..20).collect::<Vec<_>>());

        let late = receiver.clone();
        assert_eq!(*receiver.borrow_and_update(), 2);
        drop(sender);
        assert_eq!(receiver.changed().await, Err(Closed));
        assert_eq!(late.clone().changed().await, Ok(()), "an unseen change outlives its sender");
        assert!(receiver.wait_for(|value| *value == 3).await.is_err());
        assert!(receiver.wait_for(|value| *value == 2).await.is_ok());
    }
}
