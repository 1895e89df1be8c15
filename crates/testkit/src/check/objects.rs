//! The store holds everything that is needed and nothing that is forgotten. Every object is referred to, leased, or
//! waits for its deletion. Every object that something refers to is there.

use std::collections::BTreeSet;

use crate::history::{Event, History};

/// Reports orphaned objects and missing objects.
pub fn check(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for line in &history.lines {
        let Event::Objects { stored, needed, excused } = &line.event else { continue };
        let stored: BTreeSet<&str> = stored.iter().map(String::as_str).collect();
        let needed: BTreeSet<&str> = needed.iter().map(String::as_str).collect();
        let excused: BTreeSet<&str> = excused.iter().map(String::as_str).collect();
        let gone = needed.difference(&stored).map(|key| format!("{key} is needed and not in the store"));
        found.extend(gone);
        let orphans = stored.iter().filter(|key| !needed.contains(*key) && !excused.contains(*key));
        found.extend(
            orphans.map(|key| format!("{key} is an orphan: nothing refers to it and nothing will delete it")),
        );
    }
    found
}
