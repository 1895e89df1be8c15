//! Topics by name and by id, cached between requests. Each produce and fetch names topics, and each look-up in the
//! metadata map decodes a record.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use floe_env::lock;
use floe_log::PartitionId;
use floe_log::topic::{self, Topic};
use floe_meta::{DecodeError, Meta, Snapshot};
use floe_wire::ErrorCode;

use crate::api::errors;

/// A topic as a request names it. Produce and Fetch name topics up to version 12, and give ids from version 13 on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TopicRef {
    Name(Arc<str>),
    Id(u128),
}

/// A partition as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartitionRef {
    pub(crate) topic: TopicRef,
    pub(crate) partition: i32,
}

/// A cache of topics. Any change of any topic empties it.
#[derive(Clone)]
pub(crate) struct Directory {
    meta: Meta,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// Changes of topics so far. A topic that was read before a change must not be cached after it.
    changes: u64,
    topics: BTreeMap<TopicRef, Arc<Topic>>,
}

impl Directory {
    pub(crate) fn new(meta: &Meta) -> Directory {
        let known = Arc::new(Mutex::new(Known::default()));
        let seen = known.clone();
        meta.observe(move |applied| {
            if applied.changes.iter().any(|change| topic::is_topic(&change.key)) {
                let mut known = lock(&seen);
                known.changes += 1;
                known.topics.clear();
            }
        });
        Directory { meta: meta.clone(), known }
    }

    /// The topic that a request names.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION` for a name, `UNKNOWN_TOPIC_ID` for an id.
    pub(crate) fn topic(&self, name: &TopicRef) -> Result<Arc<Topic>, ErrorCode> {
        let changes = {
            let known = lock(&self.known);
            if let Some(topic) = known.topics.get(name) {
                return Ok(topic.clone());
            }
            known.changes
        };
        let found = find(&self.meta.snapshot(), name).map_err(|error| errors::metadata(&error))?;
        let topic = found.map(Arc::new).ok_or(match name {
            TopicRef::Name(_) => ErrorCode::UnknownTopicOrPartition,
            TopicRef::Id(_) => ErrorCode::UnknownTopicId,
        })?;
        let mut known = lock(&self.known);
        if known.changes == changes {
            known.topics.insert(name.clone(), topic.clone());
        }
        Ok(topic)
    }

    /// The partition that a request names.
    ///
    /// # Errors
    /// As [`Directory::topic`], and `UNKNOWN_TOPIC_OR_PARTITION` for an index that the topic does not have.
    pub(crate) fn partition(&self, name: &TopicRef, index: i32) -> Result<PartitionId, ErrorCode> {
        partition(&*self.topic(name)?, index)
    }
}

/// The partition of a topic with this index.
pub(crate) fn partition(topic: &Topic, index: i32) -> Result<PartitionId, ErrorCode> {
    match u32::try_from(index) {
        Ok(index) if index < topic.partitions => Ok(PartitionId { topic: topic.id, index }),
        _ => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

fn find(snapshot: &Snapshot, name: &TopicRef) -> Result<Option<Topic>, DecodeError> {
    match name {
        TopicRef::Name(name) => topic::by_name(snapshot, name),
        TopicRef::Id(id) => topic::by_uuid(snapshot, uuid::Uuid::from_u128(*id)),
    }
}
