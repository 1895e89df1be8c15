//! What merging could not read. It is left alone for a while and tried again: somebody may put a lost object back.
//! Everything else is merged meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use floe_meta::Lookup;
use tokio::time::Instant;

use crate::limits::{MERGE_TROUBLE_EXTENTS_MAX, MERGE_TROUBLE_PAUSE, MERGE_TROUBLES_MAX};
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{Offset, PartitionId, TopicId};
use crate::merge::index::source_of;
use crate::read::source::Source;

/// Records that cannot be read, found by merging. They stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeTrouble {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset of the extent that is damaged.
    pub from: Offset,
    /// The offset after its last.
    pub to: Offset,
    /// The object, or the commit of the journal, that holds it.
    pub source: String,
    /// What is wrong.
    pub what: String,
}

/// An extent that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) source: Source,
    pub(crate) key: ExtentKey,
    pub(crate) extent: Extent,
    pub(crate) what: String,
}

/// The sources with damage. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Troubles {
    sources: Arc<Mutex<BTreeMap<Source, Troubled>>>,
}

/// What is known of one source.
struct Troubled {
    extents: BTreeMap<ExtentKey, (Extent, String)>,
    /// Whether it has more damage than is remembered. Nothing of it is merged then.
    much: bool,
    /// Until then it is left alone.
    until: Instant,
}

impl Troubles {
    /// Notes damage, each with a line in the log.
    pub(crate) fn note(&self, damages: &[Damage], now: Instant) {
        let mut sources = self.lock();
        for Damage { source, key, extent, what } in damages {
            let (partition, from, to) = (key.partition, key.base, extent.next_offset(key.base));
            let until = now + MERGE_TROUBLE_PAUSE;
            let troubled = sources.entry(*source).or_insert_with(|| Troubled {
                extents: BTreeMap::new(),
                much: false,
                until,
            });
            troubled.until = until;
            if troubled.extents.len() < MERGE_TROUBLE_EXTENTS_MAX || troubled.extents.contains_key(key) {
                tracing::error!(%source, %partition, %from, %to, what, "records cannot be merged, they stay as they are");
                troubled.extents.insert(*key, (*extent, what.clone()));
            } else {
                troubled.much = true;
            }
            metrics::counter!("floe_log_merge_damaged_extents_total").increment(1);
        }
        metrics::gauge!("floe_log_merge_troubled_sources").set(sources.len() as f64);
    }

    /// Whether an extent is left alone now.
    pub(crate) fn holds(&self, source: Source, key: &ExtentKey, now: Instant) -> bool {
        let sources = self.lock();
        let found = sources.get(&source).filter(|troubled| now < troubled.until);
        found.is_some_and(|troubled| troubled.much || troubled.extents.contains_key(key))
    }

    /// Whether there is so much damage that merging has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().len() >= MERGE_TROUBLES_MAX
    }

    /// Forgets what the map has no more: it was merged after all, or removed. Nothing is looked up if there is no
    /// damage.
    pub(crate) fn compare(&self, map: &impl Lookup) {
        let mut sources = self.lock();
        if sources.is_empty() {
            return;
        }
        for (source, troubled) in sources.iter_mut() {
            troubled.extents.retain(|key, _| is_in(map, key, *source));
        }
        sources.retain(|_, troubled| !troubled.extents.is_empty());
        metrics::gauge!("floe_log_merge_troubled_sources").set(sources.len() as f64);
    }

    /// The damage of one topic, as far as the map still has it.
    pub(crate) fn of_topic(&self, map: &impl Lookup, topic: TopicId) -> Vec<MergeTrouble> {
        let mut found = Vec::new();
        for (source, troubled) in self.lock().iter() {
            let of_topic = troubled.extents.iter().filter(|(key, _)| key.partition.topic == topic);
            for (key, (extent, what)) in of_topic.filter(|(key, _)| is_in(map, key, *source)) {
                found.push(MergeTrouble {
                    partition: key.partition,
                    from: key.base,
                    to: extent.next_offset(key.base),
                    source: source.to_string(),
                    what: what.clone(),
                });
            }
        }
        found.sort_by_key(|trouble| (trouble.partition, trouble.from));
        found
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Source, Troubled>> {
        floe_env::lock(&self.sources)
    }
}

/// Whether an extent is still in a source. One that cannot be read may be.
fn is_in(map: &impl Lookup, key: &ExtentKey, source: Source) -> bool {
    match map.get::<Extent>(key) {
        Ok(extent) => extent.is_some_and(|extent| source_of(&extent) == Some(source)),
        Err(_) => true,
    }
}
