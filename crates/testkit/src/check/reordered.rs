//! Order: values that one process sends to one partition in one session are read in the order of their sends. A value
//! with an unknown outcome may be missing, but never out of place.

use std::collections::BTreeMap;

use crate::history::{Event, History};

/// Process, session and partition.
type Lane<'a> = (u32, u64, &'a str);

/// Reports values that stand before a value sent earlier.
pub fn check(history: &History) -> Vec<String> {
    let mut sent: BTreeMap<&str, (Lane<'_>, usize)> = BTreeMap::new();
    let mut count = 0;
    for line in &history.lines {
        let Event::Produce { partition, session, values, .. } = &line.event else { continue };
        for value in values {
            count += 1;
            // The first send gives the order. A repeated send has the same sequence numbers.
            sent.entry(value).or_insert(((line.process, *session, partition), count));
        }
    }
    let mut found = Vec::new();
    for (partition, read) in history.finals() {
        let mut last: BTreeMap<Lane<'_>, (usize, &str)> = BTreeMap::new();
        for (offset, value) in read.records {
            let Some((lane, order)) = sent.get(value.as_str()).copied() else { continue };
            if let Some((before, other)) = last.insert(lane, (order, value))
                && before > order
            {
                found.push(format!(
                    "{partition}@{offset}: {value} stands after {other}, but was sent before it"
                ));
            }
        }
    }
    found
}
