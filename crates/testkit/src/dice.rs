//! Random draws.

use std::ops::Range;
use std::time::Duration;

use floe_env::Env;

/// Draws numbers. Every draw follows from the seed of the run.
#[derive(Clone, Debug)]
pub struct Dice(Env);

impl Dice {
    /// The dice of a run.
    pub fn new(env: &Env) -> Dice {
        Dice(env.clone())
    }

    /// A number in the range. The range must not be empty.
    pub fn within(&self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "a range to draw from is not empty");
        range.start + self.0.random_u64() % (range.end - range.start)
    }

    /// True in `per_mille` of a thousand draws.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.within(0..1_000) < per_mille
    }

    /// One of the choices.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[usize::try_from(self.within(0..choices.len() as u64)).expect("an index")]
    }

    /// A duration of up to `max`. Short durations are far more likely than long ones.
    pub fn wait(&self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros()).expect("a short wait").max(1);
        let scale = 1 << self.within(0..8);
        Duration::from_micros(self.within(0..micros.div_ceil(scale)))
    }

    /// A duration between the two, evenly distributed.
    pub fn between(&self, min: Duration, max: Duration) -> Duration {
        let (min, max) = (min.as_micros(), max.as_micros());
        let micro = |t: u128| u64::try_from(t).expect("a short wait");
        Duration::from_micros(self.within(micro(min)..micro(max)))
    }
}
