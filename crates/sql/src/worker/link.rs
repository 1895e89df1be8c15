//! The broker's end of the socket to a worker. A task writes and a task reads, because a frame must be written or read
//! whole, whoever gives up waiting meanwhile.

use std::io;
use std::os::unix::net::UnixStream as Blocking;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use floe_env::Env;

use super::frame::{self, Frame, FrameError};
use super::message::{FromWorker, ToWorker};
use crate::limits::WORKER_FRAMES;

/// What came from a worker.
pub(super) type Received = Result<(FromWorker, Bytes), FrameError>;

/// Both directions.
pub(super) struct Link {
    pub(super) out: Out,
    received: mpsc::Receiver<Received>,
}

/// The way to a worker. A clone is the same.
#[derive(Clone)]
pub(super) struct Out(mpsc::Sender<Frame>);

/// The worker takes no frames any more.
#[derive(Debug)]
pub(super) struct Gone;

impl Out {
    /// Sends a message, and waits while the worker takes none.
    ///
    /// # Errors
    /// The worker is gone, or the message is too long.
    pub(super) async fn send(&self, message: &ToWorker, payload: Bytes) -> Result<(), Gone> {
        let frame = Frame::new(message, payload).map_err(|error| {
            tracing::error!(%error, "a message to a worker was not sent");
            Gone
        })?;
        self.0.send(frame).await.map_err(|_| Gone)
    }

    /// Sends a message if the worker takes one now. Returns whether it did.
    pub(super) fn try_send(&self, message: &ToWorker) -> bool {
        Frame::new(message, Bytes::new()).is_ok_and(|frame| self.0.try_send(frame).is_ok())
    }
}

impl Link {
    /// Takes the broker's end.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new(env: &Env, socket: Blocking) -> io::Result<Link> {
        socket.set_nonblocking(true)?;
        let (reading, writing) = UnixStream::from_std(socket)?.into_split();
        let (out, frames) = mpsc::channel(WORKER_FRAMES);
        let (into, received) = mpsc::channel(WORKER_FRAMES);
        // Both end when the other end of their channel is dropped, or the socket is closed.
        drop(env.spawn("sql worker's input", write(writing, frames)));
        drop(env.spawn("sql worker's output", read(reading, into)));
        Ok(Link { out: Out(out), received })
    }

    /// The next message; none when the worker is gone. Dropping the call loses nothing.
    pub(super) async fn next(&mut self) -> Option<Received> {
        self.received.recv().await
    }
}

async fn write(mut socket: OwnedWriteHalf, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if socket.write_all(&frame.head).await.is_err() || socket.write_all(&frame.payload).await.is_err() {
            return;
        }
    }
}

async fn read(mut socket: OwnedReadHalf, into: mpsc::Sender<Received>) {
    loop {
        let next = tokio::select! {
            biased;
            () = into.closed() => return,
            next = frame::read_async(&mut socket) => next,
        };
        let Some(received) = next.transpose() else { return };
        let failed = received.is_err();
        if into.send(received).await.is_err() || failed {
            return;
        }
    }
}
