//! A remote store. Like the S3 store, it makes every request in tries with a time-out each. A try that took too long
//! stays in flight. It may land after a later try was answered.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_store::{Listed, PutIfAbsent, Store, StoreError, concat};
use tokio::time::{sleep, timeout};

use super::store::SimStore;

/// Tries of one request, including the first.
const TRIES_MAX: u32 = 3;
/// Longest wait for the answer of one try. With the pauses, a whole request takes longer than the engine waits for a
/// small upload ([`floe_log::limits::UPLOAD_TIMEOUT`]).
const TRY_MAX: Duration = Duration::from_secs(6);
/// Pause before the second try. It doubles with each try.
const PAUSE: Duration = Duration::from_millis(50);

/// The simulated store behind tries. A clone is the same store.
#[derive(Clone)]
pub(crate) struct RemoteStore {
    one: SimStore,
    late: Arc<AtomicU64>,
}

impl RemoteStore {
    /// A store that makes its tries at `one`. `late` counts the tries that took too long.
    pub(crate) fn new(one: SimStore, late: Arc<AtomicU64>) -> RemoteStore {
        RemoteStore { one, late }
    }

    /// Makes tries until one is decisive. After a lost try the outcome stays unknown, because that try may have had its
    /// effect: a later refusal does not change that.
    async fn with_tries<T, F>(&self, request: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut lost = None;
        let mut pause = PAUSE;
        for attempt in 1.. {
            let refused = match timeout(TRY_MAX, request()).await {
                Ok(Err(StoreError::NotApplied(reason))) => Some(reason),
                Ok(Err(StoreError::Unknown(reason))) => {
                    lost = Some(reason);
                    None
                }
                Ok(Err(StoreError::Full(reason))) if lost.is_some() => {
                    return Err(StoreError::Unknown(reason));
                }
                Ok(decisive) => return decisive,
                Err(_) => {
                    self.late.fetch_add(1, Ordering::SeqCst);
                    lost = Some("a try took too long".to_owned());
                    None
                }
            };
            if attempt == TRIES_MAX {
                return Err(match (refused, lost) {
                    (Some(reason), None) => StoreError::NotApplied(reason),
                    (_, lost) => StoreError::Unknown(lost.unwrap_or_default()),
                });
            }
            sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the loop ends at the limit of tries")
    }
}

#[async_trait]
impl Store for RemoteStore {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        self.with_tries(|| self.one.put(key, payload.clone())).await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        match self.with_tries(|| self.one.put_if_absent(key, payload.clone())).await? {
            PutIfAbsent::Created => Ok(PutIfAbsent::Created),
            // This may be the echo of an earlier try. The stored object decides.
            PutIfAbsent::Exists => match self.get(key, None).await {
                Ok(found) if found == concat(&payload) => Ok(PutIfAbsent::Created),
                Ok(_) => Ok(PutIfAbsent::Exists),
                Err(error) => Err(StoreError::Unknown(error.to_string())),
            },
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.with_tries(|| self.one.get(key, range.clone())).await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.with_tries(|| self.one.size(key)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.with_tries(|| self.one.delete(key)).await
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        self.with_tries(|| self.one.list(prefix, after, count)).await
    }

    fn url(&self, key: &str) -> String {
        self.one.url(key)
    }

    fn remote(&self) -> bool {
        true
    }
}
