//! What a merge will need to know: which extents an object has, and which objects come next. Nothing merges yet but the
//! simulation (`write/merged.rs` is the commit).

pub mod index;
pub mod plan;
