//! What retention and DeleteRecords took comes back as it was. A topic made of removed records has every offset that
//! was listed before, without a gap, and with the values that everybody else saw or was told.

use std::collections::BTreeMap;

use crate::history::{Event, History, Phase};

/// Reports removed records that came back incomplete or different.
pub fn check(history: &History) -> Vec<String> {
    let mut known: BTreeMap<(&str, i64), &str> = BTreeMap::new();
    for line in history.lines.iter().filter(|line| line.phase == Phase::Ok) {
        match &line.event {
            Event::Produce { partition, values, base: Some(base), .. } => {
                let told = (*base..).zip(values);
                known.extend(told.map(|(at, value)| ((partition.as_str(), at), value.as_str())));
            }
            Event::Fetch { partition, records, .. } | Event::Final { partition, records, .. } => {
                known.extend(records.iter().map(|(at, value)| ((partition.as_str(), *at), value.as_str())));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for line in &history.lines {
        let Event::CameBack { partition, listed, from, to, records, error } = &line.event else { continue };
        if let Some(error) = error {
            found.push(format!("{partition}: what came back of {listed:?} cannot be read: {error}"));
            continue;
        }
        // It may have grown since it was listed.
        if *from != listed.0 || *to < listed.1 || !records.iter().map(|(offset, _)| *offset).eq(*from..*to) {
            found.push(format!("{partition}: of {listed:?} came back {from} to {to} with {records:?}"));
        }
        for (offset, value) in records {
            match known.get(&(partition.as_str(), *offset)) {
                Some(known) if known != value => {
                    found.push(format!("{partition}@{offset} came back as {value}, and was {known}"));
                }
                _ => {}
            }
        }
    }
    found
}
