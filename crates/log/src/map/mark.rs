//! Marks: a time at which records were in the log already, for those whose own timestamps do not tell their age.
//!
//! A client may give its records a time in the far future, or none. Retention by time would keep them, and everything
//! behind them, for as long as that. So when it meets such an extent, it leaves a mark: at this time, the partition
//! ended at this offset. Records below the offset are at least as old as the mark. A partition has one mark at a time.

use floe_env::Timestamp;
use floe_meta::{DecodeError, Tx, postcard_record};
use serde::{Deserialize, Serialize};

use crate::map::ids::{Offset, PartitionId};

/// A moment of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The time of the commit that left the mark.
    pub time: Timestamp,
    /// The next offset of the partition at that time.
    pub next: Offset,
}

postcard_record!(Mark, 21, 1, PartitionId);

/// Part of a command: removes a mark that covers nothing any more.
///
/// # Errors
/// The mark cannot be read.
pub(crate) fn forget_covered(
    tx: &mut Tx<'_>,
    partition: PartitionId,
    log_start: Offset,
) -> Result<(), DecodeError> {
    if tx.get::<Mark>(&partition)?.is_some_and(|mark| mark.next <= log_start) {
        tx.delete::<Mark>(&partition);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use floe_meta::MapRecord as _;

    use super::*;

    // Users' journals hold these bytes, so they never change.
    #[test]
    fn marks_are_as_they_were() {
        let (mark, mut body) = (Mark { time: Timestamp(300), next: Offset(2) }, Vec::new());
        mark.encode(&mut body);
        assert_eq!((Mark::KIND, Mark::VERSION, &*body), (21, 1, &[0xd8, 0x04, 0x04][..]));
        assert_eq!(Mark::decode(1, &body), Ok(mark));
    }
}
