//! What all connections of a run share: its clock, its end, and how far it is.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use floe_env::{Env, Task, TaskEnded, lock, watch};
use tokio::time::Instant;

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// It came to its end.
    Done,
    /// It was asked to stop.
    Interrupted,
    /// It could not go on.
    Failed(String),
}

/// One run. Its time begins when all connections are there.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) env: Env,
    /// Within which a request must be answered.
    pub(super) timeout: Duration,
    began: Instant,
    ended: Mutex<Option<(Ended, Duration)>>,
    over: watch::Sender<bool>,
    /// Records measured so far.
    records: AtomicU64,
    /// Bytes measured so far.
    bytes: AtomicU64,
}

impl Run {
    /// A run that begins now.
    pub(super) fn begin(env: &Env, timeout: Duration) -> Run {
        Run {
            env: env.clone(),
            timeout,
            began: env.monotonic(),
            ended: Mutex::default(),
            over: watch::Sender::new(false),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// The time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.env.monotonic() - self.began
    }

    /// The same moment on the clock of timers.
    pub(super) fn at(&self, time: Duration) -> Instant {
        self.began + time
    }

    /// Ends the run. The first reason counts, but a failure counts more than an end that went well.
    pub(super) fn end(&self, why: Ended) {
        let mut ended = lock(&self.ended);
        match &*ended {
            Some((Ended::Failed(_), _)) => {}
            Some((_, at)) if matches!(why, Ended::Failed(_)) => *ended = Some((why, *at)),
            Some(_) => {}
            None => *ended = Some((why, self.now())),
        }
        drop(ended);
        self.over.send_replace(true);
    }

    /// Ends the run as failed.
    pub(super) fn fail(&self, why: &anyhow::Error) {
        self.end(Ended::Failed(format!("{why:#}")));
    }

    /// Why and when it ended; `None` while it goes on.
    pub(super) fn ended(&self) -> Option<(Ended, Duration)> {
        lock(&self.ended).clone()
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits for its end.
    pub(super) async fn over(&self) {
        // The sender lives as long as the run.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Waits for a future, or for the end of the run: then `None`.
    pub(super) async fn unless_over<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.over() => None,
            value = future => Some(value),
        }
    }

    /// Adds to what was measured so far.
    pub(super) fn count(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The records and the bytes measured so far.
    pub(super) fn counted(&self) -> (u64, u64) {
        (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// The values of all tasks. A task that panicked is an error.
pub(super) async fn join<T>(tasks: Vec<Task<T>>) -> Result<Vec<T>, TaskEnded> {
    let mut values = Vec::with_capacity(tasks.len());
    for task in tasks {
        values.push(task.await?);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_end_counts_unless_something_failed() {
        let run = Run::begin(&Env::simulated(1), Duration::from_secs(1));
        assert_eq!((run.ended(), run.is_over()), (None, false));
        tokio::time::sleep(Duration::from_secs(2)).await;
        run.end(Ended::Interrupted);
        run.end(Ended::Done);
        assert_eq!(run.ended(), Some((Ended::Interrupted, Duration::from_secs(2))));
        run.fail(&anyhow::anyhow!("cause").context("effect"));
        run.end(Ended::Done);
        assert_eq!(run.ended().map(|(why, _)| why), Some(Ended::Failed("effect: cause".to_owned())));
        run.over().await;
        assert_eq!(run.unless_over(std::future::pending::<()>()).await, None);
    }
}
