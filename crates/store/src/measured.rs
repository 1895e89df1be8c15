//! The metrics of a store.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{DiskRoom, Env};

use crate::{Listed, PutIfAbsent, Store, StoreError, payload_bytes};

/// A store that delegates to another, and counts requests, bytes, errors and latencies.
///
/// The metrics, each labelled with `operation`: `floe_store_requests_total`, `floe_store_errors_total`,
/// `floe_store_bytes_total`, `floe_store_latency_seconds`, `floe_store_in_flight`.
pub struct Measured {
    env: Env,
    store: Arc<dyn Store>,
}

impl Measured {
    /// Measures the requests to `store`.
    pub fn new(env: Env, store: Arc<dyn Store>) -> Measured {
        Measured { env, store }
    }

    async fn measure<T>(
        &self,
        operation: &'static str,
        bytes_sent: u64,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begin = self.env.monotonic();
        let in_flight = metrics::gauge!("floe_store_in_flight", "operation" => operation);
        in_flight.increment(1.0);
        let answer = request.await;
        in_flight.decrement(1.0);
        let took: Duration = self.env.monotonic() - begin;
        metrics::counter!("floe_store_requests_total", "operation" => operation).increment(1);
        metrics::histogram!("floe_store_latency_seconds", "operation" => operation)
            .record(took.as_secs_f64());
        match &answer {
            Ok(_) if bytes_sent > 0 => {
                metrics::counter!("floe_store_bytes_total", "operation" => operation).increment(bytes_sent);
            }
            Ok(_) | Err(StoreError::NotFound(_)) => {}
            Err(_) => metrics::counter!("floe_store_errors_total", "operation" => operation).increment(1),
        }
        answer
    }
}

#[async_trait]
impl Store for Measured {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        let bytes = payload_bytes(&payload);
        self.measure("put", bytes, self.store.put(key, payload)).await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        let bytes = payload_bytes(&payload);
        self.measure("put", bytes, self.store.put_if_absent(key, payload)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let answer = self.measure("get", 0, self.store.get(key, range)).await;
        if let Ok(bytes) = &answer {
            metrics::counter!("floe_store_bytes_total", "operation" => "get").increment(bytes.len() as u64);
        }
        answer
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.measure("head", 0, self.store.size(key)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.measure("delete", 0, self.store.delete(key)).await
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        self.measure("list", 0, self.store.list(prefix, after, count)).await
    }

    /// It is no request to the store, so it is not measured.
    async fn room(&self) -> Option<DiskRoom> {
        self.store.room().await
    }

    fn url(&self, key: &str) -> String {
        self.store.url(key)
    }

    fn remote(&self) -> bool {
        self.store.remote()
    }
}
