//! Draws from the seed.

use std::ops::Range;
use std::time::Duration;

use floe_env::Env;

/// Draws numbers; every draw comes out of the run's seed.
#[derive(Clone, Debug)]
pub struct Dice(Env);

impl Dice {
    /// Dice of a run.
    pub fn new(env: &Env) -> Dice {
        Dice(env.clone())
    }

    /// A number of the range, which is not empty.
    pub fn within(&self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "a range to draw from is not empty");
        range.start + self.0.random_u64() % (range.end - range.start)
    }

    /// True this many times of a thousand.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.within(0..1_000) < per_mille
    }

    /// One of the choices.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[usize::try_from(self.within(0..choices.len() as u64)).expect("an index")]
    }

    /// A duration of up to `max`, short ones far more often than long ones.
    pub fn wait(&self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros()).expect("a short wait").max(1);
        let scale = 1 << self.within(0..8);
        Duration::from_micros(self.within(0..micros.div_ceil(scale)))
    }

    /// A duration between the two, evenly.
    pub fn between(&self, min: Duration, max: Duration) -> Duration {
        let (min, max) = (min.as_micros(), max.as_micros());
        let micro = |t: u128| u64::try_from(t).expect("a short wait");
        Duration::from_micros(self.within(micro(min)..micro(max)))
    }
}
