//! WAL objects, and the bytes that ride with commits, become segments: few, large, and sorted by partition and offset.
//!
//! ```text
//!                  many small ones            of few partitions, or large
//!   source ──────────────────────▶ gathered ───────────────────────────────▶ pool ──────▶ sorted
//!     │                                                                        ▲
//!     └──────────── its extents are long: there is nothing to gather ──────────┘
//! ```
//! A **source** is what holds the bytes of extents: an object, or a frame of the journal. To *gather* makes one segment
//! of many small sources, in the order in which they came. To *sort* takes a pool of sources that are large enough, and
//! makes segments of them that each have a few partitions and much of each. So a byte is written twice after it came,
//! once if it came in long extents, and three times if it came in a tiny object.
//!
//! ```text
//! sizes.rs     Sizes      which sources are small, which are for the pool, and which stay
//! index.rs     Index      the sources of the newest map with their extents, and which kind of merge is due
//! plan.rs      Plan       the extents of one merge. Pure
//! lane.rs      Lane       reads the bytes of a plan, beside the readers' cache, in bounded memory
//! build.rs     build      verifies every batch, stamps its offset, lays out the segment. Pure
//! merger.rs    Merger     the job: lease, plan, read, put, commit; and what happens if one of them fails
//! planted.rs             bugs on purpose, for the simulation
//! ```
//! `write/merged.rs` is the commit.

pub(crate) mod build;
pub(crate) mod index;
pub(crate) mod lane;
pub(crate) mod merger;
pub(crate) mod plan;
pub(crate) mod planted;
pub(crate) mod sizes;
