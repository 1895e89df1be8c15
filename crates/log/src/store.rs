//! The seam to the object store: what the log, the lake and the catalog need of a place to keep immutable objects.
//!
//! A store keeps bytes under a key. What it does not do: list, rename, lock, append. The metadata map knows
//! which objects exist ([`crate::objects`]), so nothing here ever has to be searched for.
//!
//! Outcomes have three values, because a lost answer is not a refusal: a request was applied (`Ok`), was certainly
//! not applied ([`StoreError::NotApplied`], [`StoreError::Full`]), or nobody knows ([`StoreError::Unknown`]).
//! Object ids are used once, so an unknown PUT is never repaired: it is left to the cleaner.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use floe_env::Env;
use thiserror::Error;

use crate::limits::KEY_BYTES_MAX;

/// Why a request to the store was not answered with success.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// No object has this key.
    #[error("object {0} does not exist")]
    NotFound(String),
    /// The request had no effect; it may be made again.
    #[error("the store refused the request, nothing was changed: {0}")]
    NotApplied(String),
    /// The request may have had its effect, or may have it later.
    #[error("the store did not answer, the request may or may not have been applied: {0}")]
    Unknown(String),
    /// There is no room. The request had no effect; free some space and service returns by itself.
    #[error("the store is full, nothing was changed; free some space: {0}")]
    Full(String),
    /// The object exists and is not what was put: its length or its checksum differs.
    #[error("the object is damaged: {0}")]
    Corrupt(String),
}

/// The outcome of [`Store::put_if_absent`] that is not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutIfAbsent {
    /// This call created the object.
    Created,
    /// An object with this key was there before; it was not touched.
    Exists,
}

/// A place that keeps immutable objects. A PUT is durable before it returns.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Creates (or replaces) the object `key` from the concatenation of `payload`; durable when it returns.
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError>;

    /// Creates the object `key` if no object has that key; of several concurrent calls exactly one creates it.
    ///
    /// The payload must be unlike that of any other caller (carry an attempt id): where an answer was lost, the
    /// object is read back and compared to know who created it.
    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError>;

    /// The bytes of `range` (the whole object without one). An object that ends before the range is
    /// [`StoreError::Corrupt`]; a result is never shorter than was asked for.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError>;

    /// The length of the object in bytes.
    async fn size(&self, key: &str) -> Result<u64, StoreError>;

    /// Deletes the object, durably. Deleting what does not exist is a success, so a deletion can be repeated.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Where other programs find the object: `file:///…`, `s3://bucket/…`. Written into Iceberg's documents.
    fn url(&self, key: &str) -> String;

    /// Whether a PUT costs money and a network round trip: then the writer waits longer to fill an object.
    fn remote(&self) -> bool;
}

/// The number of bytes in a payload.
pub fn payload_bytes(payload: &[Bytes]) -> u64 {
    payload.iter().map(|piece| piece.len() as u64).sum()
}

/// The payload in one piece; copies unless it already is one.
pub fn concat(payload: &[Bytes]) -> Bytes {
    if let [only] = payload {
        return only.clone();
    }
    let total: usize = payload.iter().map(Bytes::len).sum();
    let mut whole = BytesMut::with_capacity(total);
    for piece in payload {
        whole.extend_from_slice(piece);
    }
    whole.freeze()
}

/// Refuses keys that some store could take for something else: empty, absolute, with `..`, or with odd characters.
///
/// Keys are made by Floe, not by users; a refusal is a programming error that must not reach a file system.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=".contains(&byte);
    let parts = key.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    if key.len() > KEY_BYTES_MAX || !key.bytes().all(plain) || !parts {
        return Err(StoreError::NotApplied(format!("{key:?} is not a valid object key")));
    }
    Ok(())
}

/// Cuts `range` out of an object that is at hand as a whole.
pub fn slice(key: &str, object: &Bytes, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
    let Some(range) = range else {
        return Ok(object.clone());
    };
    if range.start > range.end || range.end > object.len() as u64 {
        return Err(StoreError::Corrupt(too_short(key, &range, object.len() as u64)));
    }
    // Both ends are at most the length, which is a usize.
    Ok(object.slice(range.start as usize..range.end as usize))
}

/// The message for an object that ends before a range that was asked for.
pub(crate) fn too_short(key: &str, range: &Range<u64>, length: u64) -> String {
    format!("{key} has {length} bytes, bytes {} to {} were asked for", range.start, range.end)
}

/// A store that counts its requests, bytes, errors and latencies, and delegates to another.
///
/// Metrics, each labelled with `operation`: `floe_store_requests_total`, `floe_store_errors_total`,
/// `floe_store_bytes_total`, `floe_store_latency_seconds`, `floe_store_in_flight`.
pub struct Measured {
    env: Env,
    store: Arc<dyn Store>,
}

impl Measured {
    /// Counts what goes through to `store`.
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

    fn url(&self, key: &str) -> String {
        self.store.url(key)
    }

    fn remote(&self) -> bool {
        self.store.remote()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_escape_are_refused() {
        for good in ["wal/00/0000000000000001", "tables/a.b/data/x=1/f.parquet", "a"] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.hidden", "a b", "a\\b", "ä", "a\0", &long]
        {
            assert!(check_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slice_is_never_shorter_than_was_asked_for() {
        let object = Bytes::from_static(b"0123456789");
        assert_eq!(slice("k", &object, Some(2..5)).as_deref(), Ok(&b"234"[..]));
        assert_eq!(slice("k", &object, None).as_deref(), Ok(&object[..]));
        assert!(matches!(slice("k", &object, Some(8..11)), Err(StoreError::Corrupt(_))));
        assert!(matches!(slice("k", &object, Some(u64::MAX..u64::MAX)), Err(StoreError::Corrupt(_))));
    }
}
