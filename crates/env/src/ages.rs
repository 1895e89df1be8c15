//! How long things have been there, by the monotonic clock of the one who looks.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// When each key was first seen. Between two looks a key may go and come back unseen, so a key names one state of a
/// thing: for a lease, its owner and its last renewal.
#[derive(Debug)]
pub struct Ages<K> {
    since: BTreeMap<K, Instant>,
}

impl<K> Default for Ages<K> {
    fn default() -> Ages<K> {
        Ages { since: BTreeMap::new() }
    }
}

impl<K: Ord> Ages<K> {
    /// Notes the keys that are there at `now`, and forgets all others. The caller bounds their number.
    pub fn look(&mut self, keys: impl IntoIterator<Item = K>, now: Instant) {
        let mut before = std::mem::take(&mut self.since);
        self.since = keys
            .into_iter()
            .map(|key| {
                let since = before.remove(&key).unwrap_or(now);
                (key, since)
            })
            .collect();
    }

    /// How long the key has been there; zero if it was not there at the last look.
    pub fn age(&self, key: &K, now: Instant) -> Duration {
        self.since.get(key).map_or(Duration::ZERO, |since| now.duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_counts_from_the_first_look_and_a_gap_begins_it_anew() {
        let (mut ages, begun) = (Ages::default(), crate::Env::simulated(1).monotonic());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let age = |ages: &Ages<char>, key, seconds| ages.age(&key, at(seconds)).as_secs();
        ages.look(['a'], at(0));
        ages.look(['a', 'b'], at(5));
        assert_eq!((age(&ages, 'a', 9), age(&ages, 'b', 9), age(&ages, 'c', 9)), (9, 4, 0));
        ages.look(['b'], at(10));
        ages.look(['a', 'b'], at(11));
        assert_eq!((age(&ages, 'a', 12), age(&ages, 'b', 12)), (1, 7));
    }
}
