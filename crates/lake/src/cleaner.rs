//! The cleaner: deletes files that have been garbage for the grace period. One broker at a time does it.
//!
//! Files are deleted first, the record that names them after that; a crash between the two deletes them again, which is
//! no error.

use std::sync::Arc;

use floe_log::ids::TopicId;
use floe_meta::{CommitError, Envelope, Tx, lease};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use metrics::{counter, gauge};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::{
    error::ViewError,
    lake::Inner,
    layout::{FILE_KINDS, Folder},
    limits,
    record::{Garbage, GarbageKey},
};

const LEASE: &str = "lake/cleaner";

pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        sleep(limits::CLEAN_INTERVAL).await;
        match clean(&inner).await {
            Ok(_) => {}
            Err(ViewError::Lease(error)) => debug!(%error, "another broker cleans"),
            Err(ViewError::Closed) => return,
            Err(error) => warn!(%error, "garbage was not deleted, it will be tried again"),
        }
    }
}

/// Deletes what is due; the number of files.
pub(crate) async fn clean(inner: &Inner) -> Result<u64, ViewError> {
    let due = due(inner)?;
    gauge!("floe_lake_garbage_records").set(due.len() as f64);
    if due.is_empty() {
        return Ok(0);
    }
    let owner = inner.owner.clone();
    let take = move |tx: &mut Tx<'_>| Ok(lease::acquire(tx, LEASE, &owner, limits::GARBAGE_GRACE)?);
    let epoch = commit(inner, take).await?;
    let mut deleted = 0;
    for (key, garbage) in due {
        let files = keys(inner, key.topic, &garbage).await?;
        deleted += files.len() as u64;
        delete(inner, files).await?;
        let forget = move |tx: &mut Tx<'_>| {
            tx.check_lease(LEASE, epoch)?;
            tx.delete::<Garbage>(&key);
            Ok(())
        };
        commit(inner, forget).await?;
    }
    counter!("floe_lake_deleted_files_total").increment(deleted);
    let free = move |tx: &mut Tx<'_>| Ok(lease::release(tx, LEASE, epoch)?);
    commit(inner, free).await?;
    Ok(deleted)
}

async fn commit<T: Send + 'static>(
    inner: &Inner,
    command: impl FnMut(&mut Tx<'_>) -> Result<T, ViewError> + Send + 'static,
) -> Result<T, ViewError> {
    let committed: Result<_, CommitError<ViewError>> =
        inner.log.meta().commit(Envelope::broker("lake cleaner"), command).await;
    Ok(committed.map_err(ViewError::from_commit)?.reply)
}

/// Records whose grace is over, oldest first.
fn due(inner: &Inner) -> Result<Vec<(GarbageKey, Garbage)>, ViewError> {
    let now = inner.env.now();
    let mut due = Vec::new();
    for found in inner.log.meta().snapshot().range::<Garbage>(..) {
        let (key, garbage) = found?;
        if now.since(key.since) < limits::GARBAGE_GRACE || due.len() == limits::GARBAGE_RECORDS_MAX {
            break;
        }
        due.push((key, garbage));
    }
    Ok(due)
}

async fn keys(inner: &Inner, topic: TopicId, garbage: &Garbage) -> Result<Vec<String>, ViewError> {
    Ok(match garbage {
        Garbage::Files(keys) => keys.clone(),
        Garbage::Numbers { name, from, to } => {
            let folder = Folder::of(name, topic);
            (*from..*to).flat_map(|number| FILE_KINDS.map(|kind| folder.key(kind, number))).collect()
        }
        Garbage::Table(table) => inner.files(&table.name, topic).everything(table).await?,
    })
}

/// Deletes in order, some at a time: what is named goes before what names it.
async fn delete(inner: &Inner, keys: Vec<String>) -> Result<(), ViewError> {
    let store = Arc::clone(inner.log.store());
    let deletions = keys.into_iter().map(move |key| {
        let store = Arc::clone(&store);
        async move { store.delete(&key).await }.boxed()
    });
    stream::iter(deletions).buffered(limits::PUTS_AT_ONCE).try_collect::<()>().await?;
    Ok(())
}
