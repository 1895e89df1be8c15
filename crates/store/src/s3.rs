//! A store in an S3 bucket, or in another server that speaks S3 (MinIO, R2, Ceph), through the object_store crate.
//!
//! One object is one PUT, without multipart: a WAL object has some megabytes, a segment 64 MiB, a Parquet file some
//! hundred. The client library (0.14) can upload parts, but it cannot list the uploads that a crash left, so nobody
//! could end them, and their parts would cost their space for ever. Nor does its completion of an upload take the
//! condition that no such object exists. Every request has a timeout and a bounded number of tries. Floe makes the
//! tries, not the client library, because the overall outcome depends on each of them. If one try was lost and the next
//! one refused, the object may still exist, so the answer is [`StoreError::Unknown`].
//!
//! Payloads carry a CRC64-NVME that the server verifies. TLS protects the way back, and lengths are checked here.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{Backoff, Env};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use thiserror::Error;

use crate::limits::{
    S3_CONNECT_TIMEOUT, S3_REQUEST_TIMEOUT, S3_RETRY_GROWTH_MAX, S3_RETRY_PAUSE, S3_TRIES_MAX,
};
use crate::payload::too_short;
use crate::{Listed, PutIfAbsent, Store, StoreError, check_key, concat};

/// The settings of an S3 store: where the bucket is, and the credentials.
#[derive(Clone)]
pub struct Config {
    /// Name of the bucket. It must exist.
    pub bucket: String,
    /// Prefix of every key, without slashes at its ends; empty for the root of the bucket.
    pub prefix: String,
    /// For example `eu-central-1`. `None`: the value of the environment (`AWS_REGION`).
    pub region: Option<String>,
    /// For stores other than AWS: `https://host:port`. The operator may also choose `http://`.
    pub endpoint: Option<String>,
    /// Access key and secret. `None`: the credentials of the environment or the machine (`AWS_ACCESS_KEY_ID`, web
    /// identity, container and instance credentials).
    pub credentials: Option<Credentials>,
    /// Longest wait for one answer.
    pub request_timeout: Duration,
    /// Tries of one request, the first included.
    pub tries_max: u32,
    /// Longest pause before the second try; doubles each time. Not zero.
    pub retry_pause: Duration,
}

/// A static access key. Its `Debug` output hides it.
#[derive(Clone)]
pub struct Credentials {
    /// The access key id.
    pub access_key_id: String,
    /// The secret of the access key.
    pub secret_access_key: String,
}

impl Config {
    /// The bucket with default limits, and region and credentials of the environment.
    pub fn new(bucket: impl Into<String>) -> Config {
        Config {
            bucket: bucket.into(),
            prefix: String::new(),
            region: None,
            endpoint: None,
            credentials: None,
            request_timeout: S3_REQUEST_TIMEOUT,
            tries_max: S3_TRIES_MAX,
            retry_pause: S3_RETRY_PAUSE,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Why the settings describe no usable bucket.
#[derive(Debug, Error)]
#[error("cannot use the bucket {bucket:?}: {reason}")]
pub struct ConfigError {
    bucket: String,
    reason: String,
}

/// Objects in a bucket. Clones share the client.
#[derive(Clone)]
pub struct S3Store {
    env: Env,
    config: Arc<Config>,
    client: Arc<AmazonS3>,
}

impl S3Store {
    /// Prepares the client. Sends nothing.
    pub fn new(env: Env, config: Config) -> Result<S3Store, ConfigError> {
        install_tls();
        let refuse = |reason: String| ConfigError { bucket: config.bucket.clone(), reason };
        if config.tries_max == 0 {
            return Err(refuse("at least one try is needed".into()));
        }
        if !config.prefix.is_empty() {
            check_key(&config.prefix).map_err(|error| refuse(format!("its prefix is not valid: {error}")))?;
        }
        let client = builder(&config).build().map_err(|error| refuse(error.to_string()))?;
        Ok(S3Store { env, config: Arc::new(config), client: Arc::new(client) })
    }

    fn path(&self, key: &str) -> Result<Path, StoreError> {
        check_key(key)?;
        Path::parse(self.full_key(key)).map_err(|error| StoreError::NotApplied(error.to_string()))
    }

    fn full_key(&self, key: &str) -> String {
        match self.config.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// Repeats a request until one try is decisive or the limit is reached.
    async fn with_tries<T, F>(&self, key: &str, mut request: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        // After a lost try, no later refusal proves that it had no effect.
        let mut lost = None;
        let mut backoff = self.backoff();
        for attempt in 1.. {
            let failure = match request().await {
                Ok(answer) => return Ok(answer),
                Err(error) => classify(key, &error),
            };
            let retry = match &failure {
                Failure::Lost(reason) => {
                    lost = Some(reason.clone());
                    true
                }
                Failure::NotSent(_) => true,
                Failure::NotFound | Failure::Exists | Failure::Refused(_) => false,
            };
            if !retry || attempt >= self.config.tries_max {
                return Err(match (failure, lost) {
                    (Failure::Refused(now) | Failure::NotSent(now), Some(before)) => {
                        Failure::Lost(format!("{before}; then: {now}"))
                    }
                    (failure, _) => failure,
                });
            }
            metrics::counter!("floe_store_retries_total").increment(1);
            backoff.pause().await;
        }
        unreachable!("the loop ends at the limit of tries")
    }

    fn backoff(&self) -> Backoff {
        let pause = self.config.retry_pause;
        Backoff::new(&self.env, pause, pause.saturating_mul(S3_RETRY_GROWTH_MAX))
    }

    /// Makes a read in the broker's runtime. Connections belong to the runtime that opened them, and every request may
    /// use them; the SQL engine, which also reads, ends its runtime before the broker does.
    async fn read<T, F>(&self, key: &str, read: impl FnOnce(S3Store, String) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let read = self.env.at_home("s3 read", read(self.clone(), key.to_owned())).await;
        read.unwrap_or_else(|ended| Err(StoreError::NotApplied(format!("cannot read {key}: {ended}"))))
    }

    async fn get_here(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let Some(range) = range else {
            return self.get_tries(key, None).await;
        };
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let wanted = range.end - range.start;
        match self.get_tries(key, Some(range.clone())).await {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(_) => Err(StoreError::Corrupt(too_short(key, &range, self.size_here(key).await?))),
            Err(StoreError::NotApplied(reason)) => match self.size_here(key).await {
                // Servers refuse a range behind the end in different ways, but the length is certain.
                Ok(length) if length < range.end => Err(StoreError::Corrupt(too_short(key, &range, length))),
                _ => Err(StoreError::NotApplied(reason)),
            },
            Err(error) => Err(error),
        }
    }

    async fn size_here(&self, key: &str) -> Result<u64, StoreError> {
        let path = self.path(key)?;
        let head = self.with_tries(key, || self.client.head(&path)).await;
        head.map(|meta| meta.size).map_err(|failure| failure.of_read(key))
    }

    async fn get_tries(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let path = self.path(key)?;
        let read = self
            .with_tries(key, || async {
                match range.clone() {
                    Some(range) => self.client.get_range(&path, range).await,
                    None => self.client.get(&path).await?.bytes().await,
                }
            })
            .await;
        // The client may hand out a part of its own buffer, which is larger than what was asked for.
        read.map(|bytes| Bytes::copy_from_slice(&bytes)).map_err(|failure| failure.of_read(key))
    }
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let payload = PutPayload::from_iter(payload);
        let put = self.with_tries(key, || self.client.put(&path, payload.clone())).await;
        put.map(drop).map_err(|failure| failure.of_write(key))
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        let path = self.path(key)?;
        let expected = concat(&payload);
        let payload = PutPayload::from_iter(payload);
        let mut backoff = self.backoff();
        for attempt in 1.. {
            let create = || self.client.put_opts(&path, payload.clone(), PutMode::Create.into());
            match self.with_tries(key, create).await {
                Ok(_) => return Ok(PutIfAbsent::Created),
                Err(Failure::Exists) => {}
                Err(failure) => return Err(failure.of_write(key)),
            }
            // "Exists" may be the echo of our own earlier try, or S3's 409 for a concurrent request whose outcome
            // is still open. The existing object decides.
            match self.get_tries(key, None).await {
                Ok(found) if found == expected => return Ok(PutIfAbsent::Created),
                Ok(_) => return Ok(PutIfAbsent::Exists),
                Err(StoreError::NotFound(_)) if attempt < self.config.tries_max => backoff.pause().await,
                Err(error) => return Err(StoreError::Unknown(error.to_string())),
            }
        }
        unreachable!("the loop ends at the limit of tries")
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.read(key, |store, key| async move { store.get_here(&key, range).await }).await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.read(key, |store, key| async move { store.size_here(&key).await }).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        match self.with_tries(key, || self.client.delete(&path)).await {
            Ok(()) | Err(Failure::NotFound) => Ok(()),
            Err(failure) => Err(failure.of_write(key)),
        }
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        let path = self.path(prefix)?;
        let begin = self.full_key("");
        let offset = match after {
            "" => None,
            after => Some(self.path(after)?),
        };
        let list = || async {
            let listed = match &offset {
                Some(offset) => self.client.list_with_offset(Some(&path), offset),
                None => self.client.list(Some(&path)),
            };
            // S3 lists in the order of the keys.
            listed.take(count).try_collect::<Vec<_>>().await
        };
        let found = self.with_tries(prefix, list).await.map_err(|failure| failure.of_read(prefix))?;
        let key = |full: &str| full.strip_prefix(&begin).unwrap_or(full).to_owned();
        Ok(found
            .into_iter()
            .map(|meta| Listed { key: key(meta.location.as_ref()), bytes: meta.size })
            .collect())
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{}", self.config.bucket, self.full_key(key))
    }

    fn remote(&self) -> bool {
        true
    }
}

/// The failure of one try.
#[derive(Debug)]
enum Failure {
    NotFound,
    /// 409 or 412: an object has this key, or will have.
    Exists,
    /// Refused for good. Another try would be refused as well.
    Refused(String),
    /// The request never reached the server.
    NotSent(String),
    /// No answer, or one that leaves the effect open.
    Lost(String),
}

impl Failure {
    fn of_write(self, key: &str) -> StoreError {
        match self {
            // For a PUT or DELETE of an object, "not found" means the bucket.
            Failure::NotFound => StoreError::NotApplied(format!("{key}: the bucket does not exist")),
            Failure::Exists => StoreError::NotApplied(format!("{key}: refused with a conflict")),
            Failure::Refused(reason) | Failure::NotSent(reason) => StoreError::NotApplied(reason),
            Failure::Lost(reason) => StoreError::Unknown(reason),
        }
    }

    /// The error of a read. A read has no effect, so nothing about it can be unknown.
    fn of_read(self, key: &str) -> StoreError {
        match self {
            Failure::NotFound => StoreError::NotFound(key.to_owned()),
            Failure::Exists => StoreError::NotApplied(format!("{key}: refused with a conflict")),
            Failure::Refused(reason) | Failure::NotSent(reason) | Failure::Lost(reason) => {
                StoreError::NotApplied(reason)
            }
        }
    }
}

fn classify(key: &str, error: &object_store::Error) -> Failure {
    use object_store::Error;
    let reason = format!("{key}: {error}");
    match error {
        Error::NotFound { .. } => Failure::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => Failure::Exists,
        Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::InvalidPath { .. } => Failure::Refused(reason),
        other => match transport(other) {
            Some(HttpErrorKind::Connect) => Failure::NotSent(reason),
            // A status of 5xx does not promise that nothing happened; S3 says so itself.
            _ => Failure::Lost(reason),
        },
    }
}

/// The kind of connection failure, if it is one.
fn transport(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        source = error.source();
    }
    None
}

fn builder(config: &Config) -> AmazonS3Builder {
    let plain = config.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let client = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(S3_CONNECT_TIMEOUT)
        .with_timeout(config.request_timeout);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&config.bucket)
        .with_client_options(client)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        // One checksum over the payload is enough: CRC64 at memory speed instead of SHA-256 in the signature.
        .with_unsigned_payload(true)
        .with_checksum_algorithm(Checksum::CRC64NVME)
        .with_disable_bulk_delete(true);
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(credentials) = &config.credentials {
        builder = builder
            .with_access_key_id(&credentials.access_key_id)
            .with_secret_access_key(&credentials.secret_access_key);
    }
    builder
}

/// Installs a TLS implementation once per process. Without one the HTTP client panics, even for `http://`.
fn install_tls() {
    static INSTALLED: Once = Once::new();
    // An error means that the program has installed one already, which serves as well.
    INSTALLED.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}
