//! Names of columns that no statement has.

use std::cell::Cell;

/// Counts the names that one statement needs.
#[derive(Default)]
pub(super) struct Names(Cell<usize>);

impl Names {
    /// A name that begins with `word`.
    pub(super) fn next(&self, word: &str) -> String {
        self.0.set(self.0.get() + 1);
        format!("__{word}_{}", self.0.get())
    }
}
