//! Offsets of a group survive and do not go back: whoever asks after a commit was acknowledged gets that offset or a
//! later one. The clients of a history commit rising offsets only. A commit whose answer was lost may take
//! effect at any time, so its offset is a right answer too.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, History, Phase};

/// What is known about one group and partition.
#[derive(Default)]
struct Known {
    /// Acknowledged offsets with the line of the acknowledgement.
    acknowledged: Vec<(usize, i64)>,
    /// Offsets whose commit may or may not take effect, with the line of their invocation.
    unknown: BTreeSet<(i64, usize)>,
    /// Every offset that was ever sent.
    sent: BTreeSet<i64>,
}

/// Says which answers are older than what was acknowledged.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let mut known: BTreeMap<(&str, &str), Known> = BTreeMap::new();
    for operation in &operations {
        let Event::Commit { group, partition, offset } = operation.event else { continue };
        let entry = known.entry((group, partition)).or_default();
        entry.sent.insert(*offset);
        match (operation.phase, operation.ended) {
            (Phase::Ok, Some(ended)) => entry.acknowledged.push((ended, *offset)),
            (Phase::Fail, _) => {}
            _ => {
                entry.unknown.insert((*offset, operation.began));
            }
        }
    }
    let mut found = Vec::new();
    for operation in &operations {
        let Event::Committed { group, partition, offset } = operation.event else { continue };
        let (Phase::Ok, Some(ended)) = (operation.phase, operation.ended) else { continue };
        let Some(known) = known.get(&(group.as_str(), partition.as_str())) else { continue };
        let before = known.acknowledged.iter().filter(|(line, _)| *line < operation.began);
        let at_least = before.map(|(_, offset)| *offset).max();
        let answer = offset.unwrap_or(-1);
        let excused = known.unknown.iter().any(|(offset, began)| *offset == answer && *began < ended);
        if at_least.is_some_and(|at_least| answer < at_least) && !excused {
            found.push(format!("{group} {partition}: answered {answer} after {at_least:?} was acknowledged"));
        }
        if offset.is_some_and(|offset| !known.sent.contains(&offset)) {
            found.push(format!("{group} {partition}: answered {answer}, which nobody committed"));
        }
    }
    found
}
