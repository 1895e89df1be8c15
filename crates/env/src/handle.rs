//! The seam to the world: clock, randomness, tasks and threads.
//!
//! A simulation gives the same run for the same seed only if its runtime is `current_thread` with a paused clock, every
//! `select!` is `biased`, and no observable order comes out of a hash map.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::{Clock, Standstill};
use crate::random::{Seeded, of_the_system};
use crate::task::{Alive, Member, Scope, Scoped, Task, TaskEnded};
use crate::time::{SIMULATION_EPOCH, Timestamp};
use crate::{fatal, lock};

/// Clock, randomness, tasks and threads, real or simulated. A clone is the same environment.
#[derive(Clone)]
pub struct Env {
    clock: Arc<Clock>,
    scope: Arc<Scope>,
    /// Where tasks and blocking work run, whoever asks for them; `None`: in the runtime of the caller.
    runtime: Option<Handle>,
}

impl Env {
    /// The machine's clock and randomness, and the runtime of the caller: tasks of this environment run there, also
    /// those that a thread of another runtime starts later. Outside of a runtime, each task runs in that of its caller.
    pub fn real() -> Env {
        Env { runtime: Handle::try_current().ok(), ..Env::with(Clock::Real) }
    }

    /// A simulated environment. Its clock begins at [`SIMULATION_EPOCH`] and moves with tokio's paused clock. Its
    /// randomness follows from the seed. Call it inside the paused `current_thread` runtime.
    pub fn simulated(seed: u64) -> Env {
        Env::with(Clock::Simulated {
            seed,
            origin: Instant::now(),
            standstill: Standstill::new(Instant::now()),
            wall_ahead: AtomicI64::new(0),
            entropy: Mutex::new(Seeded::new(seed)),
            order: Mutex::new(Seeded::new(!seed)),
            panics: Mutex::default(),
        })
    }

    fn with(clock: Clock) -> Env {
        Env { clock: Arc::new(clock), scope: Arc::default(), runtime: None }
    }

    /// The same clock and randomness with a set of tasks of its own: one broker of a simulated cluster.
    pub fn scope(&self) -> Env {
        Env { scope: Arc::default(), ..self.clone() }
    }

    /// The same environment, whose tasks and blocking work run in another runtime.
    ///
    /// # Panics
    /// In a simulation, which has one runtime.
    #[must_use]
    pub fn on(&self, runtime: Handle) -> Env {
        assert!(!self.is_simulated(), "a simulation has one runtime");
        Env { runtime: Some(runtime), ..self.clone() }
    }

    /// Whether this is a simulation: one thread, a paused clock, no real files or sockets.
    pub fn is_simulated(&self) -> bool {
        matches!(*self.clock, Clock::Simulated { .. })
    }

    /// Wall clock time. It may go back when somebody sets the machine's clock. For order, use LSNs.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> Timestamp {
        match &*self.clock {
            Clock::Simulated { origin, wall_ahead, .. } => {
                let Timestamp(right) = SIMULATION_EPOCH + origin.elapsed();
                Timestamp(right.saturating_add(wall_ahead.load(Ordering::SeqCst)))
            }
            Clock::Real => {
                let since =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Timestamp(0) + since
            }
        }
    }

    /// Sets the wall clock of a simulation to `millis` ahead of its course, or behind it. All scopes share it. The
    /// clock for durations stays as it is.
    ///
    /// # Panics
    /// In a real environment.
    pub fn set_wall_clock_ahead(&self, millis: i64) {
        match &*self.clock {
            Clock::Simulated { wall_ahead, .. } => wall_ahead.store(millis, Ordering::SeqCst),
            Clock::Real => panic!("nobody sets the machine's clock"),
        }
    }

    /// A clock for durations. It never goes back.
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }

    /// Sixty-four random bits, which nobody can compute from those drawn before; in a simulation the seed's.
    pub fn random_u64(&self) -> u64 {
        match &*self.clock {
            Clock::Real => of_the_system(),
            Clock::Simulated { entropy, .. } => lock(entropy).next(),
        }
    }

    /// Draws 128 random bits: an identifier that nobody else draws.
    pub fn random_u128(&self) -> u128 {
        u128::from(self.random_u64()) << 64 | u128::from(self.random_u64())
    }

    /// Starts a task of this scope. It keeps running when its [`Task`] is dropped. A scope that has crashed or was
    /// aborted drops the future instead of starting it.
    #[allow(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        if self.scope.ended.load(Ordering::SeqCst) {
            return Task { name, handle: None };
        }
        let member = Member::new(&self.scope);
        let (id, done) = (member.id, member.done.clone());
        let clock = self.is_simulated().then(|| self.clock.clone());
        let scoped = Scoped { name, future: Box::pin(future), clock, member };
        let handle = match &self.runtime {
            Some(runtime) => runtime.spawn(scoped),
            None => tokio::spawn(scoped),
        };
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

    /// Starts a task that the broker cannot work without. If it panics, the broker would live on without answering
    /// anything. So a panic ends the process with an error that names the task, and the supervisor starts the process
    /// again. This holds in a simulation too, where the error names the seed: the runtime would hide the panic from the
    /// test.
    pub fn spawn_vital<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let clock = self.clock.clone();
        self.spawn(name, async move {
            match AssertUnwindSafe(future).catch_unwind().await {
                Ok(value) => value,
                Err(panic) => fatal::end_after_panic("task", name, clock.seed(), &*panic),
            }
        })
    }

    /// Runs a future in the runtime of this environment, whoever awaits it. What the future opens (a connection, a
    /// timer) belongs to the runtime that polls it, and others use it next. Dropping the call drops the future.
    ///
    /// # Errors
    /// The future panicked, or its runtime is shutting down.
    pub async fn at_home<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, TaskEnded> {
        let here = Handle::try_current().ok().map(|runtime| runtime.id());
        match &self.runtime {
            Some(home) if Some(home.id()) != here => Guest(self.spawn(name, future)).await,
            _ => Ok(future.await),
        }
    }

    /// Runs blocking work (files, heavy computing) on a thread beside the tasks. A simulation runs it in place. A panic
    /// of the work continues in the caller.
    #[allow(clippy::disallowed_methods, reason = "the one place that hands work to blocking threads")]
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        if self.is_simulated() {
            return work();
        }
        let alive = Alive::new(&self.scope);
        let work = move || {
            let _alive = alive;
            work()
        };
        let running = match &self.runtime {
            Some(runtime) => runtime.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        };
        match running.await {
            Ok(value) => value,
            Err(ended) if ended.is_panic() => resume_unwind(ended.into_panic()),
            // The runtime is shutting down and polls this future no more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Runs heavy computing in place, where the caller is not asynchronous and keeps an order. The other tasks of this
    /// thread move to another one meanwhile, if the runtime has one.
    pub fn heavy<T>(&self, work: impl FnOnce() -> T) -> T {
        use tokio::runtime::RuntimeFlavor;
        let many = |runtime: Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
        match !self.is_simulated() && Handle::try_current().is_ok_and(many) {
            true => tokio::task::block_in_place(work),
            false => work(),
        }
    }

    /// Starts an operating system thread for the owner of blocking files. Not for simulations. A panic in the thread
    /// ends the process, as in [`Env::spawn_vital`].
    ///
    /// # Errors
    /// The system refuses another thread.
    ///
    /// # Panics
    /// In a simulation, which has one thread.
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
                fatal::end_after_panic("thread", name, clock.seed(), &*panic);
            }
        })
    }

    /// Crashes this scope: every task is dropped where it stands, and no other task starts. In a `current_thread`
    /// runtime the tasks are dropped before any of them is polled again.
    pub fn abort_all(&self) {
        self.scope.crash();
        let tasks = std::mem::take(&mut *lock(&self.scope.tasks));
        for task in tasks.values() {
            task.abort();
        }
    }

    /// Waits until every task of this scope is dropped and its blocking work is done. After [`Env::abort_all`], nothing
    /// of the scope touches a file any more then. Await it outside this scope.
    pub async fn drained(&self) {
        self.scope.drained().await;
    }

    /// Simulations only: the panics of all tasks of all scopes so far, in order. The runtime tells a panic only to the
    /// caller that awaits the task, and most tasks are not awaited.
    pub fn panics(&self) -> Vec<String> {
        match &*self.clock {
            Clock::Real => Vec::new(),
            Clock::Simulated { panics, .. } => lock(panics).clone(),
        }
    }

    /// Simulations only: the number of polls of this scope's tasks so far.
    pub fn polls(&self) -> u64 {
        self.scope.polls.load(Ordering::SeqCst)
    }

    /// Simulations only: after poll number `n` of this scope, none of its tasks runs again. If `n` is drawn from the
    /// polls of a run without a crash, the crash can hit every await. [`Env::crashed`] reports the crash, and
    /// [`Env::abort_all`] drops the tasks.
    pub fn crash_at_poll(&self, n: u64) {
        self.scope.crash_at.store(n.max(1), Ordering::SeqCst);
    }

    /// Waits for a crash by [`Env::crash_at_poll`] or [`Env::abort_all`]. Await it outside this scope.
    pub async fn crashed(&self) {
        let mut crashed = self.scope.crashed.subscribe();
        // The sender lives in the scope, and we hold the scope.
        let _ = crashed.wait_for(|crashed| *crashed).await;
    }
}

/// A task that ends with the one who waits for it.
struct Guest<T>(Task<T>);

impl<T> Future for Guest<T> {
    type Output = Result<T, TaskEnded>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Guest<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_simulated() { "Env(simulated)" } else { "Env(real)" })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    const PART: &str = "FLOE_ENV_TEST_PART";

    fn panic_for(reason: &str) {
        assert_eq!(reason, "", "planted");
    }

    /// The child process of the test below: a vital part of it panics, and it waits for its end.
    #[tokio::test(start_paused = true)]
    async fn child_with_a_part_that_panics() {
        let Ok(part) = std::env::var(PART) else { return };
        match part.as_str() {
            "task" => drop(Env::real().spawn_vital("doomed", async { panic_for("real") })),
            "simulated" => drop(Env::simulated(42).spawn_vital("doomed", async { panic_for("simulated") })),
            "standstill" => drop(Env::simulated(43).spawn("restless", async {
                loop {
                    tokio::task::yield_now().await;
                }
            })),
            "thread" => drop(Env::real().thread("doomed", || panic_for("thread"))),
            "other" => assert!(Env::real().spawn("spare", async { panic_for("other") }).await.is_err()),
            part => unreachable!("no part {part}"),
        }
        if part == "thread" {
            // The paused clock would not wait for the thread.
            std::thread::park();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    #[test]
    fn a_vital_part_that_panics_ends_the_process_and_says_so() {
        let child = |part: &str| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["handle::tests::child_with_a_part_that_panics", "--exact"]).env(PART, part);
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
        let (status, said) = child("standstill");
        assert_eq!(status.code(), None, "ended with {status}: {said}");
        let expected =
            "the simulated clock stands still, ending the process (simulation with seed 43): task 'restless'";
        assert!(said.contains(expected), "{said}");
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

    /// A query's threads ask for what others wait for as well, and may end before it is there.
    #[tokio::test]
    async fn tasks_and_blocking_work_run_in_the_runtime_of_the_environment() {
        let (env, home) = (Env::real(), Handle::current().id());
        let of_home = env.clone();
        let here = || Handle::current().id();
        let elsewhere = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                assert_eq!(env.spawn("asked for elsewhere", async move { here() }).await, Ok(home));
                assert_eq!(env.at_home("guest", async move { here() }).await, Ok(home));
                assert_eq!(env.blocking(here).await, home);
                let moved = env.on(Handle::current());
                assert_eq!(moved.spawn("moved", async move { here() }).await, Ok(here()));
                assert_eq!(moved.at_home("at home", async move { here() }).await, Ok(here()));
            });
        };
        // The other runtime must not start inside this one.
        of_home.blocking(elsewhere).await;
    }

    #[tokio::test]
    async fn a_scope_is_drained_when_the_work_that_an_aborted_task_left_is_done() {
        let env = Env::real();
        let (begun, beginning) = tokio::sync::oneshot::channel();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let work = move || {
            begun.send(()).expect("the test waits for it");
            wait.recv().expect("the test lets it go on");
        };
        let of_task = env.clone();
        drop(env.spawn("leaves work", async move { of_task.blocking(work).await }));
        beginning.await.expect("the work begins");
        env.abort_all();
        let early = tokio::time::timeout(Duration::from_millis(50), env.drained()).await;
        assert!(early.is_err(), "the work is still there");
        go_on.send(()).expect("the work waits");
        env.drained().await;
    }
}
