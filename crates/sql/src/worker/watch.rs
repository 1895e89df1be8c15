//! Looks at the memory of all workers and at the deadlines of their statements, every few milliseconds while statements
//! run. It has a thread of its own, so that no task delays it.
//!
//! When memory becomes scarce, statements run one after the other, and the rest stand still: only one takes more at a
//! time, it ends for its own memory, and what it had is there for the next. So the memory taken between two looks does
//! not grow with the number of statements, and a modest one need not end for large ones. Small statements go on.
//!
//! The system takes a moment to free the memory of a process that was killed. If there is not enough beside it, all
//! statements but small ones stand still for that moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use floe_env::{Env, lock};

use super::link::Out;
use super::message::ToWorker;
use super::process::Process;
use crate::limits::{
    ENDING_PATIENCE, SCARCE, SMALL_SHARE, SPILL_SHARE, TURN_ALONE, WATCH_INTERVAL, WATCH_INTERVAL_IDLE,
};

/// Why a worker was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All workers together had `all` bytes, beside those that were ending. Of them it had most, `own`.
    Memory { all: u64, own: u64 },
    /// It went on after its time.
    Late,
}

/// The watch. A clone is the same.
#[derive(Clone)]
pub(super) struct Watch(Arc<Shared>);

struct Shared {
    env: Env,
    /// Bytes that all workers together may have beside those that each had at its start.
    most: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    workers: BTreeMap<u64, Watched>,
    queue: Queue,
    closed: bool,
}

struct Watched {
    process: Arc<Process>,
    statement: Option<Statement>,
    /// Whether a statement is about to begin in it. Then it is not killed as an idle one.
    is_claimed: bool,
    /// Bytes at the last look. The system tells nothing of a process that is ending.
    last: u64,
    /// When a look first saw that it is ending.
    ending_since: Option<Instant>,
    is_still: bool,
}

struct Statement {
    out: Out,
    kill_at: Instant,
    verdict: watch::Sender<Option<Verdict>>,
    /// What the worker had when it began.
    before: u64,
    /// The most that it has taken so far.
    most: u64,
    before_spilling: u64,
}

/// A worker that is watched, until it is dropped.
pub(super) struct Member {
    watch: Watch,
    id: u64,
}

impl Watch {
    /// Starts the watch over `most` bytes.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(env: &Env, most: u64) -> std::io::Result<Watch> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let watch = Watch(Arc::new(Shared { env: env.clone(), most, state, changed }));
        let of_thread = watch.clone();
        env.thread("sql watch", move || of_thread.run())?;
        Ok(watch)
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.0.changed.notify_all();
    }

    /// Watches a worker.
    pub(super) fn add(&self, process: &Arc<Process>) -> Member {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.workers.insert(id, Watched::new(process.clone()));
        drop(state);
        Member { watch: self.clone(), id }
    }

    /// What operators that can spill may have before they do, in a statement that begins now.
    pub(super) fn before_spilling(&self) -> u64 {
        let state = self.state();
        let others: u64 = state.workers.values().map(|worker| worker.process.grown_bytes()).sum();
        before_spilling(self.0.most, others)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    fn run(&self) {
        floe_env::go_first();
        let mut state = self.state();
        loop {
            if state.closed {
                return;
            }
            let wait = if state.workers.values().any(|worker| worker.statement.is_some()) {
                state.look(self.0.env.monotonic(), self.0.most)
            } else {
                Duration::from_secs(3_600)
            };
            let waited = self.0.changed.wait_timeout(state, wait);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Member {
    /// Takes the worker for a statement. Returns whether it is alive; then it stays so until the statement begins.
    pub(super) fn claim(&self) -> bool {
        let mut state = self.watch.state();
        let Some(worker) = state.workers.get_mut(&self.id) else { return false };
        worker.is_claimed = worker.process.is_alive();
        worker.is_claimed
    }

    /// A statement begins in this worker. It is killed at `kill_at`. Returns the verdict, which is none as a rule.
    pub(super) fn begin(&self, out: Out, kill_at: Instant) -> watch::Receiver<Option<Verdict>> {
        let (verdict, receiver) = watch::channel(None);
        let mut state = self.watch.state();
        if let Some(worker) = state.workers.get_mut(&self.id) {
            let before = worker.process.grown_bytes();
            let statement = Statement { out, kill_at, verdict, before, most: 0, before_spilling: 0 };
            (worker.statement, worker.is_claimed) = (Some(statement), false);
            state.queue.push(self.id);
        }
        drop(state);
        self.watch.0.changed.notify_all();
        receiver
    }

    /// The statement has less time.
    pub(super) fn kill_at(&self, at: Instant) {
        let mut state = self.watch.state();
        if let Some(statement) = state.workers.get_mut(&self.id).and_then(|worker| worker.statement.as_mut())
        {
            statement.kill_at = statement.kill_at.min(at);
        }
    }

    /// The statement has ended. Returns the most memory that it has taken.
    pub(super) fn end(&self) -> u64 {
        let mut state = self.watch.state();
        let Some(worker) = state.workers.get_mut(&self.id) else { return 0 };
        let grown = worker.process.grown_bytes();
        // It may have said its last words just before it was told to stand still.
        worker.go_on();
        let ended = worker.statement.take();
        state.queue.remove(self.id);
        ended.map_or(0, |statement| statement.most.max(grown.saturating_sub(statement.before)))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        state.workers.remove(&self.id);
        state.queue.remove(self.id);
    }
}

impl State {
    /// Looks at all workers once. Returns when to look again.
    fn look(&mut self, now: Instant, most: u64) -> Duration {
        let mut sizes = Vec::with_capacity(self.workers.len());
        let mut ending = 0;
        for (id, worker) in &mut self.workers {
            if !worker.process.is_alive() {
                ending += worker.ending_bytes(now);
                continue;
            }
            worker.last = worker.process.grown_bytes();
            let bytes = worker.last;
            if let Some(statement) = &mut worker.statement {
                statement.most = statement.most.max(bytes.saturating_sub(statement.before));
                if now >= statement.kill_at {
                    worker.condemn(Verdict::Late);
                    ending += worker.ending_bytes(now);
                    continue;
                }
            }
            sizes.push(Size { id: *id, is_busy: worker.is_busy(), bytes });
        }
        let living: u64 = sizes.iter().map(|size| size.bytes).sum();
        metrics::gauge!("floe_sql_workers_memory_bytes").set(living as f64);
        for Size { id, bytes, .. } in too_large(sizes.clone(), most) {
            if let Some(worker) = self.workers.get_mut(&id)
                && worker.condemn(Verdict::Memory { all: living, own: bytes })
            {
                ending += worker.ending_bytes(now);
                sizes.retain(|size| size.id != id);
            }
        }
        let all = sizes.iter().map(|size| size.bytes).sum::<u64>() + ending;
        let small = most / SMALL_SHARE;
        let pause = match ending > 0 && all > most {
            true => Pause::All,
            false => {
                let large = |id: &u64| self.workers.get(id).is_some_and(|worker| worker.is_large(small));
                self.queue.first(now, (all, most), large).map_or(Pause::None, Pause::AllBut)
            }
        };
        self.stand_still(&pause, small);
        for Size { id, bytes, .. } in sizes {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.allow(before_spilling(most, all - bytes), most);
            }
        }
        if all > most / 4 { WATCH_INTERVAL } else { WATCH_INTERVAL_IDLE }
    }

    /// Stops statements that have more than `small` bytes, or lets them go on. One that grows is stopped at the next
    /// look.
    fn stand_still(&mut self, pause: &Pause, small: u64) {
        for (id, worker) in &mut self.workers {
            let goes_on = match pause {
                Pause::None => true,
                Pause::AllBut(one) => one == id || !worker.is_large(small),
                Pause::All => !worker.is_large(small),
            };
            match goes_on {
                true => worker.go_on(),
                false => worker.stand_still(),
            }
        }
    }
}

/// The workers with statements, in the order in which they run when memory is scarce.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<u64>,
    /// The one whose turn it is, and since when.
    turn: Option<(u64, Instant)>,
}

impl Queue {
    /// A statement begins: it comes last.
    fn push(&mut self, id: u64) {
        self.remove(id);
        self.waiting.push_back(id);
    }

    fn remove(&mut self, id: u64) {
        self.waiting.retain(|waiting| *waiting != id);
    }

    /// The first of those that are large, if they are to run one after the other: all together have `all` bytes, of
    /// `most` that they may have. After its time it goes on behind the others.
    fn first(&mut self, now: Instant, (all, most): (u64, u64), large: impl Fn(&u64) -> bool) -> Option<u64> {
        let enough = match self.turn {
            None => most / SCARCE.1 * SCARCE.0,
            Some(_) => most / 2,
        };
        if all <= enough {
            self.turn = None;
            return None;
        }
        let over = self.turn.filter(|(_, since)| now.saturating_duration_since(*since) > TURN_ALONE);
        if let Some((id, _)) = over {
            self.push(id);
        }
        let id = *self.waiting.iter().find(|id| large(id))?;
        let same = self.turn.filter(|(before, _)| over.is_none() && *before == id);
        self.turn = same.or(Some((id, now)));
        Some(id)
    }
}

/// Which statements stand still.
enum Pause {
    None,
    AllBut(u64),
    All,
}

impl Watched {
    fn new(process: Arc<Process>) -> Watched {
        Watched { process, statement: None, is_claimed: false, last: 0, ending_since: None, is_still: false }
    }

    /// The memory of a process that is ending, as far as it was seen. If the system does not end it in time, the others
    /// do not wait for it any longer.
    fn ending_bytes(&mut self, now: Instant) -> u64 {
        let since = *self.ending_since.get_or_insert(now);
        match self.process.has_ended() || now.saturating_duration_since(since) > ENDING_PATIENCE {
            true => 0,
            false => self.last,
        }
    }

    /// Whether a statement with more than `small` bytes runs in it.
    fn is_large(&self, small: u64) -> bool {
        self.statement.is_some() && self.last > small && self.process.is_alive()
    }

    fn stand_still(&mut self) {
        if !self.is_still {
            metrics::counter!("floe_sql_workers_stood_still_total").increment(1);
            self.is_still = self.process.stand_still();
        }
    }

    fn go_on(&mut self) {
        if self.is_still {
            self.process.go_on();
            self.is_still = false;
        }
    }

    fn is_busy(&self) -> bool {
        self.statement.is_some() || self.is_claimed
    }

    /// Kills the worker. Returns whether it does so: not one in which a statement is about to begin.
    fn condemn(&mut self, verdict: Verdict) -> bool {
        if self.is_claimed || !self.process.is_alive() {
            return false;
        }
        // First the verdict: whoever sees the end of the process asks for it.
        if let Some(statement) = &self.statement {
            statement.verdict.send_replace(Some(verdict));
        }
        self.process.kill();
        let reason = match (&self.statement, verdict) {
            (None, _) => "idle",
            (_, Verdict::Memory { .. }) => "memory",
            (_, Verdict::Late) => "late",
        };
        metrics::counter!("floe_sql_workers_killed_total", "reason" => reason).increment(1);
        true
    }

    /// Tells the worker what its operators may have before they spill, if that has changed by much.
    fn allow(&mut self, before_spilling: u64, most: u64) {
        let Some(statement) = &mut self.statement else { return };
        if before_spilling.abs_diff(statement.before_spilling) >= most / 16
            && statement.out.try_send(&ToWorker::Memory { before_spilling })
        {
            statement.before_spilling = before_spilling;
        }
    }
}

/// What operators that can spill may have, if the other workers have `others` bytes.
fn before_spilling(most: u64, others: u64) -> u64 {
    (most.saturating_sub(others) / SPILL_SHARE).max(most / 32)
}

/// The memory of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Size {
    id: u64,
    is_busy: bool,
    bytes: u64,
}

/// An idle worker with less is not worth a start.
const WORTH_BYTES: u64 = 1 << 20;

/// The workers that have to end so that the others have at most `most` bytes: first idle ones, and of each kind those
/// with most memory.
fn too_large(mut sizes: Vec<Size>, most: u64) -> Vec<Size> {
    let mut all: u64 = sizes.iter().map(|size| size.bytes).sum();
    sizes.retain(|size| size.is_busy || size.bytes >= WORTH_BYTES);
    sizes.sort_by_key(|size| (size.is_busy, std::cmp::Reverse(size.bytes), size.id));
    let mut ends = Vec::new();
    for size in sizes {
        if all <= most {
            break;
        }
        all -= size.bytes;
        ends.push(size);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_statement_ends_and_idle_workers_before_it() {
        let check = |sizes: &[(bool, u64)], expected: &[u64]| {
            let sizes = sizes.iter().zip(0..);
            let sizes = sizes.map(|(&(is_busy, mib), id)| Size { id, is_busy, bytes: mib << 20 });
            let ends: Vec<u64> = too_large(sizes.collect(), 100 << 20).iter().map(|size| size.id).collect();
            assert_eq!(ends, expected);
        };
        check(&[], &[]);
        check(&[(true, 100)], &[]);
        check(&[(true, 101)], &[0]);
        check(&[(true, 50), (true, 51)], &[1]);
        check(&[(true, 90), (false, 8), (false, 9)], &[2]);
        check(&[(true, 95), (false, 8), (false, 9)], &[2, 1]);
        check(&[(true, 300), (true, 99), (false, 9)], &[2, 0]);
        check(&[(true, 300), (true, 101)], &[0, 1]);
        check(&[(true, 101), (false, 0)], &[0]);
    }

    #[test]
    fn large_statements_run_one_after_the_other_when_memory_is_scarce() {
        let start = Instant::now();
        let mut queue = Queue::default();
        let first = |queue: &mut Queue, ms: u64, all: u64, large: &[u64]| {
            queue.first(start + Duration::from_millis(ms), (all, 800), |id| large.contains(id))
        };
        for id in [7, 3, 5] {
            queue.push(id);
        }
        assert_eq!(first(&mut queue, 0, 500, &[3, 5]), None, "there is enough");
        assert_eq!(first(&mut queue, 0, 501, &[3, 5]), Some(3), "the oldest of the large ones");
        assert_eq!(first(&mut queue, 1_000, 401, &[3, 5, 7]), Some(7), "one that has grown, and is older");
        assert_eq!(first(&mut queue, 2_900, 600, &[3, 5, 7]), Some(7));
        assert_eq!(first(&mut queue, 3_001, 600, &[3, 5, 7]), Some(3), "its time is over");
        assert_eq!(first(&mut queue, 5_002, 600, &[3, 5, 7]), Some(5));
        queue.remove(5);
        assert_eq!(first(&mut queue, 5_003, 600, &[3, 7]), Some(7));
        queue.push(9);
        assert_eq!(first(&mut queue, 7_004, 600, &[3, 9]), Some(3));
        assert_eq!(first(&mut queue, 7_005, 400, &[3, 9]), None, "there is enough again");
        assert_eq!(first(&mut queue, 7_006, 450, &[3, 9]), None);
        assert_eq!(first(&mut queue, 7_007, 700, &[]), None);
    }

    #[test]
    fn what_spills_leaves_memory_to_others() {
        assert_eq!(before_spilling(320, 0), 160);
        assert_eq!(before_spilling(320, 200), 60);
        assert_eq!(before_spilling(320, 400), 10);
    }
}
