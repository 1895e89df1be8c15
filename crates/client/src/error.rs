//! What can go wrong between a client and its broker.

use floe_wire::{ApiKey, ErrorCode, Fault, Versions, WireError};

/// The length of a frame that begins as an answer of HTTP does.
const HTTP_AS_LENGTH: usize = u32::from_be_bytes(*b"HTTP") as usize;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed. Requests without an answer may have been carried out.
    #[error("the connection to the broker failed: {0}")]
    Io(#[from] std::io::Error),
    /// The broker closed the connection. Requests without an answer may have been carried out.
    #[error("the broker closed the connection")]
    Closed,
    /// A message could not be written or read.
    #[error("a message could not be coded: {0}")]
    Wire(#[from] WireError),
    /// The first answer on a connection is none of Kafka's protocol.
    #[error("what listens there does not speak the Kafka protocol{}", if *http { ", but HTTP" } else { "" })]
    NotKafka {
        /// Whether the answer is one of HTTP.
        http: bool,
        /// What is wrong with it.
        source: Box<ClientError>,
    },
    /// The broker does not speak a version that this client speaks.
    #[error("{api}: the broker speaks versions {}, this client {ours}", spoken(*broker))]
    Unsupported {
        /// The API.
        api: ApiKey,
        /// Our versions.
        ours: Versions,
        /// The versions of the broker, if it knows the API.
        broker: Option<Versions>,
    },
    /// The broker answered out of order.
    #[error("the broker answered request {got} when it was the turn of {expected}")]
    Correlation {
        /// Correlation id of the request whose turn it was.
        expected: i32,
        /// Correlation id of the answer.
        got: i32,
    },
    /// The answer will not come: it was received already, or dropped because too many others came after it.
    #[error("no such answer is to come")]
    NotWaiting,
    /// Too many requests without an answer; receive some first.
    #[error("too many requests wait for their answers, receive some first")]
    TooManyInFlight,
    /// The broker answered with an error.
    #[error("{api}: {code}{}{message}", if message.is_empty() { "" } else { ": " })]
    Code {
        /// The API that was called.
        api: ApiKey,
        /// What the broker answered.
        code: ErrorCode,
        /// Its message; may be empty.
        message: String,
    },
    /// The answer lacks what was asked for.
    #[error("{0}: the answer lacks what was asked for")]
    Incomplete(ApiKey),
    /// Batches in a fetched answer are damaged.
    #[error("a fetched batch is damaged: {0}")]
    Records(#[from] floe_log::records::RecordsError),
}

impl ClientError {
    /// What the error means if it came of the first request on a connection.
    pub(super) fn of_first_answer(self) -> ClientError {
        let http = match &self {
            ClientError::Wire(error) => error.fault == Fault::TooLong(HTTP_AS_LENGTH),
            ClientError::Correlation { .. } => false,
            _ => return self,
        };
        ClientError::NotKafka { http, source: Box::new(self) }
    }

    /// The error code of the broker, if it answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Code { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same call may succeed later on the same connection.
    pub fn retriable(&self) -> bool {
        self.code().is_some_and(ErrorCode::retriable)
    }
}

/// The versions of the broker in a message.
fn spoken(broker: Option<Versions>) -> String {
    broker.map_or_else(|| "none".to_owned(), |versions| versions.to_string())
}

/// `Ok` if the code of an answer is 0.
pub(super) fn check(api: ApiKey, number: i16, message: Option<&str>) -> Result<(), ClientError> {
    let message = message.unwrap_or_default();
    ErrorCode::check(number).map_err(|code| ClientError::Code { api, code, message: message.to_owned() })
}
