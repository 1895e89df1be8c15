//! One connection with a buffer for each direction. The buffers survive a cancelled caller.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use floe_wire::frame::frame_length;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::error::ClientError;

/// The length prefix of a frame, in bytes.
const PREFIX_BYTES: usize = 4;
/// Bytes that one read asks for.
const READ_BYTES: usize = 16 * 1024;
/// Bytes that one read asks for inside a frame that has more.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Segments handed to one vectored write.
const WRITE_SEGMENTS_MAX: usize = 64;

/// Segments still to be written.
#[derive(Debug, Default)]
pub(super) struct Outgoing(VecDeque<Bytes>);

impl Outgoing {
    /// Adds the segments of a request.
    pub(super) fn extend(&mut self, segments: Vec<Bytes>) {
        self.0.extend(segments);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes some bytes.
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ClientError>> {
        let slices: Vec<IoSlice<'_>> =
            self.0.iter().take(WRITE_SEGMENTS_MAX).map(|segment| IoSlice::new(segment)).collect();
        match Pin::new(stream).poll_write_vectored(context, &slices) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ClientError::Closed)),
            Poll::Ready(Ok(written)) => {
                self.written(written);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes everything, and reads nothing meanwhile.
    pub(super) async fn write_to<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> Result<(), ClientError> {
        while !self.is_empty() {
            poll_fn(|context| self.poll_write(stream, context)).await?;
        }
        stream.flush().await?;
        Ok(())
    }

    /// Drops the first `bytes` bytes of the segments.
    fn written(&mut self, mut bytes: usize) {
        while let Some(segment) = self.0.front_mut() {
            if bytes < segment.len() {
                segment.advance(bytes);
                return;
            }
            bytes -= segment.len();
            self.0.pop_front();
        }
    }
}

/// Bytes already read.
#[derive(Debug)]
pub(super) struct Incoming {
    bytes: BytesMut,
    /// The longest frame that is accepted, without its prefix.
    pub(super) frame_bytes_max: usize,
}

impl Incoming {
    fn new(frame_bytes_max: usize) -> Incoming {
        Incoming { bytes: BytesMut::new(), frame_bytes_max }
    }

    /// The next frame, without its prefix.
    pub(super) async fn frame_from<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> Result<Bytes, ClientError> {
        loop {
            let mut missing = READ_BYTES;
            if let Some(prefix) = self.bytes.first_chunk() {
                let length = frame_length(*prefix, self.frame_bytes_max)?;
                if self.bytes.len() >= PREFIX_BYTES + length {
                    self.bytes.advance(PREFIX_BYTES);
                    return Ok(self.bytes.split_to(length).freeze());
                }
                missing = PREFIX_BYTES + length - self.bytes.len();
            }
            self.bytes.reserve(missing.clamp(READ_BYTES, READ_BYTES_MAX));
            if stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(ClientError::Closed);
            }
        }
    }
}

/// A stream, with segments still to be written and bytes already read.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) stream: S,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, frame_bytes_max: usize) -> Connection<S> {
        Connection { stream, outgoing: Outgoing::default(), incoming: Incoming::new(frame_bytes_max) }
    }

    /// Writes all segments, and reads meanwhile: a broker may read no requests before we take its answers.
    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        while !self.outgoing.is_empty() {
            poll_fn(|context| self.poll_progress(context)).await?;
        }
        self.stream.flush().await?;
        Ok(())
    }

    /// The next frame, without its prefix.
    pub(super) async fn frame(&mut self) -> Result<Bytes, ClientError> {
        self.flush().await?;
        self.incoming.frame_from(&mut self.stream).await
    }

    /// Writes some bytes, or else reads some.
    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if let ready @ Poll::Ready(_) = self.outgoing.poll_write(&mut self.stream, context) {
            return ready;
        }
        if self.incoming.bytes.len() > self.incoming.frame_bytes_max {
            return Poll::Pending;
        }
        let mut space = [0; READ_BYTES];
        let mut read = ReadBuf::new(&mut space);
        match Pin::new(&mut self.stream).poll_read(context, &mut read) {
            Poll::Ready(Ok(())) if read.filled().is_empty() => Poll::Ready(Err(ClientError::Closed)),
            Poll::Ready(Ok(())) => {
                self.incoming.bytes.extend_from_slice(read.filled());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}
