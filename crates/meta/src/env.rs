//! The seam to the world: clock, randomness, tasks and threads.
//!
//! Nothing else in the workspace reads a clock, draws a number or starts a task (clippy.toml bans it), so a whole
//! cluster runs in one thread under a simulated clock, and the same seed gives the same run. What must hold for
//! that: a `current_thread` runtime with a paused clock, `biased` in every `select!`, and no observable order that
//! comes out of a hash map.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::ops::{Add, Sub};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::watch;

/// Wall clock time where a simulation begins: 2026-01-01T00:00:00Z.
pub const SIMULATION_EPOCH: Timestamp = Timestamp(1_767_225_600_000);

/// In a simulation one wake-up in this many lets the other tasks go first, so that seeds differ in their order.
const REORDER_ONE_IN: u64 = 8;

/// A point of wall clock time in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Clock, randomness, tasks and threads, real or simulated. A clone is the same environment.
#[derive(Clone)]
pub struct Env {
    clock: Arc<Clock>,
    scope: Arc<Scope>,
}

enum Clock {
    Real {
        entropy: Mutex<Generator>,
    },
    Simulated {
        seed: u64,
        origin: Instant,
        entropy: Mutex<Generator>,
        order: Mutex<Generator>,
        /// The panics of all tasks, each with the task's name.
        panics: Mutex<Vec<String>>,
    },
}

impl Env {
    /// The machine's clock, its randomness, and the runtime that calls.
    pub fn real() -> Env {
        Env::with(Clock::Real { entropy: Mutex::new(Generator::of_the_system()) })
    }

    /// A clock that begins at [`SIMULATION_EPOCH`] and moves with tokio's paused clock, and randomness that follows
    /// from the seed. Call it inside the paused `current_thread` runtime.
    pub fn simulated(seed: u64) -> Env {
        Env::with(Clock::Simulated {
            seed,
            origin: Instant::now(),
            entropy: Mutex::new(Generator::new(seed)),
            order: Mutex::new(Generator::new(!seed)),
            panics: Mutex::default(),
        })
    }

    fn with(clock: Clock) -> Env {
        Env { clock: Arc::new(clock), scope: Arc::default() }
    }

    /// The same clock and randomness with an own set of tasks: one broker of a simulated cluster.
    pub fn scope(&self) -> Env {
        Env { clock: self.clock.clone(), scope: Arc::default() }
    }

    /// Whether this is a simulation: one thread, a paused clock, no real files or sockets.
    pub fn is_simulated(&self) -> bool {
        matches!(*self.clock, Clock::Simulated { .. })
    }

    /// Wall clock time. It may go back when the machine's clock is set; order comes from LSNs.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> Timestamp {
        match &*self.clock {
            Clock::Simulated { origin, .. } => SIMULATION_EPOCH + origin.elapsed(),
            Clock::Real { .. } => {
                let since =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Timestamp(0) + since
            }
        }
    }

    /// A clock that never goes back, for durations.
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }

    /// Sixty-four random bits.
    pub fn random_u64(&self) -> u64 {
        match &*self.clock {
            Clock::Real { entropy } | Clock::Simulated { entropy, .. } => lock(entropy).next(),
        }
    }

    /// A hundred and twenty-eight random bits: an identifier that nobody else draws.
    pub fn random_u128(&self) -> u128 {
        u128::from(self.random_u64()) << 64 | u128::from(self.random_u64())
    }

    /// Starts a task of this scope. Dropping the [`Task`] leaves it running. In a scope that has crashed or was
    /// aborted nothing starts: the future is dropped.
    #[allow(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        if self.scope.ended.load(Ordering::SeqCst) {
            return Task { name, handle: None };
        }
        let member = Member { scope: self.scope.clone(), id: self.scope.take_id(), done: Arc::default() };
        let (id, done) = (member.id, member.done.clone());
        let clock = self.is_simulated().then(|| self.clock.clone());
        let handle = tokio::spawn(Scoped { name, future: Box::pin(future), clock, member });
        let mut tasks = lock(&self.scope.tasks);
        if !done.load(Ordering::SeqCst) {
            tasks.insert(id, handle.abort_handle());
        }
        drop(tasks);
        if self.scope.ended.load(Ordering::SeqCst) {
            handle.abort();
        }
        Task { name, handle: Some(handle) }
    }

    /// Starts a task without which the broker does not work. A panic in it is a bug after which the broker would live
    /// on and answer nothing: it ends the process, with an error that names the task, so that whoever supervises it
    /// starts it again. In a simulation too, naming the seed: the runtime would keep the panic from the test.
    pub fn spawn_vital<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let clock = self.clock.clone();
        self.spawn(name, async move {
            match AssertUnwindSafe(future).catch_unwind().await {
                Ok(value) => value,
                Err(panic) => clock.end_process("task", name, &*panic),
            }
        })
    }

    /// Runs work that blocks (files, heavy computing) beside the tasks; a simulation runs it in place. A panic of
    /// the work goes on in the caller.
    #[allow(clippy::disallowed_methods, reason = "the one place that hands work to blocking threads")]
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        if self.is_simulated() {
            return work();
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(ended) if ended.is_panic() => resume_unwind(ended.into_panic()),
            // The runtime is being shut down: nobody polls us again.
            Err(_) => std::future::pending().await,
        }
    }

    /// Starts an operating system thread, for owners of files that block. Not for simulations. A panic in it ends the
    /// process, as in [`Env::spawn_vital`].
    ///
    /// # Errors
    /// The system refuses another thread.
    ///
    /// # Panics
    /// In a simulation, which owns all threads: one.
    #[allow(clippy::disallowed_methods, reason = "the one place that starts threads")]
    pub fn thread(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        assert!(!self.is_simulated(), "a simulation has one thread");
        let clock = self.clock.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                clock.end_process("thread", name, &*panic);
            }
        })
    }

    /// A crash of this scope: every task is dropped where it stands and no further one starts. In a
    /// `current_thread` runtime the tasks are dropped before any of them is polled again.
    pub fn abort_all(&self) {
        self.scope.crash();
        let tasks = std::mem::take(&mut *lock(&self.scope.tasks));
        for task in tasks.values() {
            task.abort();
        }
    }

    /// Simulations only: what tasks of any scope panicked with so far, in order. The runtime keeps a panic from
    /// everybody but the one who awaits the task, and of most tasks nobody does.
    pub fn panics(&self) -> Vec<String> {
        match &*self.clock {
            Clock::Real { .. } => Vec::new(),
            Clock::Simulated { panics, .. } => lock(panics).clone(),
        }
    }

    /// How often tasks of this scope were polled so far (simulations only).
    pub fn polls(&self) -> u64 {
        self.scope.polls.load(Ordering::SeqCst)
    }

    /// Simulations only: once poll number `n` of this scope is over, none of its tasks runs again. With `n` taken
    /// from a run without a crash this reaches every await. [`Env::crashed`] tells; [`Env::abort_all`] then drops.
    pub fn crash_at_poll(&self, n: u64) {
        self.scope.crash_at.store(n.max(1), Ordering::SeqCst);
    }

    /// Waits for the crash that [`Env::crash_at_poll`] or [`Env::abort_all`] makes. Await it outside this scope.
    pub async fn crashed(&self) {
        let mut crashed = self.scope.crashed.subscribe();
        // The sender lives in the scope that we hold.
        let _ = crashed.wait_for(|crashed| *crashed).await;
    }
}

impl Clock {
    /// Says why on two ways, then aborts: nothing of the process goes on, no destructor writes what a bug left behind.
    fn end_process(&self, what: &str, name: &str, panic: &(dyn Any + Send)) -> ! {
        let reason = reason_of(panic);
        let seed = match self {
            Clock::Real { .. } => None,
            Clock::Simulated { seed, .. } => Some(*seed),
        };
        tracing::error!(what, name, reason, seed, "a vital part of the process panicked, ending the process");
        // For those who run without a log; if even this fails there is nobody to tell.
        let seed = seed.map_or_else(String::new, |seed| format!(" (simulation with seed {seed})"));
        let _ =
            writeln!(std::io::stderr(), "floe: {what} '{name}' panicked, ending the process{seed}: {reason}");
        std::process::abort();
    }
}

/// What a panic said.
fn reason_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_simulated() { "Env(simulated)" } else { "Env(real)" })
    }
}

/// A started task. Await it for its result; drop it to let it run on.
#[derive(Debug)]
pub struct Task<T> {
    name: &'static str,
    handle: Option<JoinHandle<T>>,
}

/// Why a task gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnded {
    /// It was aborted, alone or with its scope.
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
struct Scope {
    tasks: Mutex<BTreeMap<u64, AbortHandle>>,
    ids: AtomicU64,
    polls: AtomicU64,
    crash_at: AtomicU64,
    ended: AtomicBool,
    crashed: watch::Sender<bool>,
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
        }
    }
}

impl Scope {
    fn take_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::SeqCst)
    }

    fn crash(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.crashed.send_replace(true);
    }
}

/// Takes its task out of the scope's set when the task is dropped, however that comes.
struct Member {
    scope: Arc<Scope>,
    id: u64,
    done: Arc<AtomicBool>,
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut tasks = lock(&self.scope.tasks);
        self.done.store(true, Ordering::SeqCst);
        tasks.remove(&self.id);
    }
}

/// A task's future with the scope's power over it.
struct Scoped<F> {
    name: &'static str,
    // Dropped before `member`, so that what the future's own destructors start still counts to the scope.
    future: Pin<Box<F>>,
    clock: Option<Arc<Clock>>,
    member: Member,
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let Some(Clock::Simulated { order, panics, .. }) = this.clock.as_deref() else {
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

/// xoshiro256** (Blackman and Vigna), seeded by splitmix64: small, fast, and the same on every machine.
struct Generator([u64; 4]);

impl Generator {
    fn new(seed: u64) -> Generator {
        let mut state = seed;
        Generator(std::array::from_fn(|_| splitmix(&mut state)))
    }

    /// Seeds from the randomness that the operating system gave the standard library for its hash maps.
    #[allow(clippy::disallowed_types, reason = "its keys come from the system, which is what is wanted here")]
    fn of_the_system() -> Generator {
        use std::hash::{BuildHasher, RandomState};
        let state = RandomState::new();
        Generator(std::array::from_fn(|lane| {
            state.hash_one((lane, std::process::id())) | u64::from(lane == 0)
        }))
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Locks; a panic of another holder left nothing half done in the few lines that these locks guard.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const PART: &str = "FLOE_META_TEST_PART";

    fn panic_for(reason: &str) {
        assert_eq!(reason, "", "planted");
    }

    /// What the child of the test below does: a part of it panics, and it waits for its end.
    #[tokio::test(start_paused = true)]
    async fn child_with_a_part_that_panics() {
        let Ok(part) = std::env::var(PART) else { return };
        match part.as_str() {
            "task" => drop(Env::real().spawn_vital("doomed", async { panic_for("real") })),
            "simulated" => drop(Env::simulated(42).spawn_vital("doomed", async { panic_for("simulated") })),
            "thread" => drop(Env::real().thread("doomed", || panic_for("thread"))),
            "other" => assert!(Env::real().spawn("spare", async { panic_for("other") }).await.is_err()),
            part => unreachable!("no part {part}"),
        }
        if part == "thread" {
            // The paused clock would not wait for it.
            std::thread::park();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    #[test]
    fn a_vital_part_that_panics_ends_the_process_and_says_so() {
        let child = |part: &str| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["env::tests::child_with_a_part_that_panics", "--exact"]).env(PART, part);
            let output = command.output().unwrap();
            (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
        };
        for (part, expected) in [
            ("task", "floe: task 'doomed' panicked, ending the process: "),
            ("simulated", "floe: task 'doomed' panicked, ending the process (simulation with seed 42): "),
            ("thread", "floe: thread 'doomed' panicked, ending the process: "),
        ] {
            let (status, said) = child(part);
            assert_eq!(status.code(), None, "{part} ended with {status}: {said}");
            assert!(said.contains(expected) && said.contains("planted"), "{part}: {said}");
        }
        let (status, said) = child("other");
        assert!(status.success(), "the process outlives its other tasks: {said}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulation_knows_the_panics_that_nobody_awaits() {
        let env = Env::simulated(1);
        drop(env.scope().spawn("forgotten", async { panic_for("unheard") }));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let panics = env.panics();
        assert!(
            matches!(&*panics, [only] if only.starts_with("task 'forgotten' panicked") && only.contains("unheard"))
        );
    }

    #[tokio::test]
    async fn a_vital_task_gives_its_result() {
        assert_eq!(Env::real().spawn_vital("sound", async { 7 }).await, Ok(7));
    }
}
