//! What the supervisor and the runners of one view share.

use std::sync::Arc;

use floe_env::Env;
use floe_log::{
    Log, TopicId,
    topic::{self, Topic},
};
use floe_meta::{DecodeError, Snapshot};
use tokio::sync::{Semaphore, watch};

use crate::{
    contract::{Settings, View},
    limits,
    memory::Memory,
    status::StatusBoard,
};

/// What a broker can choose for all topics of a view.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Views that compute at the same time; each takes a core. They and those that wait for the store hold the memory
    /// of so many full commits together.
    pub views_at_work: usize,
    /// Bytes of records, as decoded, that one commit takes in while a view catches up; one batch more at most.
    pub commit_bytes: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { views_at_work: limits::VIEWS_AT_WORK, commit_bytes: limits::COMMIT_BYTES_MAX }
    }
}

pub(crate) struct Shared<V> {
    pub(crate) env: Env,
    pub(crate) log: Log,
    pub(crate) view: V,
    /// The owner's name in leases; no other process has it, and neither has this one after a restart.
    pub(crate) owner: String,
    pub(crate) config: Config,
    /// A permit for each view that may compute.
    pub(crate) working: Semaphore,
    /// A permit for each piece of a job that may work.
    pub(crate) jobs_at_work: Semaphore,
    pub(crate) memory: Arc<Memory>,
    /// Counts the changes of topics.
    pub(crate) topics_changed: watch::Sender<u64>,
    pub(crate) status: StatusBoard,
}

impl<V: View> Shared<V> {
    /// The topic with the settings of its view; none if it has no view, or is gone.
    pub(crate) fn topic(
        &self,
        snapshot: &Snapshot,
        id: TopicId,
    ) -> Result<Option<(Topic, Settings)>, DecodeError> {
        let Some(topic) = topic::by_id(snapshot, id)? else { return Ok(None) };
        Ok(self.view.settings(snapshot, &topic)?.map(|settings| (topic, settings)))
    }
}
