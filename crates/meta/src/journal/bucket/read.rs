//! Reading entries, and the look at the floor that makes sure that they are what they seem.
//!
//! An entry that was deleted can be made anew by a broker that slept. So nothing that was read counts before it is
//! certain that it had not been let go of: the end of the journal was known less than the trust ago, or the floors
//! were listed behind the read.

use std::ops::Range;
use std::time::Duration;

use floe_env::lock;
use floe_store::StoreError;
use futures::StreamExt;

use super::group::{GROUP_HEAD, Group, GroupHead, decode_body};
use super::names::{Floor, floor_of};
use super::planted::{Planted, planted};
use super::sealed::Unsound;
use super::state::{Core, Moment};
use crate::journal::{JournalError, Lsn};
use crate::limits::{BUCKET_FIRST_READ_BYTES, BUCKET_LIST_KEYS, BUCKET_READS_MAX};

/// Groups from this weight on are read one at a time.
const LARGE_BYTES: usize = 1 << 20;

impl Core {
    /// The entry with a number, without its attachments; none if there is no such object.
    pub(super) async fn fetch(&self, number: u64) -> Result<Option<Group>, JournalError> {
        let key = self.names.entry(number);
        let first = match self.store.get(&key, Some(0..BUCKET_FIRST_READ_BYTES)).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(StoreError::Corrupt(reason)) => return self.unsound(&key, &Unsound::Damaged(reason)),
            Err(error) => return Err(failed("read", &key, &error)),
        };
        let head = match GroupHead::decode(self.journal, number, &first) {
            Ok(head) => head,
            Err(error) => return self.unsound(&key, &error),
        };
        let end = head.read_bytes();
        let decoded = if end <= BUCKET_FIRST_READ_BYTES {
            decode_body(&head, &first[GROUP_HEAD..end as usize])
        } else {
            // Its length was checked with the head.
            let rest = match self.store.get(&key, Some(BUCKET_FIRST_READ_BYTES..end)).await {
                Ok(bytes) => bytes,
                Err(StoreError::NotFound(_)) => return Ok(None),
                Err(StoreError::Corrupt(reason)) => return self.unsound(&key, &Unsound::Damaged(reason)),
                Err(error) => return Err(failed("read", &key, &error)),
            };
            decode_body(&head, &[&first[GROUP_HEAD..], &rest].concat())
        };
        match decoded {
            Ok(group) => Ok(Some(group)),
            Err(error) => self.unsound(&key, &error),
        }
    }

    fn unsound(&self, key: &str, error: &Unsound) -> Result<Option<Group>, JournalError> {
        match planted(Planted::SkipsDamage) {
            true => Ok(None),
            false => Err(refused(key, error)),
        }
    }

    /// Some entries at once, in their order, up to the first that is missing or cannot be read. Whether one is missing.
    pub(super) async fn fetch_some(&self, numbers: Range<u64>) -> (Vec<Group>, Result<bool, JournalError>) {
        let mut reads =
            futures::stream::iter(numbers.map(|number| self.fetch(number))).buffered(BUCKET_READS_MAX);
        let mut found = Vec::new();
        while let Some(read) = reads.next().await {
            match read {
                Ok(Some(group)) => found.push(group),
                Ok(None) => return (found, Ok(true)),
                Err(error) => return (found, Err(error)),
            }
        }
        (found, Ok(false))
    }

    /// The floors above a number, the lowest first.
    pub(super) async fn floors_above(&self, number: u64) -> Result<Vec<Floor>, JournalError> {
        let after = self.names.floor(Floor { number, first: Lsn(u64::MAX) });
        let mut floors = Vec::new();
        let mut last = after;
        loop {
            let listed = self.store.list(&self.names.floors(), &last, BUCKET_LIST_KEYS).await;
            let listed = listed.map_err(|error| failed("list", &self.names.floors(), &error))?;
            floors.extend(listed.iter().filter_map(|listed| floor_of(&listed.key)));
            match listed.last() {
                Some(listed_last) if listed.len() == BUCKET_LIST_KEYS => last = listed_last.key.clone(),
                _ => break,
            }
        }
        self.note_floors(&floors);
        Ok(floors)
    }

    /// Makes sure that an entry has not been let go of. Returns a moment at which it had not.
    pub(super) async fn confirm(&self, number: u64) -> Result<Moment, JournalError> {
        let moment = Moment::now(&self.env);
        metrics::counter!("floe_meta_bucket_floor_looks_total").increment(1);
        match self.floors_above(number).await?.last() {
            Some(floor) => Err(JournalError::Reload(floor.first)),
            None => Ok(moment),
        }
    }

    /// Takes over what others have committed. Whether there was something.
    pub(super) async fn catch_up(&self) -> Result<bool, JournalError> {
        let _turn = self.reading.lock().await;
        let (mut window, mut some) = (1, false);
        loop {
            let tail = self.tail();
            let next = tail.position.number + 1;
            let mut moment = Moment::now(&self.env);
            let (groups, ended) = self.fetch_some(next..next + window).await;
            if self.is_old(tail.confirmed) && !planted(Planted::ReadsUnchecked) {
                moment = self.confirm(next).await?;
                self.note_confirmed(tail.position.number, moment);
            }
            some |= !groups.is_empty();
            let large = groups.iter().any(|group| group.weight() >= LARGE_BYTES);
            let last = groups.last().map_or(tail.position.number, |group| group.head.number);
            self.advance(groups).map_err(|(number, error)| refused(&self.names.entry(number), &error))?;
            if ended? {
                self.note_confirmed(last, moment);
                return Ok(some);
            }
            window = if large { 1 } else { (window * 2).min(BUCKET_READS_MAX as u64) };
        }
    }

    /// Looks for new entries, and says when to look again.
    pub(super) async fn poll(&self) -> Result<(), JournalError> {
        // The caller may give up: the next one then waits as if this look had found nothing.
        self.plan_poll(false);
        let some = self.catch_up().await?;
        self.plan_poll(some);
        Ok(())
    }

    fn plan_poll(&self, found: bool) {
        let jitter = self.env.random_u64() % 256;
        let mut state = lock(&self.state);
        let (min, max) = (self.options.poll_min, self.options.poll_max);
        let pause = if found { min } else { state.poll.pause };
        // Jitter adds up to an eighth, so that the longest pause is never shorter than it says.
        let wait = pause + pause.mul_f64(jitter as f64 / 2_048.0);
        state.poll.next = self.env.monotonic() + wait;
        state.poll.pause = if found { min } else { pause.mul_f64(1.5).clamp(min, max) };
    }

    /// When the next look is due.
    pub(super) fn next_poll(&self) -> tokio::time::Instant {
        lock(&self.state).poll.next
    }
}

/// A request to the store that failed, and whose effect does not matter.
pub(super) fn failed(what: &str, key: &str, error: &StoreError) -> JournalError {
    JournalError::NotApplied(format!("cannot {what} {key}: {error}"))
}

/// An object that is not what its key says.
pub(super) fn refused(key: &str, error: &Unsound) -> JournalError {
    let what = match error {
        Unsound::Damaged(_) => {
            ". Put the object back from a version or a copy of the bucket; nothing is skipped"
        }
        Unsound::Newer(_) => "",
        Unsound::Foreign { .. } => ". Two journals must not share a folder: look who else writes there",
    };
    JournalError::NotApplied(format!("cannot use {key}: {error}{what}"))
}

/// How long a pause is that a chance makes shorter than `most`.
pub(super) fn jitter(random: u64, most: Duration) -> Duration {
    most.mul_f64((random % 1_024) as f64 / 1_024.0)
}
