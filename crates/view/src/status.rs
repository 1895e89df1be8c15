//! How views are doing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use floe_env::{Timestamp, lock};
use floe_log::{TopicId, topic::Topic};

/// How the view of one topic is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewStatus {
    /// The topic.
    pub topic: TopicId,
    /// The topic's name.
    pub name: String,
    /// Records of the topic that the view has not committed, as of its last look; 0 before the first.
    pub lag: u64,
    /// Records that were deleted from the log before the view read them, since this process runs the view.
    pub lost: u64,
    /// The job that its output needs and that is not done yet, as a word.
    pub job: Option<&'static str>,
    /// Why its last step failed, and when it first did so; none while it works.
    pub error: Option<(String, Timestamp)>,
}

/// The status of every view of one broker.
#[derive(Default)]
pub(crate) struct StatusBoard(Mutex<BTreeMap<TopicId, ViewStatus>>);

impl StatusBoard {
    /// Has an entry for each of these topics and for no other.
    pub(crate) fn match_with(&self, topics: &BTreeMap<TopicId, Topic>) {
        let mut board = lock(&self.0);
        board.retain(|id, _| topics.contains_key(id));
        for topic in topics.values() {
            let (id, name) = (topic.id, topic.name.clone());
            let new = ViewStatus { topic: id, name, lag: 0, lost: 0, job: None, error: None };
            board.entry(topic.id).or_insert(new);
        }
    }

    /// Notes how the last step of a view went. A failure keeps the time of the first of its row. Returns that time.
    pub(crate) fn report(&self, topic: TopicId, now: Timestamp, error: Option<String>) -> Timestamp {
        let mut board = lock(&self.0);
        let Some(status) = board.get_mut(&topic) else { return now };
        let since = status.error.as_ref().map_or(now, |(_, since)| *since);
        status.error = error.map(|error| (error, since));
        since
    }

    /// Notes how many records a view is behind.
    pub(crate) fn behind(&self, topic: TopicId, lag: u64) {
        if let Some(status) = lock(&self.0).get_mut(&topic) {
            status.lag = lag;
        }
    }

    /// Notes that a view has passed over so many records.
    pub(crate) fn lost(&self, topic: TopicId, lost: u64) {
        if let Some(status) = lock(&self.0).get_mut(&topic) {
            status.lost += lost;
        }
    }

    /// Notes which job a view has to do.
    pub(crate) fn job(&self, topic: TopicId, job: Option<&'static str>) {
        if let Some(status) = lock(&self.0).get_mut(&topic) {
            status.job = job;
        }
    }

    /// Every entry.
    pub(crate) fn all(&self) -> Vec<ViewStatus> {
        lock(&self.0).values().cloned().collect()
    }

    /// The topics that have an entry.
    pub(crate) fn topics(&self) -> BTreeSet<TopicId> {
        lock(&self.0).keys().copied().collect()
    }
}
