//! Writes answers. A client that reads too slowly is closed.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Duration, Instant, timeout};

use crate::api::call::Answer;
use crate::budget::Held;
use crate::conn::ending::Ending;
use crate::limits;
use crate::shared::Shared;

/// Writes all segments of an answer with as few system calls as possible, unless the client stalls.
pub(crate) async fn send<W: AsyncWrite + Send + Unpin>(
    sink: &mut W,
    answer: Answer,
    api: &'static str,
    broker: &Shared,
) -> Result<(), Ending> {
    let Answer { segments, held } = answer;
    let length = segments.iter().map(|segment| segment.len() as u64).sum();
    let mut segments = segments.into_iter().filter(|segment| !segment.is_empty()).peekable();
    let mut window: VecDeque<Bytes> = VecDeque::new();
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

/// How fast a client reads one answer.
struct ReadingClient<'a> {
    broker: &'a Shared,
    /// The memory of the answer, if it needed any.
    held: Option<Held>,
    begun: Instant,
    moved: Instant,
    written: u64,
}

impl ReadingClient<'_> {
    fn new(broker: &Shared, held: Option<Held>) -> ReadingClient<'_> {
        let now = broker.env.monotonic();
        ReadingClient { broker, held, begun: now, moved: now, written: 0 }
    }

    fn took(&mut self, bytes: usize) {
        metrics::counter!("floe_kafka_sent_bytes_total").increment(bytes as u64);
        self.written += bytes as u64;
        self.moved = self.broker.env.monotonic();
    }

    /// True when no byte moved for the idle time, or when the answer takes too long. It may take less time while it
    /// holds memory that others wait for: such a client is closed, connects again and asks again.
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

fn advance(window: &mut VecDeque<Bytes>, mut written: usize) {
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
