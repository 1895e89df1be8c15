//! The way of one commit's records into the view's fold, and out of it when they are bad.

use floe_log::{Offset, PartitionId, batch::Batch};

use crate::{
    contract::{BadRecordRule, Fold, Verdict},
    dead_letter::DeadLetter,
    error::ViewError,
    limits,
};

/// The fold of one commit with the bad records beside it.
pub(crate) struct Intake<F> {
    fold: F,
    rule: BadRecordRule,
    bad: Vec<DeadLetter>,
    /// Bytes of memory that `bad` takes.
    bad_bytes: usize,
    /// The first record at which the rule stopped the view.
    stopped: Option<ViewError>,
}

/// What one commit is made of.
pub(crate) struct Taken<T> {
    pub(crate) folded: T,
    /// Bad records that the rule lets pass.
    pub(crate) bad: Vec<DeadLetter>,
    /// Why the view stops behind this commit.
    pub(crate) stopped: Option<ViewError>,
}

/// Where a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// The offset that comes next.
    pub(crate) next: Offset,
    /// Whether a bad record ended it.
    pub(crate) stopped: bool,
}

impl<F: Fold> Intake<F> {
    pub(crate) fn new(fold: F, rule: BadRecordRule) -> Intake<F> {
        Intake { fold, rule, bad: Vec::new(), bad_bytes: 0, stopped: None }
    }

    /// Bytes of records taken in so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bad_bytes + self.fold.bytes()
    }

    /// Takes in the records of `batches` from `from` on, whole batches, until there are `bytes_max` of them. That is
    /// checked after every batch, because a few kilobytes may decompress to 128 MiB.
    pub(crate) fn fill(
        &mut self,
        partition: PartitionId,
        batches: &[Batch],
        from: Offset,
        bytes_max: usize,
    ) -> Result<Filled, ViewError> {
        let mut next = from;
        for batch in batches {
            if let Some(at) = self.push(partition, batch, from)? {
                return Ok(Filled { next: at, stopped: true });
            }
            next = batch.next_offset();
            if self.bytes() >= bytes_max {
                break;
            }
        }
        Ok(Filled { next, stopped: false })
    }

    /// Takes in the records of one batch from `from` on. Returns the offset of the record that stops the view.
    fn push(
        &mut self,
        partition: PartitionId,
        batch: &Batch,
        from: Offset,
    ) -> Result<Option<Offset>, ViewError> {
        if !batch.has_records() {
            return Ok(None);
        }
        let records = match batch.records(limits::BATCH_DECODED_BYTES_MAX) {
            Ok(records) => records,
            Err(error) => {
                // Its checksum was right when it was appended: the producer wrote it so, and it stays so.
                let reason = format!("the batch cannot be taken apart: {error}");
                let at = batch.base_offset.max(from);
                return Ok(self
                    .refuse(partition, at, reason, |reason| DeadLetter::of_batch(partition, batch, reason)));
            }
        };
        for record in records.iter().filter(|record| record.offset >= from) {
            if let Verdict::Bad(reason) = self.fold.push(partition, record)?
                && let Some(at) = self.refuse(partition, record.offset, reason, |reason| {
                    DeadLetter::of_record(partition, record, reason)
                })
            {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Applies the rule to what does not fit at offset `at`. Returns that offset if it stops the view.
    fn refuse(
        &mut self,
        partition: PartitionId,
        at: Offset,
        reason: String,
        letter: impl FnOnce(String) -> DeadLetter,
    ) -> Option<Offset> {
        if self.rule == BadRecordRule::Stop {
            self.stopped.get_or_insert(ViewError::BadRecord { partition, offset: at, reason });
            return Some(at);
        }
        // Bad records are held until the commit, as the others are.
        let letter = letter(reason);
        self.bad_bytes += letter.bytes();
        self.bad.push(letter);
        None
    }

    /// Ends the fold.
    pub(crate) fn finish(self) -> Result<Taken<F::Folded>, ViewError> {
        let Intake { fold, bad, stopped, .. } = self;
        Ok(Taken { folded: fold.finish()?, bad, stopped })
    }
}
