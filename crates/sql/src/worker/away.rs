//! What a statement in a worker reads: it asks the broker.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc, oneshot};

use floe_env::{Timestamp, lock};
use floe_history::map::PlacedPart;
use floe_lake::{Batches, DataFile, TailError, TailSchema};
use floe_log::batch::Batch;
use floe_log::{Offset, PartitionId, TopicId};
use floe_meta::Lsn;
use floe_query::{Kind, QueryError};

use super::frame::Frame;
use super::message::{Ask, File, FromWorker, Listed, TableHead};
use crate::limits::{WORKER_CALLS_MAX, WORKER_PAYLOAD_BYTES, WORKER_READ_BYTES, WORKER_READS_AT_ONCE};
use crate::source::{Described, Reads, Source, Sources, Table};

/// The questions of a worker that wait for their answers. A clone is the same.
#[derive(Clone)]
pub(super) struct Calls(Arc<Waiting>);

struct Waiting {
    out: mpsc::Sender<Frame>,
    next: AtomicU32,
    at_once: Semaphore,
    calls: Mutex<BTreeMap<u32, Call>>,
}

struct Call {
    parts: BytesMut,
    answer: oneshot::Sender<Result<Bytes, QueryError>>,
}

impl Calls {
    pub(super) fn new(out: mpsc::Sender<Frame>) -> Calls {
        let (at_once, calls) = (Semaphore::new(WORKER_CALLS_MAX), Mutex::default());
        Calls(Arc::new(Waiting { out, next: AtomicU32::new(0), at_once, calls }))
    }

    /// Takes a part of an answer.
    pub(super) fn take(&self, (call, end, error): (u32, bool, Option<QueryError>), part: &[u8]) {
        let mut calls = lock(&self.0.calls);
        // The statement may have ended without waiting for the answer.
        let Some(waiting) = calls.get_mut(&call) else { return };
        waiting.parts.extend_from_slice(part);
        if end && let Some(Call { parts, answer }) = calls.remove(&call) {
            let _ = answer.send(error.map_or_else(|| Ok(parts.freeze()), Err));
        }
    }

    /// Forgets what nobody waits for.
    pub(super) fn clear(&self) {
        lock(&self.0.calls).retain(|_, call| !call.answer.is_closed());
    }

    /// Asks. `expected` is the length of the answer, if it is known.
    async fn ask(&self, ask: Ask, payload: Bytes, expected: usize) -> Result<Bytes, QueryError> {
        let _turn = self.0.at_once.acquire().await.map_err(|_| gone())?;
        let call = self.0.next.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.0.calls).insert(call, Call { parts: BytesMut::with_capacity(expected), answer });
        let frame = Frame::new(&FromWorker::Call { call, ask }, payload);
        let frame = frame.map_err(|error| QueryError::new(Kind::Limit, error.to_string()))?;
        self.0.out.send(frame).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn ask_for<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, QueryError> {
        let bytes = self.ask(ask, Bytes::new(), 0).await?;
        postcard::from_bytes(&bytes).map_err(|error| unreadable(&error))
    }
}

/// The broker is gone, and this process is about to end.
fn gone() -> QueryError {
    QueryError::new(Kind::Unavailable, "the broker does not answer")
}

fn unreadable(error: &postcard::Error) -> QueryError {
    QueryError::new(Kind::Internal, format!("an answer of the broker cannot be read: {error}"))
}

/// What a worker's statements read.
pub(super) struct Away {
    calls: Calls,
    cut: Mutex<(Lsn, Timestamp)>,
}

impl Away {
    pub(super) fn new(calls: Calls) -> Away {
        Away { calls, cut: Mutex::new((Lsn(0), Timestamp(0))) }
    }

    /// Sets the cut and the time of the next statement.
    pub(super) fn set_cut(&self, cut: Lsn, now: Timestamp) {
        *lock(&self.cut) = (cut, now);
    }
}

impl Sources for Away {
    fn cut(&self) -> Arc<dyn Source> {
        let (lsn, now) = *lock(&self.cut);
        Arc::new(CutAway { lsn, now, calls: self.calls.clone() })
    }

    fn files(&self) -> Arc<dyn Reads> {
        Arc::new(FilesAway(self.calls.clone()))
    }
}

/// The cut of the statement for which the broker answers now.
struct CutAway {
    lsn: Lsn,
    now: Timestamp,
    calls: Calls,
}

impl fmt::Debug for CutAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CutAway({:?})", self.lsn)
    }
}

#[async_trait]
impl Source for CutAway {
    fn lsn(&self) -> Lsn {
        self.lsn
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    async fn described(&self) -> Result<Described, QueryError> {
        let (tables, columns): Listed = self.calls.ask_for(Ask::Described).await?;
        Ok(Described { tables, columns: usize::try_from(columns).unwrap_or(usize::MAX) })
    }

    async fn table(&self, name: &str) -> Result<Option<Table>, QueryError> {
        let bytes = self.calls.ask(Ask::Table(name.to_owned()), Bytes::new(), 0).await?;
        table(&bytes).map_err(|error| unreadable(&error))
    }

    fn batches(&self) -> Arc<dyn Batches> {
        Arc::new(BatchesAway(self.calls.clone()))
    }

    async fn history(&self) -> Result<Vec<PlacedPart>, QueryError> {
        self.calls.ask_for(Ask::History).await
    }

    async fn recent(&self) -> Result<Bytes, QueryError> {
        self.calls.ask(Ask::Recent, Bytes::new(), 0).await
    }

    async fn learned(&self, topic: TopicId) -> Option<TailSchema> {
        let learned = self.calls.ask_for(Ask::Learned(topic)).await;
        // Without it the statement looks at the whole tail.
        learned.unwrap_or_default()
    }

    async fn learn(&self, topic: TopicId, seen: &TailSchema) {
        // It is a matter of speed alone. The schema of a very wide table is not passed on.
        let Ok(bytes) = postcard::to_allocvec(seen) else { return };
        if bytes.len() <= WORKER_PAYLOAD_BYTES {
            let _ = self.calls.ask(Ask::Learn(topic), bytes.into(), 0).await;
        }
    }
}

/// A table and its files.
fn table(bytes: &[u8]) -> Result<Option<Table>, postcard::Error> {
    let (head, mut rest): (Option<TableHead>, _) = postcard::take_from_bytes(bytes)?;
    let Some(head) = head else { return Ok(None) };
    let mut files = Vec::new();
    for _ in 0..head.files {
        let ((key, bytes, records), after): (File, _) = postcard::take_from_bytes(rest)?;
        files.push(Arc::new(DataFile { key, bytes, records }));
        rest = after;
    }
    let TableHead { name, topic, schema, spans, tail_bytes, .. } = head;
    Ok(Some(Table { name, topic, schema, files: Arc::new(files), spans, tail_bytes }))
}

struct BatchesAway(Calls);

#[async_trait]
impl Batches for BatchesAway {
    async fn read(&self, partition: PartitionId, from: Offset) -> Result<Vec<Batch>, TailError> {
        let answer = self.0.ask(Ask::Batches { partition, from }, Bytes::new(), 0).await;
        batches(answer.map_err(|error| TailError::Away(error.message))?)
    }
}

fn batches(mut bytes: Bytes) -> Result<Vec<Batch>, TailError> {
    let cut = || TailError::Away("an answer of the broker is cut".to_owned());
    let mut batches = Vec::new();
    while bytes.has_remaining() {
        let base = bytes.try_get_i64_le().map_err(|_| cut())?;
        let length = bytes.try_get_u32_le().map_err(|_| cut())?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > bytes.len() {
            return Err(cut());
        }
        let batch = Batch::new(Offset(base), bytes.split_to(length));
        batches.push(batch.map_err(|error| TailError::Away(error.to_string()))?);
    }
    Ok(batches)
}

struct FilesAway(Calls);

#[async_trait]
impl Reads for FilesAway {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, String> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let pieces = pieces(range);
        let ask = |piece: Range<u64>| {
            let expected = usize::try_from(piece.end - piece.start).unwrap_or(0);
            let ask = Ask::File { key: key.to_owned(), from: piece.start, to: piece.end };
            self.0.ask(ask, Bytes::new(), expected)
        };
        // They are collected, because they borrow: a lazy iterator would have to be Send over all lifetimes.
        let asked: Vec<_> = pieces.into_iter().map(ask).collect();
        let one = asked.len() == 1;
        let mut answers = stream::iter(asked).buffered(WORKER_READS_AT_ONCE);
        let mut whole = BytesMut::with_capacity(if one { 0 } else { length });
        while let Some(piece) = answers.try_next().await.map_err(|error| error.message)? {
            if one {
                return Ok(piece);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// Cuts a range into pieces that the broker reads at a time.
fn pieces(range: Range<u64>) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    let mut from = range.start;
    while from < range.end {
        let to = range.end.min(from.saturating_add(WORKER_READ_BYTES));
        pieces.push(from..to);
        from = to;
    }
    pieces
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges, some of which have one")]
mod tests {
    use floe_log::codec::Compression;
    use floe_log::records::Builder;

    use super::*;

    #[test]
    fn ranges_are_read_in_pieces() {
        let most = WORKER_READ_BYTES;
        assert_eq!(pieces(5..5), []);
        assert_eq!(pieces(5..9), [5..9]);
        assert_eq!(
            pieces(1..2 * most + 2),
            [1..most + 1, most + 1..2 * most + 1, 2 * most + 1..2 * most + 2]
        );
    }

    #[test]
    fn answers_that_are_cut_are_errors() {
        let mut builder = Builder::new(Compression::None);
        builder.push(0, None, Some(b"v"), &[]);
        let batch = builder.build();
        let mut answer = Vec::new();
        for base in [7_i64, 8] {
            answer.extend(base.to_le_bytes());
            answer.extend(u32::try_from(batch.len()).unwrap().to_le_bytes());
            answer.extend(&batch[..]);
        }
        let whole = batches(Bytes::from(answer.clone())).unwrap();
        assert_eq!(whole.iter().map(|batch| batch.base_offset.0).collect::<Vec<_>>(), [7, 8]);
        let one = answer.len() / 2;
        for length in (1..answer.len()).filter(|length| *length != one) {
            assert!(batches(Bytes::copy_from_slice(&answer[..length])).is_err(), "{length}");
        }
        assert!(table(&[1]).is_err() && table(&[]).is_err() && table(&[0]).unwrap().is_none());
    }
}
