//! Commands of a group, its replies and its refusals.

use bytes::Bytes;

/// A time on the coordinator's monotonic clock, in milliseconds since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment and `ms` milliseconds more.
    pub fn after(self, ms: u64) -> Moment {
        Moment(self.0.saturating_add(ms))
    }
}

/// The id of a caller that waits for the reply to a join or a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter(pub u64);

/// Why a group refuses a command. The front gives each refusal its error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The group's name is empty or too long.
    #[error("the group id must have 1 to 1024 bytes")]
    InvalidGroupId,
    /// The member is not in the group, or no longer: it must join as a new one.
    #[error("the member is unknown to the group, join again")]
    UnknownMember,
    /// KIP-394: join again with this id.
    #[error("join again with the member id {0}")]
    MemberIdRequired(String),
    /// The command is of another generation.
    #[error("the generation is over, join again")]
    IllegalGeneration,
    /// The group is rebalancing: the member must join again.
    #[error("the group is rebalancing, join again")]
    RebalanceInProgress,
    /// No protocol is common to all members, or the protocol type differs.
    #[error("no group protocol is common to all members")]
    InconsistentProtocol,
    /// The session timeout is outside its limits.
    #[error("the session timeout must be between 6 s and 30 min")]
    InvalidSessionTimeout,
    /// Another process has taken over this static member.
    #[error("another member joined with the same group instance id")]
    FencedInstance,
    /// The group has its maximum of members. Clients give up on it.
    #[error("the group has its maximum of members")]
    GroupFull,
    /// The group was deleted during the command, or the broker has its maximum of groups or of their bytes. Clients
    /// look the coordinator up and try again.
    #[error("the group is not served at the moment, find its coordinator again")]
    NotAvailable,
    /// Protocols or metadata are above their limits.
    #[error("the protocols or assignments of the member are too large")]
    TooLarge,
    /// The group has members and cannot be deleted.
    #[error("the group has members")]
    NotEmpty,
    /// There is no such group.
    #[error("the group does not exist")]
    NotFound,
}

/// A protocol that a member offers: the name of an assignor, with the member's subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// `range`, `cooperative-sticky`, …
    pub name: String,
    /// Opaque to the broker.
    pub metadata: Bytes,
}

/// The command to join.
#[derive(Debug, Clone)]
pub struct Join {
    /// Empty for a member that has no id yet.
    pub member_id: String,
    /// The id for a member without one. The caller makes it, because it is random.
    pub fresh_id: String,
    /// KIP-345: the name of a static member.
    pub instance_id: Option<String>,
    /// From the request's header.
    pub client_id: String,
    /// Where the request came from.
    pub client_host: String,
    /// Time after which a silent member is removed, in milliseconds.
    pub session_timeout_ms: i32,
    /// Time that a rebalance may wait for the member, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect`, …
    pub protocol_type: String,
    /// The protocols that the member offers, the preferred first.
    pub protocols: Vec<Protocol>,
    /// KIP-394: a dynamic member without an id gets one, and must join again with it (version 4 and later).
    pub require_known_id: bool,
    /// KIP-814: the member understands `skip_assignment` (version 9 and later).
    pub can_skip_assignment: bool,
}

/// The reply to a join.
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
    /// Member id of the member that joined.
    pub member_id: String,
    /// KIP-814: the leader need not assign.
    pub skip_assignment: bool,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

/// One member, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// KIP-345: the name of a static member.
    pub instance_id: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// The command that asks for an assignment.
#[derive(Debug, Clone)]
pub struct Sync {
    /// The generation that the member joined.
    pub generation: i32,
    /// The member that asks.
    pub member_id: String,
    /// KIP-345.
    pub instance_id: Option<String>,
    /// Checked when given (version 5 and later).
    pub protocol_type: Option<String>,
    /// Checked when given (version 5 and later).
    pub protocol: Option<String>,
    /// From the leader: the assignment of each member id.
    pub assignments: Vec<(String, Bytes)>,
}

/// The reply to a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: String,
    /// The chosen protocol.
    pub protocol: String,
    /// The assignment of the member.
    pub assignment: Bytes,
}

/// A reply to a caller that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a join.
    Join(Waiter, Result<Joined, Refusal>),
    /// To a sync.
    Sync(Waiter, Result<Synced, Refusal>),
}

/// The member that a heartbeat, a commit or a leave comes from.
#[derive(Debug, Clone, Copy)]
pub struct Speaker<'a> {
    /// The member's id; empty in a leave by instance id and in a commit without a group.
    pub member_id: &'a str,
    /// KIP-345.
    pub instance_id: Option<&'a str>,
}
