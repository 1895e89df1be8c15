//! Compaction: of each key the last record stays (`cleanup.policy=compact`).
//!
//! A pass over a partition reads its dirty part and notes the last offset of each key in a map of bounded size
//! (`offset_map.rs`). Then it reads everything below the end of what the map covers, leaves out what a later record of
//! its key replaces (`filter.rs`), and swaps extents for those of new segments, one segment a commit. Where the keys do
//! not fit the map, the pass covers less, and the next one goes on. `plan.rs` says which partitions are due.
//! ```text
//! compactor.rs     Compactor   the job: rounds, the lease, which partitions are due
//! pass.rs          pass        one partition: keys, transactions, steps; each step is one commit (commit.rs)
//! rewrite.rs       rewrite     one step: what stays of some extents, laid out
//! reading.rs       read        the next batches, through a cache apart; what damage does to a pass
//! error.rs                     why a round or a pass ended early
//! ```

pub(crate) mod commit;
pub(crate) mod compactor;
pub(crate) mod error;
pub(crate) mod filter;
pub(crate) mod offset_map;
mod pass;
pub(crate) mod plan;
mod reading;
mod rewrite;
pub(crate) mod transactions;
