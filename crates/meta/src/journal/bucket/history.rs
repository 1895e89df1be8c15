//! The entries after a commit: from memory, or from the bucket.

use std::sync::Arc;

use floe_env::lock;

use super::group::Group;
use super::planted::{Planted, planted};
use super::sealed::damaged;
use super::state::{Core, Room, collect, follows, position_of};
use crate::journal::{Entry, JournalError, Lsn};
use crate::limits::{BUCKET_READS_MAX, ENTRIES_BYTES_MAX};

impl Core {
    /// The entries after `from`, in order: at most `count`, and as many as [`ENTRIES_BYTES_MAX`] takes.
    pub(super) async fn entries_after(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        let mut room = Room { entries: count, bytes: ENTRIES_BYTES_MAX };
        let mut out = Vec::new();
        let (low, high) = {
            let state = lock(&self.state);
            let tail = state.tail.expect("the journal was loaded").position;
            if from >= tail.last || count == 0 {
                return Ok(out);
            }
            if from.next() < state.floor.first {
                return Err(JournalError::Reload(state.floor.first));
            }
            match state.recent.front() {
                Some(front) if front.head.first <= from.next() => {
                    let skip = state.recent.partition_point(|group| group.head.last() <= from);
                    let _all =
                        state.recent.iter().skip(skip).all(|one| collect(one, from, &mut room, &mut out));
                    return Ok(out);
                }
                front => (state.floor.number, front.map_or(tail.number + 1, |front| front.head.number)),
            }
        };
        let first = self.search(low, high, from.next()).await?;
        self.read_from(first, from, &mut room, &mut out).await?;
        if !planted(Planted::HistoryUnchecked) {
            self.confirm(first).await?;
        }
        Ok(out)
    }

    /// The number of the entry with a commit, which is at least `low` and below `high`.
    pub(super) async fn search(&self, low: u64, high: u64, lsn: Lsn) -> Result<u64, JournalError> {
        let (mut low, mut high) = (low, high);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.fetch(middle).await? {
                Some(group) if group.head.first <= lsn => low = middle,
                Some(_) => high = middle,
                None => return self.missing(middle).await,
            }
        }
        Ok(low)
    }

    /// Reads on from an entry, until the answer is full or the journal ends.
    async fn read_from(
        &self,
        first: u64,
        from: Lsn,
        room: &mut Room,
        out: &mut Vec<Entry>,
    ) -> Result<(), JournalError> {
        let mut next = first;
        let mut before: Option<Group> = None;
        loop {
            let tail = self.tail().position.number;
            if next > tail {
                return Ok(());
            }
            if let Some(groups) = lock(&self.state).recent_from(next) {
                let groups: Vec<Arc<Group>> = groups.cloned().collect();
                self.check_chain(before.as_ref(), groups.first().map(|group| &**group))?;
                let _all = groups.iter().all(|group| collect(group, from, room, out));
                return Ok(());
            }
            let most = room.entries.min(BUCKET_READS_MAX) as u64;
            let (groups, ended) = self.fetch_some(next..(next + most).min(tail + 1)).await;
            next += groups.len() as u64;
            for group in groups {
                self.check_chain(before.as_ref(), Some(&group))?;
                if !collect(&group, from, room, out) {
                    return Ok(());
                }
                before = Some(group);
            }
            if ended? {
                return self.missing(next).await;
            }
        }
    }

    fn check_chain(&self, before: Option<&Group>, group: Option<&Group>) -> Result<(), JournalError> {
        let (Some(before), Some(group)) = (before, group) else { return Ok(()) };
        follows(&position_of(before), group).or_else(|error| self.refuse(group.head.number, &error))
    }

    /// An entry is missing that others came after. Either it was let go of meanwhile, or somebody has removed it.
    pub(super) async fn missing<T>(&self, number: u64) -> Result<T, JournalError> {
        self.confirm(number).await?;
        self.refuse(number, &damaged("it is missing, and entries behind it are there"))
    }
}
