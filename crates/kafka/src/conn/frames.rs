//! Frames from a socket: `length i32 | length bytes`, bounded in size, memory and time.
//!
//! The first [`limits::READ_BYTES`] of a frame are read as they come. Then its memory is set aside (`admission.rs`), so
//! that a slow store causes backpressure and does not fill memory; bytes that have not arrived also count against the
//! sender's address. Only then the buffer grows: at once up to [`limits::FRAME_BYTES_TRUSTED`], beyond that with the
//! bytes that arrive. After a grace a started frame must keep [`limits::SLOW_FRAME_BYTES_PER_SECOND`], and a large one
//! the rate that completes it in [`limits::LARGE_FRAME_SECONDS`].

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use floe_wire::ApiKey;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Duration, Instant, timeout_at};

use crate::config::Config;
use crate::conn::admission::{Admission, Admitted, RequestPermit};
use crate::limits;

const LENGTH_BYTES: usize = 4;
/// Length and API key: the limits of a frame depend on both.
const PEEK_BYTES: usize = LENGTH_BYTES + 2;
const PRODUCE: i16 = 0;

/// Why there is no next frame.
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
    /// No byte came for too long.
    #[error("idle for {0:?}")]
    Idle(Duration),
    /// A length below the shortest header or above the limit.
    #[error("a frame of {length} bytes ({api}), between {min} and {max} are accepted")]
    Length { api: Asked, length: i32, min: usize, max: usize },
    /// Too few bytes per second.
    #[error("slow frame ({api}): {received} of {length} bytes after {after:?}")]
    Slow {
        api: Asked,
        received: usize,
        length: usize,
        /// Since the first byte of the frame.
        after: Duration,
    },
}

impl FrameError {
    /// True for what every client does sooner or later.
    pub(crate) fn ordinary(&self) -> bool {
        matches!(self, FrameError::Closed | FrameError::Idle(_) | FrameError::Io(_) | FrameError::Cut)
    }
}

/// The API number of a frame, as far as it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked(Option<i16>);

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0, self.0.and_then(ApiKey::from_number)) {
            (None, _) => f.write_str("its api has not arrived"),
            (Some(number), None) => write!(f, "api {number}"),
            (Some(_), Some(api)) => f.write_str(api.name()),
        }
    }
}

/// One request without its length prefix, and the memory that is set aside for it.
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    /// Bytes of the buffer that `bytes` keeps in memory.
    pub(crate) buffer: usize,
    pub(crate) permit: RequestPermit,
}

/// Limits of size and time for the frames of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) frame_bytes_max: usize,
    pub(crate) idle: Duration,
    pub(crate) slow_grace: Duration,
    pub(crate) slow_bytes_per_second: u64,
}

impl Pace {
    pub(crate) fn of(config: &Config) -> Pace {
        Pace {
            frame_bytes_max: config.frame_bytes_max,
            idle: config.idle,
            slow_grace: config.slow_frame_grace,
            slow_bytes_per_second: config.slow_frame_bytes_per_second,
        }
    }
}

/// A frame of which some bytes have arrived.
#[derive(Debug, Clone, Copy)]
struct Began {
    at: Instant,
    api: Asked,
    /// Its length with the prefix, as far as it is known.
    whole: usize,
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

    /// The next frame. A connection with requests under way is not idle. `now` reads the clock.
    pub(crate) async fn next(
        &mut self,
        admission: &Admission<'_>,
        now: impl Fn() -> Instant,
    ) -> Result<Frame, FrameError> {
        self.first_bytes(&now, &|| admission.progress.busy()).await?;
        let mut began = Began { at: now(), api: Asked(None), whole: LENGTH_BYTES };
        self.fill(LENGTH_BYTES, began, &now).await?;
        let length = i32::from_be_bytes(self.buffer[..LENGTH_BYTES].try_into().expect("four bytes"));
        began.whole += self.allowed(length, began.api)?;
        self.fill(PEEK_BYTES, began, &now).await?;
        let api_key =
            i16::from_be_bytes(self.buffer[LENGTH_BYTES..PEEK_BYTES].try_into().expect("two bytes"));
        began.api = Asked(Some(api_key));
        let whole = LENGTH_BYTES + self.allowed(length, began.api)?;
        // A client must send something before memory is set aside for the rest.
        self.fill(whole.min(limits::READ_BYTES), began, &now).await?;
        let missing = whole.saturating_sub(self.buffer.len());
        let Admitted { permit, arriving } = admission.admit(api_key, whole, missing).await;
        // The time that we waited for memory does not count.
        began.at = began.at.max(now());
        self.fill(whole, began, &now).await?;
        drop(arriving);
        let (mut bytes, buffer) = take(&mut self.buffer, whole);
        let _ = bytes.split_to(LENGTH_BYTES);
        Ok(Frame { bytes: bytes.freeze(), buffer, permit })
    }

    /// Checks the length of a frame against the limit of its API, or of any API while that has not arrived.
    fn allowed(&self, length: i32, api: Asked) -> Result<usize, FrameError> {
        let most = self.pace.frame_bytes_max;
        let max = match api {
            Asked(None | Some(PRODUCE)) => most,
            Asked(Some(_)) => most.min(limits::OTHER_FRAME_BYTES_MAX),
        };
        let min = limits::FRAME_BYTES_MIN;
        match usize::try_from(length) {
            Ok(bytes) if (min..=max).contains(&bytes) => Ok(bytes),
            _ => Err(FrameError::Length { api, length, min, max }),
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

    /// Reads until the buffer holds `need` bytes of a frame.
    async fn fill(
        &mut self,
        need: usize,
        began: Began,
        now: &impl Fn() -> Instant,
    ) -> Result<(), FrameError> {
        let Began { at: started, api, whole } = began;
        while self.buffer.len() < need {
            let received = self.buffer.len();
            let earned = Duration::from_secs(received as u64 / self.bytes_per_second(whole));
            let deadline = started + self.pace.slow_grace + earned;
            let read = match self.room(need) {
                // A long frame is read to its end and not beyond: bytes of the next frame would have to be copied.
                Some(exactly) => {
                    let mut limited = (&mut self.buffer).limit(exactly);
                    timeout_at(deadline, self.source.read_buf(&mut limited)).await
                }
                None => timeout_at(deadline, self.source.read_buf(&mut self.buffer)).await,
            };
            match read {
                Err(_) => {
                    let after = now().saturating_duration_since(started);
                    return Err(FrameError::Slow { api, received, length: whole, after });
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

    /// The least rate of a frame of `whole` bytes.
    fn bytes_per_second(&self, whole: usize) -> u64 {
        let least = match whole > limits::FRAME_BYTES_TRUSTED {
            true => whole as u64 / limits::LARGE_FRAME_SECONDS,
            false => 1,
        };
        self.pace.slow_bytes_per_second.max(least)
    }

    /// Makes room for the next read. Returns the number of bytes that it may read, if that is limited.
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

/// Takes a frame out of the buffer. Returns it with the bytes that it keeps in memory, as far as they lie behind its
/// beginning. No later frame shares the memory of a large one: what is in front of a frame is that of small ones.
fn take(buffer: &mut BytesMut, whole: usize) -> (BytesMut, usize) {
    let held = buffer.capacity();
    let bytes = buffer.split_to(whole);
    if buffer.is_empty() && held > limits::READ_BYTES * 2 {
        *buffer = BytesMut::new();
    }
    (bytes, held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_frame_shares_the_memory_of_a_large_one() {
        let mut buffer = BytesMut::with_capacity(2 << 20);
        buffer.put_bytes(0, 1 << 20);
        let (frame, held) = take(&mut buffer, 1 << 20);
        assert_eq!((frame.len(), held, buffer.capacity()), (1 << 20, 2 << 20, 0));
        buffer.reserve(limits::READ_BYTES);
        buffer.put_bytes(0, 30);
        let (small, _) = take(&mut buffer, 20);
        assert_eq!((small.len(), buffer.len()), (20, 10), "what follows a small frame stays");
    }

    #[test]
    fn an_error_names_the_api_as_far_as_it_is_known() {
        let slow = |api| FrameError::Slow { api: Asked(api), received: 1, length: 2, after: Duration::ZERO };
        assert!(slow(Some(ApiKey::Fetch.number())).to_string().contains("(Fetch)"));
        assert!(slow(Some(999)).to_string().contains("(api 999)"));
        assert!(slow(None).to_string().contains("(its api has not arrived)"));
    }
}
