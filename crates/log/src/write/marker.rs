//! Markers: the end of a transaction, which takes an offset in each of its partitions (KIP-98).

use floe_meta::{DecodeError, Tx};

use crate::map::extent::{Extent, ExtentKey, Marker, Outcome};
use crate::map::format_level::{self, FormatLevel, WITH_LSNS};
use crate::map::ids::{Offset, PartitionId};
use crate::map::partition::{self, Head};

/// Why no marker was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// Brokers of an older build use the map.
    #[error("the format level is {}, markers need {}: upgrade all brokers", found.0, WITH_LSNS.0)]
    Level {
        /// The level in force.
        found: FormatLevel,
    },
    /// There is no such partition.
    #[error("partition {0} does not exist")]
    UnknownPartition(PartitionId),
    /// A record cannot be read.
    #[error(transparent)]
    Metadata(#[from] DecodeError),
}

/// Command: ends a transaction of a producer in these partitions, each of which is named once. Returns the offsets of
/// the markers.
///
/// # Errors
/// See [`MarkError`]; on an error nothing changes.
pub fn mark(
    tx: &mut Tx<'_>,
    partitions: &[PartitionId],
    producer: (i64, i16),
    outcome: Outcome,
) -> Result<Vec<Offset>, MarkError> {
    let found = format_level::get(tx)?;
    if found < WITH_LSNS {
        return Err(MarkError::Level { found });
    }
    let (producer_id, producer_epoch) = producer;
    let marker = Marker { producer_id, producer_epoch, outcome, time: tx.now(), lsn: tx.lsn() };
    let mut heads = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let head = partition::head(tx, *partition)?.ok_or(MarkError::UnknownPartition(*partition))?;
        heads.push((*partition, head));
    }
    for (partition, head) in &heads {
        tx.put(&ExtentKey::new(*partition, head.next), &Extent::Marker(marker));
        tx.put(partition, &Head { next: head.next.plus(1), ..*head });
    }
    Ok(heads.into_iter().map(|(_, head)| head.next).collect())
}
