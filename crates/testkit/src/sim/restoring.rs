//! The client that brings back what retention and DeleteRecords took of a topic, as topics of their own. It reads each
//! of them whole, and deletes it.

use std::ops::Range;
use std::time::Duration;

use floe_log::deleted::{self, Deleted, Which};
use floe_log::{Log, PartitionId, TopicId, Writer, removed};
use tokio::time::sleep;

use super::cluster::Cluster;
use super::holding::{Whole, read_whole};
use super::plan::PLAIN_TOPIC;
use crate::client::{Harness, Place};
use crate::history::Event;

/// Longest pause between two topics that come back.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Partitions of one part of removed records.
const PARTITIONS_MAX: usize = 100;

/// Brings parts of removed records back until the faults have ended, and one more.
pub(super) async fn run(cluster: Cluster) {
    let dice = cluster.dice();
    for number in 0_u32.. {
        sleep(dice.wait(PAUSE_MAX)).await;
        let healed = cluster.healed();
        let running = cluster.broker().await;
        let all = deleted::all(&running.log.meta().snapshot()).expect("deleted topics can be read");
        let parts: Vec<Deleted> = all.into_iter().filter(|one| one.removed.is_some()).collect();
        if !parts.is_empty() {
            let (part, log) = (dice.pick(&parts).clone(), running.log.clone());
            let name = format!("{PLAIN_TOPIC}-{number}");
            let events = running.run(async move { come_back(&log, &part, name).await }).await;
            let events = events.unwrap_or_default();
            events.into_iter().for_each(|event| cluster.recorder().note(running.number, event));
        }
        if healed {
            return;
        }
    }
}

/// What was found in each partition that lost records; nothing if it is not certain that they came back.
async fn come_back(log: &Log, part: &Deleted, name: String) -> Vec<Event> {
    let snapshot = log.meta().snapshot();
    let ranges = removed::ranges(&snapshot, part.topic.id, PARTITIONS_MAX).expect("they can be read");
    let who = Writer { principal: "anonymous".into(), client_id: "restorer".into() };
    let which = Which::Id(part.topic.name.clone(), part.topic.uuid());
    let Ok(back) = log.undelete_topic(&who, which, Some(name)).await else { return Vec::new() };
    let mut events = Vec::new();
    for range in ranges {
        events.extend(read(log, back.id, range.partition, range.from.0..range.to.0).await);
    }
    // Whoever dies before this leaves the topic behind.
    let _ = log.delete_topic(&who, back.id).await;
    events
}

async fn read(log: &Log, back: TopicId, index: u32, listed: Range<i64>) -> Option<Event> {
    let Whole { from, to, records, error, is_answered } =
        read_whole(log, &log.pin(), PartitionId::new(back, index)).await?;
    let partition = Place { topic: PLAIN_TOPIC, table: false, index, incarnation: None }.name();
    let listed = (listed.start, listed.end);
    is_answered.then_some(Event::CameBack { partition, listed, from, to, records, error })
}
