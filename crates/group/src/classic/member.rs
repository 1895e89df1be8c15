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
    /// Its assignment in this generation.
    pub assignment: Bytes,
    pub(super) session_timeout_ms: u64,
    pub(super) rebalance_timeout_ms: u64,
    pub(super) protocols: Vec<Protocol>,
    pub(super) arrival: u64,
    /// True until its first join is answered.
    pub(super) new: bool,
    /// The member is removed at this time unless it is heard of, but not while it waits for a reply.
    pub(super) deadline: Moment,
    pub(super) awaiting_join: Option<Waiter>,
    pub(super) awaiting_sync: Option<Waiter>,
    /// It joined this generation and has not asked for its assignment.
    pub(super) pending_sync: bool,
}

impl Member {
    /// The metadata for `protocol`; empty if the member does not offer it.
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

    /// When the session ends; `None` while the member waits for a reply. A new member may expire while it waits:
    /// nothing else shows that its connection is gone.
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
