//! A statement sees one cut of the log: in each partition, every record up to some offset and none after it. Each JSON
//! record is exactly one row that shows it. The cut holds everything that was acknowledged before the statement began
//! (for the brokers that [`Facts`] bind). It is the same wherever the statement names the table.

use std::collections::BTreeMap;

use super::known::Facts;
use crate::history::{Answer, Event, FinalRead, History, Operation, Phase};
use crate::rows::{has_row, shows};

/// Reports answers that show no cut, or a cut of the past.
pub fn check(history: &History) -> Vec<String> {
    let (operations, finals) = (history.operations(), history.finals());
    let facts = Facts::of(&operations);
    let mut found = Vec::new();
    for operation in operations.iter().filter(|operation| operation.phase == Phase::Ok) {
        let Event::Query { topic, answer: Some(answer) } = operation.event else { continue };
        let what = match answer {
            Answer::Unmatched(0) => Vec::new(),
            Answer::Unmatched(count) => {
                vec![format!("{count} rows of {topic} are not in {topic} in the same statement")]
            }
            Answer::Rows(rows) => rows_of_cut(operation, topic, rows, &finals, &facts),
            Answer::Counts(counts) => counts_of_cut(operation, topic, counts, &finals, &facts),
        };
        let at = operation.invoke.at;
        found.extend(what.into_iter().map(|what| format!("asked after {at} ms: {what}")));
    }
    found
}

/// The partitions of the topic, with the records of the final read.
fn partitions<'a>(
    topic: &'a str,
    finals: &'a BTreeMap<&str, FinalRead<'_>>,
) -> impl Iterator<Item = (u32, &'a str, &'a FinalRead<'a>)> {
    finals.iter().filter_map(move |(name, read)| {
        let index = name.strip_prefix(topic)?.strip_prefix('/')?;
        Some((index.parse().ok()?, *name, read))
    })
}

fn rows_of_cut(
    operation: &Operation<'_>,
    topic: &str,
    rows: &[(u32, i64, String)],
    finals: &BTreeMap<&str, FinalRead<'_>>,
    facts: &Facts,
) -> Vec<String> {
    let mut shown: BTreeMap<(u32, i64), Vec<&str>> = BTreeMap::new();
    for (partition, offset, row) in rows {
        shown.entry((*partition, *offset)).or_default().push(row);
    }
    let mut found = Vec::new();
    for (index, name, read) in partitions(topic, finals) {
        let last = shown.range((index, i64::MIN)..=(index, i64::MAX)).next_back();
        let end = last.map_or(0, |((_, offset), _)| offset + 1).max(facts.bound(name, operation).0);
        for (offset, value) in read.records.iter().take_while(|(offset, _)| *offset < end) {
            let rows = shown.remove(&(index, *offset)).unwrap_or_default();
            match rows.as_slice() {
                [] if !has_row(value) => {}
                [] => found.push(format!("{name}@{offset}: {value} is not in the answer")),
                [row] if has_row(value) && shows(row, value) => {}
                [row] => found.push(format!("{name}@{offset}: {value} is {row}")),
                rows => found.push(format!("{name}@{offset}: {value} is there {} times", rows.len())),
            }
        }
    }
    let unknown =
        shown.keys().map(|(partition, offset)| format!("{topic}/{partition}@{offset} is not in the log"));
    found.extend(unknown);
    found
}

fn counts_of_cut(
    operation: &Operation<'_>,
    topic: &str,
    counts: &[(u32, i64, i64)],
    finals: &BTreeMap<&str, FinalRead<'_>>,
    facts: &Facts,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut left: Vec<u32> = counts.iter().map(|(index, ..)| *index).collect();
    for (index, name, read) in partitions(topic, finals) {
        let of_partition: Vec<_> = counts.iter().filter(|(other, ..)| *other == index).collect();
        left.retain(|other| *other != index);
        let (count, last) = match of_partition.as_slice() {
            [] => (0, -1),
            [(_, count, last)] => (*count, *last),
            more => {
                found.push(format!("{name} is there {} times", more.len()));
                continue;
            }
        };
        let end = (last + 1).max(facts.bound(name, operation).0);
        let good = read.records.iter().filter(|(offset, value)| *offset < end && has_row(value));
        let (wanted, newest) = good.fold((0, -1), |(count, _), (offset, _)| (count + 1, *offset));
        if (count, last) != (wanted, newest) {
            found.push(format!(
                "{name}: {count} rows up to offset {last}, but the log has {wanted} up to {newest}"
            ));
        }
    }
    found.extend(left.into_iter().map(|index| format!("{topic}/{index} is not in the log")));
    found
}
