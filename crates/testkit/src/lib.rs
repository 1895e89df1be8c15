//! An in-process cluster under a simulated clock, store and journal, and the checkers of its history.

pub mod check;
pub mod history;
