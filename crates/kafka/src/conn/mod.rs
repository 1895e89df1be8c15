//! One connection: how it is accepted, how its requests come in, how its answers leave.

pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod doorman;
pub(crate) mod ending;
pub(crate) mod frames;
pub(crate) mod peer;
pub(crate) mod progress;
pub(crate) mod send;
