//! Clients that write. An idempotent producer repeats every batch, in order, until it is acknowledged. A plain producer
//! sends every batch once, whatever happens to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::front::{Front, Sent};
use super::harness::Harness;
use super::values::{Place, batch, draw};
use crate::bug::Bug;
use crate::dice::Dice;
use crate::history::{Event, Phase};
use crate::recorder::Begun;

/// Most batches of a partition in flight: five, as in Kafka's clients and in the sequencer's memory.
const WINDOW_MAX: u64 = 5;
/// Most records of one batch.
const BATCH_RECORDS_MAX: u64 = 4;

/// A batch with its records that is not acknowledged yet.
struct Outgoing {
    place: Place,
    values: Vec<String>,
    bytes: Bytes,
    sends: u32,
}

/// The state of an idempotent producer in one partition.
struct Lane {
    epoch: i16,
    /// The sequence number of the next record.
    next: i32,
}

/// A client that writes.
pub struct Producer {
    harness: Arc<dyn Harness>,
    dice: Dice,
    process: u32,
    places: Vec<Place>,
    /// Partitions of the topic that is deleted and created again, with the last id that it was seen with.
    fleeting: Vec<Place>,
    incarnation: Option<u128>,
    idempotent: bool,
    session: u64,
    values: u64,
    /// The producer id and its newest epoch.
    identity: Option<(i64, i16)>,
    lanes: BTreeMap<Place, Lane>,
    outgoing: VecDeque<Outgoing>,
    front: Option<Box<dyn Front>>,
}

impl Producer {
    /// A client with the number `process` that writes to these partitions.
    pub fn new(harness: Arc<dyn Harness>, process: u32, places: Vec<Place>, idempotent: bool) -> Producer {
        Producer {
            dice: Dice::new(harness.env()),
            harness,
            process,
            places,
            fleeting: Vec::new(),
            incarnation: None,
            idempotent,
            session: 0,
            values: 0,
            identity: None,
            lanes: BTreeMap::new(),
            outgoing: VecDeque::new(),
            front: None,
        }
    }

    /// Adds partitions of the topic that is deleted and created again.
    #[must_use]
    pub fn with_fleeting(self, fleeting: Vec<Place>) -> Producer {
        Producer { fleeting, ..self }
    }

    /// Writes until the faults have ended and one more window was acknowledged after that.
    pub async fn run(mut self) {
        let mut acknowledged_healed = false;
        while !acknowledged_healed {
            let healed = self.harness.healed();
            if self.outgoing.is_empty() {
                tokio::time::sleep(self.dice.wait(self.harness.pause_max())).await;
            }
            let Some(mut front) = self.connect().await else {
                // A refusal may take no time. Without a pause the simulated clock would stand still.
                tokio::time::sleep(self.dice.wait(Duration::from_millis(200))).await;
                continue;
            };
            self.fill(front.as_mut()).await;
            let fine = self.send(front.as_mut()).await;
            if fine {
                self.front = Some(front);
                if !self.outgoing.is_empty() {
                    // Clients back off after a refusal. A refusal may take no time, as above.
                    tokio::time::sleep(self.dice.wait(Duration::from_millis(200))).await;
                }
            } else {
                // The next sends use another connection, where their order relative to these sends is unknown.
                tokio::time::sleep(self.dice.wait(Duration::from_millis(200))).await;
                self.session += u64::from(!self.idempotent);
            }
            acknowledged_healed = healed && fine && self.outgoing.is_empty();
        }
    }

    /// Connects to a broker, and gets an identity if this producer needs one.
    async fn connect(&mut self) -> Option<Box<dyn Front>> {
        let mut front = match self.front.take() {
            Some(front) => front,
            None => self.harness.connect(self.process).await,
        };
        if self.idempotent && self.identity.is_none() {
            self.identity = Some(front.producer_id().await?);
            self.lanes.clear();
            self.session += 1;
        }
        Some(front)
    }

    async fn fill(&mut self, front: &mut dyn Front) {
        if !self.outgoing.is_empty() {
            return;
        }
        for _ in 0..self.dice.within(1..WINDOW_MAX + 1) {
            let Some(place) = self.place(front).await else { continue };
            let count = self.dice.within(1..BATCH_RECORDS_MAX + 1);
            let values: Vec<String> = (0..count).map(|_| self.value(place)).collect();
            let bytes = self.build(place, &values);
            self.outgoing.push_back(Outgoing { place, values, bytes, sends: 0 });
        }
    }

    /// A partition to write to, or none if its topic does not exist.
    async fn place(&mut self, front: &mut dyn Front) -> Option<Place> {
        if self.fleeting.is_empty() || self.dice.chance(600) {
            return Some(*self.dice.pick(&self.places));
        }
        let place = *self.dice.pick(&self.fleeting);
        if self.incarnation.is_none() {
            self.incarnation = front.incarnation(place.topic).await.flatten();
        }
        Some(Place { incarnation: Some(self.incarnation?), ..place })
    }

    /// Builds the next batch of a partition.
    fn build(&mut self, place: Place, values: &[String]) -> Bytes {
        let producer = self.identity.map(|(id, epoch)| {
            let lane = self.lanes.entry(place).or_insert(Lane { epoch, next: 0 });
            let sequence = lane.next;
            lane.next += i32::try_from(values.len()).expect("a small batch");
            (id, lane.epoch, sequence)
        });
        batch(&self.dice, self.harness.env().now().0, values, producer)
    }

    /// Gives up the batches in flight to a partition that does not exist, or that this broker does not know yet.
    /// Earlier sends may still be appended there, so later batches get a new epoch, apart from them.
    fn give_up(&mut self, place: Place) {
        self.outgoing.retain(|batch| batch.place != place);
        self.incarnation = None;
        if let Some((_, epoch)) = &mut self.identity {
            *epoch += 1;
            self.lanes.remove(&place);
        }
    }

    fn value(&mut self, place: Place) -> String {
        self.values += 1;
        draw(&self.dice, &format!("p{}-{}", self.process, self.values), place.table)
    }

    /// Sends every batch that is not acknowledged. Returns whether the connection is still good.
    async fn send(&mut self, front: &mut dyn Front) -> bool {
        let recorder = self.harness.recorder().clone();
        let mut begun = Vec::new();
        let mut sends = Vec::new();
        for outgoing in &mut self.outgoing {
            let event = event(outgoing, self.session, self.idempotent, None);
            begun.push(recorder.invoke(self.process, front.broker(), event));
            let forget = self.harness.bug() == Some(Bug::WireForgetsProducer) && outgoing.sends > 0;
            let bytes = if forget { without_producer(&outgoing.bytes) } else { outgoing.bytes.clone() };
            sends.push((outgoing.place, bytes));
            outgoing.sends += 1;
        }
        let swaps = self.harness.bug() == Some(Bug::WireSwapsSends) && sends.len() > 1 && !self.idempotent;
        if swaps {
            sends.reverse();
        }
        let mut answers = front.produce(sends).await;
        if swaps {
            answers.reverse();
        }
        if self.harness.bug() == Some(Bug::WireRefusesForGood) {
            let refused = answers.iter_mut().filter(|answer| matches!(answer, Sent::NotApplied(_)));
            refused.for_each(|answer| *answer = Sent::Final("planted".to_owned()));
        }
        assert_eq!(answers.len(), begun.len(), "every send is answered");
        self.settle(begun, answers)
    }

    /// Takes the answers of one window. Returns whether the connection is still good.
    fn settle(&mut self, begun: Vec<Begun>, answers: Vec<Sent>) -> bool {
        let mut good = true;
        let (mut missing, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for ((outgoing, begun), answer) in
            std::mem::take(&mut self.outgoing).into_iter().zip(begun).zip(answers)
        {
            let (phase, base) = match &answer {
                Sent::Appended(base) => (Phase::Ok, Some(*base)),
                Sent::Final(_) | Sent::Unknown(_) => (Phase::Info, None),
                Sent::NotApplied(_) | Sent::OutOfOrder | Sent::Fenced | Sent::Gone => (Phase::Fail, None),
            };
            let ended = event(&outgoing, self.session, self.idempotent, base);
            self.harness.recorder().end(begun, phase, ended);
            self.judge(&answer, outgoing.place, missing.contains(&outgoing.place));
            good &= !matches!(answer, Sent::Final(_) | Sent::Unknown(_));
            if answer == Sent::Gone {
                gone.insert(outgoing.place);
            }
            if phase != Phase::Ok {
                missing.insert(outgoing.place);
                if self.idempotent {
                    self.outgoing.push_back(outgoing);
                }
            }
        }
        if self.idempotent && self.identity.is_none() {
            // The batches in flight belong to the identity that is gone, so they are given up.
            self.outgoing.clear();
        }
        gone.into_iter().for_each(|place| self.give_up(place));
        good
    }

    /// Notes answers that a correct broker never gives to this client.
    fn judge(&mut self, answer: &Sent, place: Place, after_a_missing_one: bool) {
        if let Sent::Final(reason) = answer {
            let (partition, reason) = (place.name(), reason.clone());
            self.harness.recorder().note(0, Event::Refused { partition, reason });
        }
        let stuck =
            |what: &str| self.harness.recorder().stuck(format!("{}: a producer is {what}", place.name()));
        match answer {
            Sent::Fenced => {
                stuck("fenced, although nobody else has its id");
                self.identity = None;
            }
            Sent::OutOfOrder if !after_a_missing_one => stuck("out of order, although it left no gap"),
            _ => {}
        }
    }
}

fn event(outgoing: &Outgoing, session: u64, once: bool, base: Option<i64>) -> Event {
    let (partition, values) = (outgoing.place.name(), outgoing.values.clone());
    Event::Produce { partition, session, once, values, base }
}

/// The same records in a batch without a producer.
fn without_producer(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[43..57].fill(0xff);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}
