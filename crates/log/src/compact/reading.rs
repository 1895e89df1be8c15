//! How a pass reads: through a cache of its own, so that what it reads once pushes out nothing of the readers'.

use floe_meta::Snapshot;

use crate::compact::compactor::{CompactionRound, Compactor};
use crate::compact::error::{PassError, RoundError};
use crate::format::batch::Batch;
use crate::limits::COMPACTION_READ_BYTES;
use crate::map::ids::{Offset, PartitionId};
use crate::read::damage::{FoundBy, Met, Part, still_there};
use crate::read::pins::Pinned;
use crate::read::walk::ReadError;

impl Compactor {
    /// The next batches of a partition.
    pub(super) async fn read(
        &self,
        pinned: &Pinned,
        partition: PartitionId,
        from: Offset,
        done: &mut CompactionRound,
    ) -> Result<Vec<Batch>, PassError> {
        let by = FoundBy::Compaction;
        let read = self.reader.read(by, pinned, partition, from, COMPACTION_READ_BYTES).await;
        let batches = read.map_err(|error| self.unreadable(pinned, partition, from, error))?.batches;
        let bytes = batches.iter().map(|batch| batch.bytes.len() as u64).sum();
        done.bytes_in += bytes;
        metrics::counter!("floe_log_compaction_bytes_total", "way" => "read").increment(bytes);
        Ok(batches)
    }

    /// Why a pass ends with a read that failed at an offset. Its damage is noted already.
    pub(super) fn unreadable(
        &self,
        pinned: &Snapshot,
        partition: PartitionId,
        at: Offset,
        error: ReadError,
    ) -> PassError {
        match error {
            ReadError::Corrupt(what) => {
                match still_there(pinned, &self.meta.snapshot(), partition, at).is_some() {
                    true => PassError::Damage(what),
                    false => PassError::Changed,
                }
            }
            ReadError::UnknownPartition | ReadError::OutOfRange { .. } => PassError::Changed,
            error => RoundError::Read(error).into(),
        }
    }

    /// Notes records that were read and cannot be used, and why the pass ends with them.
    pub(super) fn undecodable(
        &self,
        pinned: &Snapshot,
        partition: PartitionId,
        at: Offset,
        what: String,
    ) -> PassError {
        let newest = self.meta.snapshot();
        let Some((key, extent)) = still_there(pinned, &newest, partition, at) else {
            return PassError::Changed;
        };
        let (by, part) = (FoundBy::Compaction, Part::Records);
        self.damages.met(&newest, Met { by, part, key, extent, at, what: what.clone() });
        PassError::Damage(what)
    }
}
