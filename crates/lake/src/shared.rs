//! What the handle, the views and the cleaner of one broker share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use floe_env::{Env, Timestamp, lock};
use floe_log::{Log, TopicId};
use tokio::sync::{Semaphore, watch};

use crate::{files::Files, layout::Folder, limits};

/// What can be chosen for a broker's lake; topics have settings of their own.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whether this broker runs views. Without, it still answers for the tables that others write.
    pub views: bool,
    /// Views that encode at the same time: each takes a core and the memory of one commit.
    pub views_at_work: usize,
    /// Snapshots that a table keeps; older ones are expired by the commit that adds one more. At least 2.
    pub snapshots_kept: usize,
    /// Bytes of records, as decoded, that one commit takes in while a view catches up; one batch more at most.
    pub commit_bytes: usize,
    /// Bytes of the log, as stored, at which a view commits whatever the freshness: until then queries read them from
    /// the log. A topic's `floe.table.file.bytes` counts as well, where it is less.
    pub gather_bytes: u64,
    /// How long a file is kept that no snapshot names any more: for readers that still hold one which did, and for puts
    /// that are still on their way.
    pub garbage_grace: Duration,
    /// How often the cleaner looks for files whose grace is over.
    pub clean_interval: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            views: true,
            views_at_work: limits::VIEWS_AT_WORK,
            snapshots_kept: limits::SNAPSHOTS_KEPT,
            commit_bytes: limits::COMMIT_BYTES_MAX,
            gather_bytes: limits::GATHER_BYTES_MAX,
            garbage_grace: limits::GARBAGE_GRACE,
            clean_interval: limits::CLEAN_INTERVAL,
        }
    }
}

/// How a view is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewStatus {
    /// The topic.
    pub topic: TopicId,
    /// Its name.
    pub name: String,
    /// Why its last step failed, and when it first did so; none while it works.
    pub error: Option<(String, Timestamp)>,
}

/// What the views of a broker share.
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) log: Log,
    pub(crate) owner: String,
    pub(crate) config: Config,
    pub(crate) working: Semaphore,
    /// Counts changes of topics.
    pub(crate) topics_changed: watch::Sender<u64>,
    pub(crate) status: Mutex<BTreeMap<TopicId, ViewStatus>>,
}

impl Shared {
    pub(crate) fn files(&self, name: &str, topic: TopicId) -> Files {
        Files::new(Arc::clone(self.log.store()), Folder::of(name, topic))
    }

    /// Notes how the last step of a view went.
    pub(crate) fn report(&self, topic: TopicId, error: Option<String>) {
        let now = self.env.now();
        let mut status = lock(&self.status);
        let Some(status) = status.get_mut(&topic) else { return };
        let since = status.error.as_ref().map_or(now, |(_, since)| *since);
        status.error = error.map(|error| (error, since));
    }
}
