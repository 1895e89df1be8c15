//! Why connections end.

use std::io;

use floe_wire::{ErrorCode, WireError};

use crate::conn::frames::FrameError;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ending {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the answer cannot be written: {0}")]
    Write(io::Error),
    #[error("the client does not read the answer to {api}: {written} of {length} bytes are written")]
    Stalled { api: &'static str, written: u64, length: u64 },
    #[error("api {0} is not served")]
    UnknownApi(i16),
    #[error("{api} version {version} is not supported, {min} to {max} are")]
    UnsupportedVersion { api: &'static str, version: i16, min: i16, max: i16 },
    #[error("malformed {api} request: {error}")]
    Malformed { api: &'static str, error: WireError },
    #[error("the answer to {api} cannot be encoded: {error}")]
    Encode { api: &'static str, error: WireError },
    #[error("a produce request with acks=0 failed: {0:?}")]
    Unacknowledged(ErrorCode),
    #[error("the broker is shutting down")]
    Shutdown,
}

impl Ending {
    /// True when the client can read no more answers.
    pub(crate) fn gone(&self) -> bool {
        matches!(self, Ending::Frame(FrameError::Closed | FrameError::Cut | FrameError::Io(_)))
    }

    /// True for endings that every client causes sooner or later.
    pub(crate) fn ordinary(&self) -> bool {
        match self {
            Ending::Frame(error) => error.ordinary(),
            Ending::Write(_) | Ending::Shutdown => true,
            _ => false,
        }
    }
}
