//! One connection: how it is accepted, how its requests come in, how its answers leave.

pub(crate) mod connection;
pub(crate) mod doorman;
pub(crate) mod frames;
