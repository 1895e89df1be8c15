//! The limits of this crate in one place.

/// The decoder may allocate this many times the length of the frame ...
pub const DECODE_AMPLIFICATION_MAX: usize = 16;

/// ... and this many bytes on top, so that small frames need no thought.
pub const DECODE_SLACK_BYTES: usize = 32 * 1024;

/// Byte fields from this length on are spliced into the frame; shorter ones are copied.
pub const SPLICE_BYTES_MIN: usize = 1024;

/// The bytes that the decoder may allocate for a frame of `frame_bytes` bytes.
///
/// Arrays of tiny elements grow in memory: an empty string takes one byte on the wire and 24 in a `Vec<String>`. Real
/// messages stay far below the limit. A message above it is refused with [`crate::Fault::TooDense`].
pub fn decode_budget(frame_bytes: usize) -> usize {
    frame_bytes.saturating_mul(DECODE_AMPLIFICATION_MAX).saturating_add(DECODE_SLACK_BYTES)
}
