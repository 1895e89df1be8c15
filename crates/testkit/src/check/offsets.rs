//! One offset, one record. All reads and acknowledgements of an offset agree about its value for ever. The final read
//! has every offset from the log start to the high watermark once. A read begins at the requested offset and has no
//! gap.

use std::collections::BTreeMap;

use crate::history::{Event, History, Phase, Seen};

/// Reports offsets with two values, and missing offsets.
pub fn check(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut values: BTreeMap<(&str, i64), &str> = BTreeMap::new();
    for operation in history.operations() {
        if operation.phase != Phase::Ok {
            continue;
        }
        match operation.event {
            Event::Produce { partition, values: sent, base: Some(base), .. } => {
                for (offset, value) in (*base..).zip(sent) {
                    agree(&mut values, partition, offset, value, &mut found);
                }
            }
            Event::Fetch { partition, from, records, high_watermark, .. } => {
                found.extend(gap(partition, *from, None, records));
                found.extend(beyond(partition, *high_watermark, records));
                for (offset, value) in records {
                    agree(&mut values, partition, *offset, value, &mut found);
                }
            }
            Event::Final { partition, log_start, high_watermark, records } => {
                found.extend(gap(partition, *log_start, Some(*high_watermark), records));
                for (offset, value) in records {
                    agree(&mut values, partition, *offset, value, &mut found);
                }
            }
            _ => {}
        }
    }
    found
}

fn agree<'a>(
    values: &mut BTreeMap<(&'a str, i64), &'a str>,
    partition: &'a str,
    offset: i64,
    value: &'a str,
    found: &mut Vec<String>,
) {
    let known = *values.entry((partition, offset)).or_insert(value);
    if known != value {
        found.push(format!("{partition}@{offset} was {known}, and then {value}"));
    }
}

/// The first gap in the offsets from `from` on, up to `end` if it is given.
fn gap(partition: &str, from: i64, end: Option<i64>, records: &[Seen]) -> Option<String> {
    let mut next = from;
    for (offset, value) in records {
        if *offset != next {
            return Some(format!("{partition}@{next} is missing or twice: {value} at {offset} follows"));
        }
        next += 1;
    }
    let end = end?;
    (next != end).then(|| format!("{partition}: read up to {next}, the high watermark is {end}"))
}

fn beyond(partition: &str, high_watermark: i64, records: &[Seen]) -> Option<String> {
    let (offset, value) = records.last()?;
    let what = || format!("{partition}@{offset}: {value} is beyond the high watermark {high_watermark}");
    (*offset >= high_watermark).then(what)
}
