//! Back-off: pauses between tries that grow and have jitter.

use std::time::Duration;

use crate::handle::Env;

/// The pauses between tries of one operation. Each pause is twice as long as the last, up to a limit. Then jitter takes
/// up to half of it away, so that callers who failed together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    env: Env,
    first: Duration,
    max: Duration,
    /// The next pause before jitter.
    next: Duration,
}

impl Backoff {
    /// A back-off whose pauses grow from `first` to `max`.
    ///
    /// # Panics
    /// `first` is zero, or longer than `max`.
    pub fn new(env: &Env, first: Duration, max: Duration) -> Backoff {
        assert!(!first.is_zero(), "a back-off without a pause is a spin");
        assert!(first <= max, "a back-off grows");
        Backoff { env: env.clone(), first, max, next: first }
    }

    /// Draws the next pause; the one after it is longer.
    pub fn next_pause(&mut self) -> Duration {
        let longest = self.next;
        self.next = longest.saturating_mul(2).min(self.max);
        let half = longest / 2;
        let nanos = u64::try_from((longest - half).as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.env.random_u64() % nanos.saturating_add(1))
    }

    /// Waits for the next pause.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_limit_and_chance_takes_at_most_half() {
        let (first, max) = (Duration::from_millis(10), Duration::from_millis(100));
        let env = Env::simulated(7);
        let mut backoff = Backoff::new(&env, first, max);
        for _ in 0..2 {
            for longest in [10, 20, 40, 80, 100, 100].map(Duration::from_millis) {
                let pause = backoff.next_pause();
                assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
            }
            backoff.reset();
        }
        let before = env.monotonic();
        backoff.pause().await;
        assert!(env.monotonic() - before >= first / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_fail_together_come_back_apart() {
        let env = Env::simulated(7);
        let pauses = |backoff: &mut Backoff| (0..8).map(|_| backoff.next_pause()).collect::<Vec<_>>();
        let new = || Backoff::new(&env, Duration::from_millis(10), Duration::from_secs(1));
        assert_ne!(pauses(&mut new()), pauses(&mut new()));
    }
}
