//! The audit: all records, all objects and all rows after the faults have ended.

use std::time::Duration;

use floe_log::topic;
use tokio::time::sleep;

mod commits;
mod leftovers;
mod objects;
mod starts;
mod table;

use super::cluster::Cluster;
use super::compacting;
use super::log_front::{earliest, fetch};
use super::plan::{FLEETING_TOPIC, Plan, TABLE_TOPIC};
use super::sql;
use crate::client::member::note_committed;
use crate::client::{Harness, Place, follower, member};
use crate::history::{Event, Seen};

/// The process number of the auditor.
const AUDITOR: u32 = 900;
/// After this many failed reads in a row without any fault, the final read of a partition ends.
const FAILURES_MAX: u32 = 20;

/// Writes the last lines of the history.
pub(crate) async fn run(cluster: &Cluster) {
    // Everything must come from the store and the journal, nothing from the memory of a broker.
    cluster.restart().await;
    table::catch_up(cluster).await;
    cluster.audit();
    let fleeting = fleeting(cluster).await;
    for place in Plan::places().iter().chain(&fleeting) {
        read_all(cluster, *place).await;
    }
    read_offsets(cluster, member::GROUP, &Plan::places()).await;
    read_offsets(cluster, follower::GROUP, &fleeting).await;
    if cluster.plan().table {
        table::rows(cluster, TABLE_TOPIC, None).await;
    }
    if let Some(place) = fleeting.first().filter(|place| place.table) {
        table::rows(cluster, place.topic, place.incarnation).await;
    }
    if cluster.plan().compacted.is_some_and(|topic| topic.table.is_some()) {
        table::keyed_rows(cluster).await;
    }
    if cluster.asks() {
        sql::ask_all(cluster).await;
    }
    if cluster.plan().compacted.is_some() {
        compacting::read_at_last(cluster).await;
    }
    // Meanwhile leases of dead brokers expire, and the cleaners have their rounds.
    sleep(cluster.plan().cleaning()).await;
    if cluster.plan().compacted.is_some() {
        compacting::read_at_last(cluster).await;
    }
    leftovers::look(cluster).await;
    starts::look(cluster).await;
    commits::look(cluster).await;
    objects::look(cluster).await;
}

/// The partitions of the topic that is deleted and created again, if it exists now.
async fn fleeting(cluster: &Cluster) -> Vec<Place> {
    let mut places = cluster.plan().fleeting_places();
    let snapshot = cluster.broker().await.log.meta().snapshot();
    let topic = topic::by_name(&snapshot, FLEETING_TOPIC).expect("a topic can be read");
    let incarnation = topic.map(|topic| topic.uuid().as_u128());
    places.retain(|_| incarnation.is_some());
    places.iter_mut().for_each(|place| place.incarnation = incarnation);
    places
}

/// Reads the committed offsets of a group.
async fn read_offsets(cluster: &Cluster, group: &str, places: &[Place]) {
    for _ in 0..FAILURES_MAX {
        let mut way = cluster.dial(AUDITOR).await;
        if note_committed(cluster, &mut way, AUDITOR, group, places).await.len() == places.len() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    cluster.recorder().stuck("the offsets of groups cannot be read".to_owned());
}

/// Reads a partition from its start to its end.
async fn read_all(cluster: &Cluster, place: Place) {
    let mut records: Vec<Seen> = Vec::new();
    let (mut next, mut failures) = (0, 0);
    let (mut log_start, mut high_watermark) = (0, 0);
    let mut broker = 0;
    while failures < FAILURES_MAX {
        let running = cluster.broker().await;
        broker = running.number;
        let log = running.log.clone();
        let read = async move { (fetch(&log, place, next).await, earliest(&log, place)) };
        let (fetched, begins) = running.run(read).await.unwrap_or_default();
        let Some(fetched) = fetched else {
            // Retention goes on meanwhile.
            next = next.max(begins.unwrap_or(0));
            failures += 1;
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        failures = 0;
        (log_start, high_watermark) = (fetched.log_start, fetched.high_watermark);
        next = fetched.next;
        records.extend(fetched.records);
        if next >= high_watermark {
            break;
        }
    }
    records.retain(|(offset, _)| *offset >= log_start);
    let partition = place.name();
    cluster.recorder().note(broker, Event::Final { partition, log_start, high_watermark, records });
}
