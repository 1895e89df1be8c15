//! The cleaner deletes files that have been garbage for the grace period and that no statement reads any more. It has a
//! lease: one broker at a time cleans.
//!
//! It deletes the files first and the record that names them last. After a crash between the two it deletes the files
//! again, which is no error.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use floe_env::{Grace, lock};
use floe_log::TopicId;
use floe_meta::lease::Lease;
use floe_meta::{CommitError, Envelope, Tx, lease};
use floe_view::ViewError;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use metrics::{counter, gauge};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::{
    error::TableError,
    layout::{FILE_KINDS, Folder},
    limits,
    map::{Garbage, GarbageKey},
    shared::Shared,
};

const LEASE: &str = "lake/cleaner";

pub(crate) async fn run(shared: Arc<Shared>, owner: String) {
    loop {
        sleep(shared.config.clean_interval).await;
        match clean(&shared, &owner).await {
            Ok(_) => {}
            Err(ViewError::Lease(error)) => debug!(%error, "another broker cleans"),
            Err(ViewError::Closed) => return,
            Err(error) => warn!(%error, "garbage was not deleted, it will be tried again"),
        }
    }
}

/// Deletes what is due. Returns the number of files.
pub(crate) async fn clean(shared: &Shared, owner: &str) -> Result<u64, ViewError> {
    let ttl = shared.config.garbage_grace;
    // Looked at in every round, so that the wait for a dead owner begins before there is anything to clean.
    let stale = stale_lease(shared, ttl)?;
    let due = due(shared)?;
    gauge!("floe_lake_garbage_records").set(due.len() as f64);
    if due.is_empty() {
        return Ok(0);
    }
    // What is garbage here may be the table of a broker that went on with a copy of this one's metadata.
    if shared.log.former_lived_on().await.map_err(ViewError::output)? {
        return Ok(0);
    }
    let owner = owner.to_owned();
    let take = move |tx: &mut Tx<'_>| Ok(lease::acquire(tx, LEASE, &owner, stale.as_ref(), ttl)?);
    let epoch = commit(shared, take).await?;
    let mut deleted = 0;
    let mut failed: BTreeMap<TopicId, ViewError> = BTreeMap::new();
    for (key, garbage) in due {
        // Within a table the order matters: a manifest goes after the files that only it names.
        if failed.contains_key(&key.topic) {
            continue;
        }
        match clean_one(shared, epoch, key, &garbage).await {
            Ok(files) => deleted += files,
            Err(error @ (ViewError::Lease(_) | ViewError::Closed)) => return Err(error),
            Err(error) => {
                warn!(topic = %key.topic, %error, "garbage of a table was not deleted, it will be tried again");
                failed.insert(key.topic, error);
            }
        }
    }
    counter!("floe_lake_deleted_files_total").increment(deleted);
    let free = move |tx: &mut Tx<'_>| Ok(lease::release(tx, LEASE, epoch)?);
    commit(shared, free).await?;
    failed.into_values().next().map_or(Ok(deleted), Err)
}

/// Deletes the files of one record, then the record. Returns the number of files.
async fn clean_one(
    shared: &Shared,
    epoch: u64,
    key: GarbageKey,
    garbage: &Garbage,
) -> Result<u64, ViewError> {
    let mut deleted = 0;
    for rank in ranks(shared, key.topic, garbage).await? {
        deleted += rank.len() as u64;
        delete(shared, rank).await?;
    }
    let forget = move |tx: &mut Tx<'_>| {
        tx.check_lease(LEASE, epoch)?;
        tx.delete::<Garbage>(&key);
        Ok(())
    };
    commit(shared, forget).await?;
    Ok(deleted)
}

async fn commit<T: Send + 'static>(
    shared: &Shared,
    command: impl FnMut(&mut Tx<'_>) -> Result<T, ViewError> + Send + 'static,
) -> Result<T, ViewError> {
    let committed: Result<_, CommitError<ViewError>> =
        shared.log.meta().commit_deletion(Envelope::broker("lake cleaner"), command).await;
    Ok(committed.map_err(ViewError::from_commit)?.reply)
}

/// The cleaner's lease, if nobody has renewed it for its time to live.
fn stale_lease(shared: &Shared, ttl: Duration) -> Result<Option<Lease>, ViewError> {
    let (snapshot, now) = (shared.log.meta().snapshot(), shared.env.monotonic());
    let mut cleaning = lock(&shared.cleaning);
    cleaning.watch.look(&snapshot, LEASE, now)?;
    Ok(cleaning.watch.stale(now, ttl))
}

/// Records whose grace is over, oldest first. The grace counts on the monotonic clock of this process, from its first
/// look: a wall clock that jumps ahead would end it for a reader that still needs the files.
fn due(shared: &Shared) -> Result<Vec<(GarbageKey, Garbage)>, ViewError> {
    let (now, period) = (shared.env.monotonic(), shared.config.garbage_grace);
    let snapshot = shared.log.meta().snapshot();
    let Some(newest) = snapshot.range::<Garbage>(..).next_back() else { return Ok(Vec::new()) };
    let (newest, _) = newest?;
    // A record does not know its commit. It was there at the LSN at which this process first saw it.
    let oldest = shared.log.oldest_in_use()?;
    let mut cleaning = lock(&shared.cleaning);
    let mut before = std::mem::take(&mut cleaning.seen);
    for found in snapshot.range::<Garbage>(..).take(limits::GARBAGE_RECORDS_MAX) {
        let (key, _) = found?;
        let first = before.remove(&key).unwrap_or_else(|| snapshot.lsn());
        cleaning.seen.insert(key, first);
    }
    let grace = cleaning.grace.get_or_insert_with(|| Grace::new(period));
    grace.look(newest.since, now);
    let over = grace.over();
    let mut due = Vec::new();
    for found in snapshot.range::<Garbage>(..) {
        let (key, garbage) = found?;
        let is_over = key.since < over || cleaning.young.age(&key, now) >= period;
        let is_due = is_over && cleaning.seen.get(&key).is_some_and(|first| *first <= oldest);
        if !is_due || due.len() == limits::GARBAGE_RECORDS_MAX {
            break;
        }
        due.push((key, garbage));
    }
    let young = snapshot.range::<Garbage>(GarbageKey::first_of(over)..).take(limits::GARBAGE_RECORDS_MAX);
    let young = young.map(|found| found.map(|(key, _)| key)).collect::<Result<Vec<_>, _>>()?;
    cleaning.young.look(young, now);
    Ok(due)
}

/// The keys of a record's files by rank: the ranks are deleted one after the other, the files of one rank in any order.
pub(crate) async fn ranks(
    shared: &Shared,
    topic: TopicId,
    garbage: &Garbage,
) -> Result<Vec<Vec<String>>, TableError> {
    Ok(match garbage {
        Garbage::Files(keys) => vec![keys.clone()],
        Garbage::Numbers { name, from, to } => {
            let folder = Folder::of(name, topic);
            vec![(*from..*to).flat_map(|number| FILE_KINDS.map(|kind| folder.key(kind, number))).collect()]
        }
        Garbage::Table(table) => shared.files(&table.name, topic).everything(table, false).await?,
        Garbage::Removed { name, manifest } => vec![shared.files(name, topic).removed_in(manifest).await?],
    })
}

/// Deletes the files, several at a time. Stops at the first failure.
async fn delete(shared: &Shared, keys: Vec<String>) -> Result<(), TableError> {
    let store = Arc::clone(shared.log.store());
    let deletions = keys.into_iter().map(move |key| {
        let store = Arc::clone(&store);
        async move { store.delete(&key).await }.boxed()
    });
    stream::iter(deletions).buffered(limits::PUTS_AT_ONCE).try_collect::<()>().await?;
    Ok(())
}
