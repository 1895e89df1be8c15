//! What a group is asked, what it answers, and why it refuses.

use bytes::Bytes;

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

/// A protocol that a member offers: an assignor's name and the member's subscription for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// `range`, `cooperative-sticky`, …
    pub name: String,
    /// Opaque to the broker.
    pub metadata: Bytes,
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
