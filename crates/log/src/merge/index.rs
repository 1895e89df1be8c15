//! Which extents point into an object. The map has it the other way round.
//!
//! The index is in memory: made from a map, and kept by an observer of its commits. It takes 24 bytes an extent,
//! because it does not note where an extent was before. So an extent that has moved or gone stays in the list of its
//! old object until that object is gone, and whoever asks compares with the map.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use floe_meta::{Applied, DecodeError, Lookup, Meta, Snapshot};

use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::ObjectId;
use crate::map::object::Object;

/// The extents of every object. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Index {
    lists: Arc<Mutex<BTreeMap<ObjectId, Vec<ExtentKey>>>>,
}

impl Index {
    /// The index of a broker's map, which follows its commits.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn of(meta: &Meta) -> Result<Index, DecodeError> {
        let index = Index::default();
        let kept = index.clone();
        // What is noted twice, by the observer and by the look at the map, is told once.
        let snapshot = meta.observe(move |applied| kept.applied(applied));
        index.note_all(&snapshot)?;
        Ok(index)
    }

    /// Notes all extents of a map.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn note_all(&self, map: &Snapshot) -> Result<(), DecodeError> {
        for pair in map.range::<Extent>(..) {
            let (key, extent) = pair?;
            self.note(key, &extent);
        }
        Ok(())
    }

    pub(crate) fn note(&self, key: ExtentKey, extent: &Extent) {
        if let Some(object) = extent.object() {
            floe_env::lock(&self.lists).entry(object).or_default().push(key);
        }
    }

    /// Follows one commit. It looks only at what the commit has changed, so it is quick.
    fn applied(&self, applied: &Applied<'_>) {
        for key in applied.keys::<Extent>().filter_map(Result::ok) {
            // One that cannot be read is left out. Merging leaves it alone, as everybody else does.
            if let Ok(Some(extent)) = applied.snapshot.get::<Extent>(&key) {
                self.note(key, &extent);
            }
        }
        for id in applied.keys::<Object>().filter_map(Result::ok) {
            if matches!(applied.snapshot.get::<Object>(&id), Ok(None)) {
                floe_env::lock(&self.lists).remove(&id);
            }
        }
    }

    /// The extents of an object in a map that this index has followed, in the order of partitions and offsets.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn extents(
        &self,
        map: &impl Lookup,
        object: ObjectId,
    ) -> Result<Vec<(ExtentKey, Extent)>, DecodeError> {
        let mut keys = floe_env::lock(&self.lists).get(&object).cloned().unwrap_or_default();
        keys.sort_unstable();
        keys.dedup();
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let extent = map.get::<Extent>(&key)?.filter(|extent| extent.object() == Some(object));
            found.extend(extent.map(|extent| (key, extent)));
        }
        Ok(found)
    }
}
