//! The worker itself: it takes one statement after the other from its broker.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use floe_env::{Env, lock};
use floe_query::QueryError;

use super::away::{Away, Calls};
use super::counted::Counts;
use super::faults;
use super::frame::{self, Frame, FrameError};
use super::memory::Allowance;
use super::message::{FromWorker, Setup, Start, ToWorker};
use super::process::TOO_MUCH_MEMORY;
use super::statm::Statm;
use crate::engine::Sql;
use crate::limits::{
    OWN_WATCH_SHARE, SPILL_LOOK_INTERVAL, WATCH_INTERVAL_IDLE, WORKER_FRAMES, WORKER_PAYLOAD_BYTES,
};

/// Why a worker does not work.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WorkError(String);

/// Runs the statements of a broker, who has the other end of the socket that is the standard input. Does not return
/// while there is one: the process ends with the socket. A [`super::Program`] starts it.
///
/// # Errors
/// The standard input is no socket, or the engine does not start.
pub fn work() -> Result<(), WorkError> {
    let failed = |error: &dyn std::fmt::Display| WorkError(error.to_string());
    let mut socket = socket().map_err(|error| failed(&error))?;
    let first = frame::read(&mut socket).map_err(|error| failed(&error))?;
    let Some((ToWorker::Setup(setup), _)) = first else {
        return Err(WorkError("there is no broker: this command is for brokers only".to_owned()));
    };
    floe_env::be_expendable();
    floe_env::end_with_parent();
    let counts = Counts::default();
    // Without it the broker learns no counters.
    let _ = metrics::set_global_recorder(counts.clone());
    let env = Env::real();
    let (out, frames) = mpsc::channel(WORKER_FRAMES);
    let writer = socket.try_clone().map_err(|error| failed(&error))?;
    env.thread("sql worker output", move || write(writer, frames)).map_err(|error| failed(&error))?;
    let (worker, starts) = Worker::open(env.clone(), setup, counts, out).map_err(|error| failed(&error))?;
    let engine_env = worker.sql.env().clone();
    let (busy, most) = (worker.busy.clone(), worker.most);
    let watching = env.thread("sql worker memory", move || watch(&busy, most));
    let watching = watching.map_err(|error| failed(&error))?.thread().clone();
    let reading = worker.clone();
    env.thread("sql worker input", move || reading.read(socket)).map_err(|error| failed(&error))?;
    let running = engine_env.spawn_vital("sql worker", async move { worker.run(starts, &watching).await });
    futures::executor::block_on(running).map_err(|error| failed(&error))
}

/// The standard input as a socket.
fn socket() -> io::Result<UnixStream> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Anything else than a socket fails here.
    socket.set_nonblocking(false)?;
    socket.local_addr()?;
    Ok(socket)
}

/// Writes what the worker says.
fn write(mut socket: UnixStream, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.blocking_recv() {
        let written = socket.write_all(&frame.head).and_then(|()| socket.write_all(&frame.payload));
        if written.is_err() {
            end();
        }
    }
}

/// The broker is gone. What the process does meanwhile is for nobody.
#[allow(clippy::exit, reason = "a worker ends with its broker, whatever its threads do")]
fn end() -> ! {
    std::process::exit(0)
}

/// Ends the process when it has much more than all statements may have. The broker ends it before, unless something
/// holds the broker up.
fn watch(busy: &AtomicBool, most: u64) {
    let statm = Statm::own();
    let base = statm.private_bytes().unwrap_or(0);
    loop {
        if !busy.load(SeqCst) {
            std::thread::park();
            continue;
        }
        let bytes = statm.private_bytes().unwrap_or(0).saturating_sub(base);
        if bytes > most + most / OWN_WATCH_SHARE {
            floe_env::end_process(TOO_MUCH_MEMORY, &format!("{bytes} bytes"));
        }
        std::thread::park_timeout(WATCH_INTERVAL_IDLE);
    }
}

/// A worker. A clone is the same.
#[derive(Clone)]
struct Worker {
    sql: Sql,
    away: Arc<Away>,
    calls: Calls,
    allowance: Arc<Allowance>,
    counts: Counts,
    out: mpsc::Sender<Frame>,
    starts: mpsc::UnboundedSender<Start>,
    /// The number of the last statement that nobody reads.
    left: watch::Sender<u32>,
    faults: bool,
    /// What the statement may spill.
    granted: Arc<Mutex<u64>>,
    /// Whether a statement runs.
    busy: Arc<AtomicBool>,
    /// What all statements may have.
    most: u64,
}

impl Worker {
    fn open(
        env: Env,
        setup: Setup,
        counts: Counts,
        out: mpsc::Sender<Frame>,
    ) -> Result<(Worker, mpsc::UnboundedReceiver<Start>), crate::engine::OpenError> {
        let faults = setup.faults;
        let config = setup.config();
        let calls = Calls::new(out.clone());
        let away = Arc::new(Away::new(calls.clone()));
        let (busy, most) = (Arc::default(), config.memory_bytes as u64);
        let allowance = Arc::new(Allowance::new(config.memory_bytes));
        let sql = Sql::over(env, away.clone(), allowance.clone(), config)?;
        // A broker sends a statement when the one before has ended.
        let (starts, started) = mpsc::unbounded_channel();
        let (left, granted) = (watch::Sender::new(0), Arc::default());
        let worker =
            Worker { sql, away, calls, allowance, counts, out, starts, left, faults, granted, busy, most };
        Ok((worker, started))
    }

    /// Takes what the broker says, and ends the process with it. It waits for nothing else.
    fn read(&self, mut socket: UnixStream) {
        loop {
            match frame::read(&mut socket) {
                Ok(Some((message, payload))) => self.take(message, &payload),
                Ok(None) => end(),
                // A broker that died with unread messages resets the socket. Its end of standard error is gone, too.
                Err(FrameError::Io(_)) => end(),
                Err(error) => floe_env::end_process("the broker cannot be understood", &error),
            }
        }
    }

    fn take(&self, message: ToWorker, payload: &Bytes) {
        match message {
            ToWorker::Start(start) => {
                // The receiver lives as long as the process.
                let _ = self.starts.send(start);
            }
            ToWorker::Answer { call, end, error } => self.calls.take((call, end, error), payload),
            ToWorker::Memory { before_spilling } => self.allowance.set_before_spilling(before_spilling),
            ToWorker::Spill { bytes } => self.allow_spill(bytes),
            ToWorker::Leave { number } => {
                self.left.send_replace(number);
            }
            ToWorker::Setup(_) => {}
        }
    }

    fn allow_spill(&self, bytes: u64) {
        *lock(&self.granted) = bytes;
        if let Err(error) = self.sql.allow_spill(bytes) {
            tracing::warn!(%error, "what a statement may spill was not changed");
        }
    }

    async fn run(self, mut starts: mpsc::UnboundedReceiver<Start>, watching: &Thread) {
        // A service manager may send these to all processes of a service. The broker decides when workers end.
        let _deaf = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        self.say(&FromWorker::Ready, Bytes::new()).await;
        while let Some(start) = starts.recv().await {
            self.busy.store(true, SeqCst);
            watching.unpark();
            self.allowance.set_before_spilling(start.before_spilling);
            self.allow_spill(start.spill_bytes);
            self.away.set_cut(start.cut, start.now);
            let (mut left, number) = (self.left.subscribe(), start.number);
            let outcome = tokio::select! {
                biased;
                _ = left.wait_for(|left| *left == number) => Ok(()),
                never = self.ask_for_spill() => never,
                outcome = self.statement(start) => outcome,
            };
            self.sql.idle().await;
            self.calls.clear();
            self.busy.store(false, SeqCst);
            let ended = FromWorker::Ended { error: outcome.err(), counted: self.counts.take() };
            self.say(&ended, Bytes::new()).await;
        }
    }

    async fn statement(&self, start: Start) -> Result<(), QueryError> {
        if self.faults {
            faults::misbehave(&start.text);
        }
        let deadline = self.sql.env().monotonic() + start.left;
        let mut pieces = self.sql.query_until(&start.text, start.format, deadline).await?;
        self.say(&FromWorker::Planned, Bytes::new()).await;
        while let Some(piece) = pieces.next().await {
            let mut piece = piece?;
            while !piece.is_empty() {
                let part = piece.split_to(piece.len().min(WORKER_PAYLOAD_BYTES));
                self.say(&FromWorker::Rows, part).await;
            }
        }
        Ok(())
    }

    /// Asks for more disk before the statement has used up what it has.
    async fn ask_for_spill<T>(&self) -> T {
        loop {
            tokio::time::sleep(SPILL_LOOK_INTERVAL).await;
            let granted = *lock(&self.granted);
            let spilled = self.sql.allow_spill(granted).unwrap_or(0);
            if spilled > granted / 2 {
                self.say(&FromWorker::Spilled { bytes: spilled }, Bytes::new()).await;
                // The answer takes a moment.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    async fn say(&self, message: &FromWorker, payload: Bytes) {
        match Frame::new(message, payload) {
            // Without the thread that writes, the process ends.
            Ok(frame) => drop(self.out.send(frame).await),
            Err(error) => floe_env::end_process("a message to the broker is too long", &error),
        }
    }
}
