//! A topic that is created again is another topic. A deleted topic is not read, not written to, and leaves nothing
//! behind. A topic that was created and not deleted exists. Each incarnation has an id of its own and begins at offset
//! 0.

use std::collections::{BTreeMap, BTreeSet};

use super::known::started;
use crate::history::{Event, History, Operation, Phase, incarnation, may_delete};

/// Reports topics that came back, vanished or left something behind.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let started = started(&operations);
    let (mut created, mut found) = (BTreeSet::new(), Vec::new());
    let mut deleted: BTreeMap<&str, (usize, u32)> = BTreeMap::new();
    for operation in &operations {
        match (operation.event, operation.phase, operation.ended) {
            (Event::CreateTopic { topic }, Phase::Ok, _) if !created.insert(topic.as_str()) => {
                found.push(format!("{topic} was created twice"));
            }
            (Event::DeleteTopic { topic }, Phase::Ok, Some(ended)) => {
                deleted.entry(topic).or_insert((ended, operation.invoke.broker));
            }
            (Event::Leftovers { what }, ..) => {
                found.extend(what.iter().map(|what| format!("{what} is left")));
            }
            _ => {}
        }
    }
    for operation in &operations {
        found.extend(back(operation, &deleted, &started));
        found.extend(begins_late(operation));
    }
    found.extend(vanished(history, &created, &operations));
    found
}

/// Answers for a topic that was deleted before. Every broker refuses writes to it. A broker beside the one that deleted
/// the topic may go on reading it for a while.
fn back(
    operation: &Operation<'_>,
    deleted: &BTreeMap<&str, (usize, u32)>,
    started: &BTreeMap<u32, usize>,
) -> Option<String> {
    let (partition, writes) = match operation.event {
        Event::Produce { partition, .. } => (partition, true),
        Event::Fetch { partition, .. } | Event::Final { partition, .. } => (partition, false),
        _ => return None,
    };
    let (line, by) = *deleted.get(incarnation(partition)?)?;
    let broker = operation.invoke.broker;
    let knows = broker == by || started.get(&broker).is_some_and(|start| line < *start);
    let back = operation.phase == Phase::Ok && line < operation.began && (writes || knows);
    let did = if writes { "written to" } else { "read" };
    back.then(|| format!("{partition} was {did} at {} ms, and deleted before", operation.invoke.at))
}

/// Nothing moves the log start of these partitions.
fn begins_late(operation: &Operation<'_>) -> Option<String> {
    match operation.event {
        Event::Fetch { partition, log_start, .. } | Event::Final { partition, log_start, .. } => {
            let late = operation.phase == Phase::Ok && incarnation(partition).is_some() && *log_start != 0;
            late.then(|| format!("{partition} begins at {log_start}"))
        }
        _ => None,
    }
}

/// Topics that were created, that nobody may have deleted, and that do not exist at the end.
fn vanished(history: &History, created: &BTreeSet<&str>, operations: &[Operation<'_>]) -> Vec<String> {
    let finals = history.finals();
    if finals.is_empty() {
        return Vec::new();
    }
    let there: BTreeSet<&str> = finals.keys().filter_map(|partition| incarnation(partition)).collect();
    let gone = created.iter().filter(|topic| !there.contains(*topic));
    gone.filter(|topic| !operations.iter().any(|operation| may_delete(operation, topic)))
        .map(|topic| format!("{topic} was created, not deleted, and is not there"))
        .collect()
}
