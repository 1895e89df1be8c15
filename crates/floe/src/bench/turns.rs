//! Turns handed to connections, each when it is due.
//!
//! tokio's timers are a millisecond coarse, which is longer than many requests take. So a thread of its own waits for
//! the due times. It only tells that a request is due; the next connection with room for one takes it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use floe_env::lock;
use tokio::sync::Semaphore;

use crate::bench::load::{Load, Turn};
use crate::bench::run::Run;

/// How long the thread sleeps without looking for the end of the run.
const NAP_MAX: Duration = Duration::from_millis(50);

/// The turns of a run.
#[derive(Debug)]
pub(super) struct Turns {
    load: Mutex<Load>,
    /// Turns that are due; `None` without a rate, when they always are.
    due: Option<Arc<Semaphore>>,
}

impl Turns {
    /// The turns of a load for so many connections. With a rate, their thread starts.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(super) fn start(run: &Arc<Run>, load: Load, connections: usize) -> Result<Turns> {
        let paced = load.due(0).is_some();
        if !paced {
            return Ok(Turns { load: Mutex::new(load), due: None });
        }
        let due = Arc::new(Semaphore::new(0));
        let (of_thread, schedule, told) = (run.clone(), load.clone(), due.clone());
        // Nobody waits for the thread: it ends with the run.
        run.env
            .thread("bench turns", move || tell(&of_thread, &schedule, &told, connections))
            .context("cannot start the thread that tells which request is due")?;
        Ok(Turns { load: Mutex::new(load), due: Some(due) })
    }

    /// The next turn, when it is due; `None` when there are no more. Waiters are served in FIFO order.
    pub(super) async fn take(&self, run: &Run) -> Option<Turn> {
        if let Some(due) = &self.due {
            due.acquire().await.ok()?.forget();
        }
        lock(&self.load).take(run.now())
    }

    /// Whether requests are due at fixed times.
    pub(super) fn is_paced(&self) -> bool {
        self.due.is_some()
    }

    /// Measured requests that were due before a time.
    pub(super) fn measured_due_before(&self, time: Duration) -> u64 {
        lock(&self.load).measured_due_before(time)
    }
}

/// Tells of each turn when it is due, until there are no more or the run is over.
fn tell(run: &Run, schedule: &Load, told: &Semaphore, connections: usize) {
    let mut number = 0;
    while let Some(due) = schedule.due(number) {
        loop {
            if run.is_over() {
                return;
            }
            let left = due.saturating_sub(run.now());
            if left.is_zero() {
                break;
            }
            std::thread::park_timeout(left.min(NAP_MAX));
        }
        told.add_permits(1);
        number += 1;
    }
    // Each connection asks once more and learns that there are no more.
    told.add_permits(connections);
}
