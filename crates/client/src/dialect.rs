//! How requests are put to one broker: its versions, our name, and the number of each request.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use bytes::Bytes;
use floe_wire::{Request, Versions, frame};

use crate::error::ClientError;

/// What a connection knows of its broker and of its own requests.
#[derive(Debug)]
pub(super) struct Dialect {
    client_id: String,
    /// The versions of the broker by API number; empty before the first call.
    pub(super) broker: BTreeMap<i16, Versions>,
    correlation_id: i32,
}

/// A request that was sent. [`Client::receive`](crate::Client::receive) takes it and returns the answer.
#[derive(Debug)]
#[must_use = "the answer is received with it"]
pub struct Sent<R> {
    pub(super) correlation_id: i32,
    pub(super) version: i16,
    request: PhantomData<fn() -> R>,
}

impl<R> Sent<R> {
    /// The version that was negotiated.
    pub fn version(&self) -> i16 {
        self.version
    }
}

impl<R: Request> Sent<R> {
    /// Decodes the frame of the answer.
    pub(super) fn decode(&self, frame: Bytes) -> Result<R::Response, ClientError> {
        let (_, response) = frame::decode_response::<R>(frame, self.version)?;
        Ok(response)
    }
}

impl Dialect {
    pub(super) fn new(client_id: &str) -> Dialect {
        Dialect { client_id: client_id.to_owned(), broker: BTreeMap::new(), correlation_id: 0 }
    }

    /// The newest version up to `version_max` that both sides speak.
    pub(super) fn version<R: Request>(&self, version_max: i16) -> Result<i16, ClientError> {
        let broker = self.broker.get(&R::API.number()).copied();
        let ours = R::VERSIONS;
        let newest = broker.map(|broker| broker.max.min(ours.max).min(version_max));
        match (newest, broker) {
            (Some(newest), Some(broker)) if newest >= ours.min && newest >= broker.min => Ok(newest),
            _ => Err(ClientError::Unsupported { api: R::API, ours, broker }),
        }
    }

    /// Encodes a request under the next correlation id.
    pub(super) fn encode<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<(Sent<R>, Vec<Bytes>), ClientError> {
        self.correlation_id = self.correlation_id.checked_add(1).unwrap_or(0);
        let correlation_id = self.correlation_id;
        let segments = frame::encode_request(request, version, correlation_id, &self.client_id)?;
        Ok((Sent { correlation_id, version, request: PhantomData }, segments))
    }
}

/// Compares the correlation id at the beginning of a frame with the one whose turn it is.
pub(super) fn check_turn(frame: &Bytes, expected: i32) -> Result<(), ClientError> {
    let got = frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
    match got == Some(expected) {
        true => Ok(()),
        false => Err(ClientError::Correlation { expected, got: got.unwrap_or(-1) }),
    }
}
