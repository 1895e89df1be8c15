//! What holds the bytes of extents, and which extents these are. The map has it the other way round.
//!
//! The index is in memory: made from a map, and kept by an observer of its commits. It knows how many extents each
//! source has and how many bytes, so it always knows which merge is due, and nobody looks at all objects to find out.
//! An observer looks only at what a commit has changed, in the map before and in the one after it.
//!
//! It takes 24 bytes an extent. The list of a source is not kept in order, and an extent that has left stays in it
//! until the source is gone; whoever asks compares with the map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use floe_meta::{Applied, DecodeError, Lookup, Lsn, Meta, Snapshot};

use crate::limits::{MERGE_EXTENTS_MAX, MERGE_POOL_EXTENTS_MAX};
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::ObjectId;
use crate::map::object::{Level, Object};
use crate::merge::sizes::{Class, Content, Sizes};
use crate::read::source::Source;

/// The sources of a map. Clones share it.
#[derive(Clone)]
pub(crate) struct Index {
    state: Arc<Mutex<State>>,
}

struct State {
    sizes: Sizes,
    /// The map that the counts are of.
    counted: Snapshot,
    /// What commits since have touched.
    touched: BTreeSet<ExtentKey>,
    objects: BTreeSet<ObjectId>,
    sources: BTreeMap<Source, Held>,
    /// Those of each class that are merged, the oldest first.
    queues: BTreeMap<Class, Queue>,
    /// Those that are left alone for now.
    aside: BTreeSet<Source>,
}

/// One source.
struct Held {
    /// Every extent that it had since it came into the index.
    keys: Vec<ExtentKey>,
    content: Content,
    /// The newest commit that gave offsets to its records. Its place in the order.
    lsn: Lsn,
    class: Class,
    /// What it counts for in the queue of its class.
    queued: Content,
}

/// The sources of one class.
#[derive(Clone, Debug, Default)]
struct Queue {
    order: BTreeSet<(Lsn, Source)>,
    bytes: u64,
    extents: u64,
}

/// How much waits to be merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) sources: u64,
    pub(crate) bytes: u64,
    pub(crate) extents: u64,
}

impl Index {
    /// An index of nothing.
    pub(crate) fn new(sizes: Sizes) -> Index {
        Index { state: Arc::new(Mutex::new(State::new(sizes, Snapshot::default()))) }
    }

    /// The index of a broker's map, which follows its commits.
    pub(crate) fn of(meta: &Meta, sizes: Sizes) -> Index {
        let index = Index::new(sizes);
        // Commits that come meanwhile wait for the counting.
        let mut counting = index.lock();
        let observed = Arc::clone(&index.state);
        let map = meta.observe(move |applied| floe_env::lock(&observed).observe(applied));
        *counting = State::new(sizes, map);
        counting.count_all();
        drop(counting);
        index
    }

    /// The index of a map as it is, for tests and examples.
    #[cfg(test)]
    pub(crate) fn of_map(map: &Snapshot, sizes: Sizes) -> Index {
        let mut state = State::new(sizes, map.clone());
        state.count_all();
        Index { state: Arc::new(Mutex::new(state)) }
    }

    /// Follows a map that changed at these keys.
    #[cfg(test)]
    pub(crate) fn follow(&self, map: &Snapshot, changes: &[floe_meta::Change]) {
        let envelope = floe_meta::Envelope::broker("test");
        let lsn = map.lsn();
        self.lock().observe(&Applied { lsn, envelope: &envelope, changes, snapshot: map });
    }

    /// The kind of merge that is due: small sources first.
    pub(crate) fn due(&self) -> Option<Class> {
        let state = self.lock();
        let classes = [Class::Small, Class::Middle, Class::Pool];
        classes.into_iter().find(|class| state.is_due(*class))
    }

    /// What waits for merges that are due.
    pub(crate) fn backlog(&self) -> Backlog {
        let state = self.lock();
        let mut backlog = Backlog::default();
        for (class, queue) in &state.queues {
            if state.is_due(*class) {
                backlog.sources += queue.order.len() as u64;
                backlog.bytes += queue.bytes;
                backlog.extents += queue.extents;
            }
        }
        backlog
    }

    /// The sources to gather: the oldest of a class that fit one segment, and one merge.
    pub(crate) fn to_gather(&self, class: Class) -> Vec<Source> {
        let state = self.lock();
        let (mut bytes, mut extents, mut taken) = (0, 0, Vec::new());
        for (_, source) in state.queue(class) {
            let content = state.sources[source].content;
            bytes += content.bytes;
            extents += content.extents;
            if bytes > state.sizes.segment_bytes || (extents > MERGE_EXTENTS_MAX && taken.len() > 1) {
                break;
            }
            taken.push(*source);
        }
        taken
    }

    /// The oldest commits whose bytes the journal holds, as many as fit one segment and one merge, whatever their
    /// sizes: for a journal that is crowded.
    pub(crate) fn frames(&self) -> Vec<Source> {
        let state = self.lock();
        let (mut bytes, mut extents, mut taken) = (0, 0, Vec::new());
        for (source, held) in state.sources.range(Source::Frame(Lsn(0))..) {
            if held.class == Class::Stays {
                continue;
            }
            bytes += held.content.bytes;
            extents += held.content.extents;
            let many = bytes > state.sizes.segment_bytes || extents > MERGE_EXTENTS_MAX;
            if many && !taken.is_empty() {
                break;
            }
            taken.push(*source);
        }
        taken
    }

    /// The sources to sort: the oldest of the pool, as many as are sorted together. Without those that readers find in
    /// memory, unless too little is left.
    pub(crate) fn to_sort(&self, in_memory: impl Fn(Source) -> bool) -> Vec<Source> {
        let state = self.lock();
        let is_left = |source: &Source| !in_memory(*source);
        let (bytes, some) = state.of_pool(is_left);
        match bytes >= state.sizes.pool_bytes / 2 {
            true => some,
            false => state.of_pool(|_| true).1,
        }
    }

    /// The extents of a source in a map that this index has followed, in the order of partitions and offsets.
    pub(crate) fn extents(
        &self,
        map: &impl Lookup,
        source: Source,
    ) -> Result<Vec<(ExtentKey, Extent)>, DecodeError> {
        let mut keys = self.lock().sources.get(&source).map(|held| held.keys.clone()).unwrap_or_default();
        keys.sort_unstable();
        keys.dedup();
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let extent = map.get::<Extent>(&key)?.filter(|extent| source_of(extent) == Some(source));
            found.extend(extent.map(|extent| (key, extent)));
        }
        Ok(found)
    }

    /// Leaves a source alone until it is taken back.
    pub(crate) fn set_aside(&self, source: Source) {
        let mut state = self.lock();
        state.aside.insert(source);
        state.classify(source);
    }

    /// A source that was left alone is merged again.
    pub(crate) fn take_back(&self, source: Source) {
        let mut state = self.lock();
        state.aside.remove(&source);
        state.classify(source);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        floe_env::lock(&self.state)
    }
}

impl State {
    fn new(sizes: Sizes, counted: Snapshot) -> State {
        State {
            sizes,
            counted,
            touched: BTreeSet::new(),
            objects: BTreeSet::new(),
            sources: BTreeMap::new(),
            queues: BTreeMap::new(),
            aside: BTreeSet::new(),
        }
    }

    fn queue(&self, class: Class) -> impl Iterator<Item = &(Lsn, Source)> {
        self.queues.get(&class).into_iter().flat_map(|queue| &queue.order)
    }

    /// The oldest of the pool, as many as are sorted together, and their bytes. Smaller sources that came among them
    /// are sorted, too: what lies between two extents keeps them apart.
    fn of_pool(&self, is_wanted: impl Fn(&Source) -> bool) -> (u64, Vec<Source>) {
        let (mut bytes, mut extents, mut taken, mut last) = (0, 0, Vec::new(), Lsn(0));
        for (lsn, source) in self.queue(Class::Pool).filter(|(_, source)| is_wanted(source)) {
            if bytes >= self.sizes.pool_bytes || extents >= MERGE_POOL_EXTENTS_MAX {
                break;
            }
            let content = self.sources[source].content;
            bytes += content.bytes;
            extents += content.extents;
            taken.push(*source);
            last = *lsn;
        }
        let smaller = self.queue(Class::Small).chain(self.queue(Class::Middle));
        // What was gathered may have begun earlier than its last commit tells.
        let came_among =
            |(lsn, source): &&(Lsn, Source)| *lsn <= last || self.sources[source].content.level != Level::Raw;
        taken.extend(smaller.filter(came_among).map(|(_, source)| *source));
        (bytes, taken)
    }

    fn is_due(&self, class: Class) -> bool {
        let Some(queue) = self.queues.get(&class) else { return false };
        let (bytes, extents) = (queue.bytes, queue.extents);
        let several = queue.order.len() > 1;
        match class {
            Class::Small | Class::Middle => {
                let many = class == Class::Small && queue.order.len() >= self.sizes.small_objects;
                several && (many || bytes >= self.sizes.segment_bytes || extents >= MERGE_EXTENTS_MAX)
            }
            Class::Pool => several && (bytes >= self.sizes.pool_bytes || extents >= MERGE_POOL_EXTENTS_MAX),
            Class::Stays => false,
        }
    }

    /// Counts the map from nothing. An extent that cannot be read is left out. Merging leaves it alone, as everybody
    /// else does.
    fn count_all(&mut self) {
        let map = self.counted.clone();
        let mut changed = BTreeSet::new();
        for (key, extent) in map.range::<Extent>(..).filter_map(Result::ok) {
            self.add(key, &extent);
            changed.extend(source_of(&extent));
        }
        changed.into_iter().for_each(|source| self.classify(source));
        self.sources.values_mut().for_each(|held| held.keys.shrink_to_fit());
    }

    fn observe(&mut self, applied: &Applied<'_>) {
        self.touched.extend(applied.keys::<Extent>().filter_map(Result::ok));
        self.objects.extend(applied.keys::<Object>().filter_map(Result::ok));
        // The map that is shown is that after the last commit of its group.
        if applied.lsn == applied.snapshot.lsn() {
            self.recount(applied.snapshot);
        }
    }

    fn recount(&mut self, map: &Snapshot) {
        let before = std::mem::replace(&mut self.counted, map.clone());
        let objects = std::mem::take(&mut self.objects);
        let mut changed: BTreeSet<Source> = objects.into_iter().map(Source::Object).collect();
        for key in std::mem::take(&mut self.touched) {
            let (old, new) = (before.get::<Extent>(&key), map.get::<Extent>(&key));
            if let Ok(Some(old)) = old
                && let Some(source) = source_of(&old)
                && let Some(held) = self.sources.get_mut(&source)
            {
                held.content.extents = held.content.extents.saturating_sub(1);
                held.content.bytes = held.content.bytes.saturating_sub(old.bytes());
                changed.insert(source);
            }
            if let Ok(Some(new)) = new
                && let Some(source) = source_of(&new)
            {
                self.add(key, &new);
                changed.insert(source);
            }
        }
        changed.into_iter().for_each(|source| self.classify(source));
    }

    /// Adds an extent to its source. Its class is found later.
    fn add(&mut self, key: ExtentKey, extent: &Extent) {
        let (Some(source), Some(data)) = (source_of(extent), extent.data()) else { return };
        let held = self.sources.entry(source).or_insert_with(|| Held {
            keys: Vec::new(),
            content: Content::default(),
            lsn: data.lsn,
            class: Class::Stays,
            queued: Content::default(),
        });
        held.keys.push(key);
        held.content.extents += 1;
        held.content.bytes += data.bytes;
        if held.class == Class::Stays {
            held.lsn = held.lsn.max(data.lsn);
        }
    }

    /// Puts a source where it belongs by what the map says of it now.
    fn classify(&mut self, source: Source) {
        let Some(held) = self.sources.get_mut(&source) else {
            self.aside.remove(&source);
            return;
        };
        let place = (held.lsn, source);
        if let Some(queue) = self.queues.get_mut(&held.class)
            && queue.order.remove(&place)
        {
            // What it had when it was put there.
            queue.bytes -= held.queued.bytes;
            queue.extents -= held.queued.extents;
        }
        if held.content.extents == 0 {
            self.sources.remove(&source);
            self.aside.remove(&source);
            return;
        }
        match source {
            Source::Object(id) => {
                if let Ok(Some(object)) = self.counted.get::<Object>(&id) {
                    (held.content.size, held.content.level) = (object.size, object.level);
                }
            }
            Source::Frame(_) => held.content.size = held.content.bytes,
        }
        held.class = match (self.sizes.class(held.content), source) {
            _ if self.aside.contains(&source) => Class::Stays,
            // What rode with a commit takes room in the journal, however long its extents are.
            (Class::Stays, Source::Frame(_)) => Class::Pool,
            (class, _) => class,
        };
        if held.class != Class::Stays {
            let queue = self.queues.entry(held.class).or_default();
            held.queued = held.content;
            queue.order.insert((held.lsn, source));
            queue.bytes += held.content.bytes;
            queue.extents += held.content.extents;
        }
    }
}

/// What holds the bytes of an extent; none if it has no bytes.
pub(crate) fn source_of(extent: &Extent) -> Option<Source> {
    extent.data().map(Source::of)
}
