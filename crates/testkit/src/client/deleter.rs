//! The client that deletes records: those below some offset, or all that there are.

use std::sync::Arc;
use std::time::Duration;

use floe_wire::ErrorCode;
use floe_wire::offsets::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use tokio::time::sleep;

use super::front::Front;
use super::harness::Harness;
use super::kafka_front::KafkaFront;
use super::values::Place;
use crate::dice::Dice;
use crate::history::{Event, Phase};

/// Longest pause between two deletions.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Share of deletions of all records, in a thousand.
const ALL: u64 = 200;
/// Time for one request in the broker, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;

/// A client that deletes records of some partitions.
pub struct Deleter {
    harness: Arc<dyn Harness>,
    dice: Dice,
    process: u32,
    places: Vec<Place>,
}

impl Deleter {
    /// A client with the number `process`.
    pub fn new(harness: Arc<dyn Harness>, process: u32, places: Vec<Place>) -> Deleter {
        let dice = Dice::new(harness.env());
        Deleter { harness, dice, process, places }
    }

    /// Deletes until the faults have ended.
    pub async fn run(self) {
        let mut way: Option<KafkaFront> = None;
        while !self.harness.healed() {
            sleep(self.dice.between(Duration::from_millis(50), PAUSE_MAX)).await;
            let mut front = match way.take() {
                Some(front) => front,
                None => self.harness.dial(self.process).await,
            };
            let place = *self.dice.pick(&self.places);
            let Some(latest) = front.latest(place).await else { continue };
            let all = self.dice.chance(ALL);
            let upto = self.dice.within(0..latest.cast_unsigned() + 1).cast_signed();
            let answered = self.delete(&mut front, place, (!all).then_some(upto)).await;
            way = answered.then_some(front);
        }
    }

    /// Deletes once. Returns whether there was an answer.
    async fn delete(&self, way: &mut KafkaFront, place: Place, below: Option<i64>) -> bool {
        let event = |log_start| Event::DeleteRecords { partition: place.name(), below, log_start };
        let recorder = self.harness.recorder();
        let begun = recorder.invoke(self.process, way.broker(), event(None));
        let answer = way.call(&request(place, below)).await;
        let partition = answer.and_then(|mut answer| answer.topics.pop()?.partitions.pop());
        let code = partition.as_ref().map(|partition| ErrorCode::from_number(partition.error_code));
        match (code, partition) {
            (Some(ErrorCode::None), Some(partition)) => {
                recorder.end(begun, Phase::Ok, event(Some(partition.low_watermark)));
            }
            (Some(code), _) if !code.retriable() => {
                let (partition, reason) = (place.name(), code.name().to_owned());
                recorder.note(0, Event::Refused { partition, reason });
                recorder.end(begun, Phase::Info, event(None));
            }
            _ => recorder.end(begun, Phase::Info, event(None)),
        }
        code.is_some()
    }
}

fn request(place: Place, below: Option<i64>) -> DeleteRecordsRequest {
    let partition_index = i32::try_from(place.index).expect("a small index");
    let partition = DeleteRecordsPartition { partition_index, offset: below.unwrap_or(-1) };
    let topic = DeleteRecordsTopic { name: place.topic.to_owned(), partitions: vec![partition] };
    DeleteRecordsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS }
}
