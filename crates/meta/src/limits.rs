//! Every limit of this crate, with its unit in the name.

use std::time::Duration;

/// Commands that may wait for the committer; one more is answered `NotApplied`.
pub const QUEUE_COMMANDS_MAX: usize = 65_536;

/// Commands that share one commit of the journal.
pub const GROUP_COMMANDS_MAX: usize = 4_096;

/// Bytes of changes after which a group takes no further command.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Bytes of keys and values that one command may change.
pub const COMMAND_BYTES_MAX: usize = 32 << 20;

/// How often a group is run again because another broker committed first.
pub const CONFLICTS_MAX: u32 = 1_000;

/// How long one call of the journal's commit may take before its outcome counts as unknown.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the callers of a commit with unknown outcome wait for its resolution.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

/// First and longest pause between two attempts to resolve or to follow.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(5);
/// See [`RETRY_PAUSE_MIN`].
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Entries that one call of `history` or one answer of `follow` returns.
pub const ENTRIES_MAX: usize = 10_000;

/// Bytes of one key.
pub const KEY_BYTES_MAX: usize = 4_096;

/// Bytes of one text field of an envelope; longer ones are cut.
pub const ENVELOPE_TEXT_BYTES_MAX: usize = 4_096;

const _: () = assert!(GROUP_BYTES_MAX <= COMMAND_BYTES_MAX);
const _: () = assert!(GROUP_COMMANDS_MAX <= QUEUE_COMMANDS_MAX);
const _: () = assert!(COMMIT_TIMEOUT.as_millis() < RESOLVE_TIMEOUT.as_millis());
