//! The table is the log. Every offset from the log start to the view's progress is either one row that shows the
//! record, cell by cell, or one dead letter. Exactly the records that are not JSON are dead letters. Markers are
//! neither. No row is beyond the progress. Rows stay when their records leave the log: what was acknowledged below the
//! log start is a row, too, or a dead letter.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, FinalRead, History, Phase};
use crate::rows::{is_bad, is_marker, shows};

/// By partition and offset, the rows of the table, and `None` for each dead letter.
type Shown<'a> = BTreeMap<(u32, i64), Vec<Option<&'a str>>>;

/// Reports offsets that are missing from the table, in it twice, or different.
pub fn check(history: &History) -> Vec<String> {
    let (finals, acknowledged) = (history.finals(), acknowledged(history));
    let mut found = Vec::new();
    for line in &history.lines {
        let Event::Rows { topic, rows, dead, progress } = &line.event else { continue };
        let mut shown = Shown::new();
        for (partition, offset, value) in rows {
            shown.entry((*partition, *offset)).or_default().push(Some(value));
        }
        for (partition, offset) in dead {
            shown.entry((*partition, *offset)).or_default().push(None);
        }
        for (partition, progress) in progress {
            let name = format!("{topic}/{partition}");
            let Some(read) = finals.get(name.as_str()) else { continue };
            let gone = acknowledged
                .get(name.as_str())
                .into_iter()
                .flat_map(|records| records.range(..read.log_start));
            let there = read.records.iter().map(|(offset, value)| (*offset, value.as_str()));
            let records = gone.map(|(offset, value)| (*offset, *value)).chain(there);
            compare(&name, *partition, records.filter(|(at, _)| at < progress), &shown, &mut found);
            beyond(&name, *partition, *progress, read, &shown, &mut found);
        }
        let unknown: BTreeSet<u32> =
            shown.keys().map(|(p, _)| *p).filter(|p| !progress.contains_key(p)).collect();
        found.extend(unknown.into_iter().map(|p| format!("{topic}/{p} has rows and no progress")));
    }
    found
}

/// The values of acknowledged sends, by partition and offset.
fn acknowledged(history: &History) -> BTreeMap<&str, BTreeMap<i64, &str>> {
    let mut found: BTreeMap<&str, BTreeMap<i64, &str>> = BTreeMap::new();
    for line in history.lines.iter().filter(|line| line.phase == Phase::Ok) {
        if let Event::Produce { partition, values, base: Some(base), .. } = &line.event {
            found.entry(partition).or_default().extend((*base..).zip(values.iter().map(String::as_str)));
        }
    }
    found
}

/// Compares the records below the progress with what the table shows of them.
fn compare<'a>(
    name: &str,
    partition: u32,
    records: impl Iterator<Item = (i64, &'a str)>,
    shown: &Shown<'_>,
    found: &mut Vec<String>,
) {
    for (offset, value) in records {
        match shown.get(&(partition, offset)).map(Vec::as_slice) {
            None if is_marker(value) => {}
            Some(_) if is_marker(value) => {
                found.push(format!("{name}@{offset}: the marker {value} is in the table"));
            }
            None => found.push(format!("{name}@{offset}: {value} is not in the table")),
            Some([None]) if is_bad(value) => {}
            Some([None]) => found.push(format!("{name}@{offset}: {value} is JSON and a dead letter")),
            Some([Some(row)]) if !is_bad(value) && shows(row, value) => {}
            Some([Some(row)]) => found.push(format!("{name}@{offset}: {value} is {row} in the table")),
            Some(rows) => {
                found.push(format!("{name}@{offset}: {value} is {} times in the table", rows.len()));
            }
        }
    }
}

/// Looks for rows that the log does not have, or not yet.
fn beyond(
    name: &str,
    partition: u32,
    progress: i64,
    read: &FinalRead<'_>,
    shown: &Shown<'_>,
    found: &mut Vec<String>,
) {
    let kept: BTreeSet<i64> = read.records.iter().map(|(offset, _)| *offset).collect();
    for ((_, offset), _) in shown.range((partition, i64::MIN)..=(partition, i64::MAX)) {
        if *offset >= progress {
            found.push(format!("{name}@{offset} is in the table, beyond the progress {progress}"));
        } else if *offset >= read.log_start && !kept.contains(offset) {
            found.push(format!("{name}@{offset} is in the table and not in the log"));
        }
    }
}
