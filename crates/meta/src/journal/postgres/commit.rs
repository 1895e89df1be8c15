//! Commits: one round trip each, also those that others were faster than.
//!
//! ```text
//! -> commit ; missed      two statements, sent together. Each is a transaction of its own, the second after the first
//! <- a row  ; none        applied, durable
//! <- none   ; entries     others were first, and this is what was missed
//! <- none   ; none        an attempt that was applied before, an empty group, or a server that is astray: a look at
//!                         the tail tells
//! <- an error             the transaction was undone: not applied
//! <- the connection ends  unknown; the connection is thrown away
//! ```

use futures::join;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;

use floe_env::lock;

use crate::journal::{Commit, JournalError, Lsn, Outcome};
use crate::limits::{ENTRIES_BYTES_MAX, ENTRIES_MAX, POSTGRES_ANSWER_TIMEOUT};

use super::error::of_commit;
use super::planted::Planted;
use super::rows::Columns;
use super::seen::{Astray, Mark};
use super::state::{Lane, Ready, Shared, Tail, refused, signed};

/// Commits a group over the connection for commits. A caller that goes away meanwhile takes the connection with it.
pub(super) async fn commit(
    shared: &Shared,
    lane: &Mutex<Lane>,
    expected: Lsn,
    attempt: u128,
    commits: &[Commit],
) -> Result<Outcome, JournalError> {
    let columns = Columns::of(expected, attempt, commits)?;
    let mut lane = lane.lock().await;
    let ready = lane.take().await?;
    let _under_way = UnderWay::new(shared);
    let group = Group { shared, ready: &ready, expected, attempt };
    let outcome = match timeout(POSTGRES_ANSWER_TIMEOUT, group.commit(&columns)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(JournalError::Unknown(format!(
            "PostgreSQL did not answer within {} s",
            POSTGRES_ANSWER_TIMEOUT.as_secs()
        ))),
    };
    // What is still to come on a connection whose answer was given up would be taken for the next answer.
    if !matches!(outcome, Err(JournalError::Unknown(_))) {
        lane.put(ready);
    }
    outcome
}

/// One call of a commit, on one connection.
struct Group<'a> {
    shared: &'a Shared,
    ready: &'a Ready,
    expected: Lsn,
    attempt: u128,
}

impl Group<'_> {
    async fn commit(&self, columns: &Columns) -> Result<Outcome, JournalError> {
        let Some(before) = self.link_before().await? else { return self.look(None, false).await };
        let Some(last) = columns.links(before).pop() else { return self.look(Some(before), true).await };
        let end = Mark { lsn: self.expected.plus(columns.changes.len()), link: last };
        let count = ENTRIES_MAX as i64;
        let bytes = ENTRIES_BYTES_MAX as i64;
        let (expected, attempt) = (signed(self.expected), self.attempt.to_be_bytes());
        let attempt = &attempt[..];
        let added = columns.bytes as i64;
        let links: Vec<i64> = columns.links(before).into_iter().map(i64::from).collect();
        let (before_column, length) = (i64::from(before), columns.changes.len() as i64);
        let last_column = i64::from(last);
        let crcs = columns.crcs();
        let (client, statements) = (self.ready.client(), &self.ready.statements);
        let group: [&(dyn ToSql + Sync); 10] = [
            &expected,
            &before_column,
            &length,
            &last_column,
            &attempt,
            &added,
            &columns.envelopes,
            &columns.changes,
            &crcs,
            &links,
        ];
        let missed: [&(dyn ToSql + Sync); 4] = [&expected, &attempt, &count, &bytes];
        let (moved, missed) =
            join!(client.query(&statements.commit, &group), client.query(&statements.missed, &missed));
        let moved = moved.map_err(|error| self.failed(&error))?;
        if !moved.is_empty() {
            self.shared.note(end);
            return Ok(Outcome::Committed(end.lsn));
        }
        let missed = missed.map_err(refused)?;
        if missed.is_empty() {
            return self.look(Some(before), false).await;
        }
        Ok(Outcome::Conflict(self.shared.take(self.expected, Some(before), &missed)?.entries))
    }

    fn failed(&self, error: &tokio_postgres::Error) -> JournalError {
        match of_commit(error) {
            JournalError::Unknown(reason) if self.shared.plant.has(Planted::UnknownIsNotApplied) => {
                JournalError::NotApplied(reason)
            }
            error => error,
        }
    }

    /// The link of the entry that the group follows: the caller read it from this journal, or committed it. If this
    /// handle does not remember it, the server tells; `None` if it has no such entry.
    async fn link_before(&self) -> Result<Option<u32>, JournalError> {
        if let Some(link) = self.shared.link_of(self.expected) {
            return Ok(Some(link));
        }
        let found =
            self.ready.client().query_opt(&self.ready.statements.link, &[&signed(self.expected)]).await;
        let found =
            found.map_err(refused)?.map(|row| row.try_get::<_, i64>(0)).transpose().map_err(refused)?;
        Ok(found.map(super::state::link_of).transpose()?)
    }

    /// Answers a group that changed nothing by a look at the tail.
    async fn look(&self, before: Option<u32>, is_empty: bool) -> Result<Outcome, JournalError> {
        let Tail { mark: tail, .. } = self.ready.tail().await?;
        if tail.lsn > self.expected {
            let rows = self.ready.page(self.expected, ENTRIES_MAX).await.map_err(refused)?;
            return Ok(Outcome::Conflict(self.shared.take(self.expected, before, &rows)?.entries));
        }
        let seen = lock(&self.shared.seen).last();
        if tail.lsn < seen.lsn {
            return Err(not_applied(&Astray::Behind { found: tail.lsn, seen: seen.lsn }));
        }
        if tail.lsn < self.expected {
            return Err(JournalError::NotApplied(format!(
                "the journal ends at {}, before {}",
                tail.lsn, self.expected
            )));
        }
        match is_empty && before.is_none_or(|link| link == tail.link) {
            true => Ok(Outcome::Committed(tail.lsn)),
            false => Err(not_applied(&Astray::Differs(tail.lsn))),
        }
    }
}

fn not_applied(astray: &Astray) -> JournalError {
    JournalError::NotApplied(astray.to_string())
}

/// Says since when a commit is under way, for as long as it is.
struct UnderWay<'a>(&'a Shared);

impl<'a> UnderWay<'a> {
    fn new(shared: &'a Shared) -> UnderWay<'a> {
        *lock(&shared.under_way) = Some(shared.env.monotonic());
        UnderWay(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *lock(&self.0.under_way) = None;
    }
}
