//! The reader and the writer of one connection: requests in, answers out in the same order.
//!
//! ```text
//! reader   frames.rs ─► header ─► Produce: handed to the log at once ──┐
//!                                 others: enqueued undecoded ──────────┤ bounded FIFO queue
//! writer   ◄── answers leave in order ◄── produces awaited, others run here one by one
//! ```
//! Kafka serves one request of a connection at a time. Here several produces may be under way, because they must
//! share an upload. A produce still waits for all earlier requests of other APIs, and those wait for all earlier
//! requests, so a client sees no difference.

use std::sync::Arc;

use floe_wire::{ApiKey, Decoder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::api::call::{Call, Context};
use crate::api::produce::{self, Produced};
use crate::api::table::{self, Api, Handler};
use crate::conn::admission::Admission;
use crate::conn::doorman::Seat;
use crate::conn::ending::Ending;
use crate::conn::frames::{Frame, Frames, Pace};
use crate::conn::peer::Peer;
use crate::conn::progress::Progress;
use crate::conn::send::send;
use crate::limits;
use crate::shared::Shared;

/// A request between the reader and the writer.
enum Work {
    Produce(Box<Produced>),
    Call(&'static Api, Box<Call>),
}

/// Serves a connection until it ends, and logs the reason.
pub(crate) async fn serve<R, W>(broker: Arc<Shared>, source: R, sink: W, peer: Peer, seat: Seat)
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    metrics::counter!("floe_kafka_connections_total").increment(1);
    let ending = converse(&broker, source, sink, &peer, &seat).await;
    drop(seat);
    if ending.ordinary() {
        tracing::debug!(peer = &*peer.name, reason = %ending, "connection closed");
    } else {
        metrics::counter!("floe_kafka_connections_refused_total").increment(1);
        tracing::warn!(peer = &*peer.name, reason = %ending, "connection closed by the broker");
    }
}

async fn converse<R, W>(broker: &Arc<Shared>, source: R, mut sink: W, peer: &Peer, seat: &Seat) -> Ending
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let (queue, work) = mpsc::channel(broker.config.requests_in_flight_max.max(1));
    let progress = Progress::default();
    let mut shutdown = broker.shutdown.subscribe();
    let frames = Frames::new(source, Pace::of(&broker.config));
    let admission = Admission::new(&broker.log, &broker.requests, &seat.arriving, &progress);
    let mut reading = Box::pin(read(broker, frames, peer, queue, admission));
    let mut writing = std::pin::pin!(write(broker, &mut sink, peer, work, &progress));
    let (ending, patience) = tokio::select! {
        biased;
        ending = &mut writing => return ending.expect("the writer outlives the reader"),
        ending = &mut reading => (ending, broker.config.idle),
        _ = shutdown.wait_for(|shutdown| *shutdown) => (Ending::Shutdown, limits::SHUTDOWN_PATIENCE),
    };
    // Requests that were read are still carried out, as in Kafka: a client may commit offsets or leave its group just
    // before it closes. For a client that has gone no fetch or join waits any longer. Without the reader the writer
    // ends by itself.
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
    broker: &Arc<Shared>,
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
            // The writer has ended, and returns the reason.
            std::future::pending::<()>().await;
        }
    }
}

/// Decodes the header of a request, and hands a produce to the log. All earlier calls are answered by then, because
/// the frame of a produce is not admitted before (`admission.rs`).
fn take_in(broker: &Arc<Shared>, peer: &Peer, frame: Frame) -> Result<Work, Ending> {
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
    let mut decoder = Decoder::new(frame.bytes);
    let header = floe_wire::RequestHeader::decode(&mut decoder).map_err(malformed)?;
    let arrived = broker.env.monotonic();
    let mut call = Call {
        version,
        correlation_id,
        client_id: header.client_id.unwrap_or_default(),
        body: decoder,
        arrived,
        permit: Some(frame.permit),
        unsupported: false,
    };
    if matches!(api.handler, Handler::Produce) {
        let client_id = std::mem::take(&mut call.client_id);
        let context = Context::new(broker, peer, version, &client_id);
        let produced = produce::start(&context, call, frame.buffer);
        return produced.map(|produced| Work::Produce(Box::new(produced))).map_err(malformed);
    }
    Ok(Work::Call(api, Box::new(call)))
}

/// Answers in order. `None` when the reader has ended and all its requests are answered.
async fn write<W: AsyncWrite + Send + Unpin>(
    broker: &Arc<Shared>,
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
            // The client has gone, but its other requests are still carried out.
            Err(Ending::Write(_)) if progress.gone() => {}
            Err(ending) => return Some(ending),
            Ok(()) => {}
        }
        progress.answer();
    }
    None
}
