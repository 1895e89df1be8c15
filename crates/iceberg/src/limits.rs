//! Every limit of this crate, with the reason for its size.

/// How many manifests of about the same size are merged into one; see `engine.rs`.
pub const MANIFEST_MERGE: usize = 8;

/// A manifest with this many entries is not merged again: rewriting it would cost more than reading it.
pub const MANIFEST_ENTRIES_MAX: u64 = 8 * 8 * 8 * 8;
