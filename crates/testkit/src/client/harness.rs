//! The world as a client sees it, and how the client notes its reads.

use std::time::Duration;

use async_trait::async_trait;
use floe_env::Env;

use crate::bug::Bug;
use crate::client::front::{Fetched, Front};
use crate::client::kafka_front::KafkaFront;
use crate::client::values::Place;
use crate::history::{Event, Phase};
use crate::recorder::Recorder;
use crate::rows::is_marker;

/// The world of a client.
#[async_trait]
pub trait Harness: Send + Sync {
    /// Clock, randomness and tasks of the clients.
    fn env(&self) -> &Env;

    /// Writes the history of the run.
    fn recorder(&self) -> &Recorder;

    /// Opens a Kafka connection to a broker that takes requests. Waits for such a broker.
    async fn dial(&self, process: u32) -> KafkaFront;

    /// A way to a broker, through the Kafka protocol or another one.
    async fn connect(&self, process: u32) -> Box<dyn Front> {
        Box::new(self.dial(process).await)
    }

    /// Whether the faults have ended. Then clients finish their work and return.
    fn healed(&self) -> bool;

    /// Longest pause of a producer between two windows.
    fn pause_max(&self) -> Duration;

    /// Whether records may be deleted. Then clients that fall behind go on where the partition begins.
    fn forgets(&self) -> bool {
        false
    }

    /// Brings the topic back that was deleted last under this name, and notes it. Returns whether it did for certain.
    async fn undelete(&self, _process: u32, _topic: &'static str) -> bool {
        false
    }

    /// Lets all deleted topics go for good, and notes it.
    async fn purge(&self, _process: u32) {}

    /// The planted bug of this run.
    fn bug(&self) -> Option<Bug> {
        None
    }
}

/// Reads from an offset on and notes it in the history.
pub(crate) async fn note_fetch(
    harness: &dyn Harness,
    front: &mut dyn Front,
    process: u32,
    place: Place,
    from: i64,
) -> Option<Fetched> {
    let event = |fetched: Option<&Fetched>| Event::Fetch {
        partition: place.name(),
        from,
        records: fetched.map(|f| f.records.clone()).unwrap_or_default(),
        high_watermark: fetched.map_or(0, |f| f.high_watermark),
        log_start: fetched.map_or(0, |f| f.log_start),
    };
    let begun = harness.recorder().invoke(process, front.broker(), event(None));
    let mut fetched = front.fetch(place, from).await;
    if fetched.is_none() && place.incarnation.is_some() && harness.bug() == Some(Bug::WireAnswersForDeleted) {
        fetched = Some(Fetched { records: Vec::new(), next: from, high_watermark: from, log_start: 0 });
    }
    if let Some(fetched) = &mut fetched {
        spoil(harness, fetched, from);
    }
    let phase = if fetched.is_some() { Phase::Ok } else { Phase::Info };
    harness.recorder().end(begun, phase, event(fetched.as_ref()));
    fetched
}

/// Where a reader goes on whose offset may have been deleted; none if it was not, or nobody answers.
pub(crate) async fn begin_again(
    harness: &dyn Harness,
    front: &mut dyn Front,
    place: Place,
    from: i64,
) -> Option<i64> {
    if !harness.forgets() {
        return None;
    }
    front.earliest(place).await.filter(|earliest| *earliest > from)
}

/// The read after the planted bug has touched it.
fn spoil(harness: &dyn Harness, fetched: &mut Fetched, from: i64) {
    let dice = crate::dice::Dice::new(harness.env());
    match harness.bug() {
        Some(Bug::WireShiftsOffsets) if dice.chance(20) => {
            for (offset, _) in &mut fetched.records {
                *offset += 1;
            }
        }
        Some(Bug::WireShowsMarkers) => {
            for (_, value) in fetched.records.iter_mut().filter(|(_, value)| is_marker(value)) {
                // What a client would take for a record with this value.
                value.insert_str(0, "record of ");
            }
        }
        Some(Bug::WireStaleWatermark) if dice.chance(20) => {
            fetched.records.clear();
            fetched.next = from;
            fetched.high_watermark = from;
        }
        _ => {}
    }
}
