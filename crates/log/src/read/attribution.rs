//! Who wrote which offsets of a partition, and in which commit.
//!
//! An extent names its writer, or says that the footer of its segment does. A footer is read whole, because its
//! checksum covers all of it, and its runs are decoded as far as the partition needs it. Some footers are kept: those
//! who ask go partition by partition, and a segment has many.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use floe_env::{Env, Lru};
use floe_meta::{Meta, Snapshot};

use crate::format::segment::{Footer, Listed, SegmentError, WriterRun};
use crate::limits::FOOTERS_BYTES;
use crate::map::extent::{Data, Extent, ExtentKey, Place, WrittenBy};
use crate::map::identity::Writer;
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::object::Object;
use crate::read::cache::Cache;
use crate::read::damage::{Damages, FoundBy, Met, Part, still_there};
use crate::read::source::{Source, footer_end};
use crate::read::walk::{self, ReadError};
use floe_store::StoreError;

/// Who wrote some offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// Runs of offsets in order. Those between two runs have no records. A marker is a run that nobody wrote.
    pub runs: Vec<WriterRun>,
    /// All offsets before this one are told. Ask on from there, unless it is the end of the range.
    pub next: Offset,
}

/// Finds writers. Clones share the footers that they keep.
#[derive(Clone)]
pub(crate) struct Attributions {
    env: Env,
    meta: Meta,
    cache: Cache,
    damages: Damages,
    footers: Arc<Mutex<Lru<ObjectId, Arc<Footer>>>>,
}

impl Attributions {
    pub(crate) fn new(env: Env, meta: Meta, cache: Cache, damages: Damages) -> Attributions {
        Attributions { env, meta, cache, damages, footers: Arc::new(Mutex::new(Lru::new(FOOTERS_BYTES))) }
    }

    /// Who wrote the offsets of a range, as far as it is readable, in at most `runs_max` runs. Notes damage, and what
    /// is whole again.
    pub(crate) async fn of(
        &self,
        by: FoundBy,
        snapshot: &Snapshot,
        partition: PartitionId,
        range: Range<Offset>,
        runs_max: usize,
    ) -> Result<Attribution, ReadError> {
        walk::check(snapshot, partition, range.start)?;
        let begin = range.start;
        let mut found = Attribution { runs: Vec::new(), next: begin };
        let looked = self.look(snapshot, partition, range, runs_max, &mut found).await;
        self.damages.whole(Part::Writers, partition, begin..found.next);
        if let Err(ReadError::Corrupt(what)) = &looked {
            let (newest, at) = (self.meta.snapshot(), found.next);
            if let Some((key, extent)) = still_there(snapshot, &newest, partition, at) {
                let (part, what) = (Part::Writers, what.clone());
                self.damages.met(&newest, Met { by, part, key, extent, at, what });
            }
        }
        looked.map(|()| found)
    }

    /// Adds who wrote the offsets from `found.next` on. If that fails, it is for the extent there.
    async fn look(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        range: Range<Offset>,
        runs_max: usize,
        found: &mut Attribution,
    ) -> Result<(), ReadError> {
        for pair in walk::extents(snapshot, partition, range.start)? {
            let (key, extent) = pair?;
            if key.base >= range.end || found.runs.len() >= runs_max {
                break;
            }
            if !walk::continues(found.next, key, extent, found.next == range.start) {
                return Err(walk::gap(partition, found.next));
            }
            let end = extent.next_offset(key.base).min(range.end);
            let wanted = found.next..end;
            let run = |writer, lsn| WriterRun { first: wanted.start, end, writer, lsn };
            match extent {
                Extent::Gap(_) => {}
                Extent::Marker(marker) => found.runs.push(run(None, marker.lsn)),
                Extent::Data(Data { written_by: WrittenBy::One(id), lsn, .. }) => {
                    let writer = Writer::by_id(snapshot, id)?;
                    let freed = || ReadError::Corrupt(format!("{partition} at {}: no writer {id}", key.base));
                    found.runs.push(run(Some(writer.ok_or_else(freed)?), lsn));
                }
                Extent::Data(data) => {
                    let room = runs_max - found.runs.len();
                    let runs = self.of_footer(snapshot, key, data, wanted.clone(), room).await?;
                    found.next = if runs.len() < room { end } else { runs.last().map_or(end, |run| run.end) };
                    found.runs.extend(runs);
                    continue;
                }
            }
            found.next = end;
        }
        Ok(())
    }

    /// The runs of an extent within a range, at most `room`.
    async fn of_footer(
        &self,
        snapshot: &Snapshot,
        key: ExtentKey,
        data: Data,
        range: Range<Offset>,
        room: usize,
    ) -> Result<Vec<WriterRun>, ReadError> {
        let Place::Object(object) = data.place else {
            let ExtentKey { partition, base } = key;
            return Err(ReadError::Corrupt(format!("{partition} at {base}: the journal has no footers")));
        };
        let footer = self.footer(snapshot, object, key).await?;
        let damaged = move |error: SegmentError| damaged(object, key, &error);
        let listed = footer.section(data.position).filter(|listed| is_of(listed, key, &data)).cloned();
        let unlisted = || damaged(SegmentError::Contradiction("it lacks a section that the map has"));
        let listed = listed.ok_or_else(unlisted)?;
        let collect = move || {
            let runs =
                footer.runs(&listed).skip_while(|run| run.as_ref().is_ok_and(|run| run.end <= range.start));
            let runs = runs.take_while(|run| run.as_ref().map_or(true, |run| run.first < range.end));
            let clipped = runs.map(|run| {
                let WriterRun { first, end, writer, lsn } = run?;
                Ok(WriterRun { first: first.max(range.start), end: end.min(range.end), writer, lsn })
            });
            clipped.take(room).collect::<Result<Vec<_>, SegmentError>>()
        };
        self.env.blocking(collect).await.map_err(damaged)
    }

    /// The footer of a segment, from memory or read.
    pub(crate) async fn footer(
        &self,
        snapshot: &Snapshot,
        object: ObjectId,
        key: ExtentKey,
    ) -> Result<Arc<Footer>, ReadError> {
        if let Some(kept) = floe_env::lock(&self.footers).get(&object) {
            return Ok(Arc::clone(kept));
        }
        let Some(Object { size, .. }) = snapshot.get::<Object>(&object)? else {
            return Err(ReadError::Corrupt(format!("object {object} has extents but no record")));
        };
        let damaged = |error: SegmentError| damaged(object, key, &error);
        let end = footer_end(size, |range| self.end(object, key, size, range)).await?.map_err(damaged)?;
        let decode = move || Footer::decode(size, &end);
        let footer = Arc::new(self.env.blocking(decode).await.map_err(damaged)?);
        let evicted = floe_env::lock(&self.footers).insert(object, Arc::clone(&footer), footer.held_bytes());
        drop(evicted);
        Ok(footer)
    }

    /// The last bytes of an object.
    async fn end(
        &self,
        object: ObjectId,
        key: ExtentKey,
        size: u64,
        range: Range<u64>,
    ) -> Result<Bytes, ReadError> {
        let reserved = self.cache.reserve(range.end - range.start).await;
        let read = self.cache.read_apart(Source::Object(object), size, range, &reserved).await;
        read.map_err(|error| {
            let ExtentKey { partition, base: at } = key;
            let is_needed = !matches!(self.meta.snapshot().get::<Object>(&object), Ok(None));
            match error {
                StoreError::NotFound(_) if !is_needed => ReadError::Gone { partition, at },
                StoreError::NotFound(_) | StoreError::Corrupt(_) => {
                    ReadError::Corrupt(format!("object {object}, extent of {partition} at {at}: {error}"))
                }
                error => ReadError::Unavailable(error.to_string()),
            }
        })
    }
}

fn is_of(listed: &Listed, key: ExtentKey, data: &Data) -> bool {
    (listed.key, listed.offsets, listed.bytes) == (key, data.offsets, data.bytes)
}

fn damaged(object: ObjectId, key: ExtentKey, error: &SegmentError) -> ReadError {
    let ExtentKey { partition, base } = key;
    ReadError::Corrupt(format!("object {object}, extent of {partition} at {base}: {error}"))
}
