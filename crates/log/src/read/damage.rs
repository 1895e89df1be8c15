//! What of the log cannot be read: one list for everybody who reads stored bytes.
//!
//! ```text
//!   start ──┐                                          ┌──▶ HTTP, `floe topic describe`, metrics
//!   clients ├──▶ met ──▶ list, bounded, in memory ─────┤
//!   views   │              ▲         │                 └──▶ merging and compaction leave it alone for a while
//!   merging ┘   read whole ┘         └ not in the map any more: it is forgotten
//! ```
//! An entry is a run of offsets of one partition in one place. It names who met it, since when, and what it says. It
//! leaves when somebody has read it whole again, from where the damage was met to the end of its extent, or when the
//! map does not refer to it any more: it was merged after all, or removed.
//!
//! While there is no damage, a read looks at one number and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use floe_env::{Env, Timestamp};
use floe_meta::{Lookup, Snapshot};
use tokio::time::Instant;

use crate::format::batch::Batch;
use crate::format::header;
use crate::limits::{
    DAMAGE_COMPARED_PAUSE, DAMAGE_ENTRIES_MAX, DAMAGE_PAUSE, DAMAGE_SOURCES_MAX, DAMAGE_TEXT_BYTES_MAX,
};
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{Offset, PartitionId, TopicId};
use crate::read::source::Source;
use crate::read::walk;

/// Who met damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundBy {
    /// The comparison of metadata and store at the start of this process.
    Start,
    /// A Kafka client: a fetch, or a lookup of an offset.
    Client,
    /// An SQL statement.
    Statement,
    /// A view, such as the table of a topic.
    View,
    /// Merging.
    Merging,
    /// Compaction.
    Compaction,
    /// Another reader.
    Reader,
}

impl FoundBy {
    /// All of them.
    pub const ALL: [FoundBy; 7] = [
        FoundBy::Start,
        FoundBy::Client,
        FoundBy::Statement,
        FoundBy::View,
        FoundBy::Merging,
        FoundBy::Compaction,
        FoundBy::Reader,
    ];

    /// Its name in answers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            FoundBy::Start => "start",
            FoundBy::Client => "client",
            FoundBy::Statement => "statement",
            FoundBy::View => "view",
            FoundBy::Merging => "merging",
            FoundBy::Compaction => "compaction",
            FoundBy::Reader => "reader",
        }
    }
}

impl fmt::Display for FoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Records that this broker could not read. They stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset of the extent that is damaged.
    pub from: Offset,
    /// The offset after its last.
    pub to: Offset,
    /// The object, or the commit of the journal, that holds it.
    pub place: String,
    /// What is wrong, as the last one who met it said.
    pub what: String,
    /// When this process met it first.
    pub since: Timestamp,
    /// Who has met it, each once.
    pub found_by: Vec<FoundBy>,
}

/// What of an extent is damaged, which says what proves it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Its bytes are missing or changed. A read of all of them that compares their checksums proves them whole.
    Bytes,
    /// Nobody can tell who wrote it. A look at its writers proves it whole.
    Writers,
    /// Its records do not decode although their checksums are right. A pass of compaction over them proves it whole.
    Records,
}

/// Damage that somebody has just met.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    pub(crate) by: FoundBy,
    pub(crate) part: Part,
    pub(crate) key: ExtentKey,
    /// What the map has there; none for offsets that it should have, and has not.
    pub(crate) extent: Option<Extent>,
    /// Where the read began that failed.
    pub(crate) at: Offset,
    pub(crate) what: String,
}

/// The list. Clones share it.
#[derive(Clone)]
pub(crate) struct Damages {
    env: Env,
    state: Arc<Mutex<State>>,
    /// Entries of the list, to be read without its lock.
    count: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<(ExtentKey, Part), Entry>,
    sources: BTreeMap<Source, Holding>,
    /// How often damage was met that is not in the list, since the list had room the last time.
    unlisted: u64,
    /// When the full list was compared with the map last, to make room.
    compared: Option<Instant>,
}

struct Entry {
    /// Where it is; none for offsets that the map lacks.
    source: Option<Source>,
    to: Offset,
    what: String,
    since: Timestamp,
    /// When each met it last.
    met: Vec<(FoundBy, Instant)>,
    /// From here to `to` nobody has read it whole since it was met.
    unread: Offset,
}

/// What is known of a source with damage.
struct Holding {
    entries: usize,
    /// When damage of it was met last that the list has no room for. Nothing of the source is merged for a while then.
    beyond: Option<Instant>,
}

/// What a read of a snapshot began with that failed at an offset, if the newest map still has it: the extent, or that
/// there is none where there should be one.
pub(crate) fn still_there(
    snapshot: &Snapshot,
    newest: &Snapshot,
    partition: PartitionId,
    at: Offset,
) -> Option<(ExtentKey, Option<Extent>)> {
    walk::check(newest, partition, at).ok()?;
    let (before, now) = (first_of(snapshot, partition, at), first_of(newest, partition, at));
    (before == now).then_some(before)
}

/// The extent that holds an offset, or the offset.
fn first_of(map: &Snapshot, partition: PartitionId, at: Offset) -> (ExtentKey, Option<Extent>) {
    let first = walk::extents(map, partition, at).ok().and_then(|mut extents| extents.next());
    match first {
        Some(Ok((key, extent))) if key.base <= at => (key, Some(extent)),
        _ => (ExtentKey::new(partition, at), None),
    }
}

impl Damages {
    pub(crate) fn new(env: Env) -> Damages {
        Damages { env, state: Arc::default(), count: Arc::default() }
    }

    /// Notes damage, unless the newest map has moved on: then there was nothing to read. The first one who meets it
    /// writes a line in the log.
    pub(crate) fn met(&self, newest: &impl Lookup, met: Met) {
        let Met { by, part, key, extent, at, what } = met;
        let source = extent.as_ref().and_then(Extent::data).map(Source::of);
        let to = match &extent {
            Some(extent) => extent.next_offset(key.base),
            None => Offset(key.base.0.saturating_add(1)),
        };
        if !is_in(newest, key, source) {
            return;
        }
        metrics::counter!("floe_log_damage_met_total", "by" => by.name()).increment(1);
        let (now, time) = (self.env.monotonic(), self.env.now());
        let mut state = self.lock();
        if state.entries.get(&(key, part)).is_some_and(|entry| entry.source != source) {
            // The records have moved since.
            state.remove(&(key, part));
        }
        let is_known = state.entries.contains_key(&(key, part));
        let is_due = state.compared.is_none_or(|at| now.duration_since(at) >= DAMAGE_COMPARED_PAUSE);
        if !is_known && state.entries.len() >= DAMAGE_ENTRIES_MAX && is_due {
            state.compared = Some(now);
            state.compare(newest);
        }
        if !is_known && state.entries.len() >= DAMAGE_ENTRIES_MAX {
            state.beyond(source, now);
        } else {
            let what = shortened(what);
            if !is_known {
                state.count(source);
                // A start has lines of its own.
                if by != FoundBy::Start {
                    let (partition, from, place) = (key.partition, key.base, place_of(source));
                    tracing::error!(%partition, %from, %to, place, what, %by, "records cannot be read");
                }
            }
            let new = Entry { source, to, what: String::new(), since: time, met: Vec::new(), unread: at };
            let entry = state.entries.entry((key, part)).or_insert(new);
            entry.what = what;
            entry.unread = entry.unread.min(at);
            entry.met.retain(|(who, _)| *who != by);
            entry.met.push((by, now));
        }
        self.told(&state);
    }

    /// Notes that these batches were read. If any of their extents is damaged, compares their checksums first: a store
    /// may hand out bytes that nobody has compared.
    pub(crate) fn read(&self, partition: PartitionId, batches: &[Batch]) {
        if self.is_empty() {
            return;
        }
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return };
        if !self.has(Part::Bytes, partition, first.base_offset..last.next_offset()) {
            return;
        }
        let is_sound = |batch: &&Batch| header::verify_checksum(batch.header(), &batch.bytes).is_ok();
        let sound = batches.iter().take_while(is_sound).last();
        if let Some(last) = sound {
            self.whole(Part::Bytes, partition, first.base_offset..last.next_offset());
        }
    }

    /// Notes that a part of everything between two offsets is whole.
    pub(crate) fn whole(&self, part: Part, partition: PartitionId, range: Range<Offset>) {
        if self.is_empty() {
            return;
        }
        let mut state = self.lock();
        let mut whole = Vec::new();
        for (place, entry) in state.of_partition(partition) {
            let ((_, of), goes_on) = (place, (range.start..range.end).contains(&entry.unread));
            if *of == part && goes_on {
                entry.unread = range.end;
                whole.extend((entry.unread >= entry.to).then_some(*place));
            }
        }
        for place in whole {
            let (ExtentKey { partition, base }, _) = place;
            tracing::info!(%partition, from = %base, "records that could not be read are whole again");
            state.remove(&place);
        }
        self.told(&state);
    }

    /// Whether merging leaves an extent alone now: it is damaged, and was met a short while ago at a start or a merge.
    pub(crate) fn holds_from_merging(&self, source: Source, key: ExtentKey, now: Instant) -> bool {
        if self.is_empty() {
            return false;
        }
        let is_new = |met: Instant| now.duration_since(met) < DAMAGE_PAUSE;
        let state = self.lock();
        let Some(holding) = state.sources.get(&source) else { return false };
        let of_extent = state.entries.range((key, Part::Bytes)..=(key, Part::Records));
        let mut of_extent = of_extent.filter(|(_, entry)| entry.source == Some(source));
        holding.beyond.is_some_and(is_new)
            || of_extent.any(|(_, entry)| {
                let counts = |by: FoundBy| matches!(by, FoundBy::Start | FoundBy::Merging);
                entry.met.iter().any(|(by, met)| counts(*by) && is_new(*met))
            })
    }

    /// Whether compaction leaves a partition alone now: it met damage there a short while ago.
    pub(crate) fn holds_from_compaction(&self, partition: PartitionId, now: Instant) -> bool {
        if self.is_empty() {
            return false;
        }
        self.lock().of_partition(partition).any(|(_, entry)| {
            let mut met = entry.met.iter().filter(|(by, _)| *by == FoundBy::Compaction);
            met.any(|(_, met)| now.duration_since(*met) < DAMAGE_PAUSE)
        })
    }

    /// Whether there is so much damage that the list cannot name all of it. Who would meet it again and again has to
    /// wait.
    pub(crate) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= DAMAGE_ENTRIES_MAX
    }

    /// Whether the damage of another source could not even be counted.
    pub(crate) fn has_too_many_sources(&self) -> bool {
        !self.is_empty() && self.lock().sources.len() >= DAMAGE_SOURCES_MAX
    }

    /// Forgets what the map has no more: it was merged after all, or removed.
    pub(crate) fn compare(&self, map: &impl Lookup) {
        if self.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.compare(map);
        self.told(&state);
    }

    /// The damage of one topic, as far as the map still has it.
    pub(crate) fn of_topic(&self, map: &impl Lookup, topic: TopicId) -> Vec<Damaged> {
        self.compare(map);
        let state = self.lock();
        let of_topic = state.entries.iter().filter(|((key, _), _)| key.partition.topic == topic);
        of_topic.map(|((key, _), entry)| entry.told(*key)).collect()
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Whether a part of something that overlaps these offsets is damaged.
    fn has(&self, part: Part, partition: PartitionId, range: Range<Offset>) -> bool {
        let mut state = self.lock();
        let mut damaged = state.of_partition(partition).filter(|((_, of), _)| *of == part);
        damaged.any(|((key, _), entry)| key.base < range.end && entry.to > range.start)
    }

    fn told(&self, state: &State) {
        self.count.store(state.entries.len(), Ordering::Relaxed);
        metrics::gauge!("floe_log_damage_entries").set(state.entries.len() as f64);
        metrics::gauge!("floe_log_damage_sources").set(state.sources.len() as f64);
        metrics::gauge!("floe_log_damage_unlisted").set(state.unlisted as f64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        floe_env::lock(&self.state)
    }
}

impl State {
    fn of_partition(
        &mut self,
        partition: PartitionId,
    ) -> impl Iterator<Item = (&(ExtentKey, Part), &mut Entry)> {
        let end = |base| ExtentKey::new(partition, Offset(base));
        self.entries.range_mut((end(i64::MIN), Part::Bytes)..=(end(i64::MAX), Part::Records))
    }

    /// Counts a new entry of a source.
    fn count(&mut self, source: Option<Source>) {
        let Some(source) = source else { return };
        // Entries are bounded, and so are the sources that have any.
        self.sources.entry(source).or_insert(Holding { entries: 0, beyond: None }).entries += 1;
    }

    /// Notes damage for which the list has no room.
    fn beyond(&mut self, source: Option<Source>, now: Instant) {
        self.unlisted += 1;
        let Some(source) = source else { return };
        if self.sources.len() < DAMAGE_SOURCES_MAX || self.sources.contains_key(&source) {
            let holding = self.sources.entry(source).or_insert(Holding { entries: 0, beyond: None });
            holding.beyond = Some(now);
        }
    }

    fn remove(&mut self, place: &(ExtentKey, Part)) {
        let Some(entry) = self.entries.remove(place) else { return };
        if let Some(source) = entry.source
            && let Some(holding) = self.sources.get_mut(&source)
        {
            holding.entries -= 1;
            if holding.entries == 0 {
                self.sources.remove(&source);
            }
        }
    }

    fn compare(&mut self, map: &impl Lookup) {
        let is_gone = |((key, _), entry): &(&(ExtentKey, Part), &Entry)| !is_in(map, *key, entry.source);
        let gone: Vec<_> = self.entries.iter().filter(is_gone).map(|(place, _)| *place).collect();
        gone.iter().for_each(|place| self.remove(place));
        if self.entries.len() < DAMAGE_ENTRIES_MAX {
            // There is room to name them when they are met again.
            self.sources.retain(|_, holding| holding.entries > 0);
            self.sources.values_mut().for_each(|holding| holding.beyond = None);
            self.unlisted = 0;
        }
    }
}

impl Entry {
    fn told(&self, ExtentKey { partition, base }: ExtentKey) -> Damaged {
        let mut found_by: Vec<FoundBy> = self.met.iter().map(|(by, _)| *by).collect();
        found_by.sort_unstable();
        Damaged {
            partition,
            from: base,
            to: self.to,
            place: place_of(self.source),
            what: self.what.clone(),
            since: self.since,
            found_by,
        }
    }
}

/// Whether an extent is still in a source, or offsets are still missing. What cannot be read may be.
fn is_in(map: &impl Lookup, key: ExtentKey, source: Option<Source>) -> bool {
    let Some(source) = source else {
        let is_readable = walk::check(map, key.partition, key.base).is_ok();
        let covers = walk::extents(map, key.partition, key.base).map(|mut extents| extents.next());
        let is_covered = matches!(covers, Ok(Some(Ok((found, _)))) if found.base <= key.base);
        return is_readable && !is_covered;
    };
    match map.get::<Extent>(&key) {
        Ok(extent) => extent.is_some_and(|extent| extent.data().map(Source::of) == Some(source)),
        Err(_) => true,
    }
}

fn place_of(source: Option<Source>) -> String {
    source.map_or_else(|| "the metadata".to_owned(), |source| source.to_string())
}

/// A text that is no longer than the list keeps.
fn shortened(mut what: String) -> String {
    if what.len() > DAMAGE_TEXT_BYTES_MAX {
        what.truncate(what.floor_char_boundary(DAMAGE_TEXT_BYTES_MAX));
    }
    what
}
