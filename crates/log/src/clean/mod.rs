//! The cleaner, which deletes what nobody needs any more.

pub(crate) mod cleaner;
