//! Group offsets survive and do not go back: a read after an acknowledged commit returns its offset or a later one. The
//! clients of a history commit rising offsets only. A commit with a lost answer may take effect at any time, so its
//! offset is a right answer too. A commit names a topic, not an incarnation. If the topic is deleted and created again
//! meanwhile, the commit may reach the new incarnation.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, History, Phase, without_incarnation};

/// Known facts about one group and the partitions of one name.
#[derive(Default)]
struct Known<'a> {
    /// Acknowledged commits: the line of the acknowledgement, the incarnation, the offset.
    acknowledged: Vec<(usize, &'a str, i64)>,
    /// Offsets of commits that may or may not take effect, with the line of the invocation.
    unknown: BTreeSet<(i64, usize)>,
    /// Every offset that was ever sent, with its incarnation.
    sent: BTreeSet<(&'a str, i64)>,
}

/// Reports answers that are older than an acknowledged commit.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let mut known: BTreeMap<(&str, String), Known<'_>> = BTreeMap::new();
    for operation in &operations {
        let Event::Commit { group, partition, offset } = operation.event else { continue };
        let entry = known.entry((group, without_incarnation(partition))).or_default();
        entry.sent.insert((partition, *offset));
        match (operation.phase, operation.ended) {
            (Phase::Ok, Some(ended)) => entry.acknowledged.push((ended, partition, *offset)),
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
        let Some(known) = known.get(&(group.as_str(), without_incarnation(partition))) else { continue };
        let before = |(line, of, _): &&(usize, &str, i64)| *line < operation.began && of == partition;
        let at_least = known.acknowledged.iter().filter(before).map(|(_, _, offset)| *offset).max();
        let answer = offset.unwrap_or(-1);
        let excused = known.unknown.iter().any(|(offset, began)| *offset == answer && *began < ended);
        if at_least.is_some_and(|at_least| answer < at_least) && !excused {
            found.push(format!("{group} {partition}: answered {answer} after {at_least:?} was acknowledged"));
        }
        let sent = |offset| known.sent.contains(&(partition, offset)) || excused;
        if offset.is_some_and(|offset| !sent(offset)) {
            found.push(format!("{group} {partition}: answered {answer}, which nobody committed"));
        }
    }
    found
}
