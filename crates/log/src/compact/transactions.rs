//! How transactions ended, in the part of a partition that a pass covers.
//!
//! Records of an open transaction wait: a pass ends in front of the first of them. Those of an aborted one go. A marker
//! stays while a record of its transaction does, as a reader needs it to tell the records apart.
//!
//! Markers tell how each transaction ended. A pass scans for them only when it meets a batch of a transaction, because
//! without such a batch no marker matters.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::batch::Batch;
use crate::format::records::RecordsError;
use crate::limits::COMPACTION_TRANSACTIONS_MAX;
use crate::map::ids::Offset;

/// Bytes that the record of a marker may take.
const MARKER_BYTES_MAX: usize = 4_096;

/// How transactions ended.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    /// By producer, the offset of its first record since the last marker.
    open: BTreeMap<i64, Offset>,
    /// By producer, the first record and the marker of each aborted transaction, in order.
    aborted: BTreeMap<i64, Vec<(Offset, Offset)>>,
    known: usize,
}

impl Fates {
    /// Looks at the next batch. Returns `false`, and looks at nothing, if there are too many transactions to know.
    ///
    /// # Errors
    /// The marker cannot be read.
    pub(crate) fn look(&mut self, batch: &Batch) -> Result<bool, RecordsError> {
        let header = batch.header();
        if !header.is_transactional() {
            return Ok(true);
        }
        let producer = header.producer_id;
        if !header.is_control() {
            if !self.open.contains_key(&producer) {
                if self.known >= COMPACTION_TRANSACTIONS_MAX {
                    return Ok(false);
                }
                self.known += 1;
                self.open.insert(producer, batch.base_offset);
            }
            return Ok(true);
        }
        let aborts = is_abort(batch)?;
        match self.open.remove(&producer) {
            Some(first) if aborts => {
                self.aborted.entry(producer).or_default().push((first, batch.base_offset));
            }
            Some(_) => self.known -= 1,
            None => {}
        }
        Ok(true)
    }

    /// The first record of a transaction that has not ended.
    pub(crate) fn first_open(&self) -> Option<Offset> {
        self.open.values().min().copied()
    }

    /// Whether the batch belongs to an aborted transaction.
    pub(crate) fn aborts(&self, batch: &Batch) -> bool {
        let header = batch.header();
        if !header.is_transactional() || header.is_control() {
            return false;
        }
        let Some(aborted) = self.aborted.get(&header.producer_id) else { return false };
        // The last transaction that began at the batch or before it.
        let begun = aborted.partition_point(|(first, _)| *first <= batch.base_offset);
        begun > 0 && batch.base_offset < aborted[begun - 1].1
    }
}

/// Whether a marker ends an aborted transaction. Control batches of other kinds end none.
fn is_abort(batch: &Batch) -> Result<bool, RecordsError> {
    let records = batch.records(MARKER_BYTES_MAX)?;
    let key = records.first().and_then(|record| record.key.as_deref());
    Ok(matches!(key, Some([_, _, 0, 0, ..])))
}

/// The transactions of which a pass has kept a record and not seen the marker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    producers: BTreeSet<i64>,
    /// Whether there were too many to know. Then all markers stay.
    is_beyond: bool,
}

impl Kept {
    /// Notes that records of a batch stay.
    pub(crate) fn note(&mut self, batch: &Batch) {
        if !batch.header().is_transactional() {
            return;
        }
        match self.producers.len() < COMPACTION_TRANSACTIONS_MAX {
            true => drop(self.producers.insert(batch.header().producer_id)),
            false => self.is_beyond = true,
        }
    }

    /// Passes a marker. Returns whether records of its transaction stay.
    pub(crate) fn end(&mut self, marker: &Batch) -> bool {
        self.producers.remove(&marker.header().producer_id) || self.is_beyond
    }
}
