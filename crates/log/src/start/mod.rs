//! What a start compares before it serves, so that a journal that is older than its store is never continued.

pub mod attached;
pub mod compare;
pub(crate) mod former;
pub mod judge;
pub(crate) mod newest;
pub(crate) mod session;
pub(crate) mod watch;
pub(crate) mod writers;
