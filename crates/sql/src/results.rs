//! The way from a running statement to the reader of its rows: a short queue, and how the statement ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use floe_env::{Env, lock};
use floe_query::{Kind, QueryError};

use crate::limits::{READER_SECONDS_MAX, RESULT_BATCHES_IN_FLIGHT};

/// A batch in the queue, or a piece of encoded rows. The statement takes it back when nobody reads it.
type Slot<T> = Arc<Mutex<Option<T>>>;

/// The statement's end.
pub(crate) struct Rows<T> {
    queue: mpsc::Sender<Slot<T>>,
    outcome: Arc<OnceLock<Result<(), QueryError>>>,
    in_flight: Mutex<VecDeque<Slot<T>>>,
}

/// The reader's end. Dropping it ends the statement.
pub(crate) struct Reader<T> {
    queue: mpsc::Receiver<Slot<T>>,
    outcome: Arc<OnceLock<Result<(), QueryError>>>,
}

/// Both ends.
pub(crate) fn queue<T>() -> (Rows<T>, Reader<T>) {
    let (sender, receiver) = mpsc::channel(RESULT_BATCHES_IN_FLIGHT);
    let outcome = Arc::new(OnceLock::new());
    let rows = Rows { queue: sender, outcome: outcome.clone(), in_flight: Mutex::default() };
    (rows, Reader { queue: receiver, outcome })
}

impl<T> Rows<T> {
    /// Hands a batch to the reader, and waits while the queue is full. Returns `false` when the reader has left.
    ///
    /// # Errors
    /// Nobody has read for [`READER_SECONDS_MAX`]. Then the batches in the queue are freed.
    pub(crate) async fn send(&self, batch: T) -> Result<bool, QueryError> {
        let slot = Arc::new(Mutex::new(Some(batch)));
        {
            let mut in_flight = lock(&self.in_flight);
            in_flight.push_back(slot.clone());
            while in_flight.len() > RESULT_BATCHES_IN_FLIGHT + 1 {
                in_flight.pop_front();
            }
        }
        match timeout(READER_SECONDS_MAX, self.queue.send(slot)).await {
            Ok(sent) => Ok(sent.is_ok()),
            Err(_) => {
                metrics::counter!("floe_sql_unread_results_total").increment(1);
                lock(&self.in_flight).drain(..).for_each(|slot| drop(lock(&slot).take()));
                Err(unread())
            }
        }
    }

    /// Says how the statement ended. The first word counts.
    pub(crate) fn end(&self, outcome: Result<(), QueryError>) {
        // The reader learns it when the queue is empty and this end is gone.
        let _ = self.outcome.set(outcome);
    }

    /// Returns when the reader has left.
    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Whether the reader has left.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl<T: Send + 'static> Reader<T> {
    /// The next batch; `Ok(None)` at the end of a complete result. `Err(None)` when the statement has ended without a
    /// word.
    async fn next(&mut self) -> Result<Option<T>, Option<QueryError>> {
        if let Some(slot) = self.queue.recv().await {
            // The statement has taken back what was not read in time.
            return lock(&slot).take().map_or_else(|| Err(Some(unread())), |batch| Ok(Some(batch)));
        }
        match self.outcome.get() {
            Some(Ok(())) => Ok(None),
            Some(Err(error)) => Err(Some(error.clone())),
            None => Err(None),
        }
    }

    /// All batches until `deadline`, and `late` after it. `ended` is the error of a statement that ended without a
    /// word.
    pub(crate) fn until(
        self,
        deadline: Instant,
        env: Env,
        late: QueryError,
        ended: QueryError,
    ) -> BoxStream<'static, Result<T, QueryError>> {
        let next = move |reader: Option<Reader<T>>| {
            let (late, ended, env) = (late.clone(), ended.clone(), env.clone());
            async move {
                let mut reader = reader?;
                match timeout_at(deadline, reader.next()).await {
                    Ok(Ok(Some(batch))) => Some((Ok(batch), Some(reader))),
                    Ok(Ok(None)) => None,
                    Ok(Err(Some(error))) => Some((Err(error), None)),
                    Ok(Err(None)) if env.monotonic() >= deadline => Some((Err(late), None)),
                    Ok(Err(None)) => Some((Err(ended), None)),
                    Err(_) => Some((Err(late), None)),
                }
            }
        };
        stream::unfold(Some(self), next).boxed()
    }
}

fn unread() -> QueryError {
    let seconds = READER_SECONDS_MAX.as_secs();
    let message = format!(
        "nobody read the result for {seconds} s, so other statements got its turn; read it as it comes, or ask for \
         fewer rows"
    );
    QueryError::new(Kind::Limit, message)
}
