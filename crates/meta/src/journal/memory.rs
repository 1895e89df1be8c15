//! The journal in memory, for tests and simulations. Clones share it, so several brokers may use one. Like a disk,
//! it outlives them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use crate::journal::{Commit, Entry, Journal, JournalError, Loaded, Lsn, Outcome};
use crate::limits::ENTRIES_MAX;
use floe_env::lock;
use floe_env::watch;

/// The image moves on once this many entries follow it.
const BACKLOG_ENTRIES_MAX: usize = 1_000;

/// A journal that is as durable as its process.
#[derive(Clone, Default)]
pub struct MemoryJournal(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    last: watch::Sender<Lsn>,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared { state: Mutex::default(), last: watch::Sender::new(Lsn(0)) }
    }
}

#[derive(Default)]
struct State {
    /// All entries; the entry with LSN n is at n - 1.
    entries: Vec<Entry>,
    image: BTreeMap<Bytes, Bytes>,
    image_lsn: Lsn,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> MemoryJournal {
        MemoryJournal::default()
    }

    /// The LSN of the last commit.
    pub fn lsn(&self) -> Lsn {
        *self.0.last.borrow()
    }
}

impl State {
    fn last(&self) -> Lsn {
        Lsn(self.entries.len() as u64)
    }

    fn after(&self, lsn: Lsn) -> &[Entry] {
        let start = usize::try_from(lsn.0).unwrap_or(usize::MAX).min(self.entries.len());
        &self.entries[start..]
    }

    fn fold(&mut self) {
        if self.after(self.image_lsn).len() <= BACKLOG_ENTRIES_MAX {
            return;
        }
        let last = self.last();
        let State { entries, image, image_lsn } = self;
        for change in entries[image_lsn.0 as usize..].iter().flat_map(|entry| &entry.changes) {
            match &change.value {
                Some(value) => image.insert(change.key.clone(), value.clone()),
                None => image.remove(&change.key),
            };
        }
        *image_lsn = last;
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn load(&self) -> Result<Loaded, JournalError> {
        let state = lock(&self.0.state);
        let image = state.image.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let entries = state.after(state.image_lsn).to_vec();
        Ok(Loaded { image, image_lsn: state.image_lsn, entries })
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        let mut state = lock(&self.0.state);
        if expected > state.last() {
            return Err(JournalError::NotApplied(format!(
                "the journal ends at {}, before {expected}",
                state.last()
            )));
        }
        if expected < state.last() {
            return Ok(Outcome::Conflict(state.after(expected).to_vec()));
        }
        for commit in commits {
            let Commit { envelope, changes } = commit.clone();
            let lsn = state.last().next();
            state.entries.push(Entry { lsn, attempt, envelope, changes });
        }
        state.fold();
        self.0.last.send_replace(state.last());
        Ok(Outcome::Committed(state.last()))
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        let mut last = self.0.last.subscribe();
        // The sender lives in the journal, which this call holds.
        let _ = last.wait_for(|last| *last > from).await;
        self.history(from, ENTRIES_MAX).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        let state = lock(&self.0.state);
        Ok(state.after(from).iter().take(count.min(ENTRIES_MAX)).cloned().collect())
    }
}
