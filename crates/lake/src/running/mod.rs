//! What runs the views of a broker.

pub mod dead_letter;
pub(crate) mod gather;
pub(crate) mod runner;
pub(crate) mod supervisor;
