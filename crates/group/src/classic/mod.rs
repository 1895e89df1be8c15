//! Classic consumer groups: members, their leader, their assignments.
//!
//! [`Group`] is a pure state machine without clock, socket or storage. Each command carries the time. Answers that must
//! wait come later as [`Reply`]s. [`Group::next_deadline`] is the next time at which the group changes by itself. The
//! coordinator keeps all groups, the callers that wait for replies, and the timer.
//!
//! ```text
//! requests.rs   commands, replies, refusals         commands.rs   join, sync, heartbeat, leave, commit
//! member.rs     one member                          rebalance.rs  from one generation to the next
//! group.rs      the state and its invariants        expiry.rs     deadlines
//! ```
//!
//! ```text
//!             first join                  delay over / all joined
//!   Empty ───────────────► PreparingRebalance ───────────────► CompletingRebalance
//!     ▲                      ▲   ▲                                   │     │
//!     │ last member gone     │   └── join, leave, member expired ────┘     │ leader's sync
//!     └──────────────────────┘   ┌── join, leave, member expired ────┐     ▼
//!                                └───────────────────────────────── Stable
//! ```
//! `Dead` is the state of a group that was deleted while a command still held it. Sources: the Kafka protocol guide
//! (group membership API), KIP-62 (rebalance timeout), KIP-134 (initial delay), KIP-345 (static members), KIP-394
//! (member id required), KIP-814 (a returning static leader skips assignment).

mod commands;
mod expiry;
mod group;
mod member;
mod rebalance;
mod requests;
#[cfg(test)]
mod tests;

pub use group::{Group, GroupState, Rules};
pub use member::Member;
pub use requests::{
    Join, Joined, JoinedMember, Moment, Protocol, Refusal, Reply, Speaker, Sync, Synced, Waiter,
};
