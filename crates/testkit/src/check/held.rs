//! A pinned snapshot keeps its records. Whoever reads it late, under retention, deletions, merges and cleaners, finds
//! every offset that it has, with the values that everybody else saw.

use std::collections::BTreeMap;

use crate::history::{Event, History, Phase};

/// Reports records of pinned snapshots that are gone or different.
pub fn check(history: &History) -> Vec<String> {
    let mut known: BTreeMap<(&str, i64), &str> = BTreeMap::new();
    for line in history.lines.iter().filter(|line| line.phase == Phase::Ok) {
        match &line.event {
            Event::Fetch { partition, records, .. } | Event::Final { partition, records, .. } => {
                known.extend(records.iter().map(|(at, value)| ((partition.as_str(), *at), value.as_str())));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for line in &history.lines {
        let Event::Held { partition, from, to, records, error } = &line.event else { continue };
        if let Some(error) = error {
            found.push(format!("{partition}: a pinned snapshot cannot be read: {error}"));
            continue;
        }
        if !records.iter().map(|(offset, _)| *offset).eq(*from..*to) {
            found.push(format!("{partition}: a pinned snapshot of {from} to {to} has {records:?}"));
        }
        for (offset, value) in records {
            match known.get(&(partition.as_str(), *offset)) {
                Some(known) if known != value => {
                    found.push(format!("{partition}@{offset} is {value} in a pinned snapshot, and {known}"));
                }
                _ => {}
            }
        }
    }
    found
}
