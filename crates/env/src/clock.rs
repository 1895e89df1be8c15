//! The clock and the randomness behind an environment, real or simulated.

use std::sync::Mutex;
use std::sync::atomic::AtomicI64;

use tokio::time::Instant;

use crate::random::Seeded;

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
