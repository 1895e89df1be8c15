//! The commits whose bytes are needed. The map does not count them: whoever has the journal does.
//!
//! ```text
//!             stored             last extent gone            no session reads an older snapshot
//! (no bytes) ───────▶ extents: n ────────────────▶ fell at m ──────────────────────────────────▶ released (gone)
//! ```
//! The count is that of the extents of the newest map. A start counts all of them, and an observer of the map goes on
//! from there. It looks up the extents that a group of commits has touched, in the map before the group and in the one
//! after it. So an extent counts wherever it stands in the map, whatever command has put or removed it.
//!
//! A commit without extents falls at once: all of its batches were refused, and its other changes were not.
//!
//! An extent that cannot be read may be in any commit. From then on nothing is released.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use floe_meta::{Applied, DecodeError, Lsn, Meta, Snapshot};

use crate::map::extent::{Data, Extent, ExtentKey, Place};

/// The commits of a journal whose bytes are needed. Clones share it.
#[derive(Clone)]
pub(crate) struct Frames {
    state: Arc<Mutex<State>>,
}

struct State {
    /// The map that the counts are of.
    counted: Snapshot,
    /// The extents that commits since have touched.
    touched: BTreeSet<ExtentKey>,
    /// The commits since that brought bytes.
    brought: BTreeSet<Lsn>,
    frames: BTreeMap<Lsn, Frame>,
    /// Those that no extent needs, and the commit at which each fell. Snapshots before that one need the bytes.
    fallen: BTreeMap<Lsn, Lsn>,
    /// The outcome of a commit was not known when its caller was told.
    doubt: Doubt,
    /// Why nothing is released.
    unreadable: Option<DecodeError>,
}

/// What is known of one commit. There may be a million of them.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    /// Extents of the newest map.
    extents: u32,
    /// Bytes, as far as any extent needs them.
    bytes: u32,
}

const _: () = assert!(floe_meta::limits::ATTACHMENTS_BYTES_MAX <= u32::MAX as u64);

/// Whether the journal may keep bytes that nobody has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    None,
    /// A commit may still come.
    Open,
    /// Another commit came after it, so it has come by now or never will.
    Settled,
}

impl Frames {
    /// Counts the extents of the map, and those of all commits from now on. Also says whether the journal lacks the
    /// bytes of some of them. A journal that carries nothing has nothing to count.
    pub(crate) fn begin(meta: &Meta) -> (Frames, bool) {
        let state = Arc::new(Mutex::new(State::new(meta.snapshot())));
        if meta.carries() == 0 {
            return (Frames { state }, false);
        }
        // Commits that come meanwhile wait for the counting.
        let mut counting = floe_env::lock(&state);
        let observed = Arc::clone(&state);
        *counting = State::new(meta.observe(move |applied| floe_env::lock(&observed).observe(applied)));
        let lacks = counting.count_all(&meta.attachments());
        for lsn in meta.lost() {
            if !counting.frames.contains_key(&lsn) {
                meta.released(lsn);
            }
        }
        drop(counting);
        (Frames { state }, lacks)
    }

    /// The commit is durable with its bytes, and nobody can see it yet.
    pub(crate) fn brought(&self, lsn: Lsn, bytes: u64) {
        let mut state = self.lock();
        state.frames.entry(lsn).or_default().reaches(bytes);
        state.brought.insert(lsn);
        if state.doubt == Doubt::Open {
            state.doubt = Doubt::Settled;
        }
    }

    /// Nobody knows whether a commit with bytes is durable.
    pub(crate) fn doubt(&self) {
        self.lock().doubt = Doubt::Open;
    }

    /// Bytes of a commit; `None` if nothing is known of it.
    pub(crate) fn bytes(&self, lsn: Lsn) -> Option<u64> {
        self.lock().frames.get(&lsn).map(|frame| u64::from(frame.bytes))
    }

    /// Releases what no extent needs and nobody reads. `oldest` is the oldest snapshot in use. Returns the commits.
    pub(crate) fn release(&self, meta: &Meta, oldest: Lsn) -> Vec<Lsn> {
        let mut state = self.lock();
        if state.doubt == Doubt::Settled {
            state.doubt = Doubt::None;
            state.fell_unseen(&meta.attachments());
        }
        let due = state.take_due(oldest);
        metrics::gauge!("floe_log_frames").set(state.frames.len() as f64);
        metrics::gauge!("floe_log_pinned_frames").set(state.fallen.len() as f64);
        drop(state);
        due.iter().for_each(|lsn| meta.released(*lsn));
        metrics::counter!("floe_log_released_frames_total").increment(due.len() as u64);
        due
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        floe_env::lock(&self.state)
    }
}

impl Frame {
    fn reaches(&mut self, bytes: u64) {
        // More than a journal carries is damage, and the read finds it.
        self.bytes = self.bytes.max(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

impl State {
    fn new(counted: Snapshot) -> State {
        State {
            counted,
            touched: BTreeSet::new(),
            brought: BTreeSet::new(),
            frames: BTreeMap::new(),
            fallen: BTreeMap::new(),
            doubt: Doubt::None,
            unreadable: None,
        }
    }

    /// Counts the map from nothing. `kept` are the commits whose bytes the journal keeps, in order. Returns whether
    /// others are needed.
    fn count_all(&mut self, kept: &[Lsn]) -> bool {
        let map = self.counted.clone();
        for pair in map.range::<Extent>(..) {
            match pair {
                Ok((_, extent)) => in_frame(Some(&extent)).into_iter().for_each(|data| self.add(data)),
                Err(error) => self.cannot_read(error),
            }
        }
        let lacks = self.frames.keys().any(|lsn| kept.binary_search(lsn).is_err());
        self.fell_unseen(kept);
        lacks
    }

    /// The journal keeps bytes of commits that are in the map, and that no extent needs.
    fn fell_unseen(&mut self, kept: &[Lsn]) {
        let now = self.counted.lsn();
        let seen: Vec<Lsn> = kept.iter().copied().filter(|lsn| *lsn <= now).collect();
        seen.into_iter().for_each(|lsn| self.fell_if_unneeded(lsn, now));
    }

    /// A commit is in the published map.
    fn observe(&mut self, applied: &Applied<'_>) {
        for key in applied.keys::<Extent>() {
            match key {
                Ok(key) => drop(self.touched.insert(key)),
                Err(error) => self.cannot_read(error),
            }
        }
        // The map that is shown is that after the last commit of its group.
        if applied.lsn == applied.snapshot.lsn() {
            self.recount(applied.snapshot);
        }
    }

    fn recount(&mut self, map: &Snapshot) {
        let before = std::mem::replace(&mut self.counted, map.clone());
        let mut changed = std::mem::take(&mut self.brought);
        for key in std::mem::take(&mut self.touched) {
            let (old, new) = match (before.get::<Extent>(&key), map.get::<Extent>(&key)) {
                (Ok(old), Ok(new)) => (old, new),
                (Err(error), _) | (_, Err(error)) => {
                    self.cannot_read(error);
                    continue;
                }
            };
            let (old, new) = (in_frame(old.as_ref()), in_frame(new.as_ref()));
            if let Some(data) = old
                && let Some(frame) = self.frames.get_mut(&data.lsn)
            {
                assert!(frame.extents > 0, "an extent is counted before it goes");
                frame.extents -= 1;
                changed.insert(data.lsn);
            }
            if let Some(data) = new {
                self.add(data);
            }
        }
        changed.into_iter().for_each(|lsn| self.fell_if_unneeded(lsn, map.lsn()));
    }

    fn add(&mut self, data: &Data) {
        let frame = self.frames.entry(data.lsn).or_default();
        frame.extents += 1;
        frame.reaches(data.end());
        self.fallen.remove(&data.lsn);
    }

    fn fell_if_unneeded(&mut self, lsn: Lsn, at: Lsn) {
        if self.frames.entry(lsn).or_default().extents == 0 {
            self.fallen.entry(lsn).or_insert(at);
        }
    }

    fn take_due(&mut self, oldest: Lsn) -> Vec<Lsn> {
        if self.unreadable.is_some() {
            return Vec::new();
        }
        let due: Vec<Lsn> =
            self.fallen.iter().filter(|(_, fell)| **fell <= oldest).map(|(lsn, _)| *lsn).collect();
        for lsn in &due {
            self.fallen.remove(lsn);
            self.frames.remove(lsn);
        }
        due
    }

    fn cannot_read(&mut self, error: DecodeError) {
        tracing::error!(%error, "an extent cannot be read: the bytes in the journal are kept from now on");
        self.unreadable = Some(error);
    }
}

/// The batches of an extent, if they rode with a commit.
fn in_frame(extent: Option<&Extent>) -> Option<&Data> {
    extent?.data().filter(|data| data.place == Place::Frame)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use floe_env::Env;
    use floe_meta::{
        Attachment, CommitError, Committed, CounterKey, Envelope, Journal as _, MemoryJournal, Options, Tx,
    };
    use futures::future::BoxFuture;
    use proptest::prelude::*;

    use super::*;
    use crate::map::extent::{Spacing, WrittenBy};
    use crate::map::ids::{ObjectId, Offset, PartitionId, TopicId, WriterId};

    /// What a commit does to the extents at a few keys.
    #[derive(Clone, Debug)]
    enum Step {
        /// A commit that brings bytes, and puts these extents.
        Bring(Vec<u8>),
        /// Extents that are moved to an object.
        Move(Vec<u8>),
        Remove(Vec<u8>),
        /// Nothing waits for the commits before: they may be one group.
        Release,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let keys = || prop::collection::vec(0..12_u8, 0..4);
        let step = prop_oneof![
            4 => keys().prop_map(Step::Bring),
            1 => keys().prop_map(Step::Move),
            3 => keys().prop_map(Step::Remove),
            2 => Just(Step::Release),
        ];
        prop::collection::vec(step, 1..40)
    }

    fn key(at: u8) -> ExtentKey {
        ExtentKey::new(PartitionId { topic: TopicId(1), index: 0 }, Offset(i64::from(at)))
    }

    fn extent(place: Place, lsn: Lsn) -> Extent {
        let written_by = WrittenBy::One(WriterId(0));
        let (position, bytes, offsets, spacing) = (0, 10, 1, Spacing::Counted);
        Extent::Data(Data { place, position, bytes, offsets, spacing, max_timestamp: 1, written_by, lsn })
    }

    /// Hands a step to the metadata. The future answers when it is durable.
    fn enqueue(
        meta: &Meta,
        frames: &Frames,
        step: Step,
    ) -> BoxFuture<'static, Result<Committed<()>, CommitError<Infallible>>> {
        let (bring, keys) = match &step {
            Step::Bring(keys) => (true, keys.clone()),
            Step::Move(keys) | Step::Remove(keys) => (false, keys.clone()),
            Step::Release => (false, Vec::new()),
        };
        let work = move |tx: &mut Tx<'_>| {
            // So that a commit without extents is one, too.
            tx.next_counter(&CounterKey::named("test")).expect("it can be read");
            let lsn = tx.lsn();
            for at in &keys {
                match step {
                    Step::Bring(_) => tx.put(&key(*at), &extent(Place::Frame, lsn)),
                    Step::Move(_) => tx.put(&key(*at), &extent(Place::Object(ObjectId(7)), lsn)),
                    Step::Remove(_) | Step::Release => tx.delete::<Extent>(&key(*at)),
                }
            }
            Ok(())
        };
        let bytes = if bring { 10 } else { 0 };
        let attachment = Attachment::of(vec![vec![1; bytes].into()]);
        let frames = frames.clone();
        match bring {
            true => Box::pin(meta.commit_attached(
                Envelope::broker("test"),
                attachment,
                move |lsn, _| frames.brought(lsn, bytes as u64),
                work,
            )),
            false => Box::pin(meta.commit(Envelope::broker("test"), work)),
        }
    }

    async fn holds(steps: Vec<Step>, restarts: bool) {
        let (env, journal) = (Env::simulated(1), MemoryJournal::carrying());
        let open = || Meta::open(env.scope(), Arc::new(journal.clone()), Options::default());
        let mut meta = open().await.expect("the journal works");
        let mut frames = Frames::begin(&meta).0;
        let mut waiting = Vec::new();
        for step in steps.into_iter().chain([Step::Release]) {
            if !matches!(step, Step::Release) {
                waiting.push(enqueue(&meta, &frames, step));
                continue;
            }
            for commit in waiting.drain(..) {
                commit.await.expect("the journal works");
            }
            if restarts {
                meta = open().await.expect("the journal works");
                let (counted, lacks) = Frames::begin(&meta);
                assert!(!lacks, "everything that is needed is there");
                frames = counted;
            }
            let snapshot = meta.snapshot();
            frames.release(&meta, snapshot.lsn());
            let mut needed = BTreeMap::<Lsn, u32>::new();
            for pair in snapshot.range::<Extent>(..) {
                if let Some(data) = in_frame(Some(&pair.expect("it can be read").1)) {
                    *needed.entry(data.lsn).or_default() += 1;
                }
            }
            let counted: BTreeMap<Lsn, u32> =
                frames.lock().frames.iter().map(|(lsn, frame)| (*lsn, frame.extents)).collect();
            assert_eq!(counted, needed);
            assert_eq!(journal.attachments(), needed.into_keys().collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn the_journal_keeps_exactly_what_extents_need(steps in steps(), restarts: bool) {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
            runtime.block_on(holds(steps, restarts));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_whose_outcome_was_not_known_is_found_by_the_next_one() {
        let (env, journal) = (Env::simulated(1), MemoryJournal::carrying());
        let meta = Meta::open(env, Arc::new(journal.clone()), Options::default()).await.expect("it opens");
        let frames = Frames::begin(&meta).0;
        // Durable after its caller was told that nobody knows: nothing was counted.
        let other = Frames::begin(&meta).0;
        enqueue(&meta, &other, Step::Bring(Vec::new())).await.expect("the journal works");
        frames.doubt();
        assert!(frames.release(&meta, meta.snapshot().lsn()).is_empty(), "it may still come");
        enqueue(&meta, &frames, Step::Bring(vec![1])).await.expect("the journal works");
        assert_eq!(frames.release(&meta, meta.snapshot().lsn()).len(), 1);
        assert_eq!(journal.attachments().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_wait_for_readers_of_older_snapshots() {
        let (env, journal) = (Env::simulated(1), MemoryJournal::carrying());
        let meta = Meta::open(env, Arc::new(journal.clone()), Options::default()).await.expect("it opens");
        let frames = Frames::begin(&meta).0;
        let brought = enqueue(&meta, &frames, Step::Bring(vec![1])).await.expect("the journal works");
        let removed = enqueue(&meta, &frames, Step::Remove(vec![1])).await.expect("the journal works");
        assert!(frames.release(&meta, brought.lsn).is_empty(), "the snapshot before the removal needs it");
        assert_eq!(frames.bytes(brought.lsn), Some(10));
        assert_eq!(frames.release(&meta, removed.lsn), [brought.lsn]);
        assert!(journal.attachments().is_empty());
    }
}
