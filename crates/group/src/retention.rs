//! When committed offsets expire (KIP-211), as a pure function.
//!
//! - Of a group without members: a time after the last member left, or after a later commit.
//! - Of an active consumer group: a time after the commit, if nobody subscribes to the topic any more.
//! - Of a group that never had members, whose clients only commit: a time after the commit.
//!
//! Members are in memory only, so the group's record says since when it has none. The sweep keeps it (`sweep.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use floe_env::Timestamp;

use crate::map::{GroupRecord, OffsetRecord};

/// The protocol type of groups whose members' metadata is a subscription.
pub(crate) const CONSUMER: &str = "consumer";

/// How a group stands in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has no members.
    Empty,
    /// It has members. Their topics are known in a stable group of consumers.
    Active { subscribed: Option<BTreeSet<String>> },
}

/// Whether a committed offset has expired. `topic` is the name of its topic.
pub(crate) fn expired(
    group: &GroupRecord,
    standing: &Standing,
    topic: &str,
    offset: &OffsetRecord,
    now: Timestamp,
    retention: Duration,
) -> bool {
    let committed = Timestamp(offset.committed);
    let idle_since = match standing {
        Standing::Active { subscribed: Some(topics) } if !topics.contains(topic) => Some(committed),
        Standing::Active { .. } => None,
        Standing::Empty if group.protocol_type.is_empty() => Some(committed),
        Standing::Empty => group.empty_since.map(|since| committed.max(Timestamp(since))),
    };
    idle_since.is_some_and(|since| since <= now - retention)
}

/// The topics of a subscription: the metadata of a member of a consumer group. `None` if it is none.
///
/// ```text
/// version i16 | count i32 | topics, each: length i16, UTF-8 | more, which depends on the version
/// ```
/// Source: `ConsumerProtocolSubscription.json` of Apache Kafka.
pub(crate) fn topics_of(metadata: &[u8]) -> Option<Vec<&str>> {
    let (version, mut rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let count = take(&mut rest)?;
    let count = usize::try_from(i32::from_be_bytes(count)).ok()?;
    // Each takes two bytes at least.
    let mut topics = Vec::with_capacity(count.min(rest.len() / 2));
    for _ in 0..count {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, behind) = rest.split_at_checked(length)?;
        topics.push(std::str::from_utf8(name).ok()?);
        rest = behind;
    }
    Some(topics)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn check(
        protocol_type: &str,
        empty_since: Option<i64>,
        standing: &Standing,
        committed: i64,
        day: i64,
    ) -> bool {
        let ms = |day: i64| day * DAY_MS;
        let empty_since = empty_since.map(ms);
        let group = GroupRecord { protocol_type: protocol_type.into(), generation: 1, empty_since };
        let offset =
            OffsetRecord { offset: 1, leader_epoch: -1, metadata: String::new(), committed: ms(committed) };
        expired(&group, standing, "t", &offset, Timestamp(ms(day)), WEEK)
    }

    #[test]
    fn offsets_expire_a_week_after_the_last_member_or_the_last_commit() {
        let empty = Standing::Empty;
        assert!(!check(CONSUMER, Some(3), &empty, 1, 9));
        assert!(check(CONSUMER, Some(3), &empty, 1, 10));
        assert!(!check(CONSUMER, Some(3), &empty, 5, 10), "a commit came after the last member left");
        assert!(check(CONSUMER, Some(3), &empty, 5, 12));
        assert!(!check(CONSUMER, None, &empty, 1, 100), "nobody knows yet since when it is empty");
        assert!(check("", None, &empty, 1, 8) && !check("", None, &empty, 2, 8), "it never had members");
        assert!(!check(CONSUMER, Some(200), &empty, 1, 100), "the clock was put back");
    }

    #[test]
    fn offsets_of_an_active_group_expire_when_nobody_subscribes_to_the_topic() {
        let active = |topics: Option<&[&str]>| Standing::Active {
            subscribed: topics.map(|topics| topics.iter().map(|topic| (*topic).to_owned()).collect()),
        };
        assert!(!check(CONSUMER, Some(1), &active(None), 1, 100), "their topics are not known");
        assert!(!check(CONSUMER, Some(1), &active(Some(&["t", "u"])), 1, 100));
        assert!(check(CONSUMER, Some(1), &active(Some(&["u"])), 1, 8));
        assert!(!check(CONSUMER, Some(1), &active(Some(&["u"])), 2, 8), "committed less than a week ago");
    }

    #[test]
    fn topics_of_subscriptions_are_read_and_damage_is_not() {
        let metadata = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(topics_of(metadata), Some(vec!["a", "bc"]));
        for end in 0..13 {
            assert_eq!(topics_of(&metadata[..end]), None, "cut off at {end}");
        }
        assert_eq!(topics_of(b"\0\0\0\0\0\0"), Some(vec![]));
        for damaged in [&b"\xff\xff\0\0\0\0"[..], b"\0\0\xff\xff\xff\xff", b"\0\0\x7f\xff\xff\xff\0\0"] {
            assert_eq!(topics_of(damaged), None, "{damaged:?}");
        }
    }
}
