//! One upload: an id, the object's bytes, the PUT.

use std::sync::Arc;
use std::time::Duration;

use floe_env::Env;
use floe_store::{Store, StoreError};
use tokio::time::timeout;

use crate::format::wal::{self, WalEntry};
use crate::limits::{UPLOAD_BYTES_PER_SECOND, UPLOAD_TIMEOUT, UPLOAD_TIMEOUT_MAX};
use crate::map::object::object_key;
use crate::read::cache::Cache;
use crate::read::source::Source;
use crate::write::leases::{Ids, TakenId};
use crate::write::sequencer::{AppendError, Placed, Uploaded};

/// The parts that an upload needs. Also used for detached uploads, which their callers commit.
#[derive(Clone)]
pub(crate) struct Uploader {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ids: Ids,
    pub(crate) cache: Cache,
}

/// An object that is durable and waits for its commit.
pub(crate) struct Stored {
    pub(crate) uploaded: Uploaded,
    pub(crate) taken: TakenId,
}

impl Uploader {
    /// Makes an object of the batches and puts it into the store. On an error nothing was appended.
    pub(crate) async fn upload(&self, entries: Vec<WalEntry>) -> Result<Stored, AppendError> {
        let unavailable = |error: String| AppendError::Unavailable(error);
        let taken = self.ids.take().await.map_err(unavailable)?;
        let begin = self.env.monotonic();
        let object = taken.id;
        let encoded = wal::encode(object, &entries);
        let payload = encoded.payload.clone();
        let key = object_key(object);
        let put = self.store.put(&key, encoded.payload);
        let put = async {
            match self.store.remote() {
                // Nobody else uses the id, so an object that arrives after all is trash.
                true => timeout(patience(encoded.size), put).await.unwrap_or_else(|late| {
                    Err(StoreError::Unknown(format!(
                        "the upload of {} bytes took too long: {late}",
                        encoded.size
                    )))
                }),
                false => put.await,
            }
        };
        // While the store works. Nobody looks for the object before its commit.
        let (put, ()) =
            tokio::join!(biased; put, async { self.cache.copy(Source::Object(object), &payload) });
        if let Err(error) = put {
            self.cache.forget(Source::Object(object));
            return Err(unavailable(error.to_string()));
        }
        let took = self.env.monotonic() - begin;
        metrics::histogram!("floe_log_upload_seconds").record(took.as_secs_f64());
        metrics::counter!("floe_log_objects_total").increment(1);
        metrics::counter!("floe_log_object_bytes_total").increment(encoded.size);
        let batches =
            entries.into_iter().zip(encoded.positions).map(|(entry, at)| entry.placed(at)).collect();
        let uploaded = Uploaded { object, owner: self.ids.owner(), size: encoded.size, batches };
        Ok(Stored { uploaded, taken })
    }

    /// Uploads for a caller that commits the object itself, and keeps the lease on its id.
    pub(crate) async fn upload_detached(&self, entries: Vec<WalEntry>) -> Result<Uploaded, AppendError> {
        self.ids.check_detached().map_err(AppendError::Unavailable)?;
        let stored = self.upload(entries).await?;
        self.ids.detach(&stored.taken);
        stored.taken.named();
        Ok(stored.uploaded)
    }
}

/// The timeout of an upload to a remote store.
fn patience(bytes: u64) -> Duration {
    (UPLOAD_TIMEOUT + Duration::from_secs(bytes / UPLOAD_BYTES_PER_SECOND)).min(UPLOAD_TIMEOUT_MAX)
}

impl WalEntry {
    /// What the sequencer needs of it.
    pub(crate) fn placed(self, position: u64) -> Placed {
        let WalEntry { partition, writer, header, follows, .. } = self;
        Placed { partition, writer, position, header, follows }
    }
}
