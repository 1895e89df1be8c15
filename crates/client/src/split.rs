//! A connection in two halves: one task sends, another one receives.
//!
//! With both in one task, an answer that arrives while a large request is being written is noticed late, and its
//! latency looks longer than it was. Load generators measure it, so they need the halves.

use floe_wire::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::{Connection, Incoming, Outgoing};
use crate::dialect::{Dialect, Sent, check_turn};
use crate::error::ClientError;
use crate::handle::Client;

/// The half that sends requests. The caller bounds how many are without an answer.
#[derive(Debug)]
pub struct Requests<W> {
    stream: W,
    outgoing: Outgoing,
    dialect: Dialect,
}

/// The half that receives answers.
#[derive(Debug)]
pub struct Answers<R> {
    stream: R,
    incoming: Incoming,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Splits the connection; `halves` splits the stream.
    ///
    /// # Errors
    /// When answers are still to come, or versions cannot be negotiated.
    pub async fn split<R, W>(
        mut self,
        halves: impl FnOnce(S) -> (R, W),
    ) -> Result<(Requests<W>, Answers<R>), ClientError> {
        self.negotiate().await?;
        self.flush().await?;
        if self.in_flight() > 0 {
            return Err(ClientError::TooManyInFlight);
        }
        let (Connection { stream, outgoing, incoming }, dialect) = self.into_parts();
        let (reader, writer) = halves(stream);
        Ok((Requests { stream: writer, outgoing, dialect }, Answers { stream: reader, incoming }))
    }
}

impl<W: AsyncWrite + Unpin> Requests<W> {
    /// Encodes a request in the newest version up to `version_max` that both sides speak. [`Requests::flush`] writes
    /// it.
    ///
    /// # Errors
    /// When no version is common, or the version cannot carry the request.
    pub fn enqueue<R: Request>(&mut self, request: &R, version_max: i16) -> Result<Sent<R>, ClientError> {
        let version = self.dialect.version::<R>(version_max)?;
        let (sent, segments) = self.dialect.encode(request, version)?;
        self.outgoing.extend(segments);
        Ok(sent)
    }

    /// Writes everything that was enqueued. Somebody must receive meanwhile: a broker may read no requests before we
    /// take its answers.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.outgoing.write_to(&mut self.stream).await
    }
}

impl<R: AsyncRead + Unpin> Answers<R> {
    /// Waits for the answer to a request. Requests must be given in the order in which they were enqueued; a call that
    /// was dropped leaves an answer that nobody can take.
    ///
    /// # Errors
    /// When the connection fails, the broker answers out of order, or the answer cannot be read.
    #[allow(clippy::needless_pass_by_value, reason = "an answer is taken once")]
    pub async fn receive<Q: Request>(&mut self, sent: Sent<Q>) -> Result<Q::Response, ClientError> {
        let frame = self.incoming.frame_from(&mut self.stream).await?;
        check_turn(&frame, sent.correlation_id)?;
        sent.decode(frame)
    }
}
