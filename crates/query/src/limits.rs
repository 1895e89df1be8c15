//! Every limit of this crate.

/// Characters of the line of a statement that an error shows.
pub const SNIPPET_CHARS: usize = 100;
