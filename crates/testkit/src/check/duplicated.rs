//! Exactly once: a value has one offset if it was sent once, or sent again under idempotence. Only a client that
//! repeats a send without idempotence may find its value twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, History};

/// Reports values with two offsets.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let mut sends: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    let mut places: BTreeMap<&str, BTreeSet<(&str, i64)>> = BTreeMap::new();
    for operation in &operations {
        match operation.event {
            Event::Produce { values, once, .. } => {
                for value in values {
                    let send = sends.entry(value).or_insert((0, true));
                    *send = (send.0 + 1, send.1 && *once);
                }
            }
            Event::Fetch { partition, records, .. } | Event::Final { partition, records, .. } => {
                for (offset, value) in records {
                    places.entry(value).or_default().insert((partition, *offset));
                }
            }
            _ => {}
        }
    }
    let twice = places.into_iter().filter(|(value, places)| {
        let (count, once) = sends.get(value).copied().unwrap_or((1, true));
        places.len() > 1 && (once || count == 1)
    });
    twice.map(|(value, places)| format!("{value} has the offsets {places:?}")).collect()
}
