//! One statement in a worker, as the broker sees it: it answers what the worker asks for, hands the rows to the reader,
//! and ends the statement when nobody reads it or its time is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use floe_env::Env;
use floe_query::{Kind, QueryError};

use super::answers::{Answers, answer};
use super::frame::FrameError;
use super::link::{Link, Out, Received};
use super::message::{FromWorker, Start, ToWorker};
use super::process::{Ending, Process};
use super::spill::Grant;
use super::watch::{Member, Verdict};
use crate::fault;
use crate::limits::{WORKER_CALLS_MAX, WORKER_LEAVE_GRACE, WORKER_START_SECONDS_MAX};
use crate::results::Rows;
use crate::source::here::Cut;
use crate::told;

/// What one statement needs of the pool.
pub(super) struct Needs<'a> {
    pub(super) env: &'a Env,
    pub(super) answers: &'a Answers,
    pub(super) process: &'a Process,
    pub(super) member: &'a Member,
    pub(super) cut: Cut,
    pub(super) kill_at: Instant,
    pub(super) time_max: Duration,
    pub(super) memory_max: u64,
    pub(super) grant: Grant,
    /// True when statements have to end with the broker.
    pub(super) stopping: watch::Receiver<bool>,
}

/// Where the statement's outcome goes.
pub(super) struct Reader {
    /// Told once, when the statement is planned or refused.
    pub(super) planned: Option<oneshot::Sender<Result<(), QueryError>>>,
    pub(super) rows: Arc<Rows<Bytes>>,
}

impl Reader {
    /// Says how the statement ended, to whom it may concern. The first word counts.
    pub(super) fn end(&mut self, outcome: Result<(), QueryError>) {
        match (self.planned.take(), outcome) {
            (Some(planned), outcome) => {
                // The caller may have left.
                let _ = planned.send(outcome.clone());
                self.rows.end(outcome);
            }
            (None, outcome) => self.rows.end(outcome),
        }
    }
}

/// Runs a statement. Returns whether the worker takes the next one.
pub(super) async fn run(needs: Needs<'_>, link: &mut Link, start: Start, reader: &mut Reader) -> bool {
    let number = start.number;
    let verdict = needs.member.begin(link.out.clone(), needs.kill_at);
    if link.out.send(&ToWorker::Start(start), Bytes::new()).await.is_err() {
        reader.end(Err(needs.died(None).await));
        return false;
    }
    let mut talk = Talk {
        out: link.out.clone(),
        reader,
        calls: FuturesUnordered::new(),
        sending: None,
        number,
        is_left: false,
    };
    let end = talk.until_the_end(&needs, link, verdict).await;
    let is_left = talk.is_left;
    // What was asked for is for nobody any more.
    drop(talk);
    let most = needs.member.end();
    metrics::histogram!("floe_sql_statement_memory_bytes").record(most as f64);
    match end {
        End::Ended(outcome) => {
            // A statement that was cut short may leave a function at work, which nothing stops within a row.
            let is_free = !is_left && outcome.as_ref().err().is_none_or(|error| error.kind == Kind::Invalid);
            reader.end(outcome);
            is_free
        }
        End::Judged(verdict) => {
            // The reader need not wait until the system has taken the memory back. The turn does.
            reader.end(Err(needs.judged(verdict)));
            let _ = needs.died(Some(verdict)).await;
            false
        }
        End::Stopped => {
            needs.process.kill();
            reader.end(Err(told::stopping()));
            let _ = timeout(WORKER_START_SECONDS_MAX, needs.process.ended()).await;
            false
        }
        End::Died(verdict) => {
            reader.end(Err(needs.died(verdict).await));
            false
        }
        End::Confused(what) => {
            needs.process.kill();
            let fault = format!("worker {} said what it should not: {what}", needs.process.pid());
            reader.end(Err(fault::logged(needs.env, &fault)));
            false
        }
    }
}

/// How the talk with a worker ended.
enum End {
    /// The statement ended, and the worker is free.
    Ended(Result<(), QueryError>),
    Judged(Verdict),
    /// The broker stops.
    Stopped,
    Died(Option<Verdict>),
    Confused(String),
}

/// The talk with a worker about one statement.
struct Talk<'a> {
    out: Out,
    reader: &'a mut Reader,
    /// Questions that are being answered.
    calls: FuturesUnordered<BoxFuture<'a, ()>>,
    /// A piece of the result on its way to the reader.
    sending: Option<BoxFuture<'static, Result<bool, QueryError>>>,
    /// The statement's number in its worker.
    number: u32,
    /// Whether the worker was told that nobody reads.
    is_left: bool,
}

impl<'a> Talk<'a> {
    async fn until_the_end(
        &mut self,
        needs: &'a Needs<'_>,
        link: &mut Link,
        mut verdict: watch::Receiver<Option<Verdict>>,
    ) -> End {
        let mut stopping = needs.stopping.clone();
        loop {
            let reads = self.sending.is_none() && self.calls.len() < WORKER_CALLS_MAX;
            tokio::select! {
                biased;
                Ok(()) = verdict.changed() => {
                    if let Some(verdict) = *verdict.borrow() {
                        return End::Judged(verdict);
                    }
                }
                () = stops(&mut stopping) => return End::Stopped,
                () = self.reader.rows.closed(), if !self.is_left => self.leave(needs).await,
                Some(()) = self.calls.next() => {}
                sent = sent(&mut self.sending) => {
                    self.sending = None;
                    match sent {
                        Ok(true) => {}
                        Ok(false) => self.leave(needs).await,
                        Err(unread) => {
                            self.reader.rows.end(Err(unread));
                            self.leave(needs).await;
                        }
                    }
                }
                received = link.next(), if reads => {
                    if let Some(end) = self.take(needs, received, *verdict.borrow()) {
                        return end;
                    }
                }
            }
        }
    }

    /// Tells the worker that nobody reads. It has a moment to end.
    async fn leave(&mut self, needs: &Needs<'_>) {
        if std::mem::replace(&mut self.is_left, true) {
            return;
        }
        needs.member.kill_at(needs.env.monotonic() + WORKER_LEAVE_GRACE);
        let leave = ToWorker::Leave { number: self.number };
        // If the worker takes nothing, it is killed in a moment.
        let _ = timeout(WORKER_LEAVE_GRACE, self.out.send(&leave, Bytes::new())).await;
    }

    fn take(
        &mut self,
        needs: &'a Needs<'_>,
        received: Option<Received>,
        verdict: Option<Verdict>,
    ) -> Option<End> {
        let (message, payload) = match received {
            None => return Some(End::Died(verdict)),
            // It ended in the middle of a frame.
            Some(Err(FrameError::Io(_))) => return Some(End::Died(verdict)),
            Some(Err(error)) => return Some(End::Confused(error.to_string())),
            Some(Ok(received)) => received,
        };
        match message {
            FromWorker::Call { call, ask } => {
                let (out, question) = (self.out.clone(), (call, ask, payload));
                self.calls.push(answer(needs.answers, &needs.cut, out, question).boxed());
            }
            FromWorker::Planned => {
                if let Some(planned) = self.reader.planned.take() {
                    let _ = planned.send(Ok(()));
                }
            }
            FromWorker::Rows if self.is_left => {}
            FromWorker::Rows => {
                let rows = self.reader.rows.clone();
                self.sending = Some(async move { rows.send(payload).await }.boxed());
            }
            // If the worker takes nothing now, it asks again.
            FromWorker::Spilled { bytes } => {
                self.out.try_send(&ToWorker::Spill { bytes: needs.grant.more(bytes) });
            }
            FromWorker::Ended { error, counted } => {
                counted.into_iter().for_each(super::counted::Counted::count);
                return Some(End::Ended(error.map_or(Ok(()), Err)));
            }
            FromWorker::Ready => return Some(End::Confused("it is ready once more".to_owned())),
        }
        None
    }
}

/// Returns when statements have to end.
async fn stops(stopping: &mut watch::Receiver<bool>) {
    // Without the sender there is no broker.
    let _ = stopping.wait_for(|stops| *stops).await;
}

/// Returns when a piece was handed over, or was not.
async fn sent(
    sending: &mut Option<BoxFuture<'static, Result<bool, QueryError>>>,
) -> Result<bool, QueryError> {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

impl Needs<'_> {
    /// Waits until the process is gone. Returns the error of its statement.
    async fn died(&self, verdict: Option<Verdict>) -> QueryError {
        let ending = match timeout(WORKER_START_SECONDS_MAX, self.process.ended()).await {
            Ok(ending) => Some(ending),
            Err(_) => {
                self.process.kill();
                None
            }
        };
        match (verdict, ending) {
            (Some(verdict), _) => self.judged(verdict),
            (None, Some(ending)) if ending.is_out_of_memory() => {
                metrics::counter!("floe_sql_workers_died_total", "reason" => "memory").increment(1);
                tracing::warn!(worker = self.process.pid(), %ending, "a statement got no memory");
                refused(&format!(
                    "the system gave the statement no more memory; all statements together may have {} bytes \
                     (sql_memory_bytes)",
                    self.memory_max
                ))
            }
            (None, ending) => self.failed(ending),
        }
    }

    fn failed(&self, ending: Option<Ending>) -> QueryError {
        metrics::counter!("floe_sql_workers_died_total", "reason" => "fault").increment(1);
        let ending = ending.map_or_else(|| "it does not end".to_owned(), |ending| ending.to_string());
        fault::logged(self.env, &format!("worker {} died: {ending}", self.process.pid()))
    }

    fn judged(&self, verdict: Verdict) -> QueryError {
        match verdict {
            Verdict::Late => told::too_late(self.time_max),
            Verdict::Memory { all, own } => refused(&format!(
                "all statements together had {all} bytes of memory and may have {} (sql_memory_bytes); of those that \
                 went on this one had most, {own}",
                self.memory_max
            )),
        }
    }
}

fn refused(what: &str) -> QueryError {
    let message =
        format!("{what}; select fewer or shorter values, filter earlier, or run fewer statements at once");
    QueryError::new(Kind::Limit, message)
}
