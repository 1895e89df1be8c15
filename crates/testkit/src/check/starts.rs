//! The log start moves for a reason. After every commit, the extents of a partition are those of its readable offsets.
//! Retention takes what the topic does not keep. Where no retention is, the log start is an offset up to which a client
//! deleted records. A deletion that was acknowledged reaches its offset.

use std::collections::BTreeSet;

use crate::history::{Event, History, Operation, Phase};

/// Reports log starts without a reason, and extents that are not those of the readable offsets.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let (mut found, mut retained) = (Vec::new(), BTreeSet::new());
    for operation in &operations {
        if let Event::Extents { what, retained: topics } = operation.event {
            found.extend(what.iter().cloned());
            retained.extend(topics.iter().map(String::as_str));
        }
    }
    for operation in operations.iter().filter(|operation| operation.phase == Phase::Ok) {
        match operation.event {
            Event::DeleteRecords { partition, below: Some(below), log_start: Some(start) }
                if start < below =>
            {
                found.push(format!("{partition}: deleted below {below}, and it begins at {start}"));
            }
            Event::Final { partition, log_start, .. } => {
                found.extend(unasked(&operations, partition, *log_start, &retained));
            }
            Event::Keys { topic, log_start, .. } => {
                found.extend(unasked(&operations, &format!("{topic}/0"), *log_start, &retained));
            }
            _ => {}
        }
    }
    found
}

/// A log start without a reason: no retention is there, and nobody deleted records up to it.
fn unasked(
    operations: &[Operation<'_>],
    partition: &str,
    log_start: i64,
    retained: &BTreeSet<&str>,
) -> Option<String> {
    let topic = partition.rsplit_once('/').map_or(partition, |(topic, _)| topic);
    let asked = |operation: &Operation<'_>| match operation.event {
        Event::DeleteRecords { partition: of, below, .. } => {
            of == partition && below.is_none_or(|below| below == log_start)
        }
        _ => false,
    };
    let is_unasked = log_start > 0 && !retained.contains(topic) && !operations.iter().any(asked);
    is_unasked.then(|| format!("{partition} begins at {log_start}, and nobody deleted records up to there"))
}
