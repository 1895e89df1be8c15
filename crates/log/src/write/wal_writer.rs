//! The WAL writer. It turns requests of all connections and partitions into WAL objects. Uploads overlap; commits
//! keep order.
//!
//! ```text
//! append ──▶ waiting requests ──▶ upload task (id, encode, PUT) ──▶ commits in order ──▶ answers
//!             taken when an object    several at a time               the order of taking
//!             is full, old enough,
//!             or no upload is in flight
//! ```
//! Order: requests are queued in the order of [`Log::append`](crate::handle::Log::append), and objects take them in
//! that order. Commits go to the metadata in the order in which their objects were closed. So the earlier of two
//! appends of one connection gets the lower offsets, although their uploads overlap.
//!
//! An object becomes visible only by its commit, and is committed only after its PUT succeeded. If a PUT failed or
//! its outcome is unknown, its batches are certainly not in the log. They are answered as not appended, later
//! objects continue, and the cleaner deletes what the PUT may have left.

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

use crate::format::wal::WalEntry;
use crate::limits::COMMITS_OPEN_MAX;
use crate::map::identity::Writer;
use crate::map::ids::ObjectId;
use crate::map::object;
use crate::read::cache::Cache;
use crate::start::session::OwnSession;
use crate::write::intake::{Answers, Intake, Pace, Request};
use crate::write::order::{Entered, Order};
use crate::write::sequencer::{self, AppendError};
use crate::write::uploader::{Stored, Uploader};

/// The unanswered requests of one object.
struct ObjectRequests {
    answers: Vec<(usize, oneshot::Sender<Answers>)>,
    /// The batches of idempotent producers, by their places among all batches.
    entered: Vec<(usize, Entered)>,
    order: Order,
    bytes: usize,
    arrived: Instant,
    /// The common writer of all batches, if there is one: the commit is in its name.
    writer: Option<Writer>,
}

/// Answers the requests of one object once their commit is durable.
type Commit = BoxFuture<'static, ()>;
type Upload = Task<(ObjectRequests, Result<Stored, AppendError>)>;

/// The task that turns requests into objects.
pub(crate) struct WalWriter {
    pub(crate) uploader: Uploader,
    pub(crate) meta: Meta,
    pub(crate) pace: Pace,
    pub(crate) intake: Intake,
    pub(crate) order: Order,
    pub(crate) session: OwnSession,
    /// PUTs in flight.
    pub(crate) in_flight: Arc<AtomicUsize>,
}

impl WalWriter {
    /// Runs until the intake is closed and every request is answered.
    pub(crate) async fn run(self) {
        let mut uploads: VecDeque<Upload> = VecDeque::new();
        let mut commits: FuturesUnordered<Commit> = FuturesUnordered::new();
        loop {
            let mut look_again = None;
            while uploads.len() < self.pace.uploads_max * 2 && commits.len() < COMMITS_OPEN_MAX {
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
                // Only the oldest upload, because commits keep order.
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
        let order = self.order.clone();
        let (answers, entered) = (Vec::new(), Vec::new());
        let mut waiting = ObjectRequests { answers, entered, order, bytes: 0, arrived, writer: None };
        let mut entries: Vec<WalEntry> = Vec::new();
        for request in requests {
            waiting.bytes += request.bytes;
            let places = entries.len()..;
            waiting.entered.extend(places.zip(&request.entered).filter_map(|(at, e)| Some((at, (*e)?))));
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

    /// Hands the commit to the metadata at once. The returned future answers the requests when the commit is
    /// durable.
    fn commit(&self, waiting: ObjectRequests, stored: Result<Stored, AppendError>) -> Option<Commit> {
        let intake = self.intake.clone();
        let Stored { uploaded, taken } = match stored {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, batches = waiting.batches(), "an upload failed, its batches are refused");
                waiting.refuse(&error, &intake);
                return None;
            }
        };
        let object = uploaded.object;
        let envelope = match &waiting.writer {
            Some(writer) => Envelope::client(writer.principal.clone(), writer.client_id.clone()),
            None => Envelope::broker("append"),
        };
        let renewal = self.session.due();
        let sequenced = self.meta.enqueue(envelope, move |tx| {
            if let Some(Err(error)) = renewal.map(|renewal| renewal.apply(tx)) {
                tracing::warn!(%error, "the session of this broker cannot be read");
            }
            Ok::<_, Infallible>(sequencer::sequence(tx, &uploaded))
        });
        let (env, cache) = (self.uploader.env.clone(), self.uploader.cache.clone());
        Some(Box::pin(async move {
            let committed = sequenced.await;
            match &committed {
                Ok(committed) if object::is_named(&committed.snapshot, taken.id) => taken.named(),
                _ => drop(taken),
            }
            finish(&env, &cache, &intake, object, waiting, committed);
        }))
    }
}

fn finish(
    env: &Env,
    cache: &Cache,
    intake: &Intake,
    object: ObjectId,
    waiting: ObjectRequests,
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

impl ObjectRequests {
    fn batches(&self) -> usize {
        self.answers.iter().map(|(batches, _)| batches).sum()
    }

    fn answer(self, all: Answers, intake: &Intake) {
        let crowded = |answer: &&Result<_, _>| matches!(answer, Err(AppendError::TooManyProducers { .. }));
        let refused = all.iter().filter(crowded).count();
        metrics::counter!("floe_log_producers_refused_total").increment(refused as u64);
        intake.answered(self.bytes, self.batches(), None);
        self.tell(all);
    }

    fn refuse(self, error: &AppendError, intake: &Intake) {
        intake.answered(self.bytes, self.batches(), Some(error));
        let all = vec![Err(error.clone()); self.batches()];
        self.tell(all);
    }

    fn tell(self, mut all: Answers) {
        assert_eq!(all.len(), self.batches(), "each batch has one answer");
        for (at, entered) in self.entered {
            self.order.leave(entered, all[at].as_ref().map(|_| ()));
        }
        for (batches, answer) in self.answers {
            let rest = all.split_off(batches);
            // A caller that is gone does not want its answer.
            drop(answer.send(all));
            all = rest;
        }
    }
}

/// Counts a PUT while it is in flight, however it ends.
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

/// The outcome of the oldest upload; `None` if its task was dropped, which also drops the answers.
async fn next(uploads: &mut VecDeque<Upload>) -> Option<(ObjectRequests, Result<Stored, AppendError>)> {
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
