//! Classic consumer groups: who is a member, who leads, who was given what.
//!
//! [`Group`] is a pure state machine: each command carries `now`, answers that must wait are handed back later as
//! [`Reply`]s, and the next moment at which time alone changes something is [`Group::next_deadline`]. It knows
//! no clock, no socket and no storage. The coordinator keeps all groups, the sleepers that wait for
//! replies and the one timer.
//!
//! ```text
//!             first join                  delay over / all joined
//!   Empty ───────────────► PreparingRebalance ───────────────► CompletingRebalance
//!     ▲                      ▲   ▲                                   │     │
//!     │ last member gone     │   └── join, leave, member expired ────┘     │ leader's sync
//!     └──────────────────────┘   ┌── join, leave, member expired ────┐     ▼
//!                                └───────────────────────────────── Stable
//! ```
//! `Dead` is the state of a group that was deleted while somebody still held it. Sources: the Kafka protocol guide
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
