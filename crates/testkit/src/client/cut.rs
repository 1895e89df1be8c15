//! A connection that breaks after a number of bytes in one direction or the other, in the middle of the bytes in
//! flight.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Any connection.
pub type Stream = Box<dyn Duplex>;

/// A connection that breaks when one of its budgets is used up. The other end sees it closed. Bytes written before have
/// arrived; answers not read yet are lost.
pub struct Cut {
    inner: Option<Stream>,
    out_left: u64,
    in_left: u64,
}

impl Cut {
    /// A connection that carries at most this many bytes out and in.
    pub fn new(inner: Stream, out_bytes_max: u64, in_bytes_max: u64) -> Cut {
        Cut { inner: Some(inner), out_left: out_bytes_max, in_left: in_bytes_max }
    }

    /// The connection, unless it is cut.
    fn standing(&mut self, left: u64) -> io::Result<&mut Stream> {
        if left == 0 {
            self.inner = None;
        }
        self.inner
            .as_mut()
            .ok_or_else(|| io::Error::new(ErrorKind::ConnectionReset, "the connection was cut"))
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.in_left;
        let stream = match self.standing(left) {
            Ok(stream) => stream,
            Err(broken) => return Poll::Ready(Err(broken)),
        };
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        let polled = Pin::new(stream).poll_read(context, &mut part);
        let count = part.filled().len();
        buf.advance(count);
        self.in_left -= count as u64;
        polled
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = self.out_left;
        let stream = match self.standing(left) {
            Ok(stream) => stream,
            Err(broken) => return Poll::Ready(Err(broken)),
        };
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        let polled = Pin::new(stream).poll_write(context, &data[..room]);
        if let Poll::Ready(Ok(count)) = &polled {
            self.out_left -= *count as u64;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.standing(1) {
            Ok(stream) => Pin::new(stream).poll_flush(context),
            Err(broken) => Poll::Ready(Err(broken)),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.standing(1) {
            Ok(stream) => Pin::new(stream).poll_shutdown(context),
            Err(_) => Poll::Ready(Ok(())),
        }
    }
}
