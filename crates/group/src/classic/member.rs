//! One member of a group.

use bytes::Bytes;

use crate::classic::requests::{Moment, Protocol, Waiter};

/// One member.
#[derive(Debug, Clone)]
pub struct Member {
    /// Given by the coordinator.
    pub id: String,
    /// KIP-345: the name of a static member.
    pub instance_id: Option<String>,
    /// From the header of its last join.
    pub client_id: String,
    /// Where its last join came from.
    pub client_host: String,
    /// What the leader gave it in this generation.
    pub assignment: Bytes,
    pub(super) session_timeout_ms: u64,
    pub(super) rebalance_timeout_ms: u64,
    pub(super) protocols: Vec<Protocol>,
    pub(super) arrival: u64,
    /// Has not completed a join yet.
    pub(super) new: bool,
    /// Forgotten at this moment unless it is heard of; not while it waits for an answer.
    pub(super) deadline: Moment,
    pub(super) awaiting_join: Option<Waiter>,
    pub(super) awaiting_sync: Option<Waiter>,
    /// Joined this generation, not yet synchronised.
    pub(super) pending_sync: bool,
}

impl Member {
    /// The metadata for `protocol`, empty when it is not offered.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|offer| offer.name == protocol);
        found.map(|offer| offer.metadata.clone()).unwrap_or_default()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|offer| offer.name == protocol)
    }

    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.protocols) + self.assignment.len()
    }

    /// When silence ends the membership, unless the member waits for us. A newcomer can expire while it waits:
    /// nothing else would show that its connection is gone.
    pub(super) fn expiry(&self) -> Option<Moment> {
        let waits = self.awaiting_join.is_some() || self.awaiting_sync.is_some();
        (self.new || !waits).then_some(self.deadline)
    }

    pub(super) fn heard(&mut self, now: Moment) {
        self.deadline = now.after(self.session_timeout_ms);
    }
}

pub(super) fn bytes_of(protocols: &[Protocol]) -> usize {
    protocols.iter().map(|offer| offer.name.len() + offer.metadata.len()).sum()
}
