//! A pass over one partition: notes the keys of the dirty part, then rewrites extents step by step (`rewrite.rs`).

use std::sync::Arc;

use bytes::Bytes;
use floe_meta::Snapshot;

use crate::compact::commit::{finish, vacate};
use crate::compact::compactor::{CompactionRound, Compactor, Turn};
use crate::compact::error::{PassError, RoundError};
use crate::compact::filter::{self, Pass};
use crate::compact::offset_map::OffsetMap;
use crate::compact::plan::{Dirty, Policy};
use crate::compact::rewrite::{Rewriting, Under, Unit};
use crate::compact::transactions::{Fates, Kept};
use crate::format::batch::Batch;
use crate::limits::{COMPACTION_EXTENTS_MAX, COMPACTION_STEP_PAUSE, COMPACTION_TRIES_MAX};
use crate::map::extent::{Data, Extent, ExtentKey, WrittenBy};
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::object::{self, Level, object_key};
use crate::map::partition;
use crate::read::damage::Part;
use crate::read::pins::Pinned;
use crate::read::walk;
use crate::write::leases::TakenId;
use crate::write::merged::{Merged, Swap, merge};

impl Compactor {
    /// One pass over a partition.
    pub(super) async fn pass(
        &self,
        turn: &mut Turn,
        dirty: &Dirty,
        policy: &Policy,
        done: &mut CompactionRound,
    ) -> Result<(), PassError> {
        let begun = self.env.monotonic();
        let partition = dirty.partition;
        let pinned = self.session.pins.pin();
        let head = partition::head(&*pinned, partition)?.ok_or(PassError::Changed)?;
        let now = self.env.now().0;
        let (map, fates, end) = self.note_keys(turn, &pinned, dirty, done).await?;
        drop(pinned);
        if end <= dirty.from {
            // An open transaction is in front.
            return Ok(());
        }
        let pass = Pass {
            covered: dirty.covered,
            end,
            newest: Offset(head.next.0 - 1),
            now,
            horizon: now.saturating_add(policy.delete_retention_ms),
            bug: self.config.planted,
        };
        let under = Under { partition, pass, map: Arc::new(map), fates };
        let (mut at, mut kept) = (head.log_start, Kept::default());
        while at < end {
            at = self.step(turn, &under, at, &mut kept, done).await?;
            // So that commits of brokers and clients go first.
            tokio::time::sleep(COMPACTION_STEP_PAUSE).await;
        }
        self.commit(turn, partition, move |tx| Ok(finish(tx, partition, end)?)).await?;
        // All records of the extents that stay have been decoded.
        self.damages.whole(Part::Records, partition, head.log_start..end);
        let took = self.env.monotonic() - begun;
        metrics::histogram!("floe_log_compaction_pass_seconds").record(took.as_secs_f64());
        metrics::counter!("floe_log_compaction_passes_total").increment(1);
        Ok(())
    }

    /// Reads the dirty part and notes the last offset of each key. Returns how transactions ended, and the offset up to
    /// which the map knows all keys.
    async fn note_keys(
        &self,
        turn: &mut Turn,
        pinned: &Pinned,
        dirty: &Dirty,
        done: &mut CompactionRound,
    ) -> Result<(OffsetMap, Arc<Fates>, Offset), PassError> {
        let (partition, from) = (dirty.partition, dirty.from);
        let (mut limit, mut at) = (dirty.limit, from);
        let keys = limit.0.abs_diff(from.0);
        let mut map = OffsetMap::new(self.env.random_u128(), self.config.map_bytes, keys);
        let mut fates: Option<Arc<Fates>> = None;
        while at < limit {
            self.keep_lease(turn).await?;
            let batches = self.read(pinned, partition, at, done).await?;
            let Some(next) = batches.last().map(Batch::next_offset) else { break };
            let is_of_one = |batch: &Batch| batch.has_records() && batch.header().is_transactional();
            if fates.is_none() && batches.iter().any(is_of_one) {
                let (scanned, end) = self.scan(turn, pinned, partition, at, limit).await?;
                (fates, limit) = (Some(Arc::new(scanned)), end);
            }
            let (end, known) = (limit, fates.clone());
            let note = move || {
                let mut full = Ok(None);
                for batch in batches.iter().filter(|batch| batch.has_records() && batch.base_offset < end) {
                    if known.as_ref().is_some_and(|fates| fates.aborts(batch)) {
                        continue;
                    }
                    full =
                        filter::note(&mut map, batch, from, end).map_err(|error| (batch.base_offset, error));
                    if !matches!(full, Ok(None)) {
                        break;
                    }
                }
                (map, full)
            };
            let noted;
            (map, noted) = self.env.blocking(note).await;
            match noted {
                Ok(None) => at = next,
                Ok(Some(full)) => {
                    metrics::counter!("floe_log_compaction_full_maps_total").increment(1);
                    (limit, at) = (full, full);
                }
                Err((offset, error)) => {
                    return Err(self.undecodable(pinned, partition, offset, error.to_string()));
                }
            }
        }
        metrics::gauge!("floe_log_compaction_map_keys").set(map.keys() as f64);
        Ok((map, fates.unwrap_or_default(), limit))
    }

    /// Finds how transactions ended from an offset on. Returns that and the offset up to which it is known.
    async fn scan(
        &self,
        turn: &mut Turn,
        pinned: &Pinned,
        partition: PartitionId,
        from: Offset,
        limit: Offset,
    ) -> Result<(Fates, Offset), PassError> {
        let (mut fates, mut at, mut limit) = (Fates::default(), from, limit);
        while at < limit {
            self.keep_lease(turn).await?;
            let batches = self.read(pinned, partition, at, &mut CompactionRound::default()).await?;
            let Some(next) = batches.last().map(Batch::next_offset) else { break };
            for batch in batches.iter().filter(|batch| batch.base_offset < limit) {
                let looked = fates.look(batch);
                let known = looked.map_err(|error| {
                    self.undecodable(pinned, partition, batch.base_offset, error.to_string())
                })?;
                if !known {
                    limit = batch.base_offset;
                    break;
                }
            }
            at = next;
        }
        let end = fates.first_open().map_or(limit, |open| open.min(limit));
        Ok((fates, end))
    }

    /// Rewrites the next extents from `at` on, and returns the offset behind them. Tries again when others have changed
    /// them meanwhile.
    async fn step(
        &self,
        turn: &mut Turn,
        under: &Under,
        at: Offset,
        kept: &mut Kept,
        done: &mut CompactionRound,
    ) -> Result<Offset, PassError> {
        for _ in 0..COMPACTION_TRIES_MAX {
            let pinned = self.session.pins.pin();
            let head = partition::head(&*pinned, under.partition)?.ok_or(PassError::Changed)?;
            let at = at.max(head.log_start);
            if at >= under.pass.end {
                return Ok(at);
            }
            let unit = self.unit(&pinned, under, at)?;
            let taken = match turn.spare.take() {
                Some(taken) => taken,
                None => self.ids.take().await.map_err(RoundError::Id)?,
            };
            let rewriting = self.rewrite(turn, &pinned, under, &unit, at, taken.id, kept.clone(), done).await;
            let rewriting = match rewriting {
                Ok(rewriting) => rewriting,
                Err(error) => {
                    turn.spare = Some(taken);
                    return Err(error);
                }
            };
            let (after, counts) = (rewriting.kept.clone(), rewriting.counts);
            match self.swap(turn, under, &unit, taken, rewriting, done).await {
                Ok(()) => {
                    *kept = after;
                    done.kept += counts.kept;
                    done.removed += counts.removed;
                    metrics::counter!("floe_log_compaction_records_total", "fate" => "kept")
                        .increment(counts.kept);
                    let removed = metrics::counter!("floe_log_compaction_records_total", "fate" => "removed");
                    removed.increment(counts.removed);
                    return Ok(unit.end);
                }
                Err(PassError::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(PassError::Changed)
    }

    /// The extents from `at` on that one commit swaps: as many as make one object.
    fn unit(&self, map: &Snapshot, under: &Under, at: Offset) -> Result<Unit, PassError> {
        let mut unit = Unit { end: at, ..Unit::default() };
        for pair in walk::extents(map, under.partition, at)? {
            let (ExtentKey { base, .. }, extent) = pair?;
            if base >= under.pass.end || unit.extents.len() == COMPACTION_EXTENTS_MAX {
                break;
            }
            let bytes = unit.bytes.saturating_add(extent.bytes());
            if !unit.extents.is_empty() && bytes > self.config.object_bytes {
                break;
            }
            (unit.bytes, unit.end) = (bytes, extent.next_offset(base));
            unit.extents.push((base, extent));
        }
        match unit.extents.is_empty() {
            true => Err(PassError::Changed),
            false => Ok(unit),
        }
    }

    /// Puts a segment and swaps the extents of a unit, if anything is to change.
    async fn swap(
        &self,
        turn: &mut Turn,
        under: &Under,
        unit: &Unit,
        taken: TakenId,
        rewriting: Rewriting,
        done: &mut CompactionRound,
    ) -> Result<(), PassError> {
        let partition = under.partition;
        let Rewriting { mut builder, touched, max_timestamp, .. } = rewriting;
        if !touched {
            turn.spare = Some(taken);
            return Ok(());
        }
        let old = unit.extents.clone();
        let Some(section) = builder.end(unit.end, max_timestamp) else {
            turn.spare = Some(taken);
            self.commit(turn, partition, move |tx| vacate(tx, partition, &old)).await?;
            done.swaps += 1;
            return Ok(());
        };
        let mut payload = builder.take();
        let (rest, size) = builder.finish();
        payload.extend(rest);
        let object = taken.id;
        self.put(object, payload).await?;
        let data = Data { written_by: written_by(&old), ..section.data };
        let new = vec![(section.key.base, Extent::Data(data))];
        let large = size >= self.config.object_bytes / 2;
        let merged = Merged {
            object,
            owner: self.ids.owner(),
            size,
            // A small one is gathered with others.
            level: if large { Level::Sorted } else { Level::Gathered },
            continues: false,
            swaps: vec![Swap { partition, old, new }],
        };
        let swapped = self.commit(turn, partition, move |tx| merge(tx, &merged)).await;
        if object::is_named(&self.meta.snapshot(), object) {
            taken.named();
        }
        swapped?;
        done.swaps += 1;
        done.bytes_out += size;
        metrics::counter!("floe_log_compaction_swaps_total").increment(1);
        metrics::counter!("floe_log_compaction_bytes_total", "way" => "written").increment(size);
        Ok(())
    }

    async fn put(&self, object: ObjectId, payload: Vec<Bytes>) -> Result<(), PassError> {
        let put = self.store.put(&object_key(object), payload).await;
        put.map_err(|error| RoundError::Store(error).into())
    }
}

/// Who wrote the extents: their writer, or the footer has them.
fn written_by(old: &[(Offset, Extent)]) -> WrittenBy {
    let mut writers = old.iter().filter_map(|(_, extent)| extent.data()).map(|data| data.written_by);
    match writers.next() {
        Some(first) if writers.all(|other| other == first) => first,
        _ => WrittenBy::Footer,
    }
}
