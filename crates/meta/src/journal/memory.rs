//! The journal in memory, for tests and simulations. Clones share it, so several brokers may use one. Like a disk,
//! it outlives them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use crate::journal::entry::{encode_changes, encode_envelope};
use crate::journal::seal;
use crate::journal::{
    AttachedError, Attachment, Carried, Commit, Entry, Journal, JournalError, Loaded, Lsn, Outcome,
    attachment,
};
use crate::limits::{ATTACHMENTS_BYTES_MAX, ENTRIES_MAX};
use floe_env::lock;
use floe_env::watch;

/// The image moves on once this many entries follow it.
const BACKLOG_ENTRIES_MAX: usize = 1_000;

/// A journal that is as durable as its process.
#[derive(Clone, Default)]
pub struct MemoryJournal {
    shared: Arc<Shared>,
    carries: u64,
}

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
    /// The entries after `dropped`, in order. Those that are forgotten stay for tests and copies, or else are dropped.
    entries: Vec<Entry>,
    /// The last entry that is gone for good.
    dropped: Lsn,
    /// Whether forgotten entries are dropped.
    drops: bool,
    /// The last entry that nobody gets any more.
    forgotten: Lsn,
    image: BTreeMap<Bytes, Bytes>,
    image_lsn: Lsn,
    /// Attachments that were not released.
    attached: BTreeMap<Lsn, Bytes>,
}

impl MemoryJournal {
    /// An empty journal. It carries no attachments.
    pub fn new() -> MemoryJournal {
        MemoryJournal::default()
    }

    /// An empty journal that carries attachments.
    pub fn carrying() -> MemoryJournal {
        MemoryJournal::carrying_at_most(ATTACHMENTS_BYTES_MAX)
    }

    /// An empty journal that carries attachments of so many bytes.
    pub fn carrying_at_most(bytes: u64) -> MemoryJournal {
        MemoryJournal { carries: bytes, ..MemoryJournal::default() }
    }

    /// The same journal, which lets go of the memory of entries that are forgotten: for runs of very many commits. It
    /// cannot be forked.
    #[must_use]
    pub fn dropping(self) -> MemoryJournal {
        lock(&self.shared.state).drops = true;
        self
    }

    /// The number of entries that it holds.
    pub fn held(&self) -> usize {
        lock(&self.shared.state).entries.len()
    }

    /// The LSN of the last commit.
    pub fn lsn(&self) -> Lsn {
        *self.shared.last.borrow()
    }

    /// Every entry that was ever committed, also of those that are forgotten and not dropped: for tests.
    pub fn everything(&self) -> Vec<Entry> {
        lock(&self.shared.state).entries.clone()
    }

    /// A journal of its own that has the entries up to `last`: what a copy or a backup holds.
    pub fn fork(&self, last: Lsn) -> MemoryJournal {
        let mut state = State::default();
        let source = lock(&self.shared.state);
        assert!(!source.drops, "a journal that drops its entries has no copies");
        for entry in source.entries.iter().take_while(|entry| entry.lsn <= last) {
            state.entries.push(entry.clone());
            state.fold(BACKLOG_ENTRIES_MAX);
        }
        state.forget(source.forgotten);
        let attached = source.attached.range(..=last);
        state.attached = attached.map(|(lsn, bytes)| (*lsn, bytes.clone())).collect();
        let last = watch::Sender::new(state.last());
        MemoryJournal { shared: Arc::new(Shared { state: Mutex::new(state), last }), carries: self.carries }
    }

    /// Loads the journal as if a bit had rotted of one value of the image, or of one entry. `pick` draws below its
    /// argument. Only values of keys that begin with `kind` rot, if there is one. A journal compares what it reads with
    /// its checksums; without `compared`, this one serves the rotten value, for tests of checkers.
    ///
    /// # Errors
    /// The checksum does not match.
    pub fn load_rotten(
        &self,
        pick: impl Fn(usize) -> usize,
        kind: Option<u8>,
        compared: bool,
    ) -> Result<Loaded, JournalError> {
        let state = lock(&self.shared.state);
        let mut loaded = state.load();
        let rots = |key: &Bytes, value: &Bytes| {
            !value.is_empty() && kind.is_none_or(|kind| key.first() == Some(&kind))
        };
        let of_image: Vec<usize> =
            (0..loaded.image.len()).filter(|at| rots(&loaded.image[*at].0, &loaded.image[*at].1)).collect();
        let changes = loaded.entries.iter().enumerate().flat_map(|(entry, found)| {
            found.changes.iter().enumerate().map(move |(at, change)| (entry, at, change))
        });
        let of_entries: Vec<(usize, usize)> = changes
            .filter(|(_, _, change)| change.value.as_ref().is_some_and(|value| rots(&change.key, value)))
            .map(|(entry, at, _)| (entry, at))
            .collect();
        let count = of_image.len() + of_entries.len();
        if count == 0 {
            return Ok(loaded);
        }
        let chosen = pick(count);
        let same = if let Some(at) = of_image.get(chosen) {
            let (key, value) = &mut loaded.image[*at];
            let crc = seal::of_value(key, value);
            *value = rotten(value, &pick);
            crc == seal::of_value(key, value)
        } else {
            let (entry, at) = of_entries[chosen - of_image.len()];
            let entry = &mut loaded.entries[entry];
            let crc = crc_of(entry);
            let value = &mut entry.changes[at].value;
            *value = value.as_ref().map(|value| rotten(value, &pick));
            crc == crc_of(entry)
        };
        match same || !compared {
            true => Ok(loaded),
            false => {
                Err(JournalError::NotApplied("the journal is damaged: a checksum does not match".to_owned()))
            }
        }
    }
}

fn rotten(value: &Bytes, pick: &impl Fn(usize) -> usize) -> Bytes {
    let mut bytes = value.to_vec();
    let at = pick(bytes.len());
    bytes[at] ^= 1 << pick(8);
    bytes.into()
}

fn crc_of(entry: &Entry) -> u32 {
    seal::of_entry(
        entry.lsn,
        entry.attempt,
        &encode_envelope(&entry.envelope),
        &encode_changes(&entry.changes),
    )
}

impl State {
    fn last(&self) -> Lsn {
        self.dropped.plus(self.entries.len())
    }

    /// The entries after `from`, for whoever follows.
    fn missed(&self, from: Lsn) -> Result<&[Entry], JournalError> {
        match from < self.forgotten {
            true => Err(JournalError::Reload(self.forgotten.next())),
            false => Ok(self.after(from)),
        }
    }

    /// Lets go of the entries up to `upto`, and keeps the last one.
    fn forget(&mut self, upto: Lsn) {
        let upto = upto.min(Lsn(self.last().0.saturating_sub(1)));
        if upto > self.forgotten {
            self.fold(0);
            self.forgotten = upto;
            if self.drops {
                let count = self.place_after(upto);
                self.entries.drain(..count);
                self.dropped = upto;
            }
        }
    }

    /// Where the first entry after this one is.
    fn place_after(&self, lsn: Lsn) -> usize {
        let behind = lsn.0.saturating_sub(self.dropped.0);
        usize::try_from(behind).unwrap_or(usize::MAX).min(self.entries.len())
    }

    fn after(&self, lsn: Lsn) -> &[Entry] {
        &self.entries[self.place_after(lsn)..]
    }

    fn load(&self) -> Loaded {
        let image = self.image.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Loaded { image, image_lsn: self.image_lsn, entries: self.after(self.image_lsn).to_vec() }
    }

    /// Moves the image on if more entries than this follow it.
    fn fold(&mut self, backlog_max: usize) {
        if self.after(self.image_lsn).len() <= backlog_max {
            return;
        }
        let (last, from) = (self.last(), self.place_after(self.image_lsn));
        let State { entries, image, image_lsn, .. } = self;
        for change in entries[from..].iter().flat_map(|entry| &entry.changes) {
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
        Ok(lock(&self.shared.state).load())
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        Ok(self.commit_with(expected, attempt, commits, &[]).await?.outcome)
    }

    fn carries(&self) -> u64 {
        self.carries
    }

    async fn commit_with(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        attachment::check(commits.len(), attachments, self.carries)?;
        let mut state = lock(&self.shared.state);
        if expected > state.last() {
            return Err(JournalError::NotApplied(format!(
                "the journal ends at {}, before {expected}",
                state.last()
            )));
        }
        if expected < state.last() {
            return Ok(Carried::of(Outcome::Conflict(state.missed(expected)?.to_vec())));
        }
        let mut held = Vec::with_capacity(attachments.len());
        for attachment in attachments {
            let bytes = attachment.joined();
            if crc32c::crc32c(&bytes) != attachment.crc {
                return Err(JournalError::NotApplied("an attachment has changed in memory".to_owned()));
            }
            held.push(bytes);
        }
        for (attachment, bytes) in attachments.iter().zip(&held) {
            state.attached.insert(expected.plus(attachment.commit as usize + 1), bytes.clone());
        }
        for commit in commits {
            let Commit { envelope, changes } = commit.clone();
            let lsn = state.last().next();
            state.entries.push(Entry { lsn, attempt, envelope, changes });
        }
        state.fold(BACKLOG_ENTRIES_MAX);
        self.shared.last.send_replace(state.last());
        Ok(Carried { outcome: Outcome::Committed(state.last()), held })
    }

    async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        let state = lock(&self.shared.state);
        attachment::part(lsn, state.attached.get(&lsn).ok_or(AttachedError::None(lsn))?, range)
    }

    fn released(&self, lsn: Lsn) {
        lock(&self.shared.state).attached.remove(&lsn);
    }

    fn attachments(&self) -> Vec<Lsn> {
        lock(&self.shared.state).attached.keys().copied().collect()
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        let mut last = self.shared.last.subscribe();
        // The sender lives in the journal, which this call holds.
        let _ = last.wait_for(|last| *last > from).await;
        self.history(from, ENTRIES_MAX).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        let state = lock(&self.shared.state);
        Ok(state.missed(from)?.iter().take(count.min(ENTRIES_MAX)).cloned().collect())
    }

    fn forget(&self, upto: Lsn) {
        lock(&self.shared.state).forget(upto);
    }
}
