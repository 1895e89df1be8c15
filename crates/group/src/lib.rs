//! Consumer groups: their members, the members' assignments, and the committed offsets.
//!
//! # What is here
//! ```text
//! classic/        Group        the pure state machine of a classic group: command and time in, replies out
//! groups.rs       Groups       all groups of a broker in memory, their deadlines, their waiting members
//! coordinator.rs  Coordinator  the entrance: runs commands under one lock, one timer for all deadlines
//! commits.rs                   commits of offsets and deletions of groups, as changes of the metadata map
//! map.rs                       the records in the metadata map
//! stored.rs       Stored       how much of it the metadata map holds, and the limits
//! retention.rs                 when committed offsets expire
//! sweep.rs                     deletes committed offsets of deleted topics, and expired ones
//! topics.rs                    the names of topics
//! ```
//!
//! # What it is not
//! It knows no message of the Kafka protocol: the front turns messages into commands, and refusals into error codes. It
//! reads no topic. Members are in memory only; offsets and generations are in the metadata map and survive a restart.
//!
//! # A join and a commit, file by file
//! ```text
//! coordinator.rs        Coordinator::join    finds or makes the group, and waits for the reply
//! classic/commands.rs   Group::join          checks the member, may start a rebalance
//! classic/rebalance.rs  Group::complete      starts the next generation, replies to all who joined
//! groups.rs             Groups::answer       hands the replies out
//! coordinator.rs        Coordinator::commit  checks member and generation under the lock, enqueues the commit
//! commits.rs            write_offsets        runs in the journal's commit; writes the records of map.rs
//! ```
//!
//! # Formats
//! Two records in the metadata map, drawn in `map.rs`.

mod classic;
mod commits;
mod coordinator;
mod groups;
pub mod limits;
mod map;
mod retention;
mod stored;
mod sweep;
mod topics;

#[cfg(test)]
mod tests;

pub use classic::{
    Group, GroupState, Join, Joined, JoinedMember, Member, Moment, Protocol, Refusal, Reply, Rules, Speaker,
    Sync, Synced, Waiter,
};
pub use commits::{Failure, NewOffset};
pub use coordinator::{Coordinator, Described, Listed};
pub use map::{GroupRecord, OffsetKey, OffsetRecord, committed_offset, committed_offsets};
pub use stored::Stored;
