//! No loss: the final read finds every value of an `ok` produce at its acknowledged offset. Exceptions are offsets
//! before the log start (retention) and topics that may have been deleted.

use std::collections::BTreeMap;

use crate::history::{Event, History, Phase, incarnation, may_delete};

/// Reports acknowledged values that cannot be read.
pub fn check(history: &History) -> Vec<String> {
    let finals = history.finals();
    if finals.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let operations = history.operations();
    let deleted = |partition: &str| {
        incarnation(partition).is_some_and(|topic| operations.iter().any(|one| may_delete(one, topic)))
    };
    for operation in &operations {
        let Event::Produce { partition, values, base: Some(base), .. } = operation.event else { continue };
        if operation.phase != Phase::Ok {
            continue;
        }
        let Some(read) = finals.get(partition.as_str()) else {
            if deleted(partition) {
                continue;
            }
            found.push(format!("{partition} was written and never read at the end"));
            continue;
        };
        let readable: BTreeMap<i64, &str> = read.records.iter().map(|(o, v)| (*o, v.as_str())).collect();
        for (offset, value) in (*base..).zip(values) {
            if offset >= read.log_start && readable.get(&offset) != Some(&value.as_str()) {
                let there = readable.get(&offset).copied().unwrap_or("nothing");
                found.push(format!("{partition}@{offset}: acknowledged {value}, found {there}"));
            }
        }
    }
    found
}
