//! Reads the bytes of a plan. Not through the readers' cache: what is merged is read once, and would push out what
//! readers need. Nor through their memory: a plan is bounded by the size of a segment.
//!
//! What this broker has just written is still in the tail of the cache, and is taken from there, without moving it in
//! the order of eviction.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use floe_meta::Meta;
use floe_store::{Store, StoreError};
use futures::stream::{self, StreamExt as _};

use crate::limits::{MERGE_GET_BYTES, MERGE_GETS_MAX, MERGE_YIELD_PAUSE, MERGE_YIELDS_MAX};
use crate::merge::index::source_of;
use crate::merge::plan::Plan;
use crate::read::cache::Cache;
use crate::read::source::Source;
use crate::write::intake::Intake;
use crate::write::uploader::Uploader;

/// The way of merging to the bytes.
#[derive(Clone)]
pub(crate) struct Lane {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) meta: Meta,
    pub(crate) cache: Cache,
    pub(crate) intake: Intake,
}

/// The bytes of a plan.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// By source and position. None touches another.
    parts: BTreeMap<(Source, u64), Result<Bytes, String>>,
    /// Whether all of it was in the tail of the cache.
    pub(crate) all_in_tail: bool,
}

/// Bytes between two wanted ranges are read with them if they are less than this part of what is wanted before.
const SURPLUS_PART: u64 = 4;

impl Lane {
    pub(crate) fn new(uploader: &Uploader, meta: &Meta, intake: &Intake) -> Lane {
        let Uploader { store, cache, .. } = uploader.clone();
        Lane { store, meta: meta.clone(), cache, intake: intake.clone() }
    }

    /// Reads everything that the plan needs. Damaged parts are in the answer.
    ///
    /// # Errors
    /// The store or the journal does not answer.
    pub(crate) async fn read(&self, plan: &Plan) -> Result<Fetched, StoreError> {
        let gets = parts(plan).into_iter().map(|(source, range)| async move {
            self.give_way().await;
            let tail = self.cache.peek(source, &range);
            let in_tail = tail.is_some();
            let read = match tail {
                Some(bytes) => Ok(bytes),
                None => self.get(source, range.clone()).await,
            };
            (source, range, in_tail, read)
        });
        let mut gets = stream::iter(gets).buffered(MERGE_GETS_MAX);
        let mut fetched = Fetched { parts: BTreeMap::new(), all_in_tail: true };
        while let Some((source, range, in_tail, read)) = gets.next().await {
            let part = match read {
                Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
                Ok(bytes) => Err(format!("{} of {} bytes are there", bytes.len(), range.end - range.start)),
                Err(error @ (StoreError::NotFound(_) | StoreError::Corrupt(_))) => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            fetched.all_in_tail &= in_tail;
            fetched.parts.insert((source, range.start), part);
        }
        Ok(fetched)
    }

    /// Waits while requests of producers wait, but not for long: merging goes on under any load.
    pub(crate) async fn give_way(&self) {
        for _ in 0..MERGE_YIELDS_MAX {
            if !self.intake.has_waiting() {
                return;
            }
            metrics::counter!("floe_log_merge_yields_total").increment(1);
            tokio::time::sleep(MERGE_YIELD_PAUSE).await;
        }
    }

    async fn get(&self, source: Source, range: Range<u64>) -> Result<Bytes, StoreError> {
        metrics::counter!("floe_log_merge_reads_total").increment(1);
        source.fetch(&*self.store, &self.meta, range).await
    }
}

impl Fetched {
    /// The bytes of a range that was read. The error says why there are none.
    pub(crate) fn bytes(&self, source: Source, range: Range<u64>) -> Result<Bytes, String> {
        let mut joined = BytesMut::new();
        let mut at = range.start;
        loop {
            let before = self.parts.range((source, 0)..=(source, at)).next_back();
            let ((_, start), part) = before.ok_or_else(|| format!("byte {at} was not read"))?;
            let part = part.as_ref().map_err(String::clone)?;
            let begin = (at - start) as usize;
            let end = part.len().min((range.end - start) as usize);
            if begin >= end && range.end > at {
                return Err(format!("byte {at} was not read"));
            }
            if joined.is_empty() && start + end as u64 == range.end {
                return Ok(part.slice(begin..end));
            }
            joined.reserve((range.end - at) as usize);
            joined.extend_from_slice(&part[begin..end]);
            at = start + end as u64;
            if at == range.end {
                return Ok(joined.freeze());
            }
        }
    }
}

/// The ranges to read: neighbours together, each of a bounded size.
fn parts(plan: &Plan) -> Vec<(Source, Range<u64>)> {
    let extents = plan.runs.iter().flat_map(|run| &run.extents).map(|(_, extent)| extent);
    let mut wanted: Vec<(Source, Range<u64>)> = extents
        .filter_map(|extent| Some((source_of(extent)?, extent.data()?)))
        .map(|(source, data)| (source, data.position..data.end()))
        .collect();
    wanted.sort_unstable_by_key(|(source, range)| (*source, range.start));
    let mut spans: Vec<(Source, Range<u64>)> = Vec::new();
    for (source, range) in wanted {
        match spans.last_mut() {
            Some((last, span))
                if *last == source
                    && range.start.saturating_sub(span.end) <= (span.end - span.start) / SURPLUS_PART =>
            {
                span.end = span.end.max(range.end);
            }
            _ => spans.push((source, range)),
        }
    }
    let mut parts = Vec::with_capacity(spans.len());
    for (source, Range { mut start, end }) in spans {
        while start < end {
            let next = end.min(start + MERGE_GET_BYTES);
            parts.push((source, start..next));
            start = next;
        }
    }
    parts
}
