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
/// Segments handed to one vectored write.
const WRITE_SEGMENTS_MAX: usize = 64;

/// A stream, with segments still to be written and bytes already read.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    pub(super) outgoing: VecDeque<Bytes>,
    incoming: BytesMut,
    /// The longest frame that is accepted, without its prefix.
    pub(super) frame_bytes_max: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, frame_bytes_max: usize) -> Connection<S> {
        Connection { stream, outgoing: VecDeque::new(), incoming: BytesMut::new(), frame_bytes_max }
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
        loop {
            if let Some(prefix) = self.incoming.first_chunk() {
                let length = frame_length(*prefix, self.frame_bytes_max)?;
                if self.incoming.len() >= PREFIX_BYTES + length {
                    self.incoming.advance(PREFIX_BYTES);
                    return Ok(self.incoming.split_to(length).freeze());
                }
            }
            self.incoming.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(ClientError::Closed);
            }
        }
    }

    /// Writes some bytes, or else reads some.
    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let slices: Vec<IoSlice<'_>> =
            self.outgoing.iter().take(WRITE_SEGMENTS_MAX).map(|segment| IoSlice::new(segment)).collect();
        match Pin::new(&mut self.stream).poll_write_vectored(context, &slices) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(ClientError::Closed)),
            Poll::Ready(Ok(written)) => {
                self.written(written);
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            Poll::Pending => {}
        }
        if self.incoming.len() > self.frame_bytes_max {
            return Poll::Pending;
        }
        let mut space = [0; READ_BYTES];
        let mut read = ReadBuf::new(&mut space);
        match Pin::new(&mut self.stream).poll_read(context, &mut read) {
            Poll::Ready(Ok(())) if read.filled().is_empty() => Poll::Ready(Err(ClientError::Closed)),
            Poll::Ready(Ok(())) => {
                self.incoming.extend_from_slice(read.filled());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Drops the first `bytes` bytes of the outgoing segments.
    fn written(&mut self, mut bytes: usize) {
        while let Some(segment) = self.outgoing.front_mut() {
            if bytes < segment.len() {
                segment.advance(bytes);
                return;
            }
            bytes -= segment.len();
            self.outgoing.pop_front();
        }
    }
}
