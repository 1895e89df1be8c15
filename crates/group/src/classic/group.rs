//! One classic group: its state and its invariants.

use std::collections::BTreeMap;

use crate::classic::member::Member;
use crate::classic::requests::Moment;

/// The state of a group, in the words of ListGroups and DescribeGroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// No members; committed offsets may remain.
    Empty,
    /// The group waits until its members have joined again.
    PreparingRebalance,
    /// The members have joined, and the group waits for the leader's assignment.
    CompletingRebalance,
    /// All members have an assignment.
    Stable,
    /// Deleted.
    Dead,
}

impl GroupState {
    /// The protocol's word for the state.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// The settings that a group keeps.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Wait of an empty group's first rebalance for more members, in milliseconds.
    pub initial_delay_ms: u64,
    /// Most members, joined or pending.
    pub members_max: usize,
    /// Most bytes of metadata and assignments.
    pub bytes_max: usize,
}

/// The deadline of a rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JoinTimer {
    pub(super) deadline: Moment,
    /// In an empty group's first rebalance: by how much new members may still extend the wait.
    pub(super) extension_ms: Option<u64>,
}

/// One classic group.
#[derive(Debug)]
pub struct Group {
    pub(super) rules: Rules,
    pub(super) state: GroupState,
    pub(super) generation: i32,
    pub(super) protocol_type: String,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Static members: instance id to member id.
    pub(crate) instances: BTreeMap<String, String>,
    /// KIP-394: ids that were given out and not yet used in a join, with the time at which they expire.
    pub(super) pending: BTreeMap<String, Moment>,
    pub(super) join_timer: Option<JoinTimer>,
    /// A new member has joined since the join timer was set.
    pub(super) newcomer: bool,
    /// Until then the members of this generation must ask for their assignments.
    pub(super) sync_deadline: Option<Moment>,
    /// Members so far. The member that arrived first is the first choice for leader.
    pub(super) arrivals: u64,
}

impl Group {
    /// An empty group whose next generation follows `generation`. Both arguments come from its record, or are 0 and
    /// empty.
    pub fn new(rules: Rules, generation: i32, protocol_type: &str) -> Group {
        Group {
            rules,
            state: GroupState::Empty,
            generation,
            protocol_type: protocol_type.to_owned(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            join_timer: None,
            newcomer: false,
            sync_deadline: None,
            arrivals: 0,
        }
    }

    /// The state of the group.
    pub fn state(&self) -> GroupState {
        self.state
    }

    /// The current generation; 0 before the first.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// `consumer`, `connect`, …; empty for a group that never had members.
    pub fn protocol_type(&self) -> &str {
        &self.protocol_type
    }

    /// The chosen protocol; empty between generations.
    pub fn protocol(&self) -> &str {
        self.protocol.as_deref().unwrap_or_default()
    }

    /// Member id of the leader.
    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    /// The members in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// True without members, joined or pending: then nothing is lost when the group is forgotten.
    pub fn idle(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// True until the first member joins. Until then joins were refused, or only got an id, and lists and descriptions
    /// show the record in the map.
    pub fn fresh(&self) -> bool {
        self.arrivals == 0
    }

    /// Asserts the invariants that hold after every command. Tests call it always, the code after each rebalance.
    pub fn check(&self) {
        match self.state {
            GroupState::Empty | GroupState::Dead => {
                assert!(self.members.is_empty(), "an empty group has no members");
            }
            _ => assert!(!self.members.is_empty(), "a group in {:?} has members", self.state),
        }
        assert_eq!(self.join_timer.is_some(), self.state == GroupState::PreparingRebalance, "join timer");
        if let Some(leader) = &self.leader {
            assert!(self.members.contains_key(leader), "the leader is a member");
        }
        assert_eq!(self.leader.is_some(), !self.members.is_empty(), "members have a leader");
        for (instance, id) in &self.instances {
            let member = self.members.get(id).expect("an instance names a member");
            assert_eq!(member.instance_id.as_ref(), Some(instance), "the instance is the member's");
        }
        assert!(
            self.members.is_empty() || !self.common_protocols().is_empty(),
            "members have a common protocol"
        );
        for member in self.members.values() {
            let holder = member.instance_id.as_ref().map(|instance| self.instances.get(instance));
            assert!(
                holder.is_none_or(|id| id == Some(&member.id)),
                "the instance of a static member is its own"
            );
            assert!(!self.pending.contains_key(&member.id), "a member is not pending");
            let joins = member.awaiting_join.is_none() || self.state == GroupState::PreparingRebalance;
            assert!(joins, "joins wait only for a rebalance");
            let syncs = member.awaiting_sync.is_none() || self.state == GroupState::CompletingRebalance;
            assert!(syncs, "syncs wait only for the leader");
        }
    }

    /// Metadata and assignment bytes of all members.
    pub(crate) fn bytes(&self) -> usize {
        self.members.values().map(Member::bytes).sum()
    }
}
