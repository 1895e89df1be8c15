//! The properties that hold whatever crashed in between: one file, one property. A checker reads a history and reports
//! what is wrong with it; an empty report is a pass. Checkers know no broker, no store and no format.

use std::fmt;

use crate::history::History;

pub mod commits;
pub mod compacted;
pub mod duplicated;
pub mod folded;
pub mod followed;
pub mod group;
pub mod held;
mod keyed;
mod known;
pub mod live;
pub mod lost;
pub mod objects;
pub mod offsets;
pub mod phantom;
pub mod refused;
pub mod removed;
pub mod reordered;
pub mod sql;
pub mod starts;
pub mod table;
pub mod topics;
pub mod watermark;

#[cfg(test)]
mod planted;

/// A violation that a checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The checker's name in [`CHECKERS`].
    pub checker: &'static str,
    /// The violation, with partition, offset and values.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}

/// A checker: its name and its function.
pub type Checker = (&'static str, fn(&History) -> Vec<String>);

/// All checkers.
pub const CHECKERS: &[Checker] = &[
    ("lost", lost::check),
    ("phantom", phantom::check),
    ("duplicated", duplicated::check),
    ("reordered", reordered::check),
    ("offsets", offsets::check),
    ("watermark", watermark::check),
    ("starts", starts::check),
    ("refused", refused::check),
    ("group", group::check),
    ("topics", topics::check),
    ("objects", objects::check),
    ("held", held::check),
    ("compacted", compacted::check),
    ("followed", followed::check),
    ("folded", folded::check),
    ("removed", removed::check),
    ("commits", commits::check),
    ("table", table::check),
    ("sql", sql::check),
    ("live", live::check),
];

/// Most findings per checker. The first few are enough.
const FINDINGS_PER_CHECKER_MAX: usize = 8;

/// Runs every checker over a history.
pub fn all(history: &History) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (checker, check) in CHECKERS {
        let found = check(history);
        let cut = found.len().saturating_sub(FINDINGS_PER_CHECKER_MAX);
        findings
            .extend(found.into_iter().take(FINDINGS_PER_CHECKER_MAX).map(|what| Finding { checker, what }));
        if cut > 0 {
            findings.push(Finding { checker, what: format!("and {cut} more") });
        }
    }
    findings
}
