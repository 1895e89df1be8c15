//! The connection of a client to one broker.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use floe_wire::metadata::{ApiVersionsRequest, ApiVersionsResponse};
use floe_wire::{ApiKey, ErrorCode, Request, Versions, frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};

use crate::connection::Connection;
use crate::dialect::{Dialect, Sent, check_turn};
use crate::error::{self, ClientError};
use crate::limits;

/// The version of the first request. Every broker of the last years knows it, and others say that they do not.
const API_VERSIONS_FIRST: i16 = 3;

/// A connection to one broker.
#[derive(Debug)]
pub struct Client<S> {
    connection: Connection<S>,
    pub(crate) dialect: Dialect,
    /// Correlation ids of the answers still to come, in order.
    waiting: VecDeque<i32>,
    /// Frames of answers that their callers have not asked for yet.
    arrived: BTreeMap<i32, Bytes>,
}

impl Client<TcpStream> {
    /// Connects over TCP and negotiates versions.
    ///
    /// # Errors
    /// When the address cannot be reached, or what listens there is no broker.
    pub async fn connect(
        address: impl ToSocketAddrs,
        client_id: &str,
    ) -> Result<Client<TcpStream>, ClientError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Client::new(stream, client_id);
        client.negotiate().await?;
        Ok(client)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A client over any stream; versions are negotiated before the first call.
    pub fn new(stream: S, client_id: &str) -> Client<S> {
        Client {
            connection: Connection::new(stream, limits::FRAME_BYTES_MAX),
            dialect: Dialect::new(client_id),
            waiting: VecDeque::new(),
            arrived: BTreeMap::new(),
        }
    }

    /// Accepts frames of at most this many bytes.
    #[must_use]
    pub fn frame_bytes_max(mut self, bytes: usize) -> Client<S> {
        self.connection.incoming.frame_bytes_max = bytes;
        self
    }

    /// The versions that the broker speaks, by API number; empty before the first call.
    pub fn broker_versions(&self) -> &BTreeMap<i16, Versions> {
        &self.dialect.broker
    }

    /// The number of answers still to come.
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Asks the broker for its versions, unless they are known.
    ///
    /// # Errors
    /// When the connection fails or the answer is an error.
    pub async fn negotiate(&mut self) -> Result<(), ClientError> {
        if !self.dialect.broker.is_empty() {
            return Ok(());
        }
        let first = self.api_versions(API_VERSIONS_FIRST).await;
        let mut response = first.map_err(ClientError::of_first_answer)?;
        if response.error_code == ErrorCode::UnsupportedVersion.number() {
            response = self.api_versions(0).await?;
        }
        error::check(ApiKey::ApiVersions, response.error_code, None)?;
        for api in response.api_keys {
            let versions = Versions { min: api.min_version, max: api.max_version };
            self.dialect.broker.insert(api.api_key, versions);
        }
        Ok(())
    }

    /// Sends a request and waits for its answer, in the newest version that both sides speak.
    ///
    /// # Errors
    /// When the connection fails, no version is common, or the answer cannot be decoded. The caller checks the error
    /// codes inside the answer.
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        let sent = self.send(request).await?;
        self.receive(sent).await
    }

    /// Sends a request without waiting for its answer.
    ///
    /// # Errors
    /// As [`Client::call`]; and when [`limits::IN_FLIGHT_MAX`] answers are still to come.
    pub async fn send<R: Request>(&mut self, request: &R) -> Result<Sent<R>, ClientError> {
        self.send_at_most(request, i16::MAX).await
    }

    /// Sends a request in the newest version up to `version_max` that both sides speak.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_at_most<R: Request>(
        &mut self,
        request: &R,
        version_max: i16,
    ) -> Result<Sent<R>, ClientError> {
        self.negotiate().await?;
        let version = self.dialect.version::<R>(version_max)?;
        let sent = self.enqueue(request, version)?;
        self.waiting.push_back(sent.correlation_id);
        self.flush().await?;
        Ok(sent)
    }

    /// Sends a request that is never answered: a produce request with `acks` 0.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_unanswered<R: Request>(
        &mut self,
        request: &R,
        version_max: i16,
    ) -> Result<(), ClientError> {
        self.negotiate().await?;
        let version = self.dialect.version::<R>(version_max)?;
        let Sent { .. } = self.enqueue(request, version)?;
        self.flush().await
    }

    /// Waits for the answer to a request. Answers come in the order of the requests; earlier ones are kept for their
    /// callers.
    ///
    /// # Errors
    /// When the connection fails, the broker answers out of order, or the answer cannot be read.
    pub async fn receive<R: Request>(&mut self, sent: Sent<R>) -> Result<R::Response, ClientError> {
        let frame = loop {
            if let Some(frame) = self.arrived.remove(&sent.correlation_id) {
                break frame;
            }
            let expected = *self.waiting.front().ok_or(ClientError::NotWaiting)?;
            let frame = self.connection.frame().await?;
            check_turn(&frame, expected)?;
            self.waiting.pop_front();
            self.arrived.insert(expected, frame);
            // Answers whose callers have gone must not pile up.
            while self.arrived.len() > limits::IN_FLIGHT_MAX {
                self.arrived.pop_first();
            }
        };
        sent.decode(frame)
    }

    /// Writes everything that was sent.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.connection.flush().await
    }

    /// The connection, and what it knows of its broker.
    pub(crate) fn into_parts(self) -> (Connection<S>, Dialect) {
        (self.connection, self.dialect)
    }

    /// Encodes a request under the next correlation id.
    fn enqueue<R: Request>(&mut self, request: &R, version: i16) -> Result<Sent<R>, ClientError> {
        if self.waiting.len() >= limits::IN_FLIGHT_MAX {
            return Err(ClientError::TooManyInFlight);
        }
        let (sent, segments) = self.dialect.encode(request, version)?;
        self.connection.outgoing.extend(segments);
        Ok(sent)
    }

    /// Sends ApiVersions in this version. A broker that does not know the version answers in version 0.
    async fn api_versions(&mut self, version: i16) -> Result<ApiVersionsResponse, ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: "floe".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let Sent { correlation_id, .. } = self.enqueue(&request, version)?;
        self.flush().await?;
        let frame = self.connection.frame().await?;
        let decoded = frame::decode_response::<ApiVersionsRequest>(frame.clone(), version);
        let (got, response) = decoded.or_else(|_| frame::decode_response::<ApiVersionsRequest>(frame, 0))?;
        if got != correlation_id {
            return Err(ClientError::Correlation { expected: correlation_id, got });
        }
        Ok(response)
    }
}
