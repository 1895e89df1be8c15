//! What clients do with deleted topics beyond Kafka's protocol: bring them back, or let them go for good.

use floe_log::Writer;
use floe_log::deleted::Which;
use floe_log::topic::TopicError;

use super::cluster::Cluster;
use crate::client::Harness;
use crate::client::values::topic_name;
use crate::history::{Event, Phase};

fn who(process: u32) -> Writer {
    Writer { principal: "anonymous".into(), client_id: format!("client-{process}").into() }
}

/// The phase of a call that failed.
fn failed(error: &TopicError) -> Phase {
    if matches!(error, TopicError::Unknown(_)) { Phase::Info } else { Phase::Fail }
}

/// Brings the topic back that was deleted last. Returns whether it did for certain.
pub(super) async fn undelete(cluster: &Cluster, process: u32, topic: &'static str) -> bool {
    let running = cluster.broker().await;
    let log = running.log.clone();
    let event = |topic: String| Event::UndeleteTopic { topic };
    let begun = cluster.recorder().invoke(process, running.number, event(topic.to_owned()));
    let which = Which::Name(topic.to_owned());
    let answer = running.run(async move { log.undelete_topic(&who(process), which, None).await }).await;
    let (phase, told) = match answer {
        Some(Ok(back)) => (Phase::Ok, topic_name(topic, Some(back.uuid().as_u128()))),
        Some(Err(error)) => (failed(&error), topic.to_owned()),
        None => (Phase::Info, topic.to_owned()),
    };
    cluster.recorder().end(begun, phase, event(told));
    phase == Phase::Ok
}

/// Lets all deleted topics go for good.
pub(super) async fn purge(cluster: &Cluster, process: u32) {
    let running = cluster.broker().await;
    let log = running.log.clone();
    let begun = cluster.recorder().invoke(process, running.number, Event::PurgeTopics);
    let answer = running.run(async move { log.purge_topics(&who(process), Which::All).await }).await;
    let phase = match answer {
        Some(Ok(_)) => Phase::Ok,
        Some(Err(error)) => failed(&error),
        None => Phase::Info,
    };
    cluster.recorder().end(begun, phase, Event::PurgeTopics);
}
