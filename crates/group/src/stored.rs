//! How much of groups the metadata map holds, and whether there is room for more.

use floe_meta::{Counter, CounterKey, DecodeError, Lookup, Tx};

use crate::limits::{GROUPS_STORED_BYTES_MAX, GROUPS_STORED_MAX, STORED_RECORD_BYTES};
use crate::map::{OffsetKey, OffsetRecord};

const GROUPS: CounterKey = CounterKey::named("groups");
const OFFSETS: CounterKey = CounterKey::named("group offsets");
const BYTES: CounterKey = CounterKey::named("group bytes");

/// Groups with records in the map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Groups that committed offsets.
    pub groups: u64,
    /// Their committed offsets.
    pub offsets: u64,
    /// Bytes of memory that these records take, as they are counted here.
    pub bytes: u64,
}

impl Stored {
    /// What the map holds.
    ///
    /// # Errors
    /// A count cannot be read.
    pub fn of(map: &impl Lookup) -> Result<Stored, DecodeError> {
        let count = |key| Ok::<_, DecodeError>(map.get::<Counter>(key)?.unwrap_or_default().0);
        Ok(Stored { groups: count(&GROUPS)?, offsets: count(&OFFSETS)?, bytes: count(&BYTES)? })
    }

    pub(crate) fn put(&self, tx: &mut Tx<'_>) {
        for (key, count) in [(&GROUPS, self.groups), (&OFFSETS, self.offsets), (&BYTES, self.bytes)] {
            tx.put(key, &Counter(count));
        }
    }

    pub(crate) fn add_group(&mut self, name: &str) {
        self.groups += 1;
        self.bytes += group_bytes(name);
    }

    // What goes is subtracted saturating, because groups of old maps were not counted.

    pub(crate) fn remove_group(&mut self, name: &str) {
        self.groups = self.groups.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(group_bytes(name));
    }

    pub(crate) fn add_offset(&mut self, key: &OffsetKey, metadata: &str) {
        self.offsets += 1;
        self.bytes += offset_bytes(key, metadata);
    }

    pub(crate) fn remove_offset(&mut self, key: &OffsetKey, record: &OffsetRecord) {
        self.offsets = self.offsets.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(offset_bytes(key, &record.metadata));
    }

    /// The limit that was exceeded since `before`, and what it counts. What does not grow exceeds none: groups that are
    /// there go on.
    pub(crate) fn exceeded(&self, before: &Stored) -> Option<(u64, &'static str)> {
        if self.groups > before.groups && self.groups > GROUPS_STORED_MAX {
            return Some((GROUPS_STORED_MAX, "groups"));
        }
        let grew = self.bytes > before.bytes && self.bytes > GROUPS_STORED_BYTES_MAX;
        grew.then_some((GROUPS_STORED_BYTES_MAX, "bytes of groups and offsets"))
    }
}

fn group_bytes(name: &str) -> u64 {
    STORED_RECORD_BYTES + name.len() as u64
}

fn offset_bytes(key: &OffsetKey, metadata: &str) -> u64 {
    STORED_RECORD_BYTES + key.group.len() as u64 + metadata.len() as u64
}
