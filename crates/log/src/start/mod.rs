//! What a start compares before it serves, so that a journal that is older than its store is never continued, and how
//! it takes the place of the broker before.

pub mod attached;
pub(crate) mod begin;
pub mod compare;
pub(crate) mod former;
pub mod judge;
pub(crate) mod newest;
pub(crate) mod session;
pub(crate) mod taken;
pub(crate) mod watch;
pub(crate) mod writers;
