//! The extents of one merge. Pure: a map and its index in, a plan out.
//!
//! A plan has **runs**: adjacent extents of one partition, which become one. Markers and gaps between two of them are
//! among them. What lies between and is not merged ends a run.
//!
//! Retention removes whole extents. So a run also ends before it holds more than a part of what its topic keeps, by
//! time or by bytes: the oldest records would wait for the newest of their extent.

use std::collections::{BTreeMap, BTreeSet};

use floe_meta::{DecodeError, Lookup};

use crate::clean::retention::{Defaults, Policy};
use crate::limits::{MERGE_EXTENTS_MAX, MERGE_EXTENTS_PER_COMMIT, MERGE_RETAINED_PARTS};
use crate::map::deleted;
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{Offset, PartitionId, TopicId};
use crate::map::object::Level;
use crate::map::topic;
use crate::map::topic_config::TopicConfig;
use crate::merge::index::{Index, source_of};
use crate::merge::sizes::{Class, Sizes};
use crate::read::source::Source;
use crate::read::walk;

/// One merge. Its segment has the runs in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order of partitions and offsets.
    pub(crate) runs: Vec<Run>,
    /// Bytes of all batches.
    pub(crate) bytes: u64,
    /// The level of the segment.
    pub(crate) level: Level,
}

/// Adjacent extents of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The partition.
    pub(crate) partition: PartitionId,
    /// The extents with their first offsets.
    pub(crate) extents: Vec<(Offset, Extent)>,
}

/// What plans depend on beside the map and the index.
pub(crate) struct Rules<'a> {
    pub(crate) sizes: Sizes,
    /// What topics keep that do not say it themselves.
    pub(crate) retention: Defaults,
    /// The journal or its disk has little room: what the journal holds is merged although it is not due.
    pub(crate) pressed: bool,
    /// Whether an extent is left alone.
    pub(crate) holds: &'a (dyn Fn(Source, &ExtentKey) -> bool + Sync),
}

/// How long an extent of a topic may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    /// By how many milliseconds its newest records are newer than those of the first extent that became part of it.
    ms: Option<u64>,
    bytes: Option<u64>,
}

/// The runs of a plan, as they grow.
struct Runs<'a, M> {
    map: &'a M,
    rules: &'a Rules<'a>,
    /// By topic; none for a topic that is gone for good, whose extents the cleaner frees.
    bounds: BTreeMap<TopicId, Option<Bounds>>,
    runs: Vec<Run>,
    /// What the last run has.
    last: Extremes,
    bytes: u64,
}

/// The bytes and the times of the data of a run. Retention takes extents in the order of their offsets, so an extent is
/// no older than those before it.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    bytes: u64,
    /// The time of the first extent.
    first: i64,
    /// That of the last.
    newest: i64,
}

/// What a look for a merge has found.
#[derive(Debug, Default)]
pub(crate) struct Next {
    /// The next merge, if one is due.
    pub(crate) plan: Option<Plan>,
    /// What the plan is a part of.
    pub(crate) sorting: Option<Sorting>,
    /// Sources that had their turn. What is left of them cannot be merged for now.
    pub(crate) over: Vec<Source>,
}

/// The next merge: of what is being sorted, or of what is due. `in_memory` says what readers find there.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn next<M: Lookup>(
    map: &M,
    index: &Index,
    rules: &Rules<'_>,
    in_memory: &dyn Fn(Source) -> bool,
    sorting: Option<Sorting>,
) -> Result<Next, DecodeError> {
    let mut found = Next::default();
    if let Some(mut sorting) = sorting {
        found.plan = sorting.next(map, rules)?;
        if found.plan.is_some() {
            found.sorting = Some(sorting);
            return Ok(found);
        }
        found.over.extend(sorting.sources);
    }
    match index.due() {
        None | Some(Class::Stays) => {}
        Some(Class::Pool) => {
            let mut sources = index.to_sort(in_memory);
            sources.retain(|source| !found.over.contains(source));
            let mut sorting = Sorting::new(map, index, &sources)?;
            found.plan = sorting.next(map, rules)?;
            match found.plan {
                Some(_) => found.sorting = Some(sorting),
                None => found.over.extend(sources),
            }
        }
        Some(class) => {
            let sources = index.to_gather(class);
            found.plan = gather(map, index, rules, &sources)?;
            if found.plan.is_none() {
                found.over.extend(sources);
            }
        }
    }
    if found.plan.is_none() && rules.pressed {
        let mut sources = index.frames();
        sources.retain(|source| !found.over.contains(source));
        found.plan = gather(map, index, rules, &sources)?;
        if found.plan.is_none() {
            found.over.extend(sources);
        }
    }
    Ok(found)
}

/// The plan that gathers these sources; none if nothing of them may be merged.
///
/// # Errors
/// A record cannot be read.
fn gather<M: Lookup>(
    map: &M,
    index: &Index,
    rules: &Rules<'_>,
    sources: &[Source],
) -> Result<Option<Plan>, DecodeError> {
    let mut all = Vec::new();
    for source in sources {
        all.extend(index.extents(map, *source)?);
    }
    all.sort_unstable_by_key(|(key, _)| *key);
    let mut runs = Runs::new(map, rules);
    for (key, extent) in all {
        runs.push(key, extent)?;
    }
    Ok(runs.plan(Level::Gathered))
}

/// Sources that are being sorted, one segment after the other.
#[derive(Debug)]
pub(crate) struct Sorting {
    sources: BTreeSet<Source>,
    /// Their extents, in the order of partitions and offsets.
    keys: Vec<ExtentKey>,
    /// The first of the segment that was planned last.
    begun: usize,
    /// The first that no segment has.
    next: usize,
}

impl Sorting {
    /// Begins.
    ///
    /// # Errors
    /// A record cannot be read.
    fn new(map: &impl Lookup, index: &Index, sources: &[Source]) -> Result<Sorting, DecodeError> {
        let mut keys = Vec::new();
        for source in sources {
            keys.extend(index.extents(map, *source)?.into_iter().map(|(key, _)| key));
        }
        keys.sort_unstable();
        Ok(Sorting { sources: sources.iter().copied().collect(), keys, begun: 0, next: 0 })
    }

    /// The next segment; none when all are done. An extent that is larger than a segment stays where it is.
    ///
    /// # Errors
    /// A record cannot be read.
    fn next<M: Lookup>(&mut self, map: &M, rules: &Rules<'_>) -> Result<Option<Plan>, DecodeError> {
        while self.next < self.keys.len() {
            let plan = self.step(map, rules)?;
            if plan.is_some() {
                return Ok(plan);
            }
            // Nothing of these may be merged. Perhaps of others.
        }
        Ok(None)
    }

    fn step<M: Lookup>(&mut self, map: &M, rules: &Rules<'_>) -> Result<Option<Plan>, DecodeError> {
        self.begun = self.next;
        let mut runs = Runs::new(map, rules);
        let mut extents = 0;
        while let Some(key) = self.keys.get(self.next) {
            let extent = map.get::<Extent>(key)?;
            let of_these = |extent: &Extent| source_of(extent).is_some_and(|s| self.sources.contains(&s));
            let extent = extent.filter(of_these).filter(|e| e.bytes() <= rules.sizes.segment_bytes);
            if let Some(extent) = extent {
                let is_full = runs.bytes + extent.bytes() > rules.sizes.segment_bytes;
                if (is_full && runs.bytes > 0) || extents == MERGE_EXTENTS_MAX {
                    break;
                }
                runs.push(*key, extent)?;
                extents += 1;
            }
            self.next += 1;
        }
        Ok(runs.plan(Level::Sorted))
    }

    /// The segment that was planned last did not come about: it is planned again.
    pub(crate) fn again(&mut self) {
        self.next = self.begun;
    }
}

impl Plan {
    /// The sources that lose extents.
    pub(crate) fn sources(&self) -> Vec<Source> {
        let extents = self.runs.iter().flat_map(|run| &run.extents);
        let sources: BTreeSet<Source> = extents.filter_map(|(_, extent)| source_of(extent)).collect();
        sources.into_iter().collect()
    }
}

impl<'a, M: Lookup> Runs<'a, M> {
    fn new(map: &'a M, rules: &'a Rules<'a>) -> Runs<'a, M> {
        let last = Extremes { bytes: 0, first: 0, newest: 0 };
        Runs { map, rules, bounds: BTreeMap::new(), runs: Vec::new(), last, bytes: 0 }
    }

    /// Adds the next extent, in the order of partitions and offsets.
    fn push(&mut self, key: ExtentKey, extent: Extent) -> Result<(), DecodeError> {
        let (Some(source), Some(data)) = (source_of(&extent), extent.data()) else { return Ok(()) };
        let (bytes, time) = (data.bytes, data.max_timestamp);
        let Some(bounds) = self.bounds(key.partition.topic)? else { return Ok(()) };
        if (self.rules.holds)(source, &key) {
            return Ok(());
        }
        self.bytes += bytes;
        let with = self.last.with(bytes, time);
        if let Some(last) = self.runs.last_mut().filter(|run| run.partition == key.partition)
            && last.extents.len() < MERGE_EXTENTS_PER_COMMIT
            && bounds.allow(with)
            && let Some(between) = between(self.map, last, key.base)?
        {
            last.extents.extend(between);
            last.extents.push((key.base, extent));
            self.last = with;
            return Ok(());
        }
        let before = self.runs.last().filter(|run| run.partition == key.partition).map(|_| self.last.newest);
        let first = before.map_or(time, |before| before.max(time));
        self.last = Extremes { bytes, first, newest: first };
        self.runs.push(Run { partition: key.partition, extents: vec![(key.base, extent)] });
        Ok(())
    }

    fn bounds(&mut self, topic: TopicId) -> Result<Option<Bounds>, DecodeError> {
        if let Some(known) = self.bounds.get(&topic) {
            return Ok(*known);
        }
        let found = match topic::by_id(self.map, topic)? {
            Some(topic) => Some(topic),
            None => deleted::by_id(self.map, topic)?.map(|deleted| deleted.topic),
        };
        let bounds =
            found.map(|topic| Bounds::of(Policy::of(&TopicConfig::of(&topic), self.rules.retention)));
        self.bounds.insert(topic, bounds);
        Ok(bounds)
    }

    fn plan(self, level: Level) -> Option<Plan> {
        (!self.runs.is_empty()).then_some(Plan { runs: self.runs, bytes: self.bytes, level })
    }
}

impl Bounds {
    fn of(policy: Option<Policy>) -> Bounds {
        let part = |whole: Option<u64>| whole.map(|whole| whole / MERGE_RETAINED_PARTS);
        Bounds { ms: part(policy.and_then(|p| p.ms)), bytes: part(policy.and_then(|p| p.bytes)) }
    }

    /// Whether an extent may have this.
    fn allow(self, extremes: Extremes) -> bool {
        let Extremes { bytes, first, newest } = extremes;
        self.bytes.is_none_or(|most| bytes <= most)
            && self.ms.is_none_or(|most| newest.abs_diff(first) <= most)
    }
}

impl Extremes {
    fn with(self, bytes: u64, time: i64) -> Extremes {
        Extremes { bytes: self.bytes + bytes, newest: self.newest.max(time), ..self }
    }
}

/// The markers and gaps between a run and the offset `to`; none if there is something else.
fn between(map: &impl Lookup, run: &Run, to: Offset) -> Result<Option<Vec<(Offset, Extent)>>, DecodeError> {
    let (last, extent) = run.extents.last().expect("a run has extents");
    let (mut found, mut next) = (Vec::new(), extent.next_offset(*last));
    if next == to {
        return Ok(Some(found));
    }
    for pair in walk::extents(map, run.partition, next)? {
        let (ExtentKey { base, .. }, extent) = pair?;
        let is_full = run.extents.len() + found.len() >= MERGE_EXTENTS_PER_COMMIT;
        if base != next || extent.data().is_some() || is_full {
            return Ok(None);
        }
        found.push((base, extent));
        next = extent.next_offset(base);
        if next >= to {
            break;
        }
    }
    Ok((next == to).then_some(found))
}
