//! The client that ends transactions nobody began: it writes markers, which have no other user yet. In the history a
//! marker is a batch of one value.

use std::time::Duration;

use floe_log::extent::Outcome;
use floe_log::{PartitionId, marker, topic};
use floe_meta::{CommitError, Envelope, Tx};
use tokio::time::sleep;

use super::cluster::Cluster;
use super::plan::{PARTITIONS, PLAIN_TOPIC, TABLE_TOPIC};
use crate::client::{Harness, Place};
use crate::history::{Event, Phase};
use crate::rows::marker as marker_value;

/// The process number of this client.
const MARKER: u32 = 500;
/// Longest pause between two commits.
const PAUSE_MAX: Duration = Duration::from_millis(1_500);
/// The first producer. Each commit has one of its own, so that its markers have values of their own.
const PRODUCERS_FROM: i64 = 1 << 40;

/// Writes markers until the faults have ended.
pub(super) async fn run(cluster: Cluster) {
    let dice = cluster.dice();
    for producer in PRODUCERS_FROM.. {
        sleep(dice.wait(PAUSE_MAX)).await;
        if cluster.healed() {
            return;
        }
        let table = dice.chance(500);
        let topic = if table { TABLE_TOPIC } else { PLAIN_TOPIC };
        let outcome = if dice.chance(500) { Outcome::Commit } else { Outcome::Abort };
        // One partition, or all of them at once.
        let indexes = if dice.chance(300) { 0..PARTITIONS } else { 0..1 };
        let places = indexes.map(|index| Place { topic, table, index, incarnation: None });
        mark(&cluster, &places.collect::<Vec<_>>(), producer, outcome).await;
    }
}

async fn mark(cluster: &Cluster, places: &[Place], producer: i64, outcome: Outcome) {
    let running = cluster.broker().await;
    let log = running.log.clone();
    let snapshot = log.meta().snapshot();
    let Ok(Some(topic)) = topic::by_name(&snapshot, places[0].topic) else { return };
    let event = |place: &Place, base| Event::Produce {
        partition: place.name(),
        session: producer.cast_unsigned(),
        once: false,
        values: vec![marker_value(producer, outcome)],
        base,
    };
    let invoke = |place| cluster.recorder().invoke(MARKER, running.number, event(place, None));
    let begun: Vec<_> = places.iter().map(invoke).collect();
    let partitions: Vec<_> = places.iter().map(|place| PartitionId::new(topic.id, place.index)).collect();
    let work = move |tx: &mut Tx<'_>| marker::mark(tx, &partitions, (producer, 0), outcome);
    let commit = async move { log.meta().commit(Envelope::broker("markers"), work).await };
    let (phase, offsets) = match running.run(commit).await {
        Some(Ok(committed)) => (Phase::Ok, committed.reply.iter().map(|base| Some(base.0)).collect()),
        Some(Err(CommitError::Refused(_) | CommitError::NotApplied(_))) => (Phase::Fail, Vec::new()),
        Some(Err(CommitError::Unknown(_) | CommitError::Closed)) | None => (Phase::Info, Vec::new()),
    };
    for (at, (begun, place)) in begun.into_iter().zip(places).enumerate() {
        cluster.recorder().end(begun, phase, event(place, offsets.get(at).copied().flatten()));
    }
}
