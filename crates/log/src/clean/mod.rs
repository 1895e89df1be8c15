//! What makes room: the cleaner, which deletes what nobody needs any more, and retention, which lets old records go.

pub(crate) mod cleaner;
pub(crate) mod deletion;
pub(crate) mod pressure;
pub(crate) mod retainer;
pub(crate) mod retention;
