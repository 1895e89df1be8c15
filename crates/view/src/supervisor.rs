//! Keeps one runner going for each topic that has the view.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use floe_env::{Env, Task};
use floe_log::{
    Log, TopicId, deleted,
    topic::{self, Topic},
};
use floe_meta::{Envelope, Snapshot, Tx};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, error, warn};

use crate::{
    contract::View,
    error::ViewError,
    limits,
    memory::Memory,
    ownership,
    runner::TopicRunner,
    shared::{Config, Shared},
    status::{StatusBoard, ViewStatus},
};

/// The views of one kind in one process. A clone is the same.
pub struct Views<V> {
    shared: Arc<Shared<V>>,
}

impl<V> Clone for Views<V> {
    fn clone(&self) -> Views<V> {
        Views { shared: Arc::clone(&self.shared) }
    }
}

impl<V: View> Views<V> {
    /// Prepares the views of `view` over the topics of `log`. Nothing runs before [`Views::run`].
    pub fn new(env: Env, log: Log, view: V, config: Config) -> Views<V> {
        let owner = format!("{}-{:032x}", V::NAME, env.random_u128());
        let shared = Arc::new(Shared {
            env,
            log,
            view,
            owner,
            config,
            working: Semaphore::new(config.views_at_work.max(1)),
            jobs_at_work: Semaphore::new(limits::JOBS_AT_WORK),
            memory: Arc::new(Memory::new(config.views_at_work, config.commit_bytes)),
            topics_changed: watch::Sender::new(0),
            status: StatusBoard::default(),
        });
        let observed = Arc::downgrade(&shared);
        shared.log.meta().observe(move |applied| {
            let is_known = |key: &[u8]| topic::is_topic(key) || deleted::is_deleted(key);
            let touched = applied.changes.iter().any(|change| is_known(&change.key));
            if let Some(shared) = observed.upgrade().filter(|_| touched) {
                shared.topics_changed.send_modify(|changes| *changes += 1);
            }
        });
        Views { shared }
    }

    /// Runs a view for each topic that has one, now or later. Drop the future to end them: a commit under way is
    /// abandoned, and nothing of it is visible.
    pub async fn run(self) {
        let shared = self.shared;
        let mut changes = shared.topics_changed.subscribe();
        let mut runners: BTreeMap<TopicId, Runner> = BTreeMap::new();
        loop {
            if let Err(error) = supervise(&shared, &mut runners).await {
                warn!(%error, "the views cannot be matched with the topics, it will be tried again");
                tokio::time::sleep(limits::BACKOFF_MAX).await;
                continue;
            }
            // A runner that ended unexpectedly is started again at the next look.
            if let Ok(Err(_)) = tokio::time::timeout(limits::SUPERVISE_INTERVAL, changes.changed()).await {
                return;
            }
        }
    }

    /// Gives the leases back, so that another process need not wait for them to expire. Call it when
    /// [`Views::run`] has ended.
    pub async fn release(&self) {
        let topics: Vec<TopicId> = self.shared.status.topics().into_iter().collect();
        let owner = self.shared.owner.clone();
        let release = move |tx: &mut Tx<'_>| ownership::release::<V>(tx, &topics, &owner);
        let envelope = Envelope::broker(&format!("{} closes", V::NAME));
        if let Err(error) = self.shared.log.meta().commit_deletion(envelope, release).await {
            debug!(error = %ViewError::from_commit(error), "leases of views were not given back and will expire");
        }
    }

    /// Looks soon which topics have the view, although no topic has changed.
    pub fn look(&self) {
        self.shared.topics_changed.send_modify(|changes| *changes += 1);
    }

    /// The view.
    pub fn view(&self) -> &V {
        &self.shared.view
    }

    /// The name of this process in leases; no other process has it.
    pub fn owner(&self) -> &str {
        &self.shared.owner
    }

    /// How the views of this process are doing.
    pub fn status(&self) -> Vec<ViewStatus> {
        self.shared.status.all()
    }
}

/// The task of one topic. It ends when this is dropped.
struct Runner {
    task: Task<()>,
    /// Whether it ended by itself, because its view was not wanted any more.
    ended: Arc<AtomicBool>,
}

impl Runner {
    fn start<V: View>(shared: &Arc<Shared<V>>, topic: &Topic) -> Runner {
        let ended = Arc::<AtomicBool>::default();
        let (runner, at_end) = (TopicRunner::new(Arc::clone(shared), topic), Arc::clone(&ended));
        let work = async move {
            runner.run().await;
            at_end.store(true, Ordering::Relaxed);
        };
        Runner { task: shared.env.spawn("view", work), ended }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts and ends runners so that they match the topics, and forgets the views of deleted topics.
async fn supervise<V: View>(
    shared: &Arc<Shared<V>>,
    runners: &mut BTreeMap<TopicId, Runner>,
) -> Result<(), ViewError> {
    let snapshot = shared.log.meta().snapshot();
    let all = topic::all(&snapshot)?;
    let mut wanted: BTreeMap<TopicId, Topic> = BTreeMap::new();
    for topic in &all {
        if shared.view.settings(&snapshot, topic)?.is_some() {
            wanted.insert(topic.id, topic.clone());
        }
    }
    runners.retain(|id, runner| {
        let is_wanted = wanted.contains_key(id);
        // A view that had ended may be wanted again by now.
        if is_wanted && runner.task.is_finished() && !runner.ended.load(Ordering::Relaxed) {
            error!(topic = %id, "a view ended that should run, it is started again");
            let why = "the view ended unexpectedly, see the log; it was started again".to_owned();
            shared.status.report(*id, shared.env.now(), Some(why));
        }
        is_wanted && !runner.task.is_finished()
    });
    shared.status.match_with(&wanted);
    for topic in wanted.values() {
        runners.entry(topic.id).or_insert_with(|| Runner::start(shared, topic));
    }
    forget_deleted(shared, &snapshot, &all).await
}

/// A topic that was deleted for good takes its view along.
async fn forget_deleted<V: View>(
    shared: &Arc<Shared<V>>,
    snapshot: &Snapshot,
    topics: &[Topic],
) -> Result<(), ViewError> {
    let existing: BTreeSet<TopicId> = topics.iter().map(|topic| topic.id).collect();
    let owned = ownership::owned_topics::<V>(snapshot)?;
    for topic in owned.into_iter().filter(|topic| !existing.contains(topic)) {
        if deleted::exists(snapshot, topic)? {
            continue; // it can come back, and its view goes on then
        }
        let command = move |tx: &mut Tx<'_>| ownership::forget::<V>(tx, topic);
        let envelope = Envelope::broker(&format!("{} {} of a deleted topic", V::NAME, V::OUTPUT));
        shared.log.meta().commit_deletion(envelope, command).await.map_err(ViewError::from_commit)?;
    }
    Ok(())
}
