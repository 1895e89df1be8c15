//! Clients that read a partition of a topic that is deleted and created again. They read each incarnation from its
//! start. They commit their offsets for a group without being members of it.

use std::sync::Arc;
use std::time::Duration;

use floe_wire::ErrorCode;
use floe_wire::group_offsets::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use tokio::time::sleep;

use super::front::Front;
use super::harness::{Harness, note_fetch};
use super::values::Place;
use crate::dice::Dice;
use crate::history::{Event, Phase};

/// The group of their commits.
pub(crate) const GROUP: &str = "followers";

/// A client that follows one partition through the incarnations of its topic.
pub struct Follower {
    harness: Arc<dyn Harness>,
    dice: Dice,
    process: u32,
    place: Place,
    commits: bool,
}

impl Follower {
    /// A client with the number `process`. `commits` says whether it commits its offsets.
    pub fn new(harness: Arc<dyn Harness>, process: u32, place: Place, commits: bool) -> Follower {
        let dice = Dice::new(harness.env());
        Follower { harness, dice, process, place, commits }
    }

    /// Reads until the faults have ended and it is at the end of the topic, if the topic exists.
    pub async fn run(self) {
        let mut front: Option<Box<dyn Front>> = None;
        let mut at: Option<(Place, i64)> = None;
        let mut sure = false;
        loop {
            sleep(self.dice.wait(Duration::from_millis(400))).await;
            let mut way = match front.take() {
                Some(front) => front,
                None => self.harness.connect(self.process).await,
            };
            let healed = self.harness.healed();
            if !sure {
                let Some(now) = way.incarnation(self.place.topic).await else { continue };
                if now.is_none() && healed {
                    return;
                }
                let place = now.map(|id| Place { incarnation: Some(id), ..self.place });
                let same = |(before, _): &(Place, i64)| Some(*before) == place;
                at = at.filter(same).or_else(|| place.map(|place| (place, 0)));
                sure = true;
            }
            let Some((place, from)) = at else {
                sure = false;
                front = Some(way);
                continue;
            };
            match note_fetch(&*self.harness, way.as_mut(), self.process, place, from).await {
                Some(fetched) => {
                    let next = fetched.next;
                    at = Some((place, next));
                    if self.commits && self.dice.chance(200) {
                        self.commit(place, next).await;
                    }
                    if healed && next >= fetched.high_watermark {
                        return;
                    }
                    front = Some(way);
                }
                // The connection is gone, or the incarnation is.
                None => sure = false,
            }
        }
    }

    /// A commit names the topic, not its incarnation. The incarnation is certain if it is the same before and after the
    /// commit.
    async fn commit(&self, place: Place, offset: i64) {
        let mut way = self.harness.dial(self.process).await;
        if way.incarnation(place.topic).await.flatten() != place.incarnation {
            return;
        }
        let event = || Event::Commit { group: GROUP.to_owned(), partition: place.name(), offset };
        let recorder = self.harness.recorder();
        let begun = recorder.invoke(self.process, way.broker(), event());
        let answer = way.call(&request(place, offset)).await;
        let partition = answer.and_then(|mut answer| answer.topics.pop()?.partitions.pop());
        let code = partition.map(|partition| ErrorCode::from_number(partition.error_code));
        let after = way.incarnation(place.topic).await;
        let phase = match code {
            Some(ErrorCode::None) if after == Some(place.incarnation) => Phase::Ok,
            Some(ErrorCode::UnknownTopicOrPartition) => Phase::Fail,
            _ => Phase::Info,
        };
        recorder.end(begun, phase, event());
    }
}

fn request(place: Place, committed_offset: i64) -> OffsetCommitRequest {
    let partition_index = i32::try_from(place.index).expect("a small index");
    let partition = OffsetCommitRequestPartition { partition_index, committed_offset, ..Default::default() };
    let topic = OffsetCommitRequestTopic { name: place.topic.to_owned(), partitions: vec![partition] };
    OffsetCommitRequest {
        group_id: GROUP.to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}
