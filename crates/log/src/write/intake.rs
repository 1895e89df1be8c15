//! The queue of requests that wait to be written.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use floe_env::Env;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::format::wal::WalEntry;
use crate::limits::{BATCHES_PER_OBJECT_MAX, FRAMES_OPEN_MAX, TROUBLE_TIME, WAITING_BATCHES_MAX};
use crate::write::order::Entered;
use crate::write::sequencer::{AppendError, Appended};

/// One answer per batch, in the order of the batches.
pub(crate) type Answers = Vec<Result<Appended, AppendError>>;

/// When objects and frames close, and how many overlap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes at which an object closes.
    pub(crate) object_bytes: usize,
    /// Bytes at which the bytes of a commit close.
    pub(crate) frame_bytes: usize,
    /// How long the first request waits for others. Zero: only while others are being written.
    pub(crate) linger: Duration,
    /// Uploads in flight at most.
    pub(crate) uploads_max: usize,
    /// Bytes of unanswered requests at most; a request beyond them is refused.
    pub(crate) waiting_bytes_max: usize,
}

/// What is being written when the next requests are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy {
    /// PUTs in flight.
    pub(crate) uploads: usize,
    /// Commits with bytes that are not answered.
    pub(crate) frames: usize,
    /// Bytes that may ride with one commit; 0 if none may.
    pub(crate) carries: u64,
}

/// Requests that are written together.
pub(crate) enum Lot {
    /// As one object.
    Object(Vec<Request>),
    /// With their commit.
    Frame(Vec<Request>),
}

/// The FIFO queue of requests that wait to be written. Clones share it.
#[derive(Clone)]
pub(crate) struct Intake {
    shared: Arc<Queueing>,
}

struct Queueing {
    env: Env,
    waiting_bytes_max: usize,
    queue: Mutex<Queue>,
    /// Notified when the WAL writer should look again.
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// Bytes of the requests in the queue.
    bytes: usize,
    /// Batches of the requests in the queue.
    batches: usize,
    /// Bytes of all unanswered requests, in the queue or in flight.
    unanswered_bytes: usize,
    /// Batches of all unanswered requests.
    unanswered_batches: usize,
    closed: bool,
    /// Why the last object is not in the log, and since when; `None` after a success.
    trouble: Option<(String, Instant)>,
}

pub(crate) struct Request {
    pub(crate) entries: Vec<WalEntry>,
    /// One per entry; `None` for a batch that belongs to no idempotent producer.
    pub(crate) entered: Vec<Option<Entered>>,
    pub(crate) bytes: usize,
    pub(crate) arrived: Instant,
    pub(crate) answer: oneshot::Sender<Answers>,
}

impl Intake {
    pub(crate) fn new(env: Env, pace: &Pace) -> Intake {
        Intake {
            shared: Arc::new(Queueing {
                env,
                waiting_bytes_max: pace.waiting_bytes_max,
                queue: Mutex::default(),
                wake: Notify::new(),
            }),
        }
    }

    /// Queues validated batches. The order of calls is the order in the log.
    pub(crate) fn push(
        &self,
        entries: Vec<WalEntry>,
        entered: Vec<Option<Entered>>,
    ) -> Result<oneshot::Receiver<Answers>, AppendError> {
        assert!(!entries.is_empty(), "an append without batches needs no writer");
        let bytes = entries.iter().map(|entry| entry.bytes.len()).sum();
        let mut queue = self.lock();
        if queue.closed {
            return Err(AppendError::Unavailable("the broker is shutting down".into()));
        }
        let refuse = |max: usize, what: &'static str| {
            metrics::counter!("floe_log_appends_refused_total", "limit" => what).increment(1);
            Err(AppendError::Unavailable(format!("{max} {what} wait to be written already")))
        };
        if queue.unanswered_bytes.saturating_add(bytes) > self.shared.waiting_bytes_max {
            return refuse(self.shared.waiting_bytes_max, "bytes");
        }
        if queue.unanswered_batches + entries.len() > WAITING_BATCHES_MAX {
            return refuse(WAITING_BATCHES_MAX, "batches");
        }
        let (answer, answered) = oneshot::channel();
        queue.bytes += bytes;
        queue.batches += entries.len();
        queue.unanswered_bytes += bytes;
        queue.unanswered_batches += entries.len();
        let arrived = self.shared.env.monotonic();
        queue.requests.push_back(Request { entries, entered, bytes, arrived, answer });
        queue.measure();
        drop(queue);
        self.shared.wake.notify_one();
        Ok(answered)
    }

    /// Refuses further requests. The WAL writer ends once all others are answered.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.shared.wake.notify_one();
    }

    /// Makes the WAL writer look again.
    pub(crate) fn stir(&self) {
        self.shared.wake.notify_one();
    }

    /// Returns when the WAL writer should look again.
    pub(crate) fn stirred(&self) -> impl Future<Output = ()> + '_ {
        self.shared.wake.notified()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        floe_env::lock(&self.shared.queue)
    }

    /// The requests to write next, if it is time. The error says when to look again, if the time is known.
    ///
    /// The bytes of a request ride with its commit if they may. A larger request becomes an object of its own there,
    /// so that those behind it need not wait for two writes.
    pub(crate) fn take(&self, pace: &Pace, busy: &Busy) -> Result<Lot, Option<Instant>> {
        let mut queue = self.lock();
        let Some(first) = queue.requests.front() else {
            return Err(None);
        };
        let rides = first.bytes as u64 <= busy.carries;
        let frame_bytes = usize::try_from(busy.carries).unwrap_or(usize::MAX).min(pace.frame_bytes);
        let closes_at = if rides { frame_bytes } else { pace.object_bytes };
        let full = queue.bytes >= closes_at || queue.batches >= BATCHES_PER_OBJECT_MAX;
        let (open, open_max) =
            if rides { (busy.frames, FRAMES_OPEN_MAX) } else { (busy.uploads, pace.uploads_max) };
        if open >= open_max {
            return Err(None);
        }
        if !full && !queue.closed {
            let due = first.arrived + pace.linger;
            // A commit is ready behind the one that is being written, so that the disk does not wait.
            if pace.linger.is_zero() && open > 0 && !rides {
                return Err(None);
            }
            if due > self.shared.env.monotonic() {
                return Err(Some(due));
            }
        }
        let mut taken = Vec::new();
        let (mut bytes, mut batches) = (0, 0);
        while let Some(next) = queue.requests.front() {
            let has_room = match (rides, busy.carries) {
                (true, _) => bytes + next.bytes <= frame_bytes,
                (false, 0) => bytes < pace.object_bytes,
                (false, _) => false,
            };
            let fits = has_room && batches + next.entries.len() <= BATCHES_PER_OBJECT_MAX;
            if !fits && !taken.is_empty() {
                break;
            }
            let request = queue.requests.pop_front().expect("there is a first one");
            bytes += request.bytes;
            batches += request.entries.len();
            taken.push(request);
        }
        queue.bytes -= bytes;
        queue.batches -= batches;
        metrics::histogram!("floe_log_object_batches").record(batches as f64);
        Ok(if rides { Lot::Frame(taken) } else { Lot::Object(taken) })
    }

    /// Why appends cannot succeed now: the intake is closed, or the last object failed less than [`TROUBLE_TIME`]
    /// ago.
    pub(crate) fn trouble(&self) -> Option<String> {
        let queue = self.lock();
        if queue.closed {
            return Some("the broker is shutting down".to_owned());
        }
        let now = self.shared.env.monotonic();
        let (reason, since) = queue.trouble.as_ref()?;
        (now.saturating_duration_since(*since) < TROUBLE_TIME).then(|| reason.clone())
    }

    /// Whether requests wait because others are being written.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.lock().requests.is_empty()
    }

    pub(crate) fn answered(&self, bytes: usize, batches: usize, trouble: Option<&AppendError>) {
        let now = self.shared.env.monotonic();
        let mut queue = self.lock();
        queue.trouble = trouble.map(|error| (error.to_string(), now));
        queue.unanswered_bytes -= bytes;
        queue.unanswered_batches -= batches;
        queue.measure();
    }

    pub(crate) fn finished(&self) -> bool {
        let queue = self.lock();
        queue.closed && queue.requests.is_empty()
    }
}

impl Queue {
    fn measure(&self) {
        metrics::gauge!("floe_log_unanswered_bytes").set(self.unanswered_bytes as f64);
        metrics::gauge!("floe_log_unanswered_batches").set(self.unanswered_batches as f64);
    }
}
