//! The background work of a view's output: bounded pieces that no step waits for.
//!
//! The owner of a topic's view also does the jobs of its output, one piece after the other. So the lease of the view is
//! the lease of its jobs, there is one writer, and a piece that was begun under an epoch is adopted under the same
//! epoch or not at all. A piece works beside the steps, and makes nothing visible. Once it is done, the runner adopts
//! it with a commit of its own, between two steps. All views of a process share [`limits::JOBS_AT_WORK`] turns. While a
//! piece is at work the runner renews the lease, so that no other process begins it anew.

use std::sync::Arc;

use floe_env::{Backoff, Task};
use floe_log::topic::Topic;
use metrics::{counter, histogram};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::{
    contract::View, error::ViewError, labels::topic_label, limits, ownership::Owned, shared::Shared,
};

/// What the jobs of one topic are doing.
pub(crate) struct Jobs<V: View> {
    piece: Option<Piece<V>>,
    backoff: Backoff,
    /// When the next piece may begin, after a failure.
    not_before: Option<Instant>,
}

/// A piece that is at work, or done.
struct Piece<V: View> {
    job: &'static str,
    epoch: u64,
    begun: Instant,
    /// When the lease was last renewed for it.
    renewed: Instant,
    task: Task<Result<V::Made, ViewError>>,
    done: Option<Result<V::Made, ViewError>>,
}

impl<V: View> Drop for Piece<V> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<V: View> Jobs<V> {
    pub(crate) fn new(shared: &Shared<V>) -> Jobs<V> {
        let backoff = Backoff::new(&shared.env, limits::JOB_BACKOFF_MIN, limits::JOB_BACKOFF_MAX);
        Jobs { piece: None, backoff, not_before: None }
    }

    /// Begins the next piece, unless one is at work. Returns the name of its job.
    pub(crate) fn begin(
        &mut self,
        shared: &Arc<Shared<V>>,
        topic: &Topic,
        owned: &Owned<V>,
    ) -> Option<&'static str> {
        let now = shared.env.monotonic();
        if self.piece.as_ref().is_some_and(|piece| piece.epoch != owned.epoch) {
            self.piece = None;
        }
        let Some(job) = shared.view.job(topic, &owned.output) else {
            self.piece = None;
            // A pause that is over would wake the runner for nothing, again and again.
            self.not_before = self.not_before.filter(|then| now < *then);
            return None;
        };
        let (name, waits) = (job.name, self.not_before.is_some_and(|then| now < then));
        if self.piece.is_some() || waits {
            return Some(name);
        }
        self.not_before = None;
        let turns = Arc::clone(shared);
        let work = async move {
            let _turn = turns.jobs_at_work.acquire().await.map_err(|_| ViewError::Closed)?;
            job.work.await
        };
        let task = shared.env.spawn("view job", work);
        self.piece =
            Some(Piece { job: name, epoch: owned.epoch, begun: now, renewed: now, task, done: None });
        Some(name)
    }

    /// Whether a piece is done and waits to be adopted.
    pub(crate) fn is_done(&self) -> bool {
        self.piece.as_ref().is_some_and(|piece| piece.done.is_some() || piece.task.is_finished())
    }

    /// Whether the lease has to be renewed for a piece at work. Asked once for each renewal.
    pub(crate) fn wants_renewal(&mut self, now: Instant) -> bool {
        let Some(piece) = &mut self.piece else { return false };
        let wants = now.duration_since(piece.renewed) >= limits::JOB_RENEWAL_INTERVAL;
        if wants {
            piece.renewed = now;
        }
        wants
    }

    /// Waits until there is something to do for the runner: a piece is done, its lease has to be renewed, or the next
    /// may begin.
    pub(crate) async fn wait(&mut self) {
        match (&mut self.piece, self.not_before) {
            (Some(piece), _) => {
                let renewal = piece.renewed + limits::JOB_RENEWAL_INTERVAL;
                tokio::select! {
                    biased;
                    () = piece.finish() => {}
                    () = sleep_until(renewal) => {}
                }
            }
            (None, Some(then)) => sleep_until(then).await,
            (None, None) => std::future::pending().await,
        }
    }

    /// What the piece has made that is done, if it was begun under this epoch. A failure is noted, and the piece begins
    /// anew later.
    pub(crate) async fn take(&mut self, shared: &Shared<V>, topic: &Topic, epoch: u64) -> Option<V::Made> {
        if !self.is_done() {
            return None;
        }
        let mut piece = self.piece.take()?;
        piece.finish().await;
        let labels = [("topic", topic_label(&topic.name)), ("job", piece.job.into())];
        let took = shared.env.monotonic() - piece.begun;
        match piece.done.take()? {
            Ok(made) if piece.epoch == epoch => {
                self.backoff.reset();
                shared.status.job_went(topic.id, shared.env.now(), None);
                histogram!(V::METRICS.job_seconds, &labels).record(took.as_secs_f64());
                info!(topic = %topic.name, job = piece.job, took_ms = took.as_millis(), "a piece of a job is done");
                Some(made)
            }
            // Another process owned the view in between, so the piece may be outdated.
            Ok(_) => None,
            Err(error) => {
                let pause = self.backoff.next_pause();
                self.not_before = Some(shared.env.monotonic() + pause);
                shared.status.job_went(topic.id, shared.env.now(), Some(error.to_string()));
                counter!(V::METRICS.job_errors, &labels).increment(1);
                warn!(
                    topic = %topic.name,
                    job = piece.job,
                    %error,
                    pause_ms = pause.as_millis(),
                    "a piece of a job failed, it will be tried again; the view goes on"
                );
                None
            }
        }
    }
}

impl<V: View> Piece<V> {
    async fn finish(&mut self) {
        if self.done.is_none() {
            let ended = (&mut self.task).await;
            self.done = Some(ended.unwrap_or_else(|ended| Err(ViewError::output(ended))));
        }
    }
}
