//! Clients that read one partition from its start or from its tail, each record once and in order.

use std::sync::Arc;
use std::time::Duration;

use super::front::Front;
use super::harness::{Harness, begin_again, note_fetch};
use super::values::Place;
use crate::dice::Dice;

/// A client that reads one partition.
pub struct Consumer {
    harness: Arc<dyn Harness>,
    dice: Dice,
    process: u32,
    place: Place,
    from_start: bool,
}

impl Consumer {
    /// A client with the number `process`.
    pub fn new(harness: Arc<dyn Harness>, process: u32, place: Place, from_start: bool) -> Consumer {
        let dice = Dice::new(harness.env());
        Consumer { harness, dice, process, place, from_start }
    }

    /// Reads until the faults have ended and it has reached the end that the log had then.
    pub async fn run(self) {
        let mut next = if self.from_start { Some(0) } else { None };
        let mut goal = None;
        let mut front: Option<Box<dyn Front>> = None;
        loop {
            let mut way = match front.take() {
                Some(front) => front,
                None => self.harness.connect(self.process).await,
            };
            if next.is_none() {
                next = way.latest(self.place).await;
            }
            if self.harness.healed() && goal.is_none() {
                goal = way.latest(self.place).await;
            }
            let Some(from) = next else {
                // A broker may answer at once that it does not know. Without a pause the simulated clock would stand
                // still.
                tokio::time::sleep(self.dice.wait(Duration::from_millis(400))).await;
                continue;
            };
            if goal.is_some_and(|goal| goal <= from) {
                return;
            }
            if let Some(fetched) =
                note_fetch(&*self.harness, way.as_mut(), self.process, self.place, from).await
            {
                next = Some(fetched.next);
                front = Some(way);
                // Not on the last way to the end: going back would cost more the longer the log is.
                if self.from_start && goal.is_none() && self.dice.chance(10) {
                    next = Some(fetched.log_start);
                }
            } else if let Some(earliest) = begin_again(&*self.harness, way.as_mut(), self.place, from).await {
                next = Some(earliest);
                front = Some(way);
            }
            tokio::time::sleep(self.dice.wait(Duration::from_millis(400))).await;
        }
    }
}
