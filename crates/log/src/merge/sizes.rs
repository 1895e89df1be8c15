//! Which sources are merged with which. Pure.

use crate::limits::{
    MERGE_LONG_BYTES, MERGE_POOL_BYTES, MERGE_SEGMENT_BYTES_MIN, MERGE_SMALL_BYTES, MERGE_SMALL_OBJECTS,
    SEGMENT_BYTES,
};
use crate::map::object::Level;

/// The sizes by which merging goes. The default suits a broker; tests use small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the batches of a segment at most. A merge takes twice this in memory.
    pub segment_bytes: u64,
    /// Sources below this size are small.
    pub small_bytes: u64,
    /// So many small sources are gathered, whatever their size. All of them together are not small any more, or they
    /// would be gathered again and again.
    pub small_objects: usize,
    /// Extents of this length need not be gathered before they are sorted.
    pub long_bytes: u64,
    /// So many bytes are sorted together. The more, the longer the extents.
    pub pool_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            segment_bytes: SEGMENT_BYTES,
            small_bytes: MERGE_SMALL_BYTES,
            small_objects: MERGE_SMALL_OBJECTS,
            long_bytes: MERGE_LONG_BYTES,
            pool_bytes: MERGE_POOL_BYTES,
        }
    }
}

/// What becomes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// It is gathered with others, once there are many of them.
    Small,
    /// It is gathered with others, once they fill a segment.
    Middle,
    /// It is sorted with others.
    Pool,
    /// It stays.
    Stays,
}

/// What the class of a source depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) level: Level,
    /// Bytes of the source, also those that no extent needs any more.
    pub(crate) size: u64,
    /// Bytes of its extents.
    pub(crate) bytes: u64,
    pub(crate) extents: u64,
}

/// An extent of this part of a segment is as good as one of a whole segment.
const WHOLE_PART: u64 = 4;
/// A source of which less than this part is needed is merged with others, to have the rest back.
const NEEDED_PART: u64 = 4;

impl Sizes {
    /// The default, but for a process that has only so many bytes for a merge.
    pub fn within(memory: usize) -> Sizes {
        let default = Sizes::default();
        let segment_bytes = (memory as u64 / 2).clamp(MERGE_SEGMENT_BYTES_MIN, SEGMENT_BYTES);
        Sizes { segment_bytes, pool_bytes: segment_bytes * (MERGE_POOL_BYTES / SEGMENT_BYTES), ..default }
    }

    pub(crate) fn class(&self, content: Content) -> Class {
        let Content { level, size, bytes, extents } = content;
        let length = bytes / extents.max(1);
        let is_waste = bytes < size / NEEDED_PART;
        let is_whole = length >= self.segment_bytes / WHOLE_PART;
        if !is_waste && (level == Level::Sorted || is_whole) {
            return Class::Stays;
        }
        if bytes >= self.segment_bytes / 2 || (length >= self.long_bytes && !is_waste) {
            return Class::Pool;
        }
        if bytes < self.small_bytes { Class::Small } else { Class::Middle }
    }

    /// Whether numbers fit each other.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.segment_bytes < 8 || self.small_bytes == 0 || self.small_objects < 2 || self.long_bytes == 0 {
            return Err("segment_bytes is at least 8, small_objects 2, small_bytes and long_bytes 1");
        }
        if self.small_bytes > self.segment_bytes / 2 || self.pool_bytes < self.segment_bytes {
            return Err(
                "small_bytes is at most half of segment_bytes, and pool_bytes at least segment_bytes",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_process_with_little_memory_makes_smaller_segments() {
        assert_eq!(Sizes::within(usize::MAX), Sizes::default());
        assert_eq!(Sizes::within(64 << 20).segment_bytes, 32 * MIB);
        for memory in [0, 1 << 20, 20 << 20, 300 << 20] {
            assert_eq!(Sizes::within(memory).check(), Ok(()));
        }
    }

    #[test]
    fn the_defaults_fit_and_each_class_has_its_sources() {
        let sizes = Sizes::default();
        assert_eq!(sizes.check(), Ok(()));
        let raw = |bytes, extents| Content { level: Level::Raw, size: bytes, bytes, extents };
        let of = |content| sizes.class(content);
        assert_eq!(of(raw(170, 1)), Class::Small);
        assert_eq!(of(raw(64 << 10, 16)), Class::Middle);
        assert_eq!(of(raw(8 * MIB, 1_000)), Class::Middle);
        assert_eq!(of(raw(8 * MIB, 16)), Class::Pool, "its extents have half a MiB");
        assert_eq!(of(raw(32 * MIB, 10_000)), Class::Pool);
        assert_eq!(of(raw(64 * MIB, 4)), Class::Stays);
        let sorted = |bytes| Content { level: Level::Sorted, size: 64 * MIB, bytes, extents: 50 };
        assert_eq!(of(sorted(16 * MIB)), Class::Stays);
        assert_eq!(of(sorted(16 * MIB - 1)), Class::Middle, "most of it is waste");
        assert_eq!(of(sorted(100)), Class::Small);
    }
}
