//! What the metadata map holds, and the pure functions over it.

pub mod cluster;
pub mod compacted;
pub mod deleted;
pub mod extent;
pub mod format_level;
pub(crate) mod freed;
pub(crate) mod identity;
pub(crate) mod ids;
pub mod mark;
pub mod object;
pub mod partition;
pub mod producer;
pub(crate) mod producer_count;
pub mod remains;
pub mod removed;
pub mod session;
pub mod topic;
pub mod topic_config;
pub mod writer_number;
