//! The writer: requests of all connections and partitions become WAL objects, uploads overlap, commits keep order.
//!
//! ```text
//! append ──▶ waiting requests ──▶ upload task (id, encode, PUT) ──▶ commits in order ──▶ answers
//!             taken when an object    several at a time               the order of taking
//!             is full, old enough,
//!             or no upload is under way
//! ```
//! Order: requests are queued in the order of [`Log::append`](crate::log::Log::append), objects take them in that
//! order, and the commits of objects are handed to the metadata in the order in which the objects were closed. So
//! of two appends of one connection the earlier gets the lower offsets, although their uploads overlap.
//!
//! An object becomes visible only by its commit, and its commit is made only when its PUT has succeeded. If a PUT
//! failed, or nobody knows, its batches are certainly not in the log: they are answered as not appended, later
//! objects go on, and the cleaner deletes what may be there.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use floe_env::{Env, Task};
use floe_meta::{CommitError, Committed, Envelope, Meta};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use crate::cache::{Cache, Written};
use crate::identity::Writer;
use crate::ids::ObjectId;
use crate::limits::{TROUBLE_TIME, UPLOAD_BYTES_PER_SECOND, UPLOAD_TIMEOUT, UPLOAD_TIMEOUT_MAX};
use crate::object::wal_key;
use crate::objects::{Ids, TakenId};
use crate::sequencer::{self, AppendError, Appended, Placed, Uploaded};
use crate::wal::{self, Entry};
use floe_store::{Store, StoreError};

/// One answer per batch, in the order of the batches.
pub(crate) type Answers = Vec<Result<Appended, AppendError>>;

/// When objects close and how many uploads overlap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// An object closes at this size.
    pub(crate) object_bytes: usize,
    /// How long the first request of an object waits for others. Zero: only as long as an upload is under way.
    pub(crate) linger: Duration,
    /// Uploads at one time.
    pub(crate) uploads_max: usize,
    /// Requests that have arrived and are not answered may have this many bytes; more are refused.
    pub(crate) waiting_bytes_max: usize,
}

/// Where requests wait for an object. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Intake {
    shared: Arc<IntakeShared>,
}

struct IntakeShared {
    env: Env,
    waiting_bytes_max: usize,
    queue: Mutex<Queue>,
    /// Something happened that the writer should look at.
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// Of the requests in the queue.
    bytes: usize,
    /// Of all requests that are not answered.
    unanswered_bytes: usize,
    closed: bool,
    /// Why the last object is not in the log, and when that came out; none when it is.
    trouble: Option<(String, Instant)>,
}

struct Request {
    entries: Vec<Entry>,
    bytes: usize,
    arrived: Instant,
    answer: oneshot::Sender<Answers>,
}

impl Intake {
    pub(crate) fn new(env: Env, pace: &Pace) -> Intake {
        Intake {
            shared: Arc::new(IntakeShared {
                env,
                waiting_bytes_max: pace.waiting_bytes_max,
                queue: Mutex::default(),
                wake: Notify::new(),
            }),
        }
    }

    /// Queues validated batches. The order of calls is the order in the log.
    pub(crate) fn push(&self, entries: Vec<Entry>) -> Result<oneshot::Receiver<Answers>, AppendError> {
        assert!(!entries.is_empty(), "an append without batches needs no writer");
        let bytes = entries.iter().map(|entry| entry.bytes.len()).sum();
        let mut queue = self.lock();
        if queue.closed {
            return Err(AppendError::Unavailable("the broker is shutting down".into()));
        }
        if queue.unanswered_bytes.saturating_add(bytes) > self.shared.waiting_bytes_max {
            metrics::counter!("floe_log_appends_refused_total").increment(1);
            let max = self.shared.waiting_bytes_max;
            return Err(AppendError::Unavailable(format!("{max} bytes wait to be written already")));
        }
        let (answer, answered) = oneshot::channel();
        queue.bytes += bytes;
        queue.unanswered_bytes += bytes;
        queue.requests.push_back(Request { entries, bytes, arrived: self.shared.env.monotonic(), answer });
        metrics::gauge!("floe_log_unanswered_bytes").set(queue.unanswered_bytes as f64);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(answered)
    }

    /// Takes no more requests; the writer ends when all are answered.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.shared.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests for one object, if it is time to close one; else when to look again.
    fn take(&self, pace: &Pace, uploads: usize) -> Result<Vec<Request>, Option<Instant>> {
        let mut queue = self.lock();
        let Some(first) = queue.requests.front() else {
            return Err(None);
        };
        if uploads >= pace.uploads_max {
            return Err(None);
        }
        let full = queue.bytes >= pace.object_bytes;
        if !full && !queue.closed {
            let due = first.arrived + pace.linger;
            if pace.linger.is_zero() && uploads > 0 {
                return Err(None);
            }
            if due > self.shared.env.monotonic() {
                return Err(Some(due));
            }
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < pace.object_bytes
            && let Some(request) = queue.requests.pop_front()
        {
            bytes += request.bytes;
            taken.push(request);
        }
        queue.bytes -= bytes;
        Ok(taken)
    }

    /// Why nothing can be written, as far as the last object tells and its answer is not too old for that.
    pub(crate) fn trouble(&self) -> Option<String> {
        let queue = self.lock();
        if queue.closed {
            return Some("the broker is shutting down".to_owned());
        }
        let now = self.shared.env.monotonic();
        let (reason, since) = queue.trouble.as_ref()?;
        (now.saturating_duration_since(*since) < TROUBLE_TIME).then(|| reason.clone())
    }

    fn answered(&self, bytes: usize, trouble: Option<&AppendError>) {
        let now = self.shared.env.monotonic();
        let mut queue = self.lock();
        queue.trouble = trouble.map(|error| (error.to_string(), now));
        queue.unanswered_bytes -= bytes;
        metrics::gauge!("floe_log_unanswered_bytes").set(queue.unanswered_bytes as f64);
    }

    fn finished(&self) -> bool {
        let queue = self.lock();
        queue.closed && queue.requests.is_empty()
    }
}

/// What an upload needs; also used for uploads that someone else commits.
#[derive(Clone)]
pub(crate) struct Uploader {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ids: Ids,
    pub(crate) cache: Cache,
}

/// An object that is durable and waits for its commit.
pub(crate) struct Stored {
    pub(crate) uploaded: Uploaded,
    pub(crate) taken: TakenId,
    written: Written,
}

impl Uploader {
    /// Makes an object of the batches and puts it into the store. An error says why nothing was appended.
    pub(crate) async fn upload(&self, entries: Vec<Entry>) -> Result<Stored, AppendError> {
        let unavailable = |error: String| AppendError::Unavailable(error);
        let taken = self.ids.take().await.map_err(unavailable)?;
        let begin = self.env.monotonic();
        let object = taken.id;
        let encoded = wal::encode(object, &entries);
        let payload = encoded.payload.clone();
        let key = wal_key(object);
        let put = self.store.put(&key, encoded.payload);
        let put = async {
            match self.store.remote() {
                // Nobody else uses the id: if the object arrives after all, it is trash.
                true => timeout(patience(encoded.size), put).await.unwrap_or_else(|late| {
                    Err(StoreError::Unknown(format!(
                        "the upload of {} bytes took too long: {late}",
                        encoded.size
                    )))
                }),
                false => put.await,
            }
        };
        // What the cache keeps is made while the store is at work.
        let (put, written) = tokio::join!(biased; put, async { Written::new(payload) });
        put.map_err(|error| unavailable(error.to_string()))?;
        let took = self.env.monotonic() - begin;
        metrics::histogram!("floe_log_upload_seconds").record(took.as_secs_f64());
        metrics::counter!("floe_log_objects_total").increment(1);
        metrics::counter!("floe_log_object_bytes_total").increment(encoded.size);
        let batches = entries.into_iter().zip(encoded.positions).map(place).collect();
        let uploaded = Uploaded { object, owner: self.ids.owner(), size: encoded.size, batches };
        Ok(Stored { uploaded, taken, written })
    }

    /// The same for a caller that commits the object itself; the id's lease is kept for it.
    pub(crate) async fn upload_detached(&self, entries: Vec<Entry>) -> Result<Uploaded, AppendError> {
        let stored = self.upload(entries).await?;
        self.ids.detach(&stored.taken);
        drop(self.cache.publish(stored.uploaded.object, stored.written));
        Ok(stored.uploaded)
    }
}

/// How long an upload to a remote store may take.
fn patience(bytes: u64) -> Duration {
    (UPLOAD_TIMEOUT + Duration::from_secs(bytes / UPLOAD_BYTES_PER_SECOND)).min(UPLOAD_TIMEOUT_MAX)
}

fn place((entry, position): (Entry, u64)) -> Placed {
    Placed { partition: entry.partition, writer: entry.writer, position, header: entry.header }
}

/// The requests of one object.
struct Waiting {
    answers: Vec<(usize, oneshot::Sender<Answers>)>,
    bytes: usize,
    arrived: Instant,
    /// If all batches are of one writer, the commit is in its name.
    writer: Option<Writer>,
}

/// Answers the requests of one object when their commit is durable.
type Commit = BoxFuture<'static, ()>;
type Upload = Task<(Waiting, Result<Stored, AppendError>)>;

/// The task that makes objects of requests.
pub(crate) struct WalWriter {
    pub(crate) uploader: Uploader,
    pub(crate) meta: Meta,
    pub(crate) pace: Pace,
    pub(crate) intake: Intake,
    /// PUTs under way.
    pub(crate) in_flight: Arc<AtomicUsize>,
}

impl WalWriter {
    /// Runs until the intake is closed and everything is answered.
    pub(crate) async fn run(self) {
        let mut uploads: VecDeque<Upload> = VecDeque::new();
        let mut commits: FuturesUnordered<Commit> = FuturesUnordered::new();
        loop {
            let mut look_again = None;
            while uploads.len() < self.pace.uploads_max * 2 {
                match self.intake.take(&self.pace, self.in_flight.load(Ordering::SeqCst)) {
                    Ok(requests) => uploads.push_back(self.start(requests)),
                    Err(due) => {
                        look_again = due;
                        break;
                    }
                }
            }
            if uploads.is_empty() && self.intake.finished() {
                break;
            }
            tokio::select! {
                biased;
                Some(()) = commits.next() => {}
                // Only the oldest: commits are made in order.
                stored = next(&mut uploads) => {
                    commits.extend(stored.and_then(|(waiting, stored)| self.commit(waiting, stored)));
                }
                () = self.intake.shared.wake.notified() => {}
                () = until(look_again) => {}
            }
        }
        while let Some(()) = commits.next().await {}
    }

    fn start(&self, requests: Vec<Request>) -> Upload {
        let arrived = requests.first().expect("an object has requests").arrived;
        let mut waiting = Waiting { answers: Vec::new(), bytes: 0, arrived, writer: None };
        let mut entries = Vec::new();
        for request in requests {
            waiting.bytes += request.bytes;
            waiting.answers.push((request.entries.len(), request.answer));
            entries.extend(request.entries);
        }
        let first = entries.first().map(|entry| &entry.writer);
        waiting.writer = first.filter(|first| entries.iter().all(|entry| entry.writer == **first)).cloned();
        let flight = Flight::begin(&self.in_flight, &self.intake);
        let uploader = self.uploader.clone();
        self.uploader.env.spawn_vital("wal upload", async move {
            let stored = uploader.upload(entries).await;
            drop(flight);
            (waiting, stored)
        })
    }

    /// Hands the commit to the metadata, here and now; what is returned answers when it is durable.
    fn commit(&self, waiting: Waiting, stored: Result<Stored, AppendError>) -> Option<Commit> {
        let intake = self.intake.clone();
        let Stored { uploaded, taken, written } = match stored {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, batches = waiting.batches(), "an upload failed, its batches are refused");
                waiting.refuse(&error, &intake);
                return None;
            }
        };
        let object = uploaded.object;
        // Before the commit, so that a reader who sees the extents finds their bytes.
        let evicted = self.uploader.cache.publish(object, written);
        let envelope = match &waiting.writer {
            Some(writer) => Envelope::client(writer.principal.clone(), writer.client_id.clone()),
            None => Envelope::broker("append"),
        };
        let sequenced =
            self.meta.enqueue(envelope, move |tx| Ok::<_, Infallible>(sequencer::sequence(tx, &uploaded)));
        // Not on the way of the commit: what was evicted may be many buffers.
        drop(evicted);
        let (env, cache) = (self.uploader.env.clone(), self.uploader.cache.clone());
        Some(Box::pin(async move {
            let committed = sequenced.await;
            drop(taken);
            finish(&env, &cache, &intake, object, waiting, committed);
        }))
    }
}

fn finish(
    env: &Env,
    cache: &Cache,
    intake: &Intake,
    object: ObjectId,
    waiting: Waiting,
    committed: Result<Committed<Answers>, CommitError<Infallible>>,
) {
    let error = match committed {
        Ok(committed) => {
            let took = env.monotonic() - waiting.arrived;
            metrics::histogram!("floe_log_append_seconds").record(took.as_secs_f64());
            waiting.answer(committed.reply, intake);
            return;
        }
        Err(CommitError::NotApplied(reason)) => {
            cache.forget(object);
            AppendError::Unavailable(reason)
        }
        Err(CommitError::Unknown(reason)) => AppendError::Unknown(reason),
        Err(CommitError::Closed) => AppendError::Unknown("the broker is shutting down".into()),
        Err(CommitError::Refused(never)) => match never {},
    };
    tracing::warn!(%object, %error, batches = waiting.batches(), "a commit failed, its batches are refused");
    waiting.refuse(&error, intake);
}

impl Waiting {
    fn batches(&self) -> usize {
        self.answers.iter().map(|(batches, _)| batches).sum()
    }

    fn answer(self, all: Answers, intake: &Intake) {
        intake.answered(self.bytes, None);
        self.tell(all);
    }

    fn refuse(self, error: &AppendError, intake: &Intake) {
        intake.answered(self.bytes, Some(error));
        let all = vec![Err(error.clone()); self.batches()];
        self.tell(all);
    }

    fn tell(self, mut all: Answers) {
        assert_eq!(all.len(), self.batches(), "each batch has one answer");
        for (batches, answer) in self.answers {
            let rest = all.split_off(batches);
            // A caller that is gone does not want its answer.
            drop(answer.send(all));
            all = rest;
        }
    }
}

/// Counts a PUT while it is under way, however it ends.
struct Flight {
    in_flight: Arc<AtomicUsize>,
    intake: Intake,
}

impl Flight {
    fn begin(in_flight: &Arc<AtomicUsize>, intake: &Intake) -> Flight {
        let now = in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        metrics::gauge!("floe_log_uploads_in_flight").set(now as f64);
        Flight { in_flight: Arc::clone(in_flight), intake: intake.clone() }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "an upload ends once");
        metrics::gauge!("floe_log_uploads_in_flight").set(before as f64 - 1.0);
        self.intake.shared.wake.notify_one();
    }
}

/// The outcome of the oldest upload. None if its task was dropped; whoever waited for it is told by that.
async fn next(uploads: &mut VecDeque<Upload>) -> Option<(Waiting, Result<Stored, AppendError>)> {
    let Some(oldest) = uploads.front_mut() else {
        return std::future::pending().await;
    };
    let outcome = oldest.await;
    uploads.pop_front();
    outcome.ok()
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
