//! An S3 server over HTTP on loopback, for tests. It checks signatures and keeps objects in memory. Conditional
//! puts are atomic: one lock covers test and write. It makes faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Env, Task};
use floe_store::s3::{Config, Credentials};
use futures::{StreamExt, TryStreamExt};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition, GetObjectInput, GetObjectOutput,
    HeadObjectInput, HeadObjectOutput, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio::net::TcpListener;

pub(crate) const BUCKET: &str = "floe-test";
pub(crate) const ACCESS_KEY: &str = "test-access-key";
pub(crate) const SECRET_KEY: &str = "test-secret-key";

/// A fault of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers with this error and does nothing.
    ErrorBefore(S3ErrorCode),
    /// Does its work and answers with this error.
    ErrorAfter(S3ErrorCode),
    /// Never answers and does nothing.
    SilenceBefore,
    /// Does its work and never answers.
    SilenceAfter,
    /// The connection of a GET breaks after half of the body.
    HalfBody,
}

/// The kind of request that a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Put,
    Get,
    Head,
    Delete,
}

/// A running server. Dropping this value stops it.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
    accepting: Task<()>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    faults: VecDeque<(Operation, Fault)>,
    requests: Vec<Operation>,
    checksums: usize,
}

impl Server {
    pub(crate) async fn start(env: &Env) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let state = Arc::new(Mutex::new(State::default()));
        let mut builder = S3ServiceBuilder::new(Backend { state: Arc::clone(&state) });
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let accepting = env.spawn("s3 server", accept(env.clone(), listener, builder.build()));
        Server { endpoint, state, accepting }
    }

    /// The settings of a store on this server's bucket, with few and short tries.
    pub(crate) fn bucket(&self, prefix: &str) -> Config {
        Config {
            prefix: prefix.into(),
            region: Some("us-east-1".into()),
            endpoint: Some(self.endpoint.clone()),
            credentials: Some(Credentials {
                access_key_id: ACCESS_KEY.into(),
                secret_access_key: SECRET_KEY.into(),
            }),
            request_timeout: Duration::from_millis(300),
            tries_max: 3,
            retry_pause: Duration::from_millis(1),
            ..Config::new(BUCKET)
        }
    }

    /// Makes the next request of this kind go wrong. Several faults apply in the order of their injection.
    pub(crate) fn inject(&self, operation: Operation, fault: Fault) {
        self.lock().faults.push_back((operation, fault));
    }

    /// The keys of all objects.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// Replaces an object's bytes.
    pub(crate) fn plant(&self, key: &str, bytes: Bytes) {
        self.lock().objects.insert(key.to_owned(), bytes);
    }

    /// The number of requests of a kind so far.
    pub(crate) fn requests(&self, operation: Operation) -> usize {
        self.lock().requests.iter().filter(|seen| **seen == operation).count()
    }

    /// The number of PUTs with a CRC64 of their payload, which the server verifies.
    pub(crate) fn checksums(&self) -> usize {
        self.lock().checksums
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(env: Env, listener: TcpListener, service: S3Service) {
    loop {
        let (stream, _) = listener.accept().await.expect("loopback accepts");
        let service = service.clone();
        env.spawn("s3 connection", async move {
            // A client that hangs up, or a body cut off on purpose, ends only its own connection.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

struct Backend {
    state: Arc<Mutex<State>>,
}

impl Backend {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the request, and makes the faults that come before its work.
    async fn begin(&self, operation: Operation) -> S3Result<Option<Fault>> {
        let fault = {
            let mut state = self.lock();
            state.requests.push(operation);
            let place = state.faults.iter().position(|(meant, _)| *meant == operation);
            place.and_then(|place| state.faults.remove(place)).map(|(_, fault)| fault)
        };
        match fault {
            Some(Fault::ErrorBefore(code)) => Err(S3Error::new(code)),
            Some(Fault::SilenceBefore) => pending().await,
            fault => Ok(fault),
        }
    }

    /// Makes the faults that come after the work.
    async fn end<T>(&self, fault: Option<Fault>, output: T) -> S3Result<S3Response<T>> {
        match fault {
            Some(Fault::ErrorAfter(code)) => Err(S3Error::new(code)),
            Some(Fault::SilenceAfter) => pending().await,
            _ => Ok(S3Response::new(output)),
        }
    }

    fn object(&self, bucket: &str, key: &str) -> S3Result<Bytes> {
        if bucket != BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        self.lock().objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        if input.bucket != BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        let body = input.body.ok_or_else(|| s3_error!(IncompleteBody))?;
        let pieces: Vec<Bytes> = body.try_collect().await.map_err(|_| s3_error!(IncompleteBody))?;
        let bytes = Bytes::from(pieces.concat());
        let fault = self.begin(Operation::Put).await?;
        {
            let mut state = self.lock();
            if matches!(input.if_none_match, Some(ETagCondition::Any))
                && state.objects.contains_key(&input.key)
            {
                return Err(s3_error!(PreconditionFailed));
            }
            state.checksums += usize::from(input.checksum_crc64nvme.is_some());
            state.objects.insert(input.key, bytes.clone());
        }
        let output = PutObjectOutput { e_tag: Some(etag(&bytes)), ..Default::default() };
        self.end(fault, output).await
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let fault = self.begin(Operation::Get).await?;
        let object = self.object(&input.bucket, &input.key)?;
        let length = object.len() as u64;
        let mut output = GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            e_tag: Some(etag(&object)),
            last_modified: Some(Timestamp::from(std::time::SystemTime::UNIX_EPOCH)),
            ..Default::default()
        };
        let mut body = object;
        if let Some(range) = input.range {
            let range = range.check(length).map_err(|_| s3_error!(InvalidRange))?;
            output.content_range = Some(format!("bytes {}-{}/{length}", range.start, range.end - 1));
            body = body.slice(range.start as usize..range.end as usize);
        }
        output.content_length = Some(body.len() as i64);
        output.body = Some(match fault {
            Some(Fault::HalfBody) => {
                let half = body.slice(..body.len() / 2);
                let cut = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
                StreamingBlob::wrap(futures::stream::iter([Ok(half), cut]))
            }
            _ => StreamingBlob::wrap(futures::stream::iter([Ok::<_, std::io::Error>(body)]).fuse()),
        });
        self.end(fault, output).await
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let fault = self.begin(Operation::Head).await?;
        let object = self.object(&request.input.bucket, &request.input.key)?;
        let output = HeadObjectOutput {
            content_length: Some(object.len() as i64),
            e_tag: Some(etag(&object)),
            last_modified: Some(Timestamp::from(std::time::SystemTime::UNIX_EPOCH)),
            ..Default::default()
        };
        self.end(fault, output).await
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let fault = self.begin(Operation::Delete).await?;
        if request.input.bucket != BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        self.lock().objects.remove(&request.input.key);
        self.end(fault, DeleteObjectOutput::default()).await
    }
}

fn etag(bytes: &Bytes) -> ETag {
    ETag::Strong(format!("{:08x}-{}", crc32c::crc32c(bytes), bytes.len()))
}
