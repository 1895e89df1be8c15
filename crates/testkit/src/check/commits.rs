//! The history of commits has every commit, in order. Its rows give each offset of a partition to one writer, and every
//! acknowledged send to the client that made it.

use std::collections::BTreeMap;

use crate::history::{CommitRow, Event, History, Phase};

/// Stands for whoever ended a transaction.
pub const MARKER: &str = "(marker)";

/// Reports commits that are missing, offsets that are missing or given twice, and sends of somebody else.
pub fn check(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for line in &history.lines {
        let Event::Commits { last, rows, wrong } = &line.event else { continue };
        if !wrong.is_empty() {
            found.extend(wrong.iter().map(|wrong| format!("the history of commits: {wrong}")));
            continue;
        }
        found.extend(order(*last, rows));
        let partitions = partitions(rows);
        found.extend(partitions.iter().flat_map(|(partition, rows)| dense(partition, rows)));
        found.extend(writers(history, rows));
    }
    found
}

/// Every commit has rows, and they are together.
fn order(last: u64, rows: &[CommitRow]) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = 0;
    for row in rows {
        if row.lsn != seen && row.lsn != seen + 1 {
            found.push(format!("the history has commit {} after {seen}", row.lsn));
        }
        seen = row.lsn;
    }
    if seen != last {
        found.push(format!("the history ends with commit {seen}, the last one is {last}"));
    }
    found
}

/// The rows of each partition, by the number of its topic: a topic may have had several names.
fn partitions(rows: &[CommitRow]) -> BTreeMap<&str, Vec<&CommitRow>> {
    let mut partitions: BTreeMap<&str, Vec<&CommitRow>> = BTreeMap::new();
    for row in rows {
        if let Some((_, partition)) = row.partition.as_ref().and_then(|partition| partition.split_once('#')) {
            partitions.entry(partition).or_default().push(row);
        }
    }
    partitions
}

/// Each offset is given once, in order.
fn dense(partition: &str, rows: &[&CommitRow]) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = 0;
    for row in rows {
        if row.base != next {
            found.push(format!("{partition}: commit {} appended at {}, {next} was due", row.lsn, row.base));
        }
        next = row.base + row.offsets.cast_signed();
    }
    found
}

/// What was acknowledged is of the client that sent it.
fn writers(history: &History, rows: &[CommitRow]) -> Vec<String> {
    let mut of_clients: BTreeMap<(String, &str), Vec<&CommitRow>> = BTreeMap::new();
    for row in rows {
        let Some((topic, rest)) = row.partition.as_ref().and_then(|partition| partition.split_once('#'))
        else {
            continue;
        };
        let index = rest.split_once('/').map_or("", |(_, index)| index);
        of_clients.entry((format!("{topic}/{index}"), &row.client)).or_default().push(row);
    }
    let mut found = Vec::new();
    for operation in history.operations().iter().filter(|operation| operation.phase == Phase::Ok) {
        let Event::Produce { partition, values, base: Some(base), .. } = operation.event else { continue };
        // Topics that are made anew have incarnations that this history does not know.
        if partition.contains('#') {
            continue;
        }
        let client = format!("client-{}", operation.invoke.process);
        let end = base + values.len() as i64;
        let covers = |row: &&CommitRow| row.base <= *base && end <= row.base + row.offsets.cast_signed();
        let is_covered = |client| {
            let rows = of_clients.get(&(partition.clone(), client));
            rows.is_some_and(|rows| rows.iter().any(&covers))
        };
        if !is_covered(client.as_str()) && !is_covered(MARKER) {
            found.push(format!("{partition}: no commit gave the offsets {base} to {end} to {client}"));
        }
    }
    found
}
