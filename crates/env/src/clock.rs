//! The clock and the randomness behind an environment, real or simulated.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::time::Instant;

use crate::random::Seeded;
use crate::{fatal, lock};

/// A simulation whose tasks are polled this often without any time going by is a loop that nothing ends. Whole runs
/// have less polls.
const STANDSTILL_POLLS: u64 = 1 << 21;

pub(crate) enum Clock {
    Real,
    Simulated {
        seed: u64,
        origin: Instant,
        /// Milliseconds by which the wall clock is ahead of the one that began at the simulation's epoch.
        wall_ahead: AtomicI64,
        entropy: Mutex<Seeded>,
        order: Mutex<Seeded>,
        /// The panics of all tasks, each with the task's name.
        panics: Mutex<Vec<String>>,
        standstill: Standstill,
    },
}

impl Clock {
    /// The seed of the simulation, if this is one.
    pub(crate) fn seed(&self) -> Option<u64> {
        match self {
            Clock::Real => None,
            Clock::Simulated { seed, .. } => Some(*seed),
        }
    }
}

/// Watches for a clock that stands still while tasks run: time in a simulation moves only when all of them wait.
pub(crate) struct Standstill {
    polls: AtomicU64,
    since: Mutex<Instant>,
}

impl Standstill {
    pub(crate) fn new(origin: Instant) -> Standstill {
        Standstill { polls: AtomicU64::new(0), since: Mutex::new(origin) }
    }

    /// Counts one poll of the task `name`. At a standstill it ends the process with a line that names the task and the
    /// seed: the loop would go on for ever, and no test could report it.
    pub(crate) fn poll(&self, name: &str, seed: u64) {
        if self.polls.fetch_add(1, Ordering::Relaxed) + 1 < STANDSTILL_POLLS {
            return;
        }
        self.polls.store(0, Ordering::Relaxed);
        let now = Instant::now();
        let since = std::mem::replace(&mut *lock(&self.since), now);
        if since == now {
            fatal::end_at_standstill(name, seed);
        }
    }
}
