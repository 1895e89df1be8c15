//! Encodes a frame: small fields are copied into one buffer, large ones are spliced in.

use bytes::{BufMut, Bytes, BytesMut};

use crate::fault::{Fault, WireError};
use crate::limits;

/// The length prefix of a frame, in bytes.
const PREFIX_BYTES: usize = 4;

/// Collects one message as segments for a vectored write.
///
/// ```text
/// own      | length | header | fields ...        | fields ...        |
/// splices                     ^ at 41: records    ^ at 87: records
/// segments | own[..41] | records | own[41..87] | records | own[87..] |
/// ```
#[derive(Debug, Default)]
pub struct Encoder {
    own: BytesMut,
    splices: Vec<(usize, Bytes)>,
    splice_bytes: usize,
    framed: bool,
}

impl Encoder {
    /// An encoder for bytes without a length prefix.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// An encoder for one frame; the length prefix is filled in by [`Encoder::finish`].
    pub fn frame() -> Encoder {
        let mut own = BytesMut::with_capacity(256);
        own.put_bytes(0, PREFIX_BYTES);
        Encoder { own, framed: true, ..Encoder::default() }
    }

    /// The number of bytes written, with the length prefix.
    pub fn len(&self) -> usize {
        self.own.len() + self.splice_bytes
    }

    /// True when nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes in.
    pub fn put(&mut self, bytes: &[u8]) {
        self.own.put_slice(bytes);
    }

    /// Puts shared bytes in: copied if short, spliced if long.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < limits::SPLICE_BYTES_MIN {
            return self.put(bytes);
        }
        self.splice_bytes += bytes.len();
        self.splices.push((self.own.len(), bytes.clone()));
    }

    /// An unsigned varint: groups of seven bits, the lowest first.
    pub fn put_uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.own.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.own.put_u8(value as u8);
    }

    /// The length of a string: 16 bits, or compact; `None` is null.
    pub(crate) fn put_length_short(&mut self, length: Option<usize>, compact: bool) -> Result<(), WireError> {
        if compact {
            return self.put_length_compact(length);
        }
        let length = match length {
            Some(length) => i16::try_from(length).map_err(|_| Fault::TooLong(length))?,
            None => -1,
        };
        self.own.put_i16(length);
        Ok(())
    }

    /// The length of an array or of bytes: 32 bits, or compact; `None` is null.
    pub(crate) fn put_length_long(&mut self, length: Option<usize>, compact: bool) -> Result<(), WireError> {
        if compact {
            return self.put_length_compact(length);
        }
        let length = match length {
            Some(length) => i32::try_from(length).map_err(|_| Fault::TooLong(length))?,
            None => -1,
        };
        self.own.put_i32(length);
        Ok(())
    }

    /// Appends everything that another encoder collected.
    pub(crate) fn append(&mut self, other: Encoder) {
        let base = self.own.len();
        self.own.unsplit(other.own);
        self.splice_bytes += other.splice_bytes;
        self.splices.extend(other.splices.into_iter().map(|(at, bytes)| (base + at, bytes)));
    }

    /// The segments in order. Fills in the length prefix of a frame, and fails if the frame is too long for it.
    pub fn finish(mut self) -> Result<Vec<Bytes>, WireError> {
        if self.framed {
            let length = self.len() - PREFIX_BYTES;
            let prefix = i32::try_from(length).map_err(|_| Fault::TooLong(length))?;
            self.own[..PREFIX_BYTES].copy_from_slice(&prefix.to_be_bytes());
        }
        let own = self.own.freeze();
        let mut segments = Vec::with_capacity(2 * self.splices.len() + 1);
        let mut from = 0;
        for (at, bytes) in self.splices {
            if at > from {
                segments.push(own.slice(from..at));
            }
            segments.push(bytes);
            from = at;
        }
        if from < own.len() {
            segments.push(own.slice(from..));
        }
        Ok(segments)
    }

    fn put_length_compact(&mut self, length: Option<usize>) -> Result<(), WireError> {
        let Some(length) = length else {
            self.put_uvarint(0);
            return Ok(());
        };
        let announced = i32::try_from(length).map_err(|_| Fault::TooLong(length))?.unsigned_abs() + 1;
        self.put_uvarint(announced);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ApiKey;
    use crate::frame::{decode_body, encode_response};
    use crate::message::Message;
    use crate::messages::fetch::{FetchResponse, FetchableTopicResponse, NodeEndpoint, PartitionData};
    use crate::messages::group_offsets::OffsetCommitRequest;
    use crate::messages::groups::JoinGroupRequest;
    use crate::rope::Rope;

    #[test]
    fn long_bytes_are_spliced_and_short_ones_copied() {
        let long = Bytes::from(vec![1; 5_000]);
        let records = Some(Rope(vec![Bytes::from_static(b"sixteen bytes ..."), long.clone(), long.clone()]));
        let partitions = vec![PartitionData { records, ..Default::default() }; 2];
        let responses = vec![FetchableTopicResponse { partitions, ..Default::default() }];
        let node_endpoints = vec![NodeEndpoint { node_id: 5, ..Default::default() }];
        let response = FetchResponse { responses, node_endpoints, ..Default::default() };
        let segments = encode_response(&response, ApiKey::Fetch, 16, 1).unwrap();
        let spliced = segments.iter().filter(|segment| segment.as_ptr() == long.as_ptr()).count();
        assert_eq!((segments.len(), spliced), (7, 4));
        let frame = Rope(segments).to_bytes();
        assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
        assert_eq!(decode_body::<FetchResponse>(frame.slice(9..), 16).unwrap(), response);
    }

    #[test]
    fn what_a_version_cannot_say_is_refused_unless_ignorable() {
        let encode = |message: &JoinGroupRequest, version| message.encode(&mut Encoder::new(), version);
        let dropped = JoinGroupRequest { reason: Some("why".to_owned()), ..Default::default() };
        assert_eq!(encode(&dropped, 0), Ok(()));
        let refused = JoinGroupRequest { group_instance_id: Some("i".to_owned()), ..Default::default() };
        let error = encode(&refused, 4).unwrap_err();
        assert_eq!(error.to_string(), "the value cannot be said in version 4 (at group_instance_id)");
        assert_eq!(encode(&refused, 5), Ok(()));
        let retention = OffsetCommitRequest { retention_time_ms: 5, ..Default::default() };
        assert_eq!(retention.encode(&mut Encoder::new(), 9), Ok(()));
    }

    #[test]
    fn a_string_that_is_too_long_for_its_length_is_refused() {
        let request = JoinGroupRequest { group_id: "g".repeat(40_000), ..Default::default() };
        let error = request.encode(&mut Encoder::new(), 0).unwrap_err();
        assert_eq!(error, WireError { field: "group_id", fault: Fault::TooLong(40_000) });
        assert_eq!(request.encode(&mut Encoder::new(), 6), Ok(()));
    }
}
