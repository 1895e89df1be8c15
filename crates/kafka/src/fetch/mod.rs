//! Fetch sessions.

pub(crate) mod session;
