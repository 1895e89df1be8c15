//! The table is the log. Every offset from the log start to the view's progress is either one row that shows the
//! record, cell by cell, or one dead letter. Exactly the records that are not JSON are dead letters. No row is beyond
//! the progress.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, FinalRead, History};
use crate::rows::{is_bad, shows};

/// Reports offsets that are missing from the table, in it twice, or different.
pub fn check(history: &History) -> Vec<String> {
    let finals = history.finals();
    let mut found = Vec::new();
    for line in &history.lines {
        let Event::Rows { topic, rows, dead, progress } = &line.event else { continue };
        let mut shown: BTreeMap<(u32, i64), Vec<Option<&str>>> = BTreeMap::new();
        for (partition, offset, value) in rows {
            shown.entry((*partition, *offset)).or_default().push(Some(value));
        }
        for (partition, offset) in dead {
            shown.entry((*partition, *offset)).or_default().push(None);
        }
        for (partition, progress) in progress {
            let name = format!("{topic}/{partition}");
            let Some(read) = finals.get(name.as_str()) else { continue };
            compare(&name, *partition, *progress, read, &shown, &mut found);
        }
        let unknown: BTreeSet<u32> =
            shown.keys().map(|(p, _)| *p).filter(|p| !progress.contains_key(p)).collect();
        found.extend(unknown.into_iter().map(|p| format!("{topic}/{p} has rows and no progress")));
    }
    found
}

fn compare(
    name: &str,
    partition: u32,
    progress: i64,
    read: &FinalRead<'_>,
    shown: &BTreeMap<(u32, i64), Vec<Option<&str>>>,
    found: &mut Vec<String>,
) {
    for (offset, value) in read.records.iter().filter(|(offset, _)| *offset < progress) {
        match shown.get(&(partition, *offset)).map(Vec::as_slice) {
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
    let kept: BTreeSet<i64> = read.records.iter().map(|(offset, _)| *offset).collect();
    for ((_, offset), _) in shown.range((partition, i64::MIN)..=(partition, i64::MAX)) {
        if *offset >= progress {
            found.push(format!("{name}@{offset} is in the table, beyond the progress {progress}"));
        } else if *offset >= read.log_start && !kept.contains(offset) {
            found.push(format!("{name}@{offset} is in the table and not in the log"));
        }
    }
}
