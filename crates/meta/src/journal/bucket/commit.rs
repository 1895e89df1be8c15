//! One commit: the group becomes the object behind the last one, if there is none yet.
//!
//! ```text
//! expected == the tail -> is the tail known well enough? -> PUT if absent
//!                            |  the floor has passed: Reload      |
//!                            |                                    +-- created in time: committed
//!                            |                                    +-- created late: floor still below? committed
//!                            |                                    |                 it has passed: unknown
//!                            |                                    +-- exists: read what others wrote: conflict
//!                            |                                    +-- refused: not applied;  no answer: unknown
//! expected < the tail -> conflict, with what the caller missed
//! ```

use std::sync::Mutex;

use bytes::Bytes;
use floe_env::lock;
use floe_store::{PutIfAbsent, StoreError};
use tokio::time::Instant;

use super::group::{Group, encode, joined};
use super::planted::{Planted, planted};
use super::read::{failed, refused};
use super::sealed::Unsound;
use super::state::{Core, Moment, Tail};
use crate::journal::{Attachment, Carried, Commit, JournalError, Lsn, Outcome, attachment};

/// Says for as long as it lives that a PUT is under way, also if the caller gives up.
struct UnderWay<'a>(&'a Mutex<Option<Instant>>);

impl<'a> UnderWay<'a> {
    fn begin(place: &'a Mutex<Option<Instant>>, now: Instant) -> UnderWay<'a> {
        *lock(place) = Some(now);
        UnderWay(place)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
    }
}

impl Core {
    pub(super) async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        attachment::check(commits.len(), attachments, self.options.carries)?;
        let Some(pieces) = joined(attachments) else {
            return Err(JournalError::NotApplied("an attachment has changed in memory".to_owned()));
        };
        self.ready().await?;
        let _turn = self.writing.lock().await;
        if expected > self.tail().position.last || commits.is_empty() {
            self.catch_up().await?;
        }
        let tail = self.tail();
        let last = tail.position.last;
        if expected > last {
            return Err(JournalError::NotApplied(format!("the journal ends at {last}, before {expected}")));
        }
        if expected < last {
            return self.conflict(expected).await;
        }
        if commits.is_empty() {
            return Ok(Carried::of(Outcome::Committed(last)));
        }
        self.put_next(tail, attempt, commits, pieces).await
    }

    async fn conflict(&self, expected: Lsn) -> Result<Carried, JournalError> {
        let missed = self.entries_after(expected, usize::MAX).await?;
        Ok(Carried::of(Outcome::Conflict(missed)))
    }

    /// Puts the entry behind the tail.
    async fn put_next(
        &self,
        tail: Tail,
        attempt: u128,
        commits: &[Commit],
        pieces: Vec<(u32, Bytes)>,
    ) -> Result<Carried, JournalError> {
        let position = tail.position;
        let number = position.number + 1;
        let place = (number, position.last.next(), position.link);
        let laid_out = encode(self.journal, place, attempt, commits, &pieces);
        let (group, front) = laid_out.map_err(|error| JournalError::NotApplied(too_large(&error)))?;
        let held: Vec<Bytes> = pieces.into_iter().map(|(_, bytes)| bytes).collect();
        let payload: Vec<Bytes> = std::iter::once(front).chain(held.iter().cloned()).collect();
        let mut confirmed = tail.confirmed;
        if self.is_old(confirmed) && !planted(Planted::NoCheckBefore) {
            confirmed = self.confirm(number).await?;
            self.note_confirmed(position.number, confirmed);
        }
        lock(&self.state).sent = Some(attempt);
        let began = Moment::now(&self.env);
        let put = {
            let _under_way = UnderWay::begin(&self.under_way, self.env.monotonic());
            self.store.put_if_absent(&self.names.entry(number), payload).await
        };
        match put {
            Ok(PutIfAbsent::Created) => self.created(group, began, confirmed, held).await,
            Ok(PutIfAbsent::Exists) => {
                metrics::counter!("floe_meta_bucket_lost_races_total").increment(1);
                self.exists(number, position.last).await
            }
            Err(StoreError::NotApplied(reason) | StoreError::Full(reason)) => {
                Err(JournalError::NotApplied(reason))
            }
            Err(error) if planted(Planted::UnknownIsNotApplied) => {
                Err(JournalError::NotApplied(error.to_string()))
            }
            // Whatever else a store says of a PUT is no promise.
            Err(error) => Err(JournalError::Unknown(error.to_string())),
        }
    }

    /// The store made the object. If that took long, the number may have been used before, and let go of.
    async fn created(
        &self,
        group: Group,
        began: Moment,
        confirmed: Moment,
        held: Vec<Bytes>,
    ) -> Result<Carried, JournalError> {
        let (number, last) = (group.head.number, group.head.last());
        let mut known = began;
        if self.is_old(confirmed) && !planted(Planted::NoCheckAfter) {
            known = match self.confirm(number).await {
                Ok(moment) => moment,
                // It may have been the next entry when it was made, and others may have built on it. So the same
                // attempt has to ask again, and is told that the entries are gone among which it would be.
                Err(error) => {
                    let reason =
                        format!("the answer for entry {number} came too late to be believed: {error}");
                    return Err(match planted(Planted::LateHadNoEffect) {
                        true => error,
                        false => JournalError::Unknown(reason),
                    });
                }
            };
        }
        let advanced = self.advance(vec![group]);
        advanced.map_err(|(_, error)| JournalError::Unknown(error.to_string()))?;
        self.note_confirmed(number, known);
        Ok(Carried { outcome: Outcome::Committed(last), held })
    }

    /// Somebody has made the object before: another broker, or an earlier call with this attempt.
    async fn exists(&self, number: u64, expected: Lsn) -> Result<Carried, JournalError> {
        self.catch_up().await?;
        if self.tail().position.last > expected {
            return self.conflict(expected).await;
        }
        // It was there and is there no more. Only what was let go of is deleted.
        self.confirm(number).await?;
        let key = self.names.entry(number);
        Err(failed("read", &key, &StoreError::NotApplied("it exists, and cannot be found".to_owned())))
    }

    /// Refuses an entry that another journal made.
    pub(super) fn refuse<T>(&self, number: u64, error: &Unsound) -> Result<T, JournalError> {
        Err(refused(&self.names.entry(number), error))
    }
}

fn too_large(error: &Unsound) -> String {
    match error {
        Unsound::Damaged(reason) => reason.clone(),
        other => other.to_string(),
    }
}
