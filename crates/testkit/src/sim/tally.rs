//! What happened in a run, in numbers that add up over runs.

use std::collections::BTreeMap;

use floe_history::map::Part;
use floe_lake::map::Progress;
use floe_log::extent::Extent;
use floe_meta::{Entry, MapRecord};

use crate::history::{Event, History, Phase};

/// Names and numbers.
pub type Tally = BTreeMap<&'static str, u64>;

/// Counts what the commits of a journal did.
pub(super) fn of_commits(entries: &[Entry]) -> Tally {
    let mut tally = Tally::new();
    let mut add = |what, count| *tally.entry(what).or_default() += count;
    add("commits", entries.len() as u64);
    for entry in entries {
        let has = |kind| entry.changes.iter().any(|change| change.key.first() == Some(&kind));
        let cause = entry.envelope.cause.as_deref().unwrap_or_default();
        let moved = match cause {
            "merge" => Some("merges"),
            "compaction" => Some("compactions"),
            "retention" => Some("removals by retention"),
            "delete records" => Some("removals by a client"),
            _ => None,
        };
        if let Some(moved) = moved.filter(|_| has(Extent::KIND)) {
            add(moved, 1);
        }
        add("steps of tables", u64::from(has(Progress::KIND)));
        add("parts of the history", u64::from(has(Part::KIND)));
    }
    tally
}

/// Counts what the clients of a run did.
pub(super) fn of_history(history: &History) -> Tally {
    let mut tally = Tally::new();
    for line in history.lines.iter().filter(|line| line.phase == Phase::Ok) {
        let (what, count) = match &line.event {
            Event::Produce { values, .. } => ("acknowledged records", values.len() as u64),
            Event::Put { records, .. } => ("acknowledged records", records.len() as u64),
            Event::Fetch { .. } | Event::Keys { .. } | Event::Followed { .. } | Event::Final { .. } => {
                ("reads", 1)
            }
            Event::Commit { .. } => ("commits of groups", 1),
            Event::Crashed => ("crashes", 1),
            Event::DeleteTopic { .. } => ("topics deleted", 1),
            Event::UndeleteTopic { .. } => ("topics that came back", 1),
            Event::CameBack { .. } => ("removed records that came back", 1),
            Event::Query { .. } | Event::KeyedRows { progress: None, .. } => ("statements", 1),
            Event::Rows { rows, .. } => ("rows of tables compared", rows.len() as u64),
            Event::KeyedRows { rows, .. } => ("rows of tables compared", rows.len() as u64),
            _ => continue,
        };
        *tally.entry(what).or_default() += count;
    }
    tally
}

/// Adds a tally to another one.
pub fn add(sum: &mut Tally, more: &Tally) {
    more.iter().for_each(|(what, count)| *sum.entry(what).or_default() += count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Line;

    #[test]
    fn what_clients_did_is_counted_when_it_was_acknowledged() {
        let put = |base| Event::Put { topic: "c".to_owned(), records: vec![("a".to_owned(), None)], base };
        let line = |phase, event| Line { at: 0, op: 0, process: 0, broker: 1, phase, event };
        let lines = vec![
            line(Phase::Invoke, put(None)),
            line(Phase::Ok, put(Some(0))),
            line(Phase::Info, put(None)),
            line(Phase::Ok, Event::Crashed),
        ];
        let mut tally = of_history(&History { lines });
        assert_eq!(tally, Tally::from([("acknowledged records", 1), ("crashes", 1)]));
        add(&mut tally, &Tally::from([("crashes", 2), ("merges", 1)]));
        assert_eq!(tally, Tally::from([("acknowledged records", 1), ("crashes", 3), ("merges", 1)]));
    }
}
