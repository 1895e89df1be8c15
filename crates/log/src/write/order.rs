//! The order of a producer's batches while its partition does not know it.
//!
//! A partition that has no state of a producer takes any first sequence number, as Apache Kafka does: the topic was
//! made anew under the producer, or its state has expired. That alone would let the second of two batches in flight
//! take the place of a first one that failed. So this process remembers which batches are in flight and which failed.
//! Until the failed batch is sent again, those behind it get the same retriable error.
//!
//! This is memory of one process. A producer that moves to another broker in the middle of a failure is protected by
//! the partition's state alone.

use std::sync::{Arc, Mutex};

use floe_env::{Env, Lru, lock};
use tokio::time::Instant;

use crate::format::header::Header;
use crate::limits::{ORDER_FAILED_TIME, ORDER_PRODUCERS_MAX};
use crate::map::ids::PartitionId;
use crate::map::producer::{ProducerKey, sequence_minus};
use crate::write::sequencer::AppendError;

/// The producers with batches in flight or in trouble. Clones share it.
#[derive(Clone)]
pub(crate) struct Order {
    env: Env,
    producers: Arc<Mutex<Lru<ProducerKey, Standing>>>,
}

/// What is known of a producer in one partition.
#[derive(Clone, Copy)]
struct Standing {
    epoch: i16,
    in_flight: u32,
    /// The base sequence of the first failed batch that was not sent again, and when it failed.
    failed: Option<(i32, Instant)>,
}

/// A batch that was let in. Give it back with [`Order::leave`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered {
    key: ProducerKey,
    epoch: i16,
    base_sequence: i32,
}

impl Order {
    pub(crate) fn new(env: Env) -> Order {
        Order { env, producers: Arc::new(Mutex::new(Lru::new(ORDER_PRODUCERS_MAX))) }
    }

    /// Lets a batch in. Says whether an earlier one of the same producer is in flight.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`]: an earlier batch failed and must be sent again first.
    pub(crate) fn enter(
        &self,
        partition: PartitionId,
        header: &Header,
    ) -> Result<Option<(Entered, bool)>, AppendError> {
        if !header.is_idempotent() {
            return Ok(None);
        }
        let key = ProducerKey { partition, producer_id: header.producer_id };
        let (epoch, base_sequence) = (header.producer_epoch, header.base_sequence);
        let mut producers = lock(&self.producers);
        let known = producers.peek(&key).copied().filter(|standing| standing.epoch == epoch);
        let mut standing = known.unwrap_or(Standing { epoch, in_flight: 0, failed: None });
        if let Some((failed, since)) = standing.failed {
            let over = self.env.monotonic().saturating_duration_since(since) >= ORDER_FAILED_TIME;
            if !over && is_before(failed, base_sequence) {
                let reason =
                    format!("the batch of this producer with sequence {failed} failed: send it first");
                return Err(AppendError::Unavailable(reason));
            }
            if over || failed == base_sequence {
                standing.failed = None;
            }
        }
        let follows = standing.in_flight > 0;
        standing.in_flight += 1;
        put(&mut producers, key, standing);
        Ok(Some((Entered { key, epoch, base_sequence }, follows)))
    }

    /// Takes a batch out, in the order of entering, with whether it may be sent again.
    pub(crate) fn leave(&self, entered: Entered, outcome: Result<(), &AppendError>) {
        let Entered { key, epoch, base_sequence } = entered;
        let mut producers = lock(&self.producers);
        let Some(mut standing) = producers.peek(&key).copied().filter(|standing| standing.epoch == epoch)
        else {
            return;
        };
        standing.in_flight = standing.in_flight.saturating_sub(1);
        let again = outcome.is_err_and(AppendError::may_be_sent_again);
        if again && standing.failed.is_none_or(|(failed, _)| is_before(base_sequence, failed)) {
            standing.failed = Some((base_sequence, self.env.monotonic()));
        }
        // The same batch may be in flight twice, when its sender has lost the first answer. The try that is appended
        // counts, whichever is answered first.
        if outcome.is_ok() && standing.failed.is_some_and(|(failed, _)| !is_before(base_sequence, failed)) {
            standing.failed = None;
        }
        match standing {
            Standing { in_flight: 0, failed: None, .. } => drop(producers.remove(&key)),
            standing => put(&mut producers, key, standing),
        }
    }
}

fn put(producers: &mut Lru<ProducerKey, Standing>, key: ProducerKey, standing: Standing) {
    drop(producers.insert(key, standing, 1));
    metrics::gauge!("floe_log_ordered_producers").set(producers.weight() as f64);
}

/// Whether `first` comes before `second`. Sequence numbers wrap, so the shorter way around counts.
fn is_before(first: i32, second: i32) -> bool {
    let ahead = sequence_minus(second, first);
    ahead > 0 && ahead < 1 << 30
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::codec::Compression;
    use crate::format::records::Builder;
    use crate::map::ids::TopicId;

    fn header(epoch: i16, base_sequence: i32) -> Header {
        let mut builder = Builder::new(Compression::None).producer(7, epoch, base_sequence);
        Header::parse(&builder.push(0, None, None, &[]).build()).unwrap()
    }

    fn failed() -> AppendError {
        AppendError::Unavailable("planted".to_owned())
    }

    struct World(Order);

    impl World {
        fn enter(&self, epoch: i16, base_sequence: i32) -> Result<(Entered, bool), AppendError> {
            let partition = PartitionId { topic: TopicId(1), index: 0 };
            Ok(self.0.enter(partition, &header(epoch, base_sequence))?.expect("it is idempotent"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_batch_holds_back_those_behind_it_until_it_comes_again() {
        let world = World(Order::new(Env::simulated(1)));
        let (first, follows) = world.enter(0, 10).unwrap();
        assert!(!follows);
        let (second, follows) = world.enter(0, 11).unwrap();
        assert!(follows);
        world.0.leave(first, Err(&failed()));
        world.0.leave(second, Err(&failed()));
        assert!(world.enter(0, 11).is_err() && world.enter(0, 12).is_err());
        let (first, _) = world.enter(0, 10).unwrap();
        let (second, follows) = world.enter(0, 11).unwrap();
        assert!(follows, "the sequencer holds it back if the first fails again");
        world.0.leave(first, Err(&failed()));
        assert!(world.enter(0, 12).is_err());
        world.0.leave(second, Err(&failed()));
        let (first, _) = world.enter(0, 10).unwrap();
        world.0.leave(first, Ok(()));
        assert!(world.enter(0, 12).is_ok(), "nothing is in trouble any more");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_tries_of_a_batch_the_one_that_is_appended_counts() {
        let world = World(Order::new(Env::simulated(1)));
        let (lost, _) = world.enter(0, 10).unwrap();
        let (again, _) = world.enter(0, 10).unwrap();
        world.0.leave(lost, Err(&failed()));
        assert!(world.enter(0, 11).is_err(), "nobody knows yet whether it will be there");
        world.0.leave(again, Ok(()));
        assert!(world.enter(0, 11).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_epoch_a_long_time_and_a_final_error_let_others_in() {
        let world = World(Order::new(Env::simulated(1)));
        let fail = |epoch, sequence| world.0.leave(world.enter(epoch, sequence).unwrap().0, Err(&failed()));
        fail(0, 3);
        assert!(world.enter(0, 4).is_err());
        assert!(world.enter(1, 4).is_ok(), "the producer begins anew");
        fail(2, i32::MAX);
        assert!(world.enter(2, 0).is_err(), "numbers wrap");
        tokio::time::advance(ORDER_FAILED_TIME).await;
        let (entered, _) = world.enter(2, 0).unwrap();
        world.0.leave(entered, Err(&AppendError::OutOfOrderSequence));
        assert!(world.enter(2, 5).is_ok(), "an error that is final is the client's to mend");
    }
}
