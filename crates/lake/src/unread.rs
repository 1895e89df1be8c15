//! What tables have not read of their topics, for those who delete records.

use floe_log::{
    Unread,
    topic::Topic,
    topic_config::{TableMode, TopicConfig},
};
use floe_meta::{DecodeError, Snapshot};
use floe_view::progress_of;

use crate::map::{Progress, Rebuild, RebuildProgress};

/// What the table of a topic has not read yet; none if the topic has no table. Retention waits for it if the topic says
/// so.
///
/// # Errors
/// A record cannot be read.
pub fn unread(map: &Snapshot, topic: &Topic) -> Result<Option<Unread>, DecodeError> {
    if TopicConfig::of(topic).table == TableMode::Off {
        return Ok(None);
    }
    Ok(Some(Unread { next: progress_of::<Progress>(map, topic.id)?, always: false }))
}

/// What a table that is rebuilt has not read yet; none if none is. Retention waits for it always: the running table has
/// the rows, and the new one takes its place.
///
/// # Errors
/// A record cannot be read.
pub fn unread_by_rebuild(map: &Snapshot, topic: &Topic) -> Result<Option<Unread>, DecodeError> {
    let is_off = TopicConfig::of(topic).table == TableMode::Off;
    if is_off || map.get::<Rebuild>(&topic.id)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Unread { next: progress_of::<RebuildProgress>(map, topic.id)?, always: true }))
}
