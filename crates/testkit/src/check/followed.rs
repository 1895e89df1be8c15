//! Whoever follows a compacted topic from its start to its end, in many reads, knows what all of its records mean: the
//! last record of each key is the last that it met. It meets records in the order of their offsets. So of each key it
//! meets some of the history, in order, to the end. What is compacted on its way, and which broker answers, makes no
//! difference. Only a tombstone may be gone before it comes there, when its time is over.

use super::keyed::{Known, Seen, ended};
use crate::history::{Event, History, Phase};

/// Reports followers that know something else than the log.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let known = Known::of(&operations);
    let mut found = Vec::new();
    for operation in operations.iter().filter(|operation| operation.phase == Phase::Ok) {
        let Event::Followed { log_start, high_watermark, records, .. } = operation.event else { continue };
        let ended = ended(history, operation);
        let seen = Seen { ended, log_start: *log_start, end: *high_watermark, records };
        let mut what = Known::disorder(records);
        what.extend(known.strangers(ended.0, records));
        what.extend(known.stale_for_a_slow_reader(&seen));
        let at = operation.invoke.at;
        found.extend(what.into_iter().map(|what| format!("followed from {at} ms on: {what}")));
    }
    found
}
