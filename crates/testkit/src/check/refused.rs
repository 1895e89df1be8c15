//! Refusals are retriable. While the journal is full, no new send is acknowledged. No refusal of a send is final,
//! because nothing is wrong with the sends of a history.

use std::collections::BTreeSet;

use crate::history::{Event, History, Phase};

/// Reports sends that were acknowledged without room, and sends that were refused for good.
pub fn check(history: &History) -> Vec<String> {
    let full = history.lines.iter().filter_map(|line| match line.event {
        Event::JournalFull { from, to } => Some((from, to)),
        _ => None,
    });
    let full: Vec<_> = full.collect();
    let mut found = Vec::new();
    let mut sent: BTreeSet<&str> = BTreeSet::new();
    for operation in history.operations() {
        match operation.event {
            Event::Produce { partition, values, .. } => {
                // A repeated send may be acknowledged for an earlier one.
                let fresh = values.iter().filter(|value| sent.insert(value)).count() == values.len();
                let ended = operation.ended.filter(|_| operation.phase == Phase::Ok && fresh);
                let Some(ended) = ended.map(|line| history.lines[line].at) else { continue };
                let began = operation.invoke.at;
                if full.iter().any(|(from, to)| *from < began && ended < *to) {
                    found.push(format!(
                        "{partition}: {values:?} acknowledged between {began} and {ended} ms, when the journal took \
                         nothing"
                    ));
                }
            }
            Event::Refused { partition, reason } => {
                found.push(format!("{partition}: a good send was refused for good: {reason}"));
            }
            _ => {}
        }
    }
    found
}
