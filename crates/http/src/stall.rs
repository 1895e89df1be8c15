//! Ends a connection whose client stops reading, or reads next to nothing. Without this, such a client would hold a
//! query's memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use floe_env::Env;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream with a stall limit: a write fails with `TimedOut` when writes have waited for `patience` in total and the
/// client took fewer than `least` bytes meanwhile. Time without anything to write does not count.
pub(crate) struct StallGuard<S> {
    stream: S,
    env: Env,
    patience: Duration,
    least: usize,
    /// The patience left. It is whole again after `least` bytes.
    left: Duration,
    taken: usize,
    /// The timer of a waiting write.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> StallGuard<S> {
    pub(crate) fn new(stream: S, env: Env, patience: Duration, least: usize) -> StallGuard<S> {
        StallGuard { stream, env, patience, least, left: patience, taken: 0, waiting: None }
    }

    /// Passes on the outcome of a write. While the write waits, the timer decides.
    fn guard<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
        taken: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = &poll {
            if let Some(waited) = self.waiting.take() {
                self.left = waited.deadline().saturating_duration_since(self.env.monotonic());
            }
            self.taken += result.as_ref().map_or(0, taken);
            if self.taken >= self.least {
                (self.left, self.taken) = (self.patience, 0);
            }
            return poll;
        }
        let left = self.left;
        let timer = self.waiting.get_or_insert_with(|| Box::pin(sleep(left)));
        ready!(timer.as_mut().poll(cx));
        metrics::counter!("floe_http_stalled_connections_total").increment(1);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.guard(cx, poll, |taken| *taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.guard(cx, poll, |taken| *taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.guard(cx, poll, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.guard(cx, poll, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const MINUTE: Duration = Duration::from_secs(60);

    /// Writes 32 bytes to a reader that takes `piece` bytes every `pause`, through a pipe of 4 bytes.
    async fn check(piece: usize, pause: Duration) -> io::Result<()> {
        let (near, mut far) = duplex(4);
        let mut guarded = StallGuard::new(near, Env::simulated(1), MINUTE, 8);
        let reading = async move {
            let mut bytes = [0; 4];
            loop {
                tokio::time::sleep(pause).await;
                if far.read_exact(&mut bytes[..piece]).await.is_err() {
                    return;
                }
            }
        };
        let writing = async move { guarded.write_all(&[7; 32]).await };
        let (written, ()) = tokio::join!(writing, reading);
        written
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_next_to_nothing_is_cut_off_and_a_slow_one_is_not() {
        check(4, Duration::from_secs(25)).await.unwrap();
        for (piece, seconds) in [(4, 1_000), (4, 35), (1, 10)] {
            let error = check(piece, Duration::from_secs(seconds)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{piece} bytes in {seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_anything_to_write_does_not_count() {
        let (near, mut far) = duplex(4);
        let mut guarded = StallGuard::new(near, Env::simulated(1), MINUTE, 1_000);
        let mut bytes = [0; 4];
        for _ in 0..10 {
            guarded.write_all(&[7; 4]).await.unwrap();
            tokio::time::sleep(MINUTE).await;
            far.read_exact(&mut bytes).await.unwrap();
        }
    }
}
