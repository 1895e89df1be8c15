//! What the broker answers to a worker.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokio::sync::Semaphore;

use floe_query::{Kind, QueryError};
use floe_store::Store;

use super::link::{Gone, Out};
use super::message::{Ask, File, Listed, TableHead, ToWorker};
use crate::limits::{WORKER_PAYLOAD_BYTES, WORKER_READ_BYTES, WORKER_READS_BYTES};
use crate::source::Source;
use crate::source::here::Cut;

/// What answers are made from.
pub(super) struct Answers {
    pub(super) store: Arc<dyn Store>,
    /// A permit is a KiB that was read, or is about to be, and is not handed over yet. All statements share them.
    pub(super) room: Arc<Semaphore>,
}

/// Why a question has no answer.
enum Failed {
    /// The worker learns it.
    Told(QueryError),
    /// There is nobody to tell.
    Gone,
}

impl From<QueryError> for Failed {
    fn from(error: QueryError) -> Failed {
        Failed::Told(error)
    }
}

impl From<Gone> for Failed {
    fn from(Gone: Gone) -> Failed {
        Failed::Gone
    }
}

/// The permits for all reads.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WORKER_READS_BYTES >> 10))
}

/// Answers one question. `payload` came with it.
pub(super) async fn answer(answers: &Answers, cut: &Cut, out: Out, (call, ask, payload): (u32, Ask, Bytes)) {
    let mut reply = Reply { out, call, part: BytesMut::new() };
    let error = match tell(answers, cut, &mut reply, ask, &payload).await {
        Ok(()) => None,
        Err(Failed::Told(error)) => Some(error),
        Err(Failed::Gone) => return,
    };
    // If the worker is gone, its statement learns it elsewhere.
    let _ = reply.end(error).await;
}

async fn tell(
    answers: &Answers,
    cut: &Cut,
    reply: &mut Reply,
    ask: Ask,
    payload: &[u8],
) -> Result<(), Failed> {
    match ask {
        Ask::Described => {
            let described = cut.described().await?;
            let listed: Listed = (described.tables, described.columns as u64);
            reply.put(&listed).await
        }
        Ask::Table(name) => table(cut, reply, &name).await,
        Ask::Batches { partition, from } => {
            let _room = room_for(answers, floe_lake::limits::TAIL_READ_BYTES).await;
            let batches = cut.batches().read(partition, from).await;
            let unread = |error: floe_lake::TailError| QueryError::new(Kind::Unavailable, error.to_string());
            for batch in batches.map_err(unread)? {
                let length = u32::try_from(batch.bytes.len());
                let length = length.map_err(|_| QueryError::new(Kind::Internal, "a batch of 4 GiB"))?;
                reply.put_bytes(&batch.base_offset.0.to_le_bytes()).await?;
                reply.put_bytes(&length.to_le_bytes()).await?;
                reply.put_bytes(&batch.bytes).await?;
            }
            Ok(())
        }
        Ask::File { key, from, to } => {
            let bytes = to.saturating_sub(from);
            if bytes > WORKER_READ_BYTES {
                let message = format!("a read of {bytes} bytes, at most {WORKER_READ_BYTES} are possible");
                return Err(QueryError::new(Kind::Internal, message).into());
            }
            let _room = room_for(answers, usize::try_from(bytes).unwrap_or(usize::MAX)).await;
            let read = answers.store.get(&key, Some(from..to)).await;
            let unread =
                |error: floe_store::StoreError| QueryError::new(Kind::Unavailable, error.to_string());
            Ok(reply.put_bytes(&read.map_err(unread)?).await?)
        }
        Ask::History => reply.put(&cut.history().await?).await,
        Ask::Recent => Ok(reply.put_bytes(&cut.recent().await?).await?),
        Ask::Learned(topic) => reply.put(&cut.learned(topic).await).await,
        Ask::Learn(topic) => {
            let unread = |error: postcard::Error| QueryError::new(Kind::Internal, error.to_string());
            let seen = postcard::from_bytes(payload).map_err(unread)?;
            cut.learn(topic, &seen).await;
            Ok(())
        }
    }
}

async fn table(cut: &Cut, reply: &mut Reply, name: &str) -> Result<(), Failed> {
    let Some(table) = cut.table(name).await? else { return reply.put(&None::<TableHead>).await };
    let files = table.files;
    let head = TableHead {
        name: table.name,
        topic: table.topic,
        schema: table.schema,
        spans: table.spans,
        tail_bytes: table.tail_bytes,
        files: files.len() as u64,
    };
    reply.put(&Some(head)).await?;
    for file in files.iter() {
        let file: File = (file.key.clone(), file.bytes, file.records);
        reply.put(&file).await?;
    }
    Ok(())
}

async fn room_for(answers: &Answers, bytes: usize) -> Option<tokio::sync::SemaphorePermit<'_>> {
    let permits = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
    let permits = permits.min(u32::try_from(WORKER_READS_BYTES >> 10).unwrap_or(u32::MAX));
    // The semaphore is never closed.
    answers.room.acquire_many(permits).await.ok()
}

/// An answer in parts.
struct Reply {
    out: Out,
    call: u32,
    /// Shorter than a payload.
    part: BytesMut,
}

impl Reply {
    async fn put(&mut self, value: &impl Serialize) -> Result<(), Failed> {
        let bytes = postcard::to_allocvec(value);
        let bytes = bytes.map_err(|error| QueryError::new(Kind::Internal, error.to_string()))?;
        Ok(self.put_bytes(&bytes).await?)
    }

    async fn put_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        while self.part.len() + bytes.len() >= WORKER_PAYLOAD_BYTES {
            let (now, later) = bytes.split_at(WORKER_PAYLOAD_BYTES - self.part.len());
            self.part.extend_from_slice(now);
            bytes = later;
            let part = self.part.split().freeze();
            let message = ToWorker::Answer { call: self.call, end: false, error: None };
            self.out.send(&message, part).await?;
        }
        self.part.extend_from_slice(bytes);
        Ok(())
    }

    async fn end(&mut self, error: Option<QueryError>) -> Result<(), Gone> {
        let part = self.part.split().freeze();
        self.out.send(&ToWorker::Answer { call: self.call, end: true, error }, part).await
    }
}
