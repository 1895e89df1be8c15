//! Keeps one view running for each topic that is a table, and the cleaner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use floe_env::{Task, lock};
use floe_log::{
    TopicId,
    topic::{self, Topic},
    topic_config::{TableMode, TopicConfig},
};
use floe_meta::{Envelope, Snapshot, Tx};
use tracing::{error, warn};

use crate::{
    cleaner, command,
    error::ViewError,
    limits,
    map::ViewState,
    running::runner::View,
    shared::{Shared, ViewStatus},
};

/// Ends its task with it.
struct Guard(Task<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a view for each table, and the cleaner.
pub(crate) async fn supervise(shared: Arc<Shared>) {
    let _cleaner = Guard(shared.env.spawn("lake cleaner", cleaner::run(Arc::clone(&shared))));
    let mut changes = shared.topics_changed.subscribe();
    let mut views: BTreeMap<TopicId, Guard> = BTreeMap::new();
    loop {
        if let Err(error) = supervise_once(&shared, &mut views).await {
            warn!(%error, "the views cannot be matched with the topics, it will be tried again");
            tokio::time::sleep(limits::BACKOFF_MAX).await;
            continue;
        }
        // A view that ended by itself, and should not have, is started again with the next look.
        if let Ok(Err(_)) = tokio::time::timeout(limits::SUPERVISE_INTERVAL, changes.changed()).await {
            return;
        }
    }
}

async fn supervise_once(shared: &Arc<Shared>, views: &mut BTreeMap<TopicId, Guard>) -> Result<(), ViewError> {
    let snapshot = shared.log.meta().snapshot();
    let topics: BTreeMap<TopicId, Topic> =
        topic::all(&snapshot)?.into_iter().map(|topic| (topic.id, topic)).collect();
    let is_table = |topic: &Topic| TopicConfig::of(topic).table != TableMode::Off;
    views.retain(|id, view| {
        let wanted = topics.get(id).is_some_and(is_table);
        if wanted && view.0.is_finished() {
            error!(topic = %id, "a view ended that should run, it is started again");
            shared.report(
                *id,
                Some("the view ended unexpectedly, see the log; it was started again".to_owned()),
            );
        }
        wanted && !view.0.is_finished()
    });
    {
        let mut status = lock(&shared.status);
        status.retain(|id, _| topics.get(id).is_some_and(is_table));
        for topic in topics.values().filter(|topic| is_table(topic)) {
            let new = ViewStatus { topic: topic.id, name: topic.name.clone(), error: None };
            status.entry(topic.id).or_insert(new);
        }
    }
    for topic in topics.values().filter(|topic| is_table(topic)) {
        let start = || Guard(shared.env.spawn("lake view", View::new(Arc::clone(shared), topic).run()));
        views.entry(topic.id).or_insert_with(start);
    }
    drop_tables(shared, &snapshot, &topics).await
}

/// A deleted topic takes its table along.
async fn drop_tables(
    shared: &Arc<Shared>,
    snapshot: &Snapshot,
    topics: &BTreeMap<TopicId, Topic>,
) -> Result<(), ViewError> {
    let mut known = BTreeSet::new();
    for found in snapshot.range::<ViewState>(..) {
        known.insert(found?.0);
    }
    for topic in known.into_iter().filter(|topic| !topics.contains_key(topic)) {
        let command = move |tx: &mut Tx<'_>| command::drop_table(tx, topic);
        let envelope = Envelope::broker("lake table of a deleted topic");
        shared.log.meta().commit(envelope, command).await.map_err(ViewError::from_commit)?;
    }
    Ok(())
}
