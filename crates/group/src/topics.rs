//! The names of topics, by id. A deleted topic that can come back has its name as well.

use floe_log::TopicId;
use floe_log::{deleted, topic};
use floe_meta::{DecodeError, Lookup};

/// Looks topics up. It caches the last one, because offsets of one topic follow each other.
#[derive(Default)]
pub(crate) struct KnownTopics(Option<(TopicId, Option<String>)>);

impl KnownTopics {
    /// The name of a topic; `None` if it was deleted for good.
    pub(crate) fn name(&mut self, map: &impl Lookup, id: TopicId) -> Result<Option<&str>, DecodeError> {
        if self.0.as_ref().is_none_or(|(known, _)| *known != id) {
            let name = match topic::by_id(map, id)? {
                Some(topic) => Some(topic.name),
                None => deleted::by_id(map, id)?.map(|deleted| deleted.topic.name),
            };
            self.0 = Some((id, name));
        }
        Ok(self.0.as_ref().and_then(|(_, name)| name.as_deref()))
    }

    pub(crate) fn exists(&mut self, map: &impl Lookup, id: TopicId) -> Result<bool, DecodeError> {
        Ok(self.name(map, id)?.is_some())
    }
}
