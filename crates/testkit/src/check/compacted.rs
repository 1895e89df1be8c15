//! A compacted topic means what all of its records mean: of each key the last record is there. A tombstone may be gone
//! when its time is over, and then no older record of its key is there. What is there of a key is the end of its
//! history, without a gap. The newest record of the partition stays. Records keep their offsets.

use super::keyed::{Known, Seen, ended};
use crate::history::{Event, History, Phase};

/// Reports reads that lack a record, or have one that should be gone.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let known = Known::of(&operations);
    let mut found = Vec::new();
    for operation in operations.iter().filter(|operation| operation.phase == Phase::Ok) {
        let Event::Keys { log_start, high_watermark, records, .. } = operation.event else { continue };
        let ended = ended(history, operation);
        let seen = Seen { ended, log_start: *log_start, end: *high_watermark, records };
        let mut what = Known::disorder(records);
        what.extend(known.strangers(ended.0, records));
        what.extend(outside(&seen));
        what.extend(known.stale(&seen));
        what.extend(known.gaps(&seen));
        let at = operation.invoke.at;
        found.extend(what.into_iter().map(|what| format!("read after {at} ms: {what}")));
    }
    found
}

/// Records outside of the log, and the newest one, if it is not there.
fn outside(seen: &Seen<'_>) -> Vec<String> {
    let is_outside = |offset: i64| offset < seen.log_start || offset >= seen.end;
    let mut found: Vec<String> = seen
        .records
        .iter()
        .filter(|(offset, _, _)| is_outside(*offset))
        .map(|(offset, _, _)| format!("{offset} is there, in a log from {} to {}", seen.log_start, seen.end))
        .collect();
    let last = seen.records.last().map(|(offset, _, _)| *offset);
    if seen.end > seen.log_start && last != Some(seen.end - 1) {
        found.push(format!("the newest record, at {}, is not there", seen.end - 1));
    }
    found
}
