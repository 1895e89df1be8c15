//! One classic group: its state, and what always holds of it.

use std::collections::BTreeMap;

use crate::classic::member::Member;
use crate::classic::requests::Moment;

/// What a group is doing; the words are those that ListGroups and DescribeGroups show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// No members; committed offsets may remain.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// Members have joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// Everybody has an assignment.
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

/// What a group needs to know of the broker's settings.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long the first rebalance of an empty group waits for more members, in milliseconds.
    pub initial_delay_ms: u64,
    /// Members, joined or pending.
    pub members_max: usize,
    /// Metadata and assignment bytes.
    pub bytes_max: usize,
}

/// When a rebalance ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JoinTimer {
    pub(super) deadline: Moment,
    /// For the first rebalance of an empty group: how much longer newcomers may still extend the wait.
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
    /// Ids that were given out by KIP-394 and have not come back, with the moment they are forgotten.
    pub(super) pending: BTreeMap<String, Moment>,
    pub(super) join_timer: Option<JoinTimer>,
    /// Somebody joined since the join timer was set.
    pub(super) newcomer: bool,
    /// Members that joined this generation and have not synchronised, and until when they may.
    pub(super) sync_deadline: Option<Moment>,
    /// Members are ordered by their arrival: the first is the first choice for leader.
    pub(super) arrivals: u64,
}

impl Group {
    /// An empty group whose next generation follows `generation`: what a restart remembers of it, else 0 and no
    /// protocol type.
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

    /// What the group is doing.
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

    /// The chosen protocol, empty between generations.
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

    /// True when nothing would be lost by forgetting the group: no members and nobody on the way.
    pub fn idle(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// True as long as nobody was ever a member since the group was made: whoever asked was refused, or was told an id
    /// and has not come back. To others the group is what the map knows of it.
    pub fn fresh(&self) -> bool {
        self.arrivals == 0
    }

    /// What must hold after every command. Cheap enough for every call in tests and after every rebalance.
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
            let seat = member.instance_id.as_ref().map(|instance| self.instances.get(instance));
            assert!(
                seat.is_none_or(|id| id == Some(&member.id)),
                "a static member sits on its instance's seat"
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
