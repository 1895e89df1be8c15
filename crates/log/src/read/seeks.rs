//! Where in a large section a read begins: its seek index, which lies behind its batches (`format/seek.rs`).
//!
//! A seek reads one small range, unless the index is in memory. Decoded indexes are kept in an LRU map.
//!
//! An index that cannot be decoded costs time and nothing else: each batch of a section has its own offset and sum, so
//! a walk from the section's start finds the same place. An index that can be decoded and is wrong is another matter:
//! the batch where it leads is not the one that it names, and the read fails (`walk.rs`). That is no damage but a bug,
//! which nobody should get used to.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use floe_env::Lru;

use crate::format::seek::{INDEX_BYTES_MAX, SeekIndex};
use crate::limits::{SEEK_BYTES_MIN, SEEK_INDEXES_BYTES};
use crate::map::extent::{Data, ExtentKey, Place, Spacing};
use crate::map::ids::ObjectId;
use crate::map::object::ObjectKind;
use crate::read::cache::Cache;
use crate::read::source::Source;
use floe_store::StoreError;

/// Finds places in sections. Clones share what they keep.
#[derive(Clone)]
pub(crate) struct Seeks {
    cache: Cache,
    kept: Arc<Mutex<Kept>>,
}

/// The indexes by the object and the position of their sections.
type Kept = Lru<(ObjectId, u64), Arc<SeekIndex>>;

impl Seeks {
    pub(crate) fn new(cache: Cache) -> Seeks {
        Seeks { cache, kept: Arc::new(Mutex::new(Kept::new(SEEK_INDEXES_BYTES))) }
    }

    /// The index of an extent in an object of `size` bytes. None if it needs none, or has none that can be decoded.
    pub(crate) async fn index(
        &self,
        key: ExtentKey,
        data: &Data,
        size: u64,
    ) -> Result<Option<Arc<SeekIndex>>, StoreError> {
        let Some(object) = indexed(data) else { return Ok(None) };
        let at = (object, data.position);
        if let Some(kept) = floe_env::lock(&self.kept).get(&at).cloned() {
            metrics::counter!("floe_log_seeks_total", "index" => "kept").increment(1);
            return Ok(Some(kept));
        }
        metrics::counter!("floe_log_seeks_total", "index" => "read").increment(1);
        let behind = data.end()..data.end().saturating_add(INDEX_BYTES_MAX as u64).min(size);
        let reserved = self.cache.reserve(INDEX_BYTES_MAX as u64).await;
        let bytes = match behind.is_empty() {
            true => Bytes::new(),
            false => self.cache.read_apart(Source::of(data), size, behind, &reserved).await?,
        };
        match SeekIndex::decode(key, data, &bytes) {
            Ok(index) => {
                let index = Arc::new(index);
                self.keep(at, &index);
                Ok(Some(index))
            }
            Err(error) => {
                metrics::counter!("floe_log_damaged_indexes_total").increment(1);
                let ExtentKey { partition, base } = key;
                tracing::warn!(
                    %object, %partition, %base, offsets = data.offsets, position = data.end(), %error,
                    "a seek index cannot be used, reading from the start of its section"
                );
                Ok(None)
            }
        }
    }

    fn keep(&self, at: (ObjectId, u64), index: &Arc<SeekIndex>) {
        let mut kept = floe_env::lock(&self.kept);
        let evicted = kept.insert(at, Arc::clone(index), index.held_bytes());
        metrics::gauge!("floe_log_seek_index_bytes").set(kept.weight() as f64);
        drop(kept);
        drop(evicted);
    }
}

/// The object, if an extent is so large that a seek pays, and has an index.
fn indexed(data: &Data) -> Option<ObjectId> {
    let Place::Object(object) = data.place else { return None };
    let is_section = object.kind() == ObjectKind::Segment && data.spacing == Spacing::Stamped;
    (is_section && data.bytes >= SEEK_BYTES_MIN).then_some(object)
}
