//! Tasks, and the scope in which they live and die together.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

use crate::clock::Clock;
use crate::fatal::reason_of;
use crate::lock;
use crate::watch;

/// In a simulation, one poll in this many lets the other tasks go first, so that seeds differ in the order of tasks.
const REORDER_ONE_IN: u64 = 8;

/// A running task. Await it for its result, or drop it to let it run on.
#[derive(Debug)]
pub struct Task<T> {
    pub(crate) name: &'static str,
    pub(crate) handle: Option<JoinHandle<T>>,
}

/// Why a task has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnded {
    /// It was aborted, by itself or with its scope.
    #[error("task {0} was aborted")]
    Aborted(&'static str),
    /// It panicked, which is a bug.
    #[error("task {0} panicked")]
    Panicked(&'static str),
}

impl<T> Task<T> {
    /// Drops the task where it stands.
    pub fn abort(&self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }

    /// Whether the task is over.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskEnded>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        let Some(handle) = &mut self.handle else { return Poll::Ready(Err(TaskEnded::Aborted(name))) };
        Pin::new(handle).poll(context).map(|result| match result {
            Ok(value) => Ok(value),
            Err(ended) if ended.is_panic() => Err(TaskEnded::Panicked(name)),
            Err(_) => Err(TaskEnded::Aborted(name)),
        })
    }
}

/// The tasks that live and die together.
pub(crate) struct Scope {
    pub(crate) tasks: Mutex<BTreeMap<u64, AbortHandle>>,
    pub(crate) ids: AtomicU64,
    pub(crate) polls: AtomicU64,
    pub(crate) crash_at: AtomicU64,
    pub(crate) ended: AtomicBool,
    pub(crate) crashed: watch::Sender<bool>,
    /// Tasks that are not dropped yet, and blocking work that still runs.
    alive: AtomicUsize,
    /// Notified when `alive` falls to zero.
    drained: Notify,
}

impl Default for Scope {
    fn default() -> Scope {
        Scope {
            tasks: Mutex::default(),
            ids: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            crash_at: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(false),
            crashed: watch::Sender::new(false),
            alive: AtomicUsize::new(0),
            drained: Notify::new(),
        }
    }
}

impl Scope {
    fn take_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn crash(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.crashed.send_replace(true);
    }

    pub(crate) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.alive.load(Ordering::SeqCst) == 0 {
                return;
            }
            drained.await;
        }
    }
}

/// Counts as alive in its scope until it is dropped.
pub(crate) struct Alive(Arc<Scope>);

impl Alive {
    pub(crate) fn new(scope: &Arc<Scope>) -> Alive {
        scope.alive.fetch_add(1, Ordering::SeqCst);
        Alive(scope.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if self.0.alive.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.drained.notify_waiters();
        }
    }
}

/// Removes its task from the scope when the task is dropped for any reason.
pub(crate) struct Member {
    pub(crate) scope: Arc<Scope>,
    pub(crate) id: u64,
    pub(crate) done: Arc<AtomicBool>,
    _alive: Alive,
}

impl Member {
    /// A new member of `scope`.
    pub(crate) fn new(scope: &Arc<Scope>) -> Member {
        Member { scope: scope.clone(), id: scope.take_id(), done: Arc::default(), _alive: Alive::new(scope) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut tasks = lock(&self.scope.tasks);
        self.done.store(true, Ordering::SeqCst);
        tasks.remove(&self.id);
    }
}

/// The future of a task, under the control of its scope.
pub(crate) struct Scoped<F> {
    pub(crate) name: &'static str,
    // Dropped before `member`: tasks that the future's destructors start still belong to the scope.
    pub(crate) future: Pin<Box<F>>,
    pub(crate) clock: Option<Arc<Clock>>,
    pub(crate) member: Member,
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let Some(Clock::Simulated { seed, order, panics, standstill, .. }) = this.clock.as_deref() else {
            return this.future.as_mut().poll(context);
        };
        let scope = &this.member.scope;
        if scope.ended.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        if lock(order).next() % REORDER_ONE_IN == 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        standstill.poll(this.name, *seed);
        let number = scope.polls.fetch_add(1, Ordering::SeqCst) + 1;
        let polled = catch_unwind(AssertUnwindSafe(|| this.future.as_mut().poll(context)));
        let result = polled.unwrap_or_else(|panic| {
            lock(panics).push(format!("task '{}' panicked: {}", this.name, reason_of(&*panic)));
            resume_unwind(panic)
        });
        if number >= scope.crash_at.load(Ordering::SeqCst) {
            scope.crash();
            return Poll::Pending;
        }
        result
    }
}
