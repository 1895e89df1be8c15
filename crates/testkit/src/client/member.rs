//! Members of a consumer group of the classic protocol. They join, share the partitions, read on from the group's
//! offsets and commit. They come back after the broker died or threw them out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_wire::ErrorCode;
use floe_wire::group_offsets::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
};
use floe_wire::groups::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, LeaveGroupRequest,
    MemberIdentity, SyncGroupRequest, SyncGroupRequestAssignment,
};
use tokio::time::sleep;

use super::front::{Fetched, Front};
use super::harness::{Harness, begin_again, note_fetch};
use super::kafka_front::KafkaFront;
use super::values::Place;
use crate::dice::Dice;
use crate::history::{Event, Phase};

/// The group of all members of a run.
pub(crate) const GROUP: &str = "readers";
const SESSION_TIMEOUT_MS: i32 = 6_000;
const REBALANCE_TIMEOUT_MS: i32 = 3_000;

/// Why a member must start over.
enum Over {
    /// The connection or the broker is gone.
    Connection,
    /// The generation is over.
    Generation,
}

/// A member of the group.
pub struct Member {
    harness: Arc<dyn Harness>,
    dice: Dice,
    process: u32,
    places: Vec<Place>,
    member_id: String,
    generation: i32,
    positions: BTreeMap<Place, i64>,
}

impl Member {
    /// A member with the number `process`. The group reads these partitions.
    pub fn new(harness: Arc<dyn Harness>, process: u32, places: Vec<Place>) -> Member {
        let dice = Dice::new(harness.env());
        let (member_id, positions) = (String::new(), BTreeMap::new());
        Member { harness, dice, process, places, member_id, generation: -1, positions }
    }

    /// Reads and commits until the faults have ended and it has committed the end of its partitions.
    pub async fn run(mut self) {
        loop {
            let mut way = self.harness.dial(self.process).await;
            if self.session(&mut way).await {
                return;
            }
            sleep(self.dice.wait(Duration::from_millis(300))).await;
        }
    }

    /// Runs all generations on one connection. Returns true when the member is done.
    async fn session(&mut self, way: &mut KafkaFront) -> bool {
        loop {
            match self.generation(way).await {
                Ok(()) => return true,
                Err(Over::Generation) => sleep(self.dice.wait(Duration::from_millis(100))).await,
                Err(Over::Connection) => return false,
            }
        }
    }

    async fn generation(&mut self, way: &mut KafkaFront) -> Result<(), Over> {
        let joined = self.join(way).await?;
        let mine = self.sync(way, &joined).await?;
        let found = note_committed(&*self.harness, way, self.process, GROUP, &mine).await;
        let position = |place: &Place| Some((*place, found.get(place)?.unwrap_or(0)));
        let positions: Option<BTreeMap<Place, i64>> = mine.iter().map(position).collect();
        self.positions = positions.ok_or(Over::Connection)?;
        loop {
            // Taken before the reads: records written later are for a later round.
            let healed = self.harness.healed();
            let mut behind = false;
            for place in &mine {
                let from = self.positions[place];
                let fetched = note_fetch(&*self.harness, way, self.process, *place, from).await;
                if fetched.is_none()
                    && let Some(earliest) = begin_again(&*self.harness, way, *place, from).await
                {
                    self.positions.insert(*place, earliest);
                    behind = true;
                    continue;
                }
                let fetched: Fetched = fetched.ok_or(Over::Connection)?;
                let next = fetched.next;
                behind |= next < fetched.high_watermark;
                self.positions.insert(*place, next);
            }
            self.commit(way, &mine).await?;
            if healed && !behind {
                return self.leave(way).await;
            }
            self.heartbeat(way).await?;
            sleep(self.dice.wait(Duration::from_millis(500))).await;
        }
    }

    async fn join(&mut self, way: &mut KafkaFront) -> Result<JoinGroupResponse, Over> {
        let protocol =
            JoinGroupRequestProtocol { name: "own".to_owned(), metadata: Bytes::from_static(b"any") };
        let request = JoinGroupRequest {
            group_id: GROUP.to_owned(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: self.member_id.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol],
            ..Default::default()
        };
        let joined = way.call(&request).await.ok_or(Over::Connection)?;
        match ErrorCode::from_number(joined.error_code) {
            ErrorCode::None => {
                self.member_id.clone_from(&joined.member_id);
                self.generation = joined.generation_id;
                Ok(joined)
            }
            ErrorCode::MemberIdRequired => {
                self.member_id = joined.member_id;
                Err(Over::Generation)
            }
            code => Err(self.over(code)),
        }
    }

    /// The leader assigns the partitions, and every member gets its share.
    async fn sync(&mut self, way: &mut KafkaFront, joined: &JoinGroupResponse) -> Result<Vec<Place>, Over> {
        let count = joined.members.len().max(1);
        let share = |(number, member): (usize, &floe_wire::groups::JoinGroupResponseMember)| {
            let indexes = (0..self.places.len()).filter(|index| index % count == number);
            let assignment: Vec<u8> =
                indexes.map(|index| u8::try_from(index).expect("few partitions")).collect();
            SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: Bytes::from(assignment),
            }
        };
        let request = SyncGroupRequest {
            group_id: GROUP.to_owned(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("own".to_owned()),
            assignments: joined.members.iter().enumerate().map(share).collect(),
            ..Default::default()
        };
        let synced = way.call(&request).await.ok_or(Over::Connection)?;
        self.check(synced.error_code)?;
        Ok(synced.assignment.iter().map(|index| self.places[usize::from(*index)]).collect())
    }

    async fn commit(&mut self, way: &mut KafkaFront, mine: &[Place]) -> Result<(), Over> {
        let recorder = self.harness.recorder().clone();
        let event = |place: &Place| Event::Commit {
            group: GROUP.to_owned(),
            partition: place.name(),
            offset: self.positions[place],
        };
        let begun: Vec<_> =
            mine.iter().map(|place| recorder.invoke(self.process, way.broker(), event(place))).collect();
        let response = way.call(&self.offset_commit(mine)).await;
        let mut over = None;
        for (place, begun) in mine.iter().zip(begun) {
            let code = response.as_ref().map(|response| code_of(response, place));
            let phase = match code {
                Some(ErrorCode::None) => Phase::Ok,
                Some(
                    ErrorCode::IllegalGeneration
                    | ErrorCode::UnknownMemberId
                    | ErrorCode::RebalanceInProgress
                    | ErrorCode::NotCoordinator,
                ) => Phase::Fail,
                _ => Phase::Info,
            };
            recorder.end(begun, phase, event(place));
            match code {
                Some(ErrorCode::None) => {}
                Some(code) => over = Some(code),
                None => return Err(Over::Connection),
            }
        }
        over.map_or(Ok(()), |code| Err(self.over(code)))
    }

    fn offset_commit(&self, mine: &[Place]) -> OffsetCommitRequest {
        let topic = |place: &Place| OffsetCommitRequestTopic {
            name: place.topic.to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: i32::try_from(place.index).expect("a small index"),
                committed_offset: self.positions[place],
                ..Default::default()
            }],
        };
        OffsetCommitRequest {
            group_id: GROUP.to_owned(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.clone(),
            topics: mine.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    async fn heartbeat(&mut self, way: &mut KafkaFront) -> Result<(), Over> {
        let request = HeartbeatRequest {
            group_id: GROUP.to_owned(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            ..Default::default()
        };
        let response = way.call(&request).await.ok_or(Over::Connection)?;
        self.check(response.error_code)
    }

    async fn leave(&mut self, way: &mut KafkaFront) -> Result<(), Over> {
        let member = MemberIdentity { member_id: self.member_id.clone(), ..Default::default() };
        let request =
            LeaveGroupRequest { group_id: GROUP.to_owned(), members: vec![member], ..Default::default() };
        way.call(&request).await.map(drop).ok_or(Over::Connection)
    }

    fn check(&mut self, code: i16) -> Result<(), Over> {
        match ErrorCode::from_number(code) {
            ErrorCode::None => Ok(()),
            code => Err(self.over(code)),
        }
    }

    fn over(&mut self, code: ErrorCode) -> Over {
        match code {
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => {
                self.member_id.clear();
                Over::Generation
            }
            ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress => Over::Generation,
            _ => Over::Connection,
        }
    }
}

/// Asks for the group's offsets of these partitions and notes the answers. Partitions missing in the result had no
/// answer.
pub(crate) async fn note_committed(
    harness: &dyn Harness,
    way: &mut KafkaFront,
    process: u32,
    group: &str,
    places: &[Place],
) -> BTreeMap<Place, Option<i64>> {
    let recorder = harness.recorder();
    let event = |place: &Place, offset| {
        let (group, partition) = (group.to_owned(), place.name());
        Event::Committed { group, partition, offset }
    };
    let begun: Vec<_> =
        places.iter().map(|place| recorder.invoke(process, way.broker(), event(place, None))).collect();
    let response = way.call(&offset_fetch(group, places)).await;
    let mut found = BTreeMap::new();
    for (place, begun) in places.iter().zip(begun) {
        match response.as_ref().and_then(|response| stored(response, place)) {
            Some(offset) => {
                let offset = (offset >= 0).then_some(offset);
                recorder.end(begun, Phase::Ok, event(place, offset));
                found.insert(*place, offset);
            }
            None => recorder.end(begun, Phase::Info, event(place, None)),
        }
    }
    found
}

fn offset_fetch(group: &str, mine: &[Place]) -> OffsetFetchRequest {
    let topic = |place: &Place| OffsetFetchRequestTopics {
        name: place.topic.to_owned(),
        partition_indexes: vec![i32::try_from(place.index).expect("a small index")],
    };
    let topics = Some(mine.iter().map(topic).collect());
    let group = OffsetFetchRequestGroup { group_id: group.to_owned(), topics, ..Default::default() };
    OffsetFetchRequest { groups: vec![group], ..Default::default() }
}

/// The stored offset of a partition, or -1 if there is none. Returns none if the answer does not tell.
fn stored(response: &OffsetFetchResponse, place: &Place) -> Option<i64> {
    let group = response.groups.first().filter(|group| group.error_code == 0)?;
    let topics = group.topics.iter().filter(|topic| topic.name == place.topic);
    let mut partitions = topics.flat_map(|topic| &topic.partitions);
    let partition =
        partitions.find(|partition| i64::from(partition.partition_index) == i64::from(place.index))?;
    (partition.error_code == 0).then_some(partition.committed_offset)
}

fn code_of(response: &OffsetCommitResponse, place: &Place) -> ErrorCode {
    let topics = response.topics.iter().filter(|topic| topic.name == place.topic);
    let mut partitions = topics.flat_map(|topic| &topic.partitions);
    let partition =
        partitions.find(|partition| i64::from(partition.partition_index) == i64::from(place.index));
    partition.map_or(ErrorCode::UnknownServerError, |partition| ErrorCode::from_number(partition.error_code))
}
