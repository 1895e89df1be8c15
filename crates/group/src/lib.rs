//! Groups: who reads a topic together, who was given what, and what they committed.
//!
//! # What is here
//! ```text
//! classic/        Group        the pure state machine of a classic group: a command and a moment in, replies out
//! coordinator.rs  Coordinator  all groups of a broker, those who wait for replies, the one timer, the commits
//! sweep.rs                     frees the committed offsets of deleted topics
//! map.rs                       the records in the metadata map
//! ```
//!
//! # What it is not
//! It knows no messages of the Kafka protocol: the front turns them into commands, and refusals into error codes. It
//! reads no topic. Members are kept in memory only; what a restart must find again is in the metadata map.
//!
//! # Formats
//! Two records in the metadata map, drawn in `map.rs`.

mod classic;
mod commits;
mod coordinator;
mod groups;
pub mod limits;
mod map;
mod sweep;

pub use classic::{
    Group, GroupState, Join, Joined, JoinedMember, Member, Moment, Protocol, Refusal, Reply, Rules, Speaker,
    Sync, Synced, Waiter,
};
pub use commits::{Failure, NewOffset};
pub use coordinator::{Coordinator, Described, Listed};
pub use map::{GroupRecord, OffsetKey, OffsetRecord, committed_offset, committed_offsets};
