//! One connection: requests in, answers out in the same order.
//!
//! ```text
//! reader   frames.rs ─► header ─► Produce: handed to the log at once ──┐
//!                                 others: taken in as they are ────────┤ bounded queue, in order
//! writer   ◄── answers leave in order ◄── produces awaited, others run here one by one
//! ```
//! Kafka serves one request of a connection at a time. Here several produces may be under way, because they must
//! share an upload; a produce still waits for every other request before it, and every other request waits for
//! all before it, so what a client sees is the same.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use floe_wire::{ApiKey, ErrorCode, Reader, WireError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Duration, Instant, timeout};

use crate::api::call::{Call, Context};
use crate::api::produce::{self, Produced};
use crate::api::table::{self, Answer, Api, Handler};
use crate::broker::Inner;
use crate::budget::{Admission, Held};
use crate::conn::doorman::Place;
use crate::conn::frames::{Frame, FrameError, Frames};
use crate::limits;

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// For logs.
    pub(crate) name: Arc<str>,
    /// For the per-address limit and for DescribeGroups.
    pub(crate) ip: Option<IpAddr>,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ending {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the answer cannot be written: {0}")]
    Write(io::Error),
    #[error("the client does not read the answer to {api}: {written} of {length} bytes are written")]
    Stalled { api: &'static str, written: u64, length: u64 },
    #[error("api {0} is not served")]
    UnknownApi(i16),
    #[error("{api} version {version} is not supported, {min} to {max} are")]
    UnsupportedVersion { api: &'static str, version: i16, min: i16, max: i16 },
    #[error("malformed {api} request: {error}")]
    Malformed { api: &'static str, error: WireError },
    #[error("the answer to {api} cannot be encoded: {error}")]
    Encode { api: &'static str, error: WireError },
    #[error("a produce request with acks=0 failed: {0:?}")]
    Unacknowledged(ErrorCode),
    #[error("the broker is shutting down")]
    Shutdown,
}

impl Ending {
    /// True when nobody is there any more who could read an answer.
    fn gone(&self) -> bool {
        matches!(self, Ending::Frame(FrameError::Closed | FrameError::Cut | FrameError::Io(_)))
    }

    fn ordinary(&self) -> bool {
        match self {
            Ending::Frame(error) => error.ordinary(),
            Ending::Write(_) | Ending::Shutdown => true,
            _ => false,
        }
    }
}

/// A request on its way through the connection.
enum Work {
    Produce(Box<Produced>),
    Call(&'static Api, Box<Call>),
}

/// How many requests were taken in and answered; the reader waits for the writer through it.
#[derive(Default)]
pub(crate) struct Progress {
    taken: AtomicU64,
    answered: AtomicU64,
    /// The number of the last request that was not a produce.
    last_call: AtomicU64,
    moved: Notify,
    /// Set when the client has gone.
    gone: AtomicBool,
    leaving: Notify,
}

impl Progress {
    /// Whether requests are under way.
    pub(crate) fn busy(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.answered.load(Ordering::Relaxed)
    }

    fn take(&self, call: bool) {
        let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if call {
            self.last_call.store(number, Ordering::Relaxed);
        }
    }

    fn answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.moved.notify_one();
    }

    fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
        self.leaving.notify_one();
    }

    fn gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Waits until the client has gone.
    pub(crate) async fn left(&self) {
        while !self.gone() {
            self.leaving.notified().await;
        }
    }

    /// Waits until every request that is not a produce has been answered.
    pub(crate) async fn calls_answered(&self) {
        while self.answered.load(Ordering::Relaxed) < self.last_call.load(Ordering::Relaxed) {
            self.moved.notified().await;
        }
    }
}

/// Serves a connection until it ends, and logs why if that is worth a line.
pub(crate) async fn serve<R, W>(broker: Arc<Inner>, source: R, sink: W, peer: Peer, place: Place)
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    metrics::counter!("floe_kafka_connections_total").increment(1);
    let ending = converse(&broker, source, sink, &peer, &place).await;
    drop(place);
    if ending.ordinary() {
        tracing::debug!(peer = &*peer.name, reason = %ending, "connection closed");
    } else {
        metrics::counter!("floe_kafka_connections_refused_total").increment(1);
        tracing::warn!(peer = &*peer.name, reason = %ending, "connection closed by the broker");
    }
}

async fn converse<R, W>(broker: &Arc<Inner>, source: R, mut sink: W, peer: &Peer, place: &Place) -> Ending
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let (queue, work) = mpsc::channel(broker.config.requests_in_flight_max.max(1));
    let progress = Progress::default();
    let mut shutdown = broker.shutdown.subscribe();
    let frames = Frames::new(source, broker.config.pace());
    let admission = Admission::new(&broker.log, &broker.requests, &place.arriving, &progress);
    let mut reading = Box::pin(read(broker, frames, peer, queue, admission));
    let mut writing = std::pin::pin!(write(broker, &mut sink, peer, work, &progress));
    let (ending, patience) = tokio::select! {
        biased;
        ending = &mut writing => return ending.expect("the writer outlives the reader"),
        ending = &mut reading => (ending, broker.config.idle),
        _ = shutdown.wait_for(|shutdown| *shutdown) => (Ending::Shutdown, limits::SHUTDOWN_PATIENCE),
    };
    // What the client asked before is done, as in Kafka: it may have left its group or committed its offsets on its way
    // out. If it has gone, nothing waits for it any more. Without the reader the writer ends by itself.
    drop(reading);
    let patience = if ending.gone() { limits::SHUTDOWN_PATIENCE } else { patience };
    if ending.gone() {
        progress.leave();
    }
    match timeout(patience, writing).await {
        Ok(Some(failed)) if !progress.gone() => failed,
        _ => ending,
    }
}

async fn read<R: AsyncRead + Send + Unpin>(
    broker: &Arc<Inner>,
    mut frames: Frames<R>,
    peer: &Peer,
    queue: mpsc::Sender<Work>,
    admission: Admission<'_>,
) -> Ending {
    loop {
        let now = || broker.env.monotonic();
        let frame = match frames.next(&admission, now).await {
            Ok(frame) => frame,
            Err(error) => return error.into(),
        };
        let work = match take_in(broker, peer, frame) {
            Ok(work) => work,
            Err(ending) => return ending,
        };
        admission.progress.take(matches!(work, Work::Call(..)));
        if queue.send(work).await.is_err() {
            // The writer has ended and says why.
            std::future::pending::<()>().await;
        }
    }
}

/// Reads the header of a request, and hands a produce to the log: the calls before it are answered, its frame was not
/// admitted earlier (`budget.rs`).
fn take_in(broker: &Arc<Inner>, peer: &Peer, frame: Frame) -> Result<Work, Ending> {
    let key = i16::from_be_bytes([frame.bytes[0], frame.bytes[1]]);
    let version = i16::from_be_bytes([frame.bytes[2], frame.bytes[3]]);
    let correlation_id =
        i32::from_be_bytes(frame.bytes[4..8].try_into().expect("a frame has its least length"));
    let api = table::find(key).ok_or(Ending::UnknownApi(key))?;
    metrics::counter!("floe_kafka_requests_total", "api" => api.name).increment(1);
    if !(api.min..=api.max).contains(&version) {
        if matches!(api.handler, Handler::ApiVersions) {
            return Ok(Work::Call(
                api,
                Box::new(Call::unsupported_api_versions(correlation_id, broker.env.monotonic())),
            ));
        }
        return Err(Ending::UnsupportedVersion { api: api.name, version, min: api.min, max: api.max });
    }
    let malformed = |error| Ending::Malformed { api: api.name, error };
    let mut reader = Reader::new(frame.bytes);
    let header = floe_wire::RequestHeader::decode(&mut reader).map_err(malformed)?;
    let arrived = broker.env.monotonic();
    let call = Call {
        version,
        correlation_id,
        client_id: header.client_id.unwrap_or_default(),
        body: reader,
        arrived,
        permit: Some(frame.permit),
        unsupported: false,
    };
    if matches!(api.handler, Handler::Produce) {
        let context = Context::new(broker, peer, version, &call.client_id);
        let produced = produce::start(&context, call.body, call.correlation_id, arrived, call.permit);
        return produced.map(|produced| Work::Produce(Box::new(produced))).map_err(malformed);
    }
    Ok(Work::Call(api, Box::new(call)))
}

/// Answers in order. `None` when the reader has ended and everything it took in is answered.
async fn write<W: AsyncWrite + Send + Unpin>(
    broker: &Arc<Inner>,
    sink: &mut W,
    peer: &Peer,
    mut queue: mpsc::Receiver<Work>,
    progress: &Progress,
) -> Option<Ending> {
    while let Some(work) = queue.recv().await {
        let (api, answer) = match work {
            Work::Produce(produced) => (ApiKey::Produce.name(), produced.finish(broker).await),
            Work::Call(api, call) => (api.name, table::answer(broker, peer, api, *call, progress).await),
        };
        let sent = match answer {
            Ok(answer) => send(sink, answer, api, broker).await,
            Err(ending) => Err(ending),
        };
        match sent {
            // Nobody misses the answer, but there may be more to do.
            Err(Ending::Write(_)) if progress.gone() => {}
            Err(ending) => return Some(ending),
            Ok(()) => {}
        }
        progress.answer();
    }
    None
}

/// Writes all segments with as few system calls as possible, as long as the client keeps up.
async fn send<W: AsyncWrite + Send + Unpin>(
    sink: &mut W,
    answer: Answer,
    api: &'static str,
    broker: &Inner,
) -> Result<(), Ending> {
    let Answer { segments, held } = answer;
    let length = segments.iter().map(|segment| segment.len() as u64).sum();
    let mut segments = segments.into_iter().filter(|segment| !segment.is_empty()).peekable();
    let mut window: std::collections::VecDeque<Bytes> = std::collections::VecDeque::new();
    let mut reader = ReadingClient::new(broker, held);
    loop {
        while window.len() < limits::WRITE_SEGMENTS_MAX
            && let Some(segment) = segments.next()
        {
            window.push_back(segment);
        }
        if window.is_empty() {
            return Ok(());
        }
        if reader.stalls() {
            return Err(Ending::Stalled { api, written: reader.written, length });
        }
        let slices: Vec<IoSlice<'_>> = window.iter().map(|segment| IoSlice::new(segment)).collect();
        let step = broker.config.idle.min(limits::ANSWER_STEP);
        let written = match timeout(step, sink.write_vectored(&slices)).await {
            Err(_) => continue,
            Ok(Err(error)) => return Err(Ending::Write(error)),
            Ok(Ok(0)) => return Err(Ending::Write(io::ErrorKind::WriteZero.into())),
            Ok(Ok(written)) => written,
        };
        reader.took(written);
        advance(&mut window, written);
    }
}

/// A client that is expected to read an answer.
struct ReadingClient<'a> {
    broker: &'a Inner,
    /// The memory of the answer, if it had to ask for any.
    held: Option<Held>,
    begun: Instant,
    moved: Instant,
    written: u64,
}

impl ReadingClient<'_> {
    fn new(broker: &Inner, held: Option<Held>) -> ReadingClient<'_> {
        let now = broker.env.monotonic();
        ReadingClient { broker, held, begun: now, moved: now, written: 0 }
    }

    fn took(&mut self, bytes: usize) {
        metrics::counter!("floe_kafka_sent_bytes_total").increment(bytes as u64);
        self.written += bytes as u64;
        self.moved = self.broker.env.monotonic();
    }

    /// True when nothing has moved for the idle time or the answer is too slow. While others wait for memory that it
    /// holds, it has less time: such a client is closed, comes back and asks again.
    fn stalls(&self) -> bool {
        let now = self.broker.env.monotonic();
        let idle = self.broker.config.idle;
        let (grace, rate) = match self.held.is_some() && self.broker.answers.exhausted() {
            true => (idle.min(limits::ANSWER_GRACE_SHORT), limits::ANSWER_BYTES_PER_SECOND_SHORT),
            false => (idle, limits::ANSWER_BYTES_PER_SECOND),
        };
        let earned = Duration::from_secs(self.written / rate);
        now.saturating_duration_since(self.moved) >= idle
            || now.saturating_duration_since(self.begun) >= grace + earned
    }
}

fn advance(window: &mut std::collections::VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = window.front_mut() {
        if written < first.len() {
            let _ = first.split_to(written);
            return;
        }
        written -= first.len();
        window.pop_front();
    }
    assert_eq!(written, 0, "no more is written than there was");
}
