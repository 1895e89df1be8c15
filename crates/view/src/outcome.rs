//! The commit of a step, and what became of it.
//!
//! A commit was applied, was not applied, or its answer was lost. The last is never guessed: the runner asks the
//! journal, with a command that is ordered behind the one in doubt.

use floe_env::Backoff;
use floe_log::{
    PartitionId, TopicId,
    sequencer::{self, Uploaded},
    topic::{self, Topic},
};
use floe_meta::{CommitError, Envelope, Tx, lease};
use tracing::warn;

use crate::{
    contract::{Command, View},
    error::ViewError,
    limits,
    ownership::lease_name,
    progress::{self, ReadRanges},
    shared::Shared,
};

/// Commits the command together with the progress and the dead letters.
///
/// # Errors
/// Nothing was applied, or another process owns the view now.
pub(crate) async fn commit<V: View>(
    shared: &Shared<V>,
    topic: &Topic,
    epoch: u64,
    read: &ReadRanges,
    letters: Option<Uploaded>,
    mut command: Command,
) -> Result<(), ViewError> {
    let (id, ranges) = (topic.id, read.clone());
    let publish = move |tx: &mut Tx<'_>| -> Result<(), ViewError> {
        lease::renew(tx, &lease_name(V::NAME, id), epoch, limits::LEASE_TTL)?;
        topic::by_id(tx, id)?.ok_or(ViewError::TopicGone)?;
        command(tx)?;
        progress::advance::<V::Progress>(tx, id, &ranges)?;
        if let Some(uploaded) = &letters {
            for result in sequencer::sequence(tx, uploaded) {
                result?;
            }
        }
        Ok(())
    };
    match shared.log.meta().commit(envelope::<V>(topic, read), publish).await {
        Ok(_) => Ok(()),
        // No progress tells of a piece of a job. The output is loaded again, as the journal has it.
        Err(CommitError::Unknown(reason)) if read.is_empty() => {
            Err(ViewError::Stale(format!("the answer of a commit was lost: {reason}")))
        }
        Err(CommitError::Unknown(reason)) => resolve(shared, topic, epoch, read, reason).await,
        Err(error) => Err(ViewError::from_commit(error)),
    }
}

/// Renews the lease of a topic's view. A lost answer does not matter: the next commit checks the epoch.
pub(crate) async fn renew<V: View>(shared: &Shared<V>, topic: &Topic, epoch: u64) -> Result<(), ViewError> {
    let name = lease_name(V::NAME, topic.id);
    let renew = move |tx: &mut Tx<'_>| Ok(lease::renew(tx, &name, epoch, limits::LEASE_TTL)?);
    let envelope = Envelope::broker(&format!("{} view of {} is at work", V::NAME, topic.name));
    match shared.log.meta().commit(envelope, renew).await {
        Ok(_) | Err(CommitError::Unknown(_)) => Ok(()),
        Err(error) => Err(ViewError::from_commit(error)),
    }
}

/// The envelope of a commit: what it was made from.
fn envelope<V: View>(topic: &Topic, read: &ReadRanges) -> Envelope {
    let from = read.iter().next().map_or(String::new(), |(p, (from, to))| format!(" {p}@{from}..{to}"));
    if read.is_empty() {
        return Envelope::broker(&format!("{} job of {}", V::NAME, topic.name));
    }
    let more =
        if read.len() > 1 { format!(" and {} more partitions", read.len() - 1) } else { String::new() };
    Envelope::broker(&format!("{} view of {}{from}{more}", V::NAME, topic.name))
}

/// Finds out whether a commit was applied whose answer was lost.
///
/// The progress tells, as long as the lease is ours: no other process has moved it. If the lease is lost, the commit
/// does not matter any more: the next owner goes on from what it finds.
async fn resolve<V: View>(
    shared: &Shared<V>,
    topic: &Topic,
    epoch: u64,
    read: &ReadRanges,
    reason: String,
) -> Result<(), ViewError> {
    let mut backoff = Backoff::new(&shared.env, limits::BACKOFF_MIN, limits::BACKOFF_MAX);
    loop {
        warn!(topic = %topic.id, %reason, "the answer of a commit was lost, the journal is asked for it");
        let (id, ranges) = (topic.id, read.clone());
        let probe = move |tx: &mut Tx<'_>| {
            // The renewal is a change of its own, which makes this command an entry behind the one in doubt. Without
            // the lease no entry is needed, as the command in doubt would be refused.
            lease::renew(tx, &lease_name(V::NAME, id), epoch, limits::LEASE_TTL)?;
            applied::<V>(tx, id, &ranges)
        };
        let envelope = Envelope::broker(&format!("{} view asks for its commit", V::NAME));
        match shared.log.meta().commit(envelope, probe).await {
            Ok(committed) if committed.reply => return Ok(()),
            Ok(_) => return Err(ViewError::NotApplied(reason)),
            Err(CommitError::Closed) => return Err(ViewError::Closed),
            Err(CommitError::Refused(error)) => return Err(error),
            Err(CommitError::NotApplied(_) | CommitError::Unknown(_)) => backoff.pause().await,
        }
    }
}

/// Whether the progress is at the end of every range. A commit moves all of them or none.
fn applied<V: View>(tx: &Tx<'_>, topic: TopicId, read: &ReadRanges) -> Result<bool, ViewError> {
    let mut moved = 0;
    for (index, (from, to)) in read {
        let next = progress::next_of::<V::Progress>(tx, PartitionId::new(topic, *index))?;
        if next == *to {
            moved += 1;
        } else if next != *from {
            return Err(ViewError::Stale(format!(
                "partition {index} was read to {next}, not to {from} or {to}"
            )));
        }
    }
    if moved != 0 && moved != read.len() {
        return Err(ViewError::Stale(format!("{moved} of {} partitions have moved on", read.len())));
    }
    Ok(moved != 0)
}
