//! A topic that is created again is another topic. A deleted topic is not read, not written to, and leaves nothing
//! behind, unless it comes back: then it is the same topic. A topic that was created or came back, and was not deleted
//! since, exists. Each incarnation has an id of its own and begins at offset 0.

use std::collections::{BTreeMap, BTreeSet};

use super::known::started;
use crate::history::{Event, History, Operation, Phase, incarnation, may_delete, may_undelete};

/// Reports topics that came back, vanished or left something behind.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let started = started(&operations);
    let (mut created, mut found) = (BTreeSet::new(), Vec::new());
    let mut deleted: BTreeMap<&str, Vec<Deletion>> = BTreeMap::new();
    for operation in &operations {
        match (operation.event, operation.phase, operation.ended) {
            (Event::CreateTopic { topic }, Phase::Ok, _) if !created.insert(topic.as_str()) => {
                found.push(format!("{topic} was created twice"));
            }
            (Event::DeleteTopic { topic }, Phase::Ok, Some(ended)) => {
                let (began, broker) = (operation.began, operation.invoke.broker);
                let one = Deletion { began, ended, broker, back: Vec::new() };
                deleted.entry(topic).or_default().push(one);
            }
            (Event::Leftovers { what }, ..) => {
                found.extend(what.iter().map(|what| format!("{what} is left")));
            }
            _ => {}
        }
    }
    for (topic, deletions) in &mut deleted {
        for deletion in deletions {
            let undone = operations.iter().filter(|one| may_undelete(one, topic));
            // An answer that never came may be that of a call that took effect at any time.
            let later = undone.filter(|one| one.phase != Phase::Ok || one.ended > Some(deletion.began));
            deletion.back.extend(later.map(|one| one.began));
        }
    }
    for operation in &operations {
        found.extend(back(operation, &deleted, &started));
        found.extend(begins_late(operation));
    }
    found.extend(vanished(history, &created, &operations));
    found
}

/// A deletion that was acknowledged: its lines, and the broker.
struct Deletion {
    began: usize,
    ended: usize,
    broker: u32,
    /// The lines from which on the topic may be back.
    back: Vec<usize>,
}

/// Answers for a topic that was deleted before, and is not back. Every broker refuses writes to it. A broker beside the
/// one that deleted the topic may go on reading it for a while.
fn back(
    operation: &Operation<'_>,
    deleted: &BTreeMap<&str, Vec<Deletion>>,
    started: &BTreeMap<u32, usize>,
) -> Option<String> {
    let (partition, writes) = match operation.event {
        Event::Produce { partition, .. } => (partition, true),
        Event::Fetch { partition, .. } | Event::Final { partition, .. } => (partition, false),
        _ => return None,
    };
    let broker = operation.invoke.broker;
    let ended = operation.ended.unwrap_or(usize::MAX);
    let back = deleted.get(incarnation(partition)?)?.iter().any(|deletion| {
        let line = deletion.ended;
        let knows = broker == deletion.broker || started.get(&broker).is_some_and(|start| line < *start);
        let is_back = deletion.back.iter().any(|line| *line < ended);
        operation.phase == Phase::Ok && line < operation.began && (writes || knows) && !is_back
    });
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

/// Topics that were created or came back, that nobody may have deleted since, and that do not exist at the end.
fn vanished(history: &History, created: &BTreeSet<&str>, operations: &[Operation<'_>]) -> Vec<String> {
    let finals = history.finals();
    if finals.is_empty() {
        return Vec::new();
    }
    let there: BTreeSet<&str> = finals.keys().filter_map(|partition| incarnation(partition)).collect();
    let gone = created.iter().filter(|topic| !there.contains(*topic));
    gone.filter(|topic| {
        let is_back = |one: &&Operation<'_>| one.phase == Phase::Ok && may_undelete(one, topic);
        let back = operations.iter().filter(is_back).map(|one| one.began).max();
        // A deletion without an answer may have taken effect at any time.
        let since =
            |one: &Operation<'_>| one.phase != Phase::Ok || back.is_none_or(|back| one.ended > Some(back));
        !operations.iter().any(|operation| may_delete(operation, topic) && since(operation))
    })
    .map(|topic| format!("{topic} was created or came back, was not deleted since, and is not there"))
    .collect()
}
