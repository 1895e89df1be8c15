//! Frames: two lengths, a head in postcard's encoding, and a payload of bytes.
//!
//! ```text
//! 0 head u32       bytes of the head
//! 4 payload u32    bytes of the payload
//! 8 head, payload
//! ```
//! Numbers are little endian. Both ends are the same program, so there is no version. Both lengths are compared with
//! their limits before anything is allocated.

use std::io::{self, Read};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::{WORKER_HEAD_BYTES_MAX, WORKER_PAYLOAD_BYTES};

/// Bytes before the head.
const PREFIX_BYTES: usize = 8;

/// A frame that can be sent.
#[derive(Debug)]
pub(super) struct Frame {
    /// The prefix and the head.
    pub(super) head: Vec<u8>,
    pub(super) payload: Bytes,
}

/// Why a frame cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The connection failed in the middle.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// A length is above its limit.
    #[error("a {part} of {bytes} bytes, at most {most} are possible")]
    TooLong {
        /// `head` or `payload`.
        part: &'static str,
        bytes: usize,
        most: usize,
    },
    /// The head is not what it should be.
    #[error("a head that cannot be read: {0}")]
    Head(#[from] postcard::Error),
}

impl Frame {
    /// A frame of a message and a payload.
    ///
    /// # Errors
    /// One of them is too long.
    pub(super) fn new(message: &impl Serialize, payload: Bytes) -> Result<Frame, FrameError> {
        let mut head = postcard::to_extend(message, vec![0; PREFIX_BYTES])?;
        let length = within("head", head.len() - PREFIX_BYTES, WORKER_HEAD_BYTES_MAX)?;
        head[..4].copy_from_slice(&length.to_le_bytes());
        let length = within("payload", payload.len(), WORKER_PAYLOAD_BYTES)?;
        head[4..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(Frame { head, payload })
    }
}

fn within(part: &'static str, bytes: usize, most: usize) -> Result<u32, FrameError> {
    let long = FrameError::TooLong { part, bytes, most };
    if bytes > most { Err(long) } else { u32::try_from(bytes).map_err(|_| long) }
}

/// The lengths of head and payload.
fn lengths(prefix: [u8; PREFIX_BYTES]) -> Result<(usize, usize), FrameError> {
    let [a, b, c, d, e, f, g, h] = prefix;
    let long = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
    let (head, payload) = (long(u32::from_le_bytes([a, b, c, d])), long(u32::from_le_bytes([e, f, g, h])));
    within("head", head, WORKER_HEAD_BYTES_MAX)?;
    within("payload", payload, WORKER_PAYLOAD_BYTES)?;
    Ok((head, payload))
}

/// Reads the next frame; `None` at the end between two frames.
///
/// # Errors
/// The connection fails, or the frame is not one.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<(T, Bytes)>, FrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    // The end may come before the first byte of a frame, and nowhere else.
    let first = loop {
        match from.read(&mut prefix[..1]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut prefix[1..])?;
    let (head_bytes, payload_bytes) = lengths(prefix)?;
    let mut head = vec![0; head_bytes];
    from.read_exact(&mut head)?;
    let mut payload = vec![0; payload_bytes];
    from.read_exact(&mut payload)?;
    Ok(Some((postcard::from_bytes(&head)?, payload.into())))
}

/// [`read`] without blocking. Dropping the call loses the place in the stream.
///
/// # Errors
/// Those of [`read`].
pub(super) async fn read_async<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Option<(T, Bytes)>, FrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    if from.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut prefix[1..]).await?;
    let (head_bytes, payload_bytes) = lengths(prefix)?;
    let mut head = vec![0; head_bytes];
    from.read_exact(&mut head).await?;
    let mut payload = vec![0; payload_bytes];
    from.read_exact(&mut payload).await?;
    Ok(Some((postcard::from_bytes(&head)?, payload.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: &(u32, String), payload: &[u8]) -> Vec<u8> {
        let frame = Frame::new(message, Bytes::copy_from_slice(payload)).unwrap();
        [&frame.head[..], &frame.payload].concat()
    }

    /// Both readers, which must agree.
    async fn read_both(mut from: &[u8]) -> Result<Vec<(u32, String, Bytes)>, String> {
        let mut also = from;
        let mut frames = Vec::new();
        loop {
            let one = read::<(u32, String)>(&mut from);
            let two = read_async::<(u32, String)>(&mut also).await;
            assert_eq!(one.as_ref().ok(), two.as_ref().ok());
            match one.map_err(|error| error.to_string())? {
                None => return Ok(frames),
                Some(((number, text), payload)) => frames.push((number, text, payload)),
            }
        }
    }

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let (one, two) = ((7, "seven".to_owned()), (8, String::new()));
        let stream = [bytes(&one, b"payload"), bytes(&two, b"")].concat();
        let frames = read_both(&stream).await.unwrap();
        let expected = [(7, "seven".to_owned(), Bytes::from("payload")), (8, String::new(), Bytes::new())];
        assert_eq!(frames, expected);
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_is_an_error() {
        let whole = bytes(&(1, "text".to_owned()), b"payload");
        for length in 1..whole.len() {
            assert!(read_both(&whole[..length]).await.is_err(), "{length}");
        }
        assert_eq!(read_both(&[]).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn hostile_lengths_allocate_nothing() {
        for (head, payload) in [
            (u32::MAX, 0),
            (0, u32::MAX),
            (u32::try_from(WORKER_HEAD_BYTES_MAX).unwrap() + 1, 0),
            (1, u32::try_from(WORKER_PAYLOAD_BYTES).unwrap() + 1),
        ] {
            let prefix = [head.to_le_bytes(), payload.to_le_bytes()].concat();
            let error = read_both(&prefix).await.unwrap_err();
            assert!(error.contains("at most"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_head_of_other_bytes_is_an_error() {
        for head in [&[][..], &[1], &[1, 200], &[0xff; 40], &[1, 2, 0xff, 0xfe]] {
            let mut stream = u32::try_from(head.len()).unwrap().to_le_bytes().to_vec();
            stream.extend([0; 4]);
            stream.extend(head);
            assert!(read_both(&stream).await.is_err(), "{head:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let long = "x".repeat(WORKER_HEAD_BYTES_MAX + 1);
        assert!(Frame::new(&(1_u32, long), Bytes::new()).is_err());
        let long = Bytes::from(vec![0; WORKER_PAYLOAD_BYTES + 1]);
        assert!(Frame::new(&(1_u32, "x"), long).is_err());
    }
}
