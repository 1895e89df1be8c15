//! Every limit of this crate in one place.

use std::time::Duration;

/// Groups with members that one broker coordinates.
pub const GROUPS_MAX: usize = 10_000;
/// Members, joined or pending, of one group.
pub const GROUP_MEMBERS_MAX: usize = 4_096;
/// Protocols that a member may offer.
pub const GROUP_PROTOCOLS_MAX: usize = 64;
/// Metadata bytes of one member over all its protocols.
pub const GROUP_METADATA_BYTES_MAX: usize = 1024 * 1024;
/// Metadata and assignment bytes of one group.
pub const GROUP_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Session timeouts that a member may ask for; Kafka's `group.min.session.timeout.ms` and its maximum.
pub const GROUP_SESSION_TIMEOUT_MS: std::ops::RangeInclusive<i32> = 6_000..=1_800_000;
/// Time after which a new member is removed when its first rebalance does not end, in milliseconds.
pub const GROUP_NEW_MEMBER_JOIN_MS: u64 = 300_000;
/// Default wait of an empty group's first rebalance for more members, in milliseconds. Kafka waits 3 s; half a second
/// is enough for processes that start together.
pub const GROUP_INITIAL_REBALANCE_DELAY_MS: u64 = 500;
/// Bytes of a group's name and of a member's instance id.
pub const GROUP_NAME_BYTES_MAX: usize = 1_024;
/// Bytes of the text that a client stores beside an offset; Kafka's `offset.metadata.max.bytes`.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4_096;
/// Bytes of a group's protocol type, which its record keeps.
pub const GROUP_PROTOCOL_TYPE_BYTES_MAX: usize = 255;
/// Groups with committed offsets. Beyond them, commits of new groups are refused for now.
pub const GROUPS_STORED_MAX: u64 = 200_000;
/// Memory of the records of all groups and committed offsets, in bytes. Beyond it, commits of partitions that a group
/// has not committed before are refused for now.
pub const GROUPS_STORED_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Memory of a record beside its texts, rounded up.
pub const STORED_RECORD_BYTES: u64 = 300;
/// How long committed offsets are kept when nobody uses them; Kafka's `offsets.retention.minutes`.
pub const OFFSETS_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// Pause between two rounds that delete expired offsets; Kafka's `offsets.retention.check.interval.ms`. A broker that
/// has just started waits so long before the first round: members join again meanwhile.
pub const OFFSETS_EXPIRY_INTERVAL: Duration = Duration::from_secs(600);
/// Offsets in one commit request.
pub const OFFSETS_PER_COMMIT_MAX: usize = 100_000;
/// Offsets that one step of the sweep checks, and deletes in one commit: at most 2 MiB of changes.
pub const OFFSETS_PER_SWEEP_STEP: usize = 1_000;
/// Pause of the sweep between two steps.
pub const OFFSET_SWEEP_STEP_PAUSE: Duration = Duration::from_millis(10);
/// Delay of the sweep after a deletion, because others may follow, and its back-off after a failure.
pub const OFFSET_SWEEP_DELAY: Duration = Duration::from_secs(5);
/// How often the metrics are told what groups have stored.
pub const STORED_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Metadata and assignment bytes of all groups.
pub const GROUPS_BYTES_MAX: usize = 512 * 1024 * 1024;

const _: () = assert!(GROUP_BYTES_MAX <= GROUPS_BYTES_MAX);
const _: () = assert!(GROUP_METADATA_BYTES_MAX <= GROUP_BYTES_MAX);
