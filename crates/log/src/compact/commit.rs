//! The commands of a pass.

use floe_meta::{DecodeError, Tx};

use crate::compact::plan::Policy;
use crate::map::compacted::Compacted;
use crate::map::extent::{Extent, ExtentKey, Gap};
use crate::map::freed;
use crate::map::ids::{Offset, PartitionId};
use crate::map::partition::{self, Head};
use crate::map::topic;
use crate::map::topic_config::TopicConfig;
use crate::write::merged::MergeError;

/// Part of every command of a pass: refuses it when the topic is not compacted any more, or gone.
///
/// # Errors
/// [`MergeError::Changed`].
pub(crate) fn check(tx: &Tx<'_>, partition: PartitionId) -> Result<(), MergeError> {
    let topic = topic::by_id(tx, partition.topic)?.ok_or(MergeError::Changed(partition))?;
    match Policy::of(&TopicConfig::of(&topic)) {
        Some(_) => Ok(()),
        None => Err(MergeError::Changed(partition)),
    }
}

/// Command: a gap takes the place of adjacent extents of which no record stays.
///
/// # Errors
/// The extents are not as the pass has read them.
///
/// # Panics
/// There are none, or they end with the partition.
pub(crate) fn vacate(
    tx: &mut Tx<'_>,
    partition: PartitionId,
    old: &[(Offset, Extent)],
) -> Result<(), MergeError> {
    let changed = || MergeError::Changed(partition);
    let (first, _) = *old.first().expect("a pass swaps extents");
    let mut gone = Vec::with_capacity(old.len());
    let (mut next, mut bytes) = (first, 0u64);
    for (base, extent) in old {
        assert_eq!(*base, next, "they are adjacent");
        let key = ExtentKey::new(partition, *base);
        if tx.get::<Extent>(&key)? != Some(*extent) {
            return Err(changed());
        }
        (next, bytes) = (extent.next_offset(*base), bytes.saturating_add(extent.bytes()));
        gone.push((key, *extent));
    }
    let head = partition::head(tx, partition)?.ok_or_else(changed)?;
    assert!(next < head.next, "a partition never ends with a gap");
    freed::free(tx, &gone)?;
    let gap = Gap { offsets: next.0.abs_diff(first.0), lsn: tx.lsn() };
    tx.put(&ExtentKey::new(partition, first), &Extent::Gap(gap));
    tx.put(&partition, &Head { bytes: head.bytes.saturating_sub(bytes), ..head });
    Ok(())
}

/// Command: notes the end of a pass.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn finish(tx: &mut Tx<'_>, partition: PartitionId, next: Offset) -> Result<(), DecodeError> {
    // Another pass may have come further, after this one's lease was lost and taken again.
    let before = tx.get::<Compacted>(&partition)?.map_or(Offset::ZERO, |compacted| compacted.next);
    tx.put(&partition, &Compacted { next: next.max(before), time: tx.now() });
    Ok(())
}
