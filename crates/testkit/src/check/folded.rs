//! A table over a compacted topic shows records that were written, each once and none beyond its progress. Where
//! compaction waits for it, it shows all of them: every record that was acknowledged, also those that a later one has
//! replaced since. Else it shows what was there when it read, and so the last row of each key is the last record: who
//! folds the rows has what the records fold to. Only a tombstone may have gone before, when its time was over.
//!
//! Records that a client deleted may be missing. A statement shows the table and the log behind it.

use std::collections::BTreeSet;

use super::keyed::{Known, Seen, ended};
use super::known::Facts;
use crate::history::{Event, History, Phase};
use crate::rows::is_marker;

/// Reports tables that are not the fold of the log.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let known = Known::of(&operations).without_markers();
    let facts = Facts::of(&operations);
    let mut found = Vec::new();
    for operation in operations.iter().filter(|operation| operation.phase == Phase::Ok) {
        let Event::KeyedRows { topic, rows, progress } = operation.event else { continue };
        let ended = ended(history, operation);
        let (least, _) = facts.bound(&format!("{topic}/0"), operation);
        let end = progress.unwrap_or(least.max(0));
        let seen = Seen { ended, log_start: known.log_start, end, records: rows };
        let mut what = known.strangers(ended.0, rows);
        what.extend(misplaced(&seen, progress.is_some()));
        what.extend(known.stale_for_a_slow_reader(&seen));
        if known.waits {
            let from = if known.deletes { known.log_start } else { 0 };
            let missing = known.missing(from, end, rows);
            what.extend(missing.into_iter().map(|what| format!("no row shows {what}")));
        }
        let at = operation.invoke.at;
        found.extend(what.into_iter().map(|what| format!("{topic} after {at} ms: {what}")));
    }
    found
}

/// Rows beyond the progress, rows of markers, and records with two rows.
fn misplaced(seen: &Seen<'_>, is_at_progress: bool) -> Vec<String> {
    let mut offsets = BTreeSet::new();
    let mut found = Vec::new();
    for (offset, key, _) in seen.records {
        if !offsets.insert(*offset) {
            found.push(format!("{offset} has two rows"));
        }
        if is_marker(key) {
            found.push(format!("{offset} is a marker, and has a row"));
        }
        if is_at_progress && *offset >= seen.end {
            found.push(format!("{offset} has a row, and the progress is {}", seen.end));
        }
    }
    found
}
