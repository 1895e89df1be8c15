//! What is not as it was written, and the records that it costs.

use std::ops::Range;

use crate::map::extent::{Data, Extent, ExtentKey};
use crate::map::ids::{ObjectId, Offset, PartitionId};

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The object.
    pub object: ObjectId,
    /// The records that it costs. None if all records can be read.
    pub records: Option<Records>,
    /// What is wrong.
    pub what: String,
    /// Whether an extent of the map needs what is damaged.
    pub is_needed: bool,
}

/// Offsets of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last.
    pub to: Offset,
}

/// The faults of one object.
pub(super) struct Faults {
    pub(super) object: ObjectId,
    pub(super) found: Vec<Fault>,
}

impl Faults {
    /// A fault that costs no records.
    pub(super) fn object(&mut self, what: String) {
        self.found.push(Fault { object: self.object, records: None, what, is_needed: true });
    }

    /// All records of an extent.
    pub(super) fn extent(&mut self, key: ExtentKey, data: &Data, what: String) {
        let to = Extent::Data(*data).next_offset(key.base);
        self.records(key.partition, key.base..to, what, true);
    }

    pub(super) fn records(
        &mut self,
        partition: PartitionId,
        offsets: Range<Offset>,
        what: String,
        is_needed: bool,
    ) {
        let Range { start: from, end: to } = offsets;
        let records = Some(Records { partition, from, to });
        self.found.push(Fault { object: self.object, records, what, is_needed });
    }
}
