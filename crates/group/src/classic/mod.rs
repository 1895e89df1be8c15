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

use std::collections::BTreeMap;

use bytes::Bytes;

mod commands;
mod expiry;
mod member;
mod rebalance;
#[cfg(test)]
mod tests;

pub use member::{Member, Protocol};

/// A moment of the coordinator's monotonic clock, in milliseconds since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment and `ms` milliseconds more.
    pub fn after(self, ms: u64) -> Moment {
        Moment(self.0.saturating_add(ms))
    }
}

/// The ticket under which the answer of a join or a sync is handed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter(pub u64);

/// What a group is doing; the words are those that ListGroups and DescribeGroups show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
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

impl State {
    /// The protocol's word for the state.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        }
    }
}

/// Why a group refuses a command. `errors.rs` gives each its protocol code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The group's name is empty or too long.
    #[error("the group id must have 1 to 1024 bytes")]
    InvalidGroupId,
    /// The member is not, or no longer, in the group: it must join anew.
    #[error("the member is unknown to the group, join again")]
    UnknownMember,
    /// KIP-394: join again with this id.
    #[error("join again with the member id {0}")]
    MemberIdRequired(String),
    /// The command speaks of another generation.
    #[error("the generation is over, join again")]
    IllegalGeneration,
    /// Join again, the group is rebalancing.
    #[error("the group is rebalancing, join again")]
    RebalanceInProgress,
    /// No protocol is common to all members, or another protocol type.
    #[error("no group protocol is common to all members")]
    InconsistentProtocol,
    /// The session timeout is outside of the limits.
    #[error("the session timeout must be between 6 s and 30 min")]
    InvalidSessionTimeout,
    /// Another process took over this static member.
    #[error("another member joined with the same group instance id")]
    FencedInstance,
    /// The group has its maximum of members. Clients give up on it.
    #[error("the group has its maximum of members")]
    GroupFull,
    /// The group was deleted under the command, or the broker has its maximum of groups or of their bytes. Clients
    /// find the coordinator again and try again.
    #[error("the group is not served at the moment, find its coordinator again")]
    NotAvailable,
    /// A limit on protocols or metadata bytes.
    #[error("the protocols or assignments of the member are too large")]
    TooLarge,
    /// The group has members and cannot be deleted.
    #[error("the group has members")]
    NotEmpty,
    /// There is no such group.
    #[error("the group does not exist")]
    NotFound,
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

/// A request to join.
#[derive(Debug, Clone)]
pub struct Join {
    /// Empty for a member that has no id yet.
    pub member_id: String,
    /// The id that the member gets when it has none: unique, made at the edge because it is random.
    pub fresh_id: String,
    /// KIP-345: the name of a static member.
    pub instance_id: Option<String>,
    /// From the request's header.
    pub client_id: String,
    /// Where the request came from.
    pub client_host: String,
    /// How long the member may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long a rebalance may wait for the member, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect`, …
    pub protocol_type: String,
    /// Offered protocols, best first.
    pub protocols: Vec<Protocol>,
    /// KIP-394: a dynamic member without an id is told one and must come back with it (version 4 and later).
    pub require_known_id: bool,
    /// KIP-814: the member understands `skip_assignment` (version 9 and later).
    pub can_skip_assignment: bool,
}

/// The answer to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The generation that was joined.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: String,
    /// The protocol that all members support.
    pub protocol: String,
    /// Member id of the leader.
    pub leader: String,
    /// Member id of the one that is answered.
    pub member_id: String,
    /// KIP-814: the leader need not assign.
    pub skip_assignment: bool,
    /// For the leader: everybody's metadata for the chosen protocol.
    pub members: Vec<JoinedMember>,
}

/// One member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Its static name.
    pub instance_id: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// A request to synchronise.
#[derive(Debug, Clone)]
pub struct Sync {
    /// The generation that the member joined.
    pub generation: i32,
    /// Who asks.
    pub member_id: String,
    /// KIP-345.
    pub instance_id: Option<String>,
    /// Checked when given (version 5 and later).
    pub protocol_type: Option<String>,
    /// Checked when given (version 5 and later).
    pub protocol: Option<String>,
    /// From the leader: who gets what.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: String,
    /// The chosen protocol.
    pub protocol: String,
    /// What the member was given.
    pub assignment: Bytes,
}

/// An answer whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a join.
    Join(Waiter, Result<Joined, Refusal>),
    /// To a sync.
    Sync(Waiter, Result<Synced, Refusal>),
}

/// Who speaks in a heartbeat, a commit or a leave.
#[derive(Debug, Clone, Copy)]
pub struct Speaker<'a> {
    /// The member's id; empty in a leave by instance id and in a commit without a group.
    pub member_id: &'a str,
    /// KIP-345.
    pub instance_id: Option<&'a str>,
}

/// When a rebalance ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct JoinTimer {
    deadline: Moment,
    /// For the first rebalance of an empty group: how much longer newcomers may still extend the wait.
    extension_ms: Option<u64>,
}

/// One classic group.
#[derive(Debug)]
pub struct Group {
    rules: Rules,
    state: State,
    generation: i32,
    protocol_type: String,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Static members: instance id to member id.
    pub(crate) instances: BTreeMap<String, String>,
    /// Ids that were given out by KIP-394 and have not come back, with the moment they are forgotten.
    pending: BTreeMap<String, Moment>,
    join_timer: Option<JoinTimer>,
    /// Somebody joined since the join timer was set.
    newcomer: bool,
    /// Members that joined this generation and have not synchronised, and until when they may.
    sync_deadline: Option<Moment>,
    /// Members are ordered by their arrival: the first is the first choice for leader.
    arrivals: u64,
}

impl Group {
    /// An empty group whose next generation follows `generation`: what a restart remembers of it, else 0 and no
    /// protocol type.
    pub fn new(rules: Rules, generation: i32, protocol_type: &str) -> Group {
        Group {
            rules,
            state: State::Empty,
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
    pub fn state(&self) -> State {
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
            State::Empty | State::Dead => assert!(self.members.is_empty(), "an empty group has no members"),
            _ => assert!(!self.members.is_empty(), "a group in {:?} has members", self.state),
        }
        assert_eq!(self.join_timer.is_some(), self.state == State::PreparingRebalance, "join timer");
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
            let joins = member.awaiting_join.is_none() || self.state == State::PreparingRebalance;
            assert!(joins, "joins wait only for a rebalance");
            let syncs = member.awaiting_sync.is_none() || self.state == State::CompletingRebalance;
            assert!(syncs, "syncs wait only for the leader");
        }
    }

    /// Metadata and assignment bytes of all members.
    pub(crate) fn bytes(&self) -> usize {
        self.members.values().map(Member::bytes).sum()
    }
}
