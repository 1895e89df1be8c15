//! A store that fails on purpose, over one that works. For tests of the layers above a store.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::DiskRoom;

use crate::{Listed, PutIfAbsent, Store, StoreError};

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Store::put`].
    Put,
    /// [`Store::put_if_absent`].
    PutIfAbsent,
    /// [`Store::get`].
    Get,
    /// [`Store::size`].
    Size,
    /// [`Store::delete`].
    Delete,
    /// [`Store::list`].
    List,
}

/// The fate of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request has its effect and its answer.
    None,
    /// The request has its effect and its answer, but only after this time.
    Slow(Duration),
    /// The request is refused without effect.
    Refused,
    /// The request is refused because the store is full.
    Full,
    /// The request has no effect, and its outcome is not known.
    LostRequest,
    /// The request has its effect, but its outcome is not known.
    LostAnswer,
    /// The request has no effect and never gets an answer.
    Stuck,
}

/// Decides the fate of a request from its operation and key.
type Plan = dyn Fn(Operation, &str) -> Fault + Send + Sync;

/// A store whose requests end as a plan decides.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: Arc<Plan>,
    latency: Option<Duration>,
    room: Option<Arc<dyn Fn() -> DiskRoom + Send + Sync>>,
}

impl FaultyStore {
    /// A store that asks `plan` about every request to `inner`.
    pub fn new(
        inner: impl Store,
        plan: impl Fn(Operation, &str) -> Fault + Send + Sync + 'static,
    ) -> FaultyStore {
        FaultyStore { inner: Arc::new(inner), plan: Arc::new(plan), latency: None, room: None }
    }

    /// Adds this delay to every request before its effect, and again before its answer. The delays are places to
    /// crash at.
    #[must_use]
    pub fn with_latency(self, latency: Duration) -> FaultyStore {
        FaultyStore { latency: Some(latency), ..self }
    }

    /// Says that its disk has this room.
    #[must_use]
    pub fn with_room(self, room: impl Fn() -> DiskRoom + Send + Sync + 'static) -> FaultyStore {
        FaultyStore { room: Some(Arc::new(room)), ..self }
    }

    async fn request<T: Send>(
        &self,
        operation: Operation,
        key: &str,
        effect: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let planned = || "planned".to_owned();
        let fault = (self.plan)(operation, key);
        self.pause().await;
        match fault {
            Fault::Refused => return Err(StoreError::NotApplied(planned())),
            Fault::Full => return Err(StoreError::Full(planned())),
            Fault::LostRequest => return Err(StoreError::Unknown(planned())),
            Fault::Slow(time) => tokio::time::sleep(time).await,
            Fault::Stuck => std::future::pending().await,
            Fault::None | Fault::LostAnswer => {}
        }
        let answer = effect.await;
        self.pause().await;
        if fault == Fault::LostAnswer { Err(StoreError::Unknown(planned())) } else { answer }
    }

    async fn pause(&self) {
        if let Some(latency) = self.latency {
            tokio::time::sleep(latency).await;
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        self.request(Operation::Put, key, self.inner.put(key, payload)).await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        self.request(Operation::PutIfAbsent, key, self.inner.put_if_absent(key, payload)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.request(Operation::Get, key, self.inner.get(key, range)).await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.request(Operation::Size, key, self.inner.size(key)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.request(Operation::Delete, key, self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        self.request(Operation::List, prefix, self.inner.list(prefix, after, count)).await
    }

    async fn room(&self) -> Option<DiskRoom> {
        match &self.room {
            Some(room) => Some(room()),
            None => self.inner.room().await,
        }
    }

    fn url(&self, key: &str) -> String {
        self.inner.url(key)
    }

    fn remote(&self) -> bool {
        self.inner.remote()
    }
}
