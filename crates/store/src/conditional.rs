//! Whether a store keeps to the condition that an object must not exist yet. Everything that keeps two brokers apart
//! rests on it: the claim of a store, the writer numbers, the journal in a bucket.

use bytes::Bytes;
use thiserror::Error;

use crate::{CLUSTER_FOLDER, PutIfAbsent, Store, StoreError};

/// The object that the test puts, below [`CLUSTER_FOLDER`]. It stays, and nothing reads it.
const KEY: &str = "conditional";

/// Why a store cannot be used.
#[derive(Debug, Error)]
pub enum ConditionalError {
    /// It made one object twice.
    #[error(
        "the store made {url} although it was there: it does not keep to the condition of a PUT (If-None-Match: *), so \
         two brokers could overwrite each other. Use a store with conditional writes, such as Amazon S3 or a recent \
         MinIO"
    )]
    Ignored {
        /// The object that it made twice.
        url: String,
    },
    /// It refused the test, or did not answer.
    #[error(
        "the store cannot be tested with a conditional PUT of {url}: {error}. Check the bucket, the credentials and \
         the endpoint; a store without conditional writes (If-None-Match: *) cannot be used"
    )]
    Failed {
        /// The object of the test.
        url: String,
        /// What the store said.
        error: StoreError,
    },
}

/// Puts one object twice, if absent. `random` gives other bits for each call.
///
/// # Errors
/// The store makes the object twice, or does not answer.
pub async fn check_conditional(
    store: &dyn Store,
    mut random: impl FnMut() -> u128,
) -> Result<(), ConditionalError> {
    let key = format!("{CLUSTER_FOLDER}{KEY}");
    // The first PUT may find it from an earlier start. One that makes it says nothing about the condition yet.
    for _ in 0..2 {
        let payload = Bytes::from(format!("floe conditional 1 {:032x}\n", random()));
        match store.put_if_absent(&key, vec![payload]).await {
            Ok(PutIfAbsent::Exists) => return Ok(()),
            Ok(PutIfAbsent::Created) => {}
            Err(error) => return Err(ConditionalError::Failed { url: store.url(&key), error }),
        }
    }
    Err(ConditionalError::Ignored { url: store.url(&key) })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::{Listed, MemoryStore};

    /// A store that overwrites, as some servers do that do not know the header.
    struct Careless {
        inner: MemoryStore,
        puts: AtomicU64,
    }

    #[async_trait]
    impl Store for Careless {
        async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
            self.inner.put(key, payload).await
        }

        async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
            self.puts.fetch_add(1, Ordering::SeqCst);
            self.inner.put(key, payload).await.map(|()| PutIfAbsent::Created)
        }

        async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
            self.inner.get(key, range).await
        }

        async fn size(&self, key: &str) -> Result<u64, StoreError> {
            self.inner.size(key).await
        }

        async fn delete(&self, key: &str) -> Result<(), StoreError> {
            self.inner.delete(key).await
        }

        async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
            self.inner.list(prefix, after, count).await
        }

        fn url(&self, key: &str) -> String {
            self.inner.url(key)
        }

        fn remote(&self) -> bool {
            true
        }
    }

    fn counter() -> impl FnMut() -> u128 {
        let mut next = 0;
        move || {
            next += 1;
            next
        }
    }

    #[tokio::test]
    async fn a_store_that_keeps_the_condition_passes_at_every_start() {
        let store = MemoryStore::new();
        for _ in 0..3 {
            check_conditional(&store, counter()).await.expect("it keeps the condition");
        }
        let first = store.get("floe/conditional", None).await.expect("it stays");
        assert_eq!(first, format!("floe conditional 1 {:032x}\n", 1));
    }

    #[tokio::test]
    async fn a_store_that_overwrites_is_refused_at_every_start() {
        let store = Careless { inner: MemoryStore::new(), puts: AtomicU64::new(0) };
        for _ in 0..2 {
            let refused = check_conditional(&store, counter()).await.expect_err("it overwrites").to_string();
            assert!(refused.contains("If-None-Match") && refused.contains("floe/conditional"), "{refused}");
        }
        assert_eq!(store.puts.load(Ordering::SeqCst), 4);
    }
}
