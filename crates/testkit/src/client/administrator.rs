//! The client that creates a topic, waits, deletes it, and creates it again under the same name. Where deleted topics
//! can come back, it also brings the last one back, or lets all of them go for good. It goes on whatever happens to its
//! answers.

use std::sync::Arc;
use std::time::Duration;

use floe_wire::ErrorCode;
use floe_wire::admin::{
    CreatableTopic, CreatableTopicConfig, CreatableTopicResult, CreateTopicsRequest, DeletableTopicResult,
    DeleteTopicState, DeleteTopicsRequest,
};
use tokio::time::sleep;
use uuid::Uuid;

use super::front::Front;
use super::harness::Harness;
use super::kafka_front::KafkaFront;
use super::values::topic_name;
use crate::dice::Dice;
use crate::history::{Event, Phase};

/// Longest time that the topic exists, or does not exist.
const LIFE_MAX: Duration = Duration::from_secs(3);
/// Steps while the faults last. The number is small because each deleted table means a thousand objects to delete.
const STEPS_MAX: u32 = 8;
/// Time for one request in the broker, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;
/// Share of deleted topics, in a thousand, that come back if they can.
const BACK: u64 = 950;
/// Share of the others, in a thousand, before which all deleted topics go for good.
const PURGED: u64 = 200;
/// Most steps after the faults have ended.
const LAST_STEPS_MAX: u64 = 3;

/// A client that creates and deletes one topic.
pub struct Administrator {
    harness: Arc<dyn Harness>,
    dice: Dice,
    process: u32,
    topic: &'static str,
    partitions: u32,
    configs: Vec<(&'static str, &'static str)>,
}

impl Administrator {
    /// A client with the number `process`.
    pub fn new(
        harness: Arc<dyn Harness>,
        process: u32,
        topic: &'static str,
        partitions: u32,
        configs: Vec<(&'static str, &'static str)>,
    ) -> Administrator {
        let dice = Dice::new(harness.env());
        Administrator { harness, dice, process, topic, partitions, configs }
    }

    /// Creates and deletes until the faults have ended, and then takes a few more steps.
    pub async fn run(self) {
        let mut left = self.dice.within(0..LAST_STEPS_MAX);
        let (mut way, mut steps): (Option<KafkaFront>, u32) = (None, 0);
        loop {
            sleep(self.dice.between(Duration::from_millis(50), LIFE_MAX)).await;
            let healed = self.harness.healed();
            if healed && left == 0 {
                return;
            }
            if !healed && steps == STEPS_MAX {
                continue;
            }
            let mut front = match way.take() {
                Some(front) => front,
                None => self.harness.dial(self.process).await,
            };
            let done = match front.incarnation(self.topic).await {
                Some(Some(id)) => self.delete(&mut front, id).await,
                Some(None) => self.come_back(&mut front).await,
                None => None,
            };
            match done {
                Some(true) if healed => left -= 1,
                Some(true) => steps += 1,
                _ => {}
            }
            way = done.map(|_| front);
        }
    }

    /// Brings the topic back or creates it. Returns as [`Administrator::create`].
    async fn come_back(&self, way: &mut KafkaFront) -> Option<bool> {
        let can = self.configs.iter().any(|(name, _)| *name == "floe.trash.ms");
        if can && self.dice.chance(BACK) && self.harness.undelete(self.process, self.topic).await {
            return Some(true);
        }
        if can && self.dice.chance(PURGED) {
            self.harness.purge(self.process).await;
        }
        self.create(way).await
    }

    /// Creates the topic. Returns whether this call did it, or none without an answer.
    async fn create(&self, way: &mut KafkaFront) -> Option<bool> {
        let config = |(name, value): &(&str, &str)| {
            let (name, value) = ((*name).to_owned(), Some((*value).to_owned()));
            CreatableTopicConfig { name, value }
        };
        let topic = CreatableTopic {
            name: self.topic.to_owned(),
            num_partitions: i32::try_from(self.partitions).expect("few partitions"),
            replication_factor: -1,
            configs: self.configs.iter().map(config).collect(),
            ..CreatableTopic::default()
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() };
        let event = |topic| Event::CreateTopic { topic };
        let recorder = self.harness.recorder();
        let begun = recorder.invoke(self.process, way.broker(), event(self.topic.to_owned()));
        let answer = way.call(&request).await.and_then(|mut answer| answer.topics.pop());
        let answer = answer.map(|answer: CreatableTopicResult| (answer.error_code, answer.topic_id));
        let (phase, topic) = self.judge(answer);
        recorder.end(begun, phase, event(topic));
        answer.map(|_| phase == Phase::Ok)
    }

    /// Deletes the topic by name, as old tools do, or by id. Returns whether this call did it, or none without an
    /// answer.
    async fn delete(&self, way: &mut KafkaFront, id: u128) -> Option<bool> {
        let by_name = self.dice.chance(300);
        let (state, topic) = if by_name {
            let name = Some(self.topic.to_owned());
            (DeleteTopicState { name, ..Default::default() }, self.topic.to_owned())
        } else {
            let topic_id = Uuid::from_u128(id);
            (DeleteTopicState { topic_id, ..Default::default() }, topic_name(self.topic, Some(id)))
        };
        let request =
            DeleteTopicsRequest { topics: vec![state], timeout_ms: TIMEOUT_MS, ..Default::default() };
        let event = |topic| Event::DeleteTopic { topic };
        let recorder = self.harness.recorder();
        let begun = recorder.invoke(self.process, way.broker(), event(topic));
        let answer = way.call(&request).await.and_then(|mut answer| answer.responses.pop());
        let answer = answer.map(|answer: DeletableTopicResult| (answer.error_code, answer.topic_id));
        let (phase, deleted) = self.judge(answer);
        recorder.end(begun, phase, event(deleted));
        answer.map(|_| phase == Phase::Ok)
    }

    /// How the call ended, and the incarnation that it was about, as far as that is known.
    fn judge(&self, answer: Option<(i16, Uuid)>) -> (Phase, String) {
        let unknown = topic_name(self.topic, None);
        let Some((code, id)) = answer else { return (Phase::Info, unknown) };
        match ErrorCode::from_number(code) {
            ErrorCode::None => (Phase::Ok, topic_name(self.topic, Some(id.as_u128()))),
            // Another call was first, or this one was certainly not applied.
            ErrorCode::TopicAlreadyExists
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::NotController => (Phase::Fail, unknown),
            code => {
                if !code.retriable() {
                    let (partition, reason) = (unknown.clone(), code.name().to_owned());
                    self.harness.recorder().note(0, Event::Refused { partition, reason });
                }
                (Phase::Info, unknown)
            }
        }
    }
}
