//! What compaction could not read. The partition is left alone for a while and tried again: somebody may put a lost
//! object back. All others are compacted meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::COMPACTION_TROUBLES_MAX;
use crate::map::ids::{Offset, PartitionId, TopicId};

/// Records that cannot be read, found by compaction. Everything of the partition stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionTrouble {
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

/// The partitions with damage. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Troubles {
    partitions: Arc<Mutex<BTreeMap<PartitionId, (CompactionTrouble, Instant)>>>,
}

impl Troubles {
    /// Notes damage, with a line in the log.
    pub(crate) fn note(&self, trouble: CompactionTrouble, now: Instant) {
        let CompactionTrouble { partition, from, to, source, what } = &trouble;
        tracing::error!(%partition, %from, %to, source, what, "a partition cannot be compacted, it stays as it is");
        let mut partitions = self.lock();
        partitions.insert(*partition, (trouble, now));
        metrics::gauge!("floe_log_compaction_troubled_partitions").set(partitions.len() as f64);
    }

    /// Whether a partition is left alone now.
    pub(crate) fn holds(&self, partition: PartitionId, now: Instant, pause: Duration) -> bool {
        self.lock().get(&partition).is_some_and(|(_, noted)| now.duration_since(*noted) < pause)
    }

    /// Whether there is so much damage that compaction has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().len() >= COMPACTION_TROUBLES_MAX
    }

    /// Forgets partitions that have no damage any more, or are not compacted.
    pub(crate) fn retain(&self, is_there: impl Fn(&CompactionTrouble) -> bool) {
        let mut partitions = self.lock();
        if !partitions.is_empty() {
            partitions.retain(|_, (trouble, _)| is_there(trouble));
            metrics::gauge!("floe_log_compaction_troubled_partitions").set(partitions.len() as f64);
        }
    }

    /// The damage of one topic.
    pub(crate) fn of_topic(&self, topic: TopicId) -> Vec<CompactionTrouble> {
        let all = self.lock();
        let of_topic = all.values().filter(|(trouble, _)| trouble.partition.topic == topic);
        of_topic.map(|(trouble, _)| trouble.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, (CompactionTrouble, Instant)>> {
        floe_env::lock(&self.partitions)
    }
}
