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
    /// Why the last piece of a job failed, and when that began; none while jobs work.
    pub job_error: Option<(String, Timestamp)>,
    /// Why its last step failed, and when it first did so; none while it works.
    pub error: Option<(String, Timestamp)>,
}

impl ViewStatus {
    /// The status of a view that has not begun.
    pub fn new(topic: TopicId, name: String) -> ViewStatus {
        ViewStatus { topic, name, lag: 0, lost: 0, job: None, job_error: None, error: None }
    }
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
            board.entry(topic.id).or_insert(ViewStatus::new(id, name));
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

    /// The same for the last piece of a job.
    pub(crate) fn job_went(&self, topic: TopicId, now: Timestamp, error: Option<String>) {
        if let Some(status) = lock(&self.0).get_mut(&topic) {
            let since = status.job_error.as_ref().map_or(now, |(_, since)| *since);
            status.job_error = error.map(|error| (error, since));
        }
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
            // What failed before is not needed any more.
            status.job_error.take_if(|_| job.is_none());
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
