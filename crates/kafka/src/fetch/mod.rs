//! Fetch sessions.

pub mod session;
