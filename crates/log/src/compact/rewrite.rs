//! What stays of some extents, laid out as one segment.

use std::sync::Arc;

use crate::compact::compactor::{CompactionRound, Compactor, Turn};
use crate::compact::error::PassError;
use crate::compact::filter::{self, Counts, Fate, Pass};
use crate::compact::offset_map::OffsetMap;
use crate::compact::transactions::{Fates, Kept};
use crate::format::batch::Batch;
use crate::format::segment::{Origin, SegmentBuilder, WriterRun};
use crate::limits::COMPACTION_RUNS_MAX;
use crate::map::extent::Extent;
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::partition;
use crate::read::damage::FoundBy;
use crate::read::pins::Pinned;

/// A pass under way.
pub(super) struct Under {
    pub(super) partition: PartitionId,
    pub(super) pass: Pass,
    pub(super) map: Arc<OffsetMap>,
    pub(super) fates: Arc<Fates>,
}

/// Adjacent extents that one commit swaps.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    pub(super) extents: Vec<(Offset, Extent)>,
    pub(super) end: Offset,
    pub(super) bytes: u64,
}

/// A segment under way.
pub(super) struct Rewriting {
    pub(super) builder: SegmentBuilder,
    pub(super) kept: Kept,
    pub(super) counts: Counts,
    pub(super) max_timestamp: i64,
    /// Whether anything is to change.
    pub(super) touched: bool,
}

impl Compactor {
    /// Reads the batches of a unit and lays out what stays of them. What lies below `at` was filtered before.
    #[allow(clippy::too_many_arguments, reason = "what a pass has, and one unit of it")]
    pub(super) async fn rewrite(
        &self,
        turn: &mut Turn,
        pinned: &Pinned,
        under: &Under,
        unit: &Unit,
        at: Offset,
        object: ObjectId,
        kept: Kept,
        done: &mut CompactionRound,
    ) -> Result<Rewriting, PassError> {
        let partition = under.partition;
        let (first, _) = unit.extents[0];
        let mut builder = SegmentBuilder::new(object);
        builder.begin(partition, first);
        let is_gap = |(_, extent): &(Offset, Extent)| matches!(extent, Extent::Gap(_));
        // Gaps become one.
        let touched = unit.extents.len() > 1 && unit.extents.iter().all(is_gap);
        let mut rewriting =
            Rewriting { builder, kept, counts: Counts::default(), max_timestamp: -1, touched };
        let log_start = partition::head(&**pinned, partition)?.ok_or(PassError::Changed)?.log_start;
        let mut next = first.max(log_start);
        while next < unit.end {
            self.keep_lease(turn).await?;
            let mut batches = self.read(pinned, partition, next, done).await?;
            batches.retain(|batch| batch.base_offset < unit.end);
            let Some(end) = batches.last().map(Batch::next_offset) else { break };
            let end = end.min(unit.end);
            let runs = self.writers(pinned, partition, next, end).await?;
            let (pass, map, fates) = (under.pass, Arc::clone(&under.map), Arc::clone(&under.fates));
            let extents = unit.extents.clone();
            let lay_out = move || {
                let mut rewriting = rewriting;
                for batch in &batches {
                    let laid_out = rewriting.take(&pass, &map, &fates, batch, next, at, &runs, &extents);
                    if let Err(what) = laid_out {
                        return Err((batch.base_offset, what));
                    }
                }
                Ok(rewriting)
            };
            rewriting = match self.env.blocking(lay_out).await {
                Ok(rewriting) => rewriting,
                Err((offset, what)) => return Err(self.undecodable(pinned, partition, offset, what)),
            };
            next = end;
        }
        Ok(rewriting)
    }

    /// Who wrote the batches between two offsets.
    async fn writers(
        &self,
        pinned: &Pinned,
        partition: PartitionId,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<WriterRun>, PassError> {
        let (mut runs, mut next) = (Vec::new(), from);
        while next < to {
            let found = self
                .attributions
                .of(FoundBy::Compaction, pinned, partition, next..to, COMPACTION_RUNS_MAX)
                .await;
            let found = found.map_err(|error| self.unreadable(pinned, partition, next, error))?;
            if found.next <= next {
                let what = "nobody knows who wrote it".to_owned();
                return Err(self.undecodable(pinned, partition, next, what));
            }
            runs.extend(found.runs);
            next = found.next;
        }
        Ok(runs)
    }
}

impl Rewriting {
    /// Takes what stays of a batch. `from` is where the read began, and what lies below `at` was filtered before.
    #[allow(clippy::too_many_arguments, reason = "what a pass has, and one batch of it")]
    fn take(
        &mut self,
        pass: &Pass,
        map: &OffsetMap,
        fates: &Fates,
        batch: &Batch,
        from: Offset,
        at: Offset,
        runs: &[WriterRun],
        extents: &[(Offset, Extent)],
    ) -> Result<(), String> {
        let filtered = match batch.next_offset() <= at && batch.header().count > 0 {
            true => Ok((Fate::Same, None)),
            false => filter::filter(pass, map, fates, &mut self.kept, batch, &mut self.counts),
        };
        let (fate, max_timestamp) = filtered.map_err(|error| error.to_string())?;
        let stays = match fate {
            Fate::Gone => {
                self.touched |= batch.header().count > 0;
                return Ok(());
            }
            Fate::Same => batch.clone(),
            Fate::Changed(bytes) => {
                self.touched = true;
                Batch::new(batch.base_offset, bytes).map_err(|error| error.to_string())?
            }
        };
        let begin = batch.base_offset.max(from);
        if batch.has_records() {
            // Of a batch that nobody has looked at, its extent tells the largest time.
            let told = max_timestamp.unwrap_or_else(|| extent_time(extents, begin));
            self.max_timestamp = self.max_timestamp.max(told);
        }
        let at = runs.partition_point(|run| run.end <= begin);
        let run = runs.get(at).filter(|run| run.first <= begin);
        let run = run.ok_or("nobody knows who wrote it")?;
        self.builder.push(&stays, Origin { writer: run.writer.as_ref(), lsn: run.lsn });
        Ok(())
    }
}

/// The largest time of the extent at an offset.
fn extent_time(extents: &[(Offset, Extent)], at: Offset) -> i64 {
    let behind = extents.partition_point(|(base, _)| *base <= at);
    behind.checked_sub(1).map_or(-1, |index| extents[index].1.max_timestamp())
}
