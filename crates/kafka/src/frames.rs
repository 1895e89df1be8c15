//! Frames from a socket: `length i32 | length bytes`, with every limit that a stranger could lean on.
//!
//! The buffer grows with the bytes that arrive, not with the length that is announced; a frame that was started
//! must go on at [`limits::SLOW_FRAME_BYTES_PER_SECOND`] after a grace, and a large one fast enough to be whole after
//! [`limits::LARGE_FRAME_SECONDS`], because its memory is set aside when it begins; frames wait for the log's
//! byte budget before they are read, so that a slow store holds back senders instead of filling memory.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use floe_log::log::{Log, Permit};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Duration, Instant, timeout_at};

use crate::limits;

const LENGTH_BYTES: usize = 4;
/// Length and API key: what must be there before the rest is read.
const PEEK_BYTES: usize = LENGTH_BYTES + 2;
const PRODUCE: i16 = 0;

/// Why no further frame comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The client closed the connection between two frames.
    #[error("closed by the client")]
    Closed,
    /// The client closed the connection inside a frame.
    #[error("closed by the client inside a frame")]
    Cut,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
    /// Nothing came for too long.
    #[error("idle for {0:?}")]
    Idle(Duration),
    /// A length below the shortest header or above the limit.
    #[error("a frame of {length} bytes, between {min} and {max} are accepted")]
    Length {
        /// What was announced.
        length: i32,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// Too few bytes per second.
    #[error("slow frame: {received} of {length} bytes after {after:?}")]
    Slow {
        /// What came.
        received: usize,
        /// What was announced.
        length: usize,
        /// Since the frame began.
        after: Duration,
    },
}

impl FrameError {
    /// True for what every client does sooner or later and nobody needs to hear about.
    pub(crate) fn ordinary(&self) -> bool {
        matches!(self, FrameError::Closed | FrameError::Idle(_) | FrameError::Io(_) | FrameError::Cut)
    }
}

/// One request without its length, and the part of the byte budget that it holds.
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) permit: Option<Permit>,
}

/// Times and sizes that a connection keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) frame_bytes_max: usize,
    pub(crate) idle: Duration,
    pub(crate) slow_grace: Duration,
    pub(crate) slow_bytes_per_second: u64,
}

/// The reading half of a connection.
pub(crate) struct Frames<R> {
    source: R,
    buffer: BytesMut,
    pace: Pace,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(crate) fn new(source: R, pace: Pace) -> Frames<R> {
        Frames { source, buffer: BytesMut::new(), pace }
    }

    /// The next frame. `busy` says whether requests are under way, in which case silence is not idleness; `now` is
    /// the seam to the clock.
    pub(crate) async fn next(
        &mut self,
        log: &Log,
        now: impl Fn() -> Instant,
        busy: impl Fn() -> bool,
    ) -> Result<Frame, FrameError> {
        self.first_bytes(&now, &busy).await?;
        let mut started = now();
        self.fill(PEEK_BYTES, PEEK_BYTES, started, &now).await?;
        let length = i32::from_be_bytes(self.buffer[..LENGTH_BYTES].try_into().expect("four bytes"));
        let api_key =
            i16::from_be_bytes(self.buffer[LENGTH_BYTES..PEEK_BYTES].try_into().expect("two bytes"));
        let whole = LENGTH_BYTES + self.allowed(length, api_key)?;
        let permit = match api_key {
            PRODUCE => Some(log.reserve(whole).await),
            _ if whole <= limits::FRAME_BYTES_UNRESERVED => None,
            _ => Some(log.reserve(whole * limits::OTHER_FRAME_WEIGHT).await),
        };
        // The wait for the budget was ours.
        started = started.max(now());
        self.fill(whole, whole, started, &now).await?;
        let mut bytes = self.buffer.split_to(whole);
        let _ = bytes.split_to(LENGTH_BYTES);
        Ok(Frame { bytes: bytes.freeze(), permit })
    }

    /// The length of a frame of this API, if it is within the limits.
    fn allowed(&self, length: i32, api_key: i16) -> Result<usize, FrameError> {
        let most = self.pace.frame_bytes_max;
        let most = if api_key == PRODUCE { most } else { most.min(limits::OTHER_FRAME_BYTES_MAX) };
        let (min, max) = (limits::FRAME_BYTES_MIN, most);
        match usize::try_from(length) {
            Ok(bytes) if (min..=max).contains(&bytes) => Ok(bytes),
            _ => Err(FrameError::Length { length, min, max }),
        }
    }

    async fn first_bytes(
        &mut self,
        now: &impl Fn() -> Instant,
        busy: &impl Fn() -> bool,
    ) -> Result<(), FrameError> {
        while self.buffer.is_empty() {
            self.buffer.reserve(limits::READ_BYTES);
            let deadline = now() + self.pace.idle;
            match timeout_at(deadline, self.source.read_buf(&mut self.buffer)).await {
                Err(_) if busy() => {}
                Err(_) => return Err(FrameError::Idle(self.pace.idle)),
                Ok(read) => {
                    if read? == 0 {
                        return Err(FrameError::Closed);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads until the buffer holds `need` bytes of a frame of `whole` bytes.
    async fn fill(
        &mut self,
        need: usize,
        whole: usize,
        started: Instant,
        now: &impl Fn() -> Instant,
    ) -> Result<(), FrameError> {
        while self.buffer.len() < need {
            let received = self.buffer.len();
            let earned = Duration::from_secs(received as u64 / self.bytes_per_second(whole));
            let deadline = started + self.pace.slow_grace + earned;
            let read = match self.room(need) {
                // A long frame is read to its end and not beyond: what follows would have to be copied.
                Some(exactly) => {
                    let mut limited = (&mut self.buffer).limit(exactly);
                    timeout_at(deadline, self.source.read_buf(&mut limited)).await
                }
                None => timeout_at(deadline, self.source.read_buf(&mut self.buffer)).await,
            };
            match read {
                Err(_) => {
                    let after = now().saturating_duration_since(started);
                    return Err(FrameError::Slow { received, length: whole, after });
                }
                Ok(read) => {
                    if read? == 0 {
                        return Err(FrameError::Cut);
                    }
                }
            }
        }
        Ok(())
    }

    /// How fast a frame of `whole` bytes has to come.
    fn bytes_per_second(&self, whole: usize) -> u64 {
        let least = match whole > limits::FRAME_BYTES_TRUSTED {
            true => whole as u64 / limits::LARGE_FRAME_SECONDS,
            false => 1,
        };
        self.pace.slow_bytes_per_second.max(least)
    }

    /// Makes room for the next read; the number of bytes it may take, if that matters.
    fn room(&mut self, need: usize) -> Option<usize> {
        let missing = need - self.buffer.len();
        if need <= limits::READ_BYTES {
            self.buffer.reserve(missing.max(limits::READ_BYTES));
            return None;
        }
        let grow = if need <= limits::FRAME_BYTES_TRUSTED {
            missing
        } else {
            missing.min(self.buffer.len().max(limits::FRAME_BYTES_TRUSTED))
        };
        self.buffer.reserve(grow);
        Some(missing)
    }
}
