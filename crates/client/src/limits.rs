//! The limits of this crate, in one place.

/// The longest frame that is accepted, in bytes, by default.
pub const FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Requests that may be without an answer.
pub const IN_FLIGHT_MAX: usize = 128;
