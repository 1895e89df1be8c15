//! Bounds of an answer about several groups.

use std::collections::BTreeSet;

use crate::limits;

/// Lets each name through once, and at most [`limits::GROUPS_PER_REQUEST_MAX`] names: a name takes a few bytes, an
/// answer megabytes.
pub(crate) fn distinct() -> impl FnMut(&str) -> bool {
    let mut seen = BTreeSet::new();
    move |name| seen.len() < limits::GROUPS_PER_REQUEST_MAX && seen.insert(name.to_owned())
}

/// The bytes left of an answer about several groups. The first group is always answered.
pub(crate) struct AnswerRoom(usize);

impl AnswerRoom {
    pub(crate) fn new() -> AnswerRoom {
        AnswerRoom(limits::GROUPS_ANSWER_BYTES_MAX)
    }

    pub(crate) fn spent(&self) -> bool {
        self.0 == 0
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes);
    }
}
