//! The WAL writer. It turns requests of all connections and partitions into WAL objects, or into bytes that ride with
//! commits of the journal.
//!
//! ```text
//!                                the journal carries their bytes
//! append ──▶ waiting requests ──┬──────────────────────────────────────────┬──▶ commits in order ──▶ answers
//!                               └──▶ upload task (id, encode, PUT) ─────────┘     the order of taking
//!                                    several at a time
//! ```
//! Requests are taken when there are enough for an object or a frame, when the first is old enough, or when nothing
//! holds them up: no upload is in flight, or no commit waits behind the one that is being written.
//!
//! Order: requests are queued in the order of [`Log::append`](crate::handle::Log::append), and objects and frames take
//! them in that order. Commits go to the metadata in the order in which they were closed. So the earlier of two appends
//! of one connection gets the lower offsets, although their uploads overlap.
//!
//! An object becomes visible only by its commit, and is committed only after its PUT succeeded. If a PUT failed or
//! its outcome is unknown, its batches are certainly not in the log. They are answered as not appended, later
//! objects continue, and the cleaner deletes what the PUT may have left. Bytes that ride with a commit are there if and
//! only if the commit is: one write, one sync, and nothing to clean up. The first requests of a process are an object
//! all the same.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use floe_env::{Env, Task};
use floe_meta::{Attachment, CommitError, Committed, Envelope, Meta, Tx};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::format::payload::{self, Payload};
use crate::format::wal::WalEntry;
use crate::limits::COMMITS_OPEN_MAX;
use crate::map::format_level::{self, WITH_LSNS};
use crate::map::identity::Writer;
use crate::map::object;
use crate::read::cache::Copied;
use crate::read::frames::Frames;
use crate::read::source::Source;
use crate::start::session::{OwnSession, Renewal};
use crate::write::intake::{Answers, Busy, Intake, Lot, Pace, Request};
use crate::write::order::{Entered, Order};
use crate::write::sequencer::{self, AppendError, Placed};
use crate::write::uploader::{Stored, Uploader};

/// The unanswered requests of one object or frame.
struct Unanswered {
    answers: Vec<(usize, oneshot::Sender<Answers>)>,
    /// The batches of idempotent producers, by their places among all batches.
    entered: Vec<(usize, Entered)>,
    order: Order,
    bytes: usize,
    arrived: Instant,
    /// The common writer of all batches, if there is one: the commit is in its name.
    writer: Option<Writer>,
}

/// Answers the requests of one object or frame once their commit is durable.
type Commit = BoxFuture<'static, ()>;
type Upload = Task<(Unanswered, Result<Stored, AppendError>)>;

/// Requests that were taken together, in the order of taking.
enum Closed {
    /// An object that is being uploaded.
    Upload(Upload),
    /// Bytes that will ride with the commit.
    Frame(Box<Laid>),
}

/// Requests whose bytes are laid out for their commit.
struct Laid {
    waiting: Unanswered,
    payload: Payload,
    batches: Vec<Placed>,
    /// Held until the commit is answered.
    open: Arc<()>,
}

/// Requests whose commit is due.
enum Ready {
    Object(Box<Unanswered>, Box<Result<Stored, AppendError>>),
    Frame(Box<Laid>),
}

/// The task that turns requests into objects.
pub(crate) struct WalWriter {
    uploader: Uploader,
    meta: Meta,
    pace: Pace,
    intake: Intake,
    order: Order,
    session: OwnSession,
    frames: Frames,
    /// Its clones are the commits with bytes that are not answered.
    open: Arc<()>,
    /// PUTs in flight.
    in_flight: Arc<AtomicUsize>,
}

impl WalWriter {
    pub(crate) fn new(
        uploader: &Uploader,
        meta: &Meta,
        pace: Pace,
        (intake, order): (&Intake, &Order),
        session: &OwnSession,
        frames: &Frames,
    ) -> WalWriter {
        WalWriter {
            uploader: uploader.clone(),
            meta: meta.clone(),
            pace,
            intake: intake.clone(),
            order: order.clone(),
            session: session.clone(),
            frames: frames.clone(),
            open: Arc::default(),
            in_flight: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Runs until the intake is closed and every request is answered.
    pub(crate) async fn run(self) {
        let mut closed: VecDeque<Closed> = VecDeque::new();
        let mut commits: FuturesUnordered<Commit> = FuturesUnordered::new();
        loop {
            let mut look_again = None;
            while closed.len() < self.pace.uploads_max * 2 && commits.len() < COMMITS_OPEN_MAX {
                match self.intake.take(&self.pace, &self.busy()) {
                    Ok(Lot::Object(requests)) => closed.push_back(Closed::Upload(self.upload(requests))),
                    Ok(Lot::Frame(requests)) => closed.push_back(Closed::Frame(self.lay_out(requests))),
                    Err(due) => {
                        look_again = due;
                        break;
                    }
                }
            }
            if closed.is_empty() && self.intake.finished() {
                break;
            }
            tokio::select! {
                biased;
                Some(()) = commits.next() => {}
                // Only the oldest, because commits keep order.
                ready = next(&mut closed) => match ready {
                    Some(Ready::Object(waiting, stored)) => commits.extend(self.commit(*waiting, *stored)),
                    Some(Ready::Frame(laid)) => commits.push(self.commit_frame(*laid)),
                    None => {}
                },
                () = self.intake.stirred() => {}
                () = until(look_again) => {}
            }
        }
        while let Some(()) = commits.next().await {}
    }

    fn busy(&self) -> Busy {
        let (uploads, frames) = (self.in_flight.load(Ordering::SeqCst), Arc::strong_count(&self.open) - 1);
        let carries = self.meta.carries();
        // Older brokers of the same map do not know where such bytes are. A level that cannot be read is low.
        let known = || format_level::get(&self.meta.snapshot()).is_ok_and(|level| level >= WITH_LSNS);
        // The first requests of a process are an object. Its id notes in the store that there is something that an
        // older copy of the journal does not have (`start/writers.rs`).
        // While merging is behind, the room in the journal is for what has no other place.
        let may = carries > 0 && self.uploader.ids.noted() && known() && !self.meta.crowded();
        Busy { uploads, frames, carries: if may { carries } else { 0 } }
    }

    fn upload(&self, requests: Vec<Request>) -> Upload {
        let (waiting, entries) = self.unanswered(requests);
        let flight = Flight::begin(&self.in_flight, &self.intake);
        let uploader = self.uploader.clone();
        self.uploader.env.spawn_vital("wal upload", async move {
            let stored = uploader.upload(entries).await;
            drop(flight);
            (waiting, stored)
        })
    }

    fn lay_out(&self, requests: Vec<Request>) -> Box<Laid> {
        let (waiting, entries) = self.unanswered(requests);
        let payload = payload::lay_out(&entries);
        let batches = entries.into_iter().zip(&payload.positions).map(|(e, at)| e.placed(*at)).collect();
        Box::new(Laid { waiting, payload, batches, open: Arc::clone(&self.open) })
    }

    fn unanswered(&self, requests: Vec<Request>) -> (Unanswered, Vec<WalEntry>) {
        let arrived = requests.first().expect("requests are taken together").arrived;
        let order = self.order.clone();
        let (answers, entered) = (Vec::new(), Vec::new());
        let mut waiting = Unanswered { answers, entered, order, bytes: 0, arrived, writer: None };
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
        (waiting, entries)
    }

    /// Hands a commit and its bytes to the metadata at once. The returned future answers the requests when both are
    /// durable.
    fn commit_frame(&self, laid: Laid) -> Commit {
        let Laid { waiting, payload, batches, open } = laid;
        let (bytes, env, intake) = (payload.bytes, self.uploader.env.clone(), self.intake.clone());
        let copied = Arc::new(Copied::new(payload.pieces.clone(), payload.alone));
        let attachment = Attachment::new(payload.pieces, payload.crc);
        let stored = {
            let (frames, cache, copied) = (self.frames.clone(), self.uploader.cache.clone(), copied.clone());
            move |lsn, _| {
                frames.brought(lsn, bytes);
                cache.keep(Source::Frame(lsn), &copied);
            }
        };
        let renewal = self.session.due();
        let sequenced = self.meta.commit_attached(waiting.envelope(), attachment, stored, move |tx| {
            renew(renewal.as_ref(), tx);
            Ok::<_, Infallible>(sequencer::sequence_attached(tx, bytes, &batches))
        });
        // While the journal works.
        self.uploader.cache.prepare(&copied);
        let frames = self.frames.clone();
        Box::pin(async move {
            let committed = sequenced.await;
            match &committed {
                Ok(_) => metrics::counter!("floe_log_attached_bytes_total").increment(bytes),
                Err(CommitError::Unknown(_)) => frames.doubt(),
                Err(_) => {}
            }
            drop(open);
            finish(&env, &intake, "the bytes of a commit", waiting, committed);
        })
    }

    /// Hands the commit to the metadata at once. The returned future answers the requests when the commit is
    /// durable.
    fn commit(&self, waiting: Unanswered, stored: Result<Stored, AppendError>) -> Option<Commit> {
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
        let renewal = self.session.due();
        let sequenced = self.meta.enqueue(waiting.envelope(), move |tx| {
            renew(renewal.as_ref(), tx);
            Ok::<_, Infallible>(sequencer::sequence(tx, &uploaded))
        });
        let (env, cache) = (self.uploader.env.clone(), self.uploader.cache.clone());
        Some(Box::pin(async move {
            let committed = sequenced.await;
            match &committed {
                Ok(committed) if object::is_named(&committed.snapshot, taken.id) => taken.named(),
                _ => drop(taken),
            }
            if matches!(committed, Err(CommitError::NotApplied(_))) {
                cache.forget(Source::Object(object));
            }
            finish(&env, &intake, &format!("object {object}"), waiting, committed);
        }))
    }
}

/// Part of a command: renews the session of this broker, if that is due.
fn renew(renewal: Option<&Renewal>, tx: &mut Tx<'_>) {
    if let Some(Err(error)) = renewal.map(|renewal| renewal.apply(tx)) {
        tracing::warn!(%error, "the session of this broker cannot be read");
    }
}

fn finish(
    env: &Env,
    intake: &Intake,
    what: &str,
    waiting: Unanswered,
    committed: Result<Committed<Answers>, CommitError<Infallible>>,
) {
    let error = match committed {
        Ok(committed) => {
            let took = env.monotonic() - waiting.arrived;
            metrics::histogram!("floe_log_append_seconds").record(took.as_secs_f64());
            waiting.answer(committed.reply, intake);
            return;
        }
        Err(CommitError::NotApplied(reason)) => AppendError::Unavailable(reason),
        Err(CommitError::Unknown(reason)) => AppendError::Unknown(reason),
        Err(CommitError::Closed) => AppendError::Unknown("the broker is shutting down".into()),
        Err(CommitError::Refused(never)) => match never {},
    };
    tracing::warn!(what, %error, batches = waiting.batches(), "a commit failed, its batches are refused");
    waiting.refuse(&error, intake);
}

impl Unanswered {
    /// The commit is in the name of the common writer, if there is one.
    fn envelope(&self) -> Envelope {
        match &self.writer {
            Some(writer) => Envelope::client(writer.principal.clone(), writer.client_id.clone()),
            None => Envelope::broker("append"),
        }
    }

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

/// The oldest requests whose commit is due; `None` if the task of their upload was dropped, which also drops the
/// answers.
async fn next(closed: &mut VecDeque<Closed>) -> Option<Ready> {
    let outcome = match closed.front_mut() {
        None => return std::future::pending().await,
        Some(Closed::Frame(_)) => None,
        Some(Closed::Upload(upload)) => Some(upload.await),
    };
    match (closed.pop_front(), outcome) {
        (Some(Closed::Frame(laid)), _) => Some(Ready::Frame(laid)),
        (_, outcome) => {
            outcome?.ok().map(|(waiting, stored)| Ready::Object(Box::new(waiting), Box::new(stored)))
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
