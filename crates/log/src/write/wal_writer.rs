//! The writer: requests of all connections and partitions become WAL objects, uploads overlap, commits keep order.
//!
//! ```text
//! append ──▶ waiting requests ──▶ upload task (id, encode, PUT) ──▶ commits in order ──▶ answers
//!             taken when an object    several at a time               the order of taking
//!             is full, old enough,
//!             or no upload is under way
//! ```
//! Order: requests are queued in the order of [`Log::append`](crate::handle::Log::append), objects take them in that
//! order, and the commits of objects are handed to the metadata in the order in which the objects were closed. So
//! of two appends of one connection the earlier gets the lower offsets, although their uploads overlap.
//!
//! An object becomes visible only by its commit, and its commit is made only when its PUT has succeeded. If a PUT
//! failed, or nobody knows, its batches are certainly not in the log: they are answered as not appended, later
//! objects go on, and the cleaner deletes what may be there.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use floe_env::{Env, Task};
use floe_meta::{CommitError, Committed, Envelope, Meta};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::map::identity::Writer;
use crate::map::ids::ObjectId;
use crate::read::cache::Cache;
use crate::write::intake::{Answers, Intake, Pace, Request};
use crate::write::sequencer::{self, AppendError};
use crate::write::uploader::{Stored, Uploader};

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
                () = self.intake.stirred() => {}
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
        self.intake.stir();
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
