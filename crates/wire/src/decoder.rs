//! Decodes a frame. Each length is compared with the bytes that remain before anything is allocated for it.

use bytes::Bytes;

use crate::fault::{Fault, WireError};
use crate::limits;

/// A cursor over one frame.
///
/// Byte fields are slices of the frame. Strings and arrays are allocated, within a budget that depends on the length of
/// the frame alone ([`limits::decode_budget`]).
#[derive(Debug)]
pub struct Decoder {
    frame: Bytes,
    at: usize,
    end: usize,
    budget: usize,
}

impl Decoder {
    /// A decoder over a frame without its length prefix.
    pub fn new(frame: Bytes) -> Decoder {
        Decoder { at: 0, end: frame.len(), budget: limits::decode_budget(frame.len()), frame }
    }

    /// The same decoder with a budget of at most `bytes` for strings and arrays.
    #[must_use]
    pub fn with_budget(self, bytes: usize) -> Decoder {
        Decoder { budget: self.budget.min(bytes), ..self }
    }

    /// The number of bytes that are not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// [`Fault::Trailing`] unless everything was read.
    pub fn finish(&self) -> Result<(), WireError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(Fault::Trailing(left).into()),
        }
    }

    /// The bytes that are not read yet.
    pub fn rest(&self) -> Bytes {
        self.frame.slice(self.at..self.end)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("take returns as many bytes as asked for"))
    }

    /// The next `length` bytes as a slice of the frame.
    pub fn slice(&mut self, length: usize) -> Result<Bytes, WireError> {
        let start = self.at;
        self.take(length)?;
        Ok(self.frame.slice(start..self.at))
    }

    /// The next `length` bytes as a string.
    pub fn string(&mut self, length: usize) -> Result<String, WireError> {
        if length > self.remaining() {
            return Err(Fault::Truncated { needed: length, remaining: self.remaining() }.into());
        }
        self.charge(length)?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Fault::NotUtf8)?;
        Ok(text.to_owned())
    }

    /// An unsigned varint of at most 32 bits: groups of seven bits, the lowest first.
    pub fn uvarint(&mut self) -> Result<u32, WireError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(Fault::VarintTooLong.into());
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::VarintTooLong.into())
    }

    /// The length of a string: 16 bits, or compact; `None` is null.
    pub(crate) fn length_short(&mut self, compact: bool) -> Result<Option<usize>, WireError> {
        if compact {
            return self.length_compact();
        }
        length(i32::from(i16::from_be_bytes(self.array()?)))
    }

    /// The length of an array or of bytes: 32 bits, or compact; `None` is null.
    pub(crate) fn length_long(&mut self, compact: bool) -> Result<Option<usize>, WireError> {
        if compact {
            return self.length_compact();
        }
        length(i32::from_be_bytes(self.array()?))
    }

    /// Charges an array of `count` elements of type `T`, which take at least `size_min` bytes each on the wire.
    pub(crate) fn claim<T>(&mut self, count: usize, size_min: usize) -> Result<(), WireError> {
        if count > self.remaining() / size_min.max(1) {
            return Err(Fault::CountTooLarge { count, remaining: self.remaining() }.into());
        }
        self.charge(count * size_of::<T>())
    }

    /// The tagged fields at the end of a structure. `known` reads the field if it knows the tag. Others are skipped.
    pub(crate) fn tagged(
        &mut self,
        mut known: impl FnMut(&mut Decoder, u32) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        let mut previous = None;
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            if let Some(previous) = previous.replace(tag)
                && tag <= previous
            {
                return Err(Fault::TagOrder { tag, previous }.into());
            }
            let size = self.uvarint()? as usize;
            self.within(size, |decoder| known(decoder, tag))?;
        }
        Ok(())
    }

    /// Runs `read` on the next `size` bytes only. They are skipped if it returns `false`.
    fn within(
        &mut self,
        size: usize,
        read: impl FnOnce(&mut Decoder) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        if size > self.remaining() {
            return Err(Fault::Truncated { needed: size, remaining: self.remaining() }.into());
        }
        let outer = std::mem::replace(&mut self.end, self.at + size);
        let wanted = read(self)?;
        if wanted && self.remaining() > 0 {
            return Err(Fault::TagSize(self.remaining()).into());
        }
        self.at = std::mem::replace(&mut self.end, outer);
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&[u8], WireError> {
        if length > self.remaining() {
            return Err(Fault::Truncated { needed: length, remaining: self.remaining() }.into());
        }
        let start = self.at;
        self.at += length;
        Ok(&self.frame[start..self.at])
    }

    fn length_compact(&mut self) -> Result<Option<usize>, WireError> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    /// Takes an allocation of `bytes` out of the budget.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), WireError> {
        match self.budget.checked_sub(bytes) {
            Some(left) => self.budget = left,
            None => return Err(Fault::TooDense { needed: bytes, budget: self.budget }.into()),
        }
        Ok(())
    }
}

/// The meaning of a length field: -1 is null, any other negative number an error.
fn length(value: i32) -> Result<Option<usize>, WireError> {
    match usize::try_from(value) {
        Ok(length) => Ok(Some(length)),
        Err(_) if value == -1 => Ok(None),
        Err(_) => Err(Fault::NegativeLength(value).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{decode_body, encode_body};
    use crate::messages::groups::DescribeGroupsRequest;
    use crate::messages::metadata::{MetadataRequest, MetadataRequestTopic};
    use crate::messages::produce::ProduceRequest;

    fn fault<M: crate::message::Message + std::fmt::Debug>(
        version: i16,
        bytes: &[u8],
    ) -> (&'static str, Fault) {
        let error = decode_body::<M>(Bytes::copy_from_slice(bytes), version).unwrap_err();
        (error.field, error.fault)
    }

    #[test]
    fn lengths_are_compared_with_what_remains() {
        let huge = [0x7f, 0xff, 0xff, 0xff];
        let refused = Fault::CountTooLarge { count: 0x7fff_ffff, remaining: 0 };
        assert_eq!(fault::<MetadataRequest>(0, &huge), ("topics", refused));
        let refused = Fault::CountTooLarge { count: 0xffff_fffe, remaining: 3 };
        let compact = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
        assert_eq!(fault::<MetadataRequest>(9, &compact), ("topics", refused));
        let string = [0, 0, 0, 1, 0x7f, 0xff, b'x'];
        let refused = Fault::Truncated { needed: 0x7fff, remaining: 1 };
        assert_eq!(fault::<MetadataRequest>(0, &string), ("name", refused));
        assert_eq!(
            fault::<MetadataRequest>(0, &[0xff, 0xff, 0xff, 0xfe]),
            ("topics", Fault::NegativeLength(-2))
        );
        assert_eq!(fault::<MetadataRequest>(9, &[0xff; 5]), ("topics", Fault::VarintTooLong));
        assert_eq!(fault::<MetadataRequest>(0, &[0xff; 4]), ("topics", Fault::Null { version: 0 }));
        assert_eq!(fault::<MetadataRequest>(0, &[0, 0, 0, 1, 0, 1, 0xff]), ("name", Fault::NotUtf8));
    }

    #[test]
    fn an_array_of_next_to_nothing_is_refused() {
        let mut dense = vec![1; 100_005];
        dense[..3].copy_from_slice(&[0xa1, 0x8d, 0x06]);
        let refused = Fault::TooDense { needed: 24 * 100_000, budget: limits::decode_budget(100_005) };
        assert_eq!(fault::<DescribeGroupsRequest>(5, &dense), ("groups", refused));
        let groups = (0..20_000).map(|i| format!("group-{i}")).collect();
        let real = DescribeGroupsRequest { groups, ..Default::default() };
        assert_eq!(decode_body::<DescribeGroupsRequest>(encode_body(&real, 5).unwrap(), 5).unwrap(), real);
    }

    #[test]
    fn tagged_fields_are_skipped_if_unknown_and_must_ascend() {
        let topics = vec![MetadataRequestTopic { name: Some("t".to_owned()), ..Default::default() }];
        let request = MetadataRequest { topics: Some(topics), ..Default::default() };
        let bytes = encode_body(&request, 9).unwrap();
        let tagged = |tags: &[u8]| [&bytes[..bytes.len() - 1], tags].concat();
        let known = decode_body::<MetadataRequest>(tagged(&[2, 1, 2, 9, 9, 4, 0]).into(), 9).unwrap();
        assert_eq!(known, request);
        let refused = Fault::TagOrder { tag: 1, previous: 1 };
        assert_eq!(fault::<MetadataRequest>(9, &tagged(&[2, 1, 0, 1, 0])), ("", refused));
        let refused = Fault::Truncated { needed: 9, remaining: 1 };
        assert_eq!(fault::<MetadataRequest>(9, &tagged(&[1, 1, 9, 0])), ("", refused));
    }

    #[test]
    fn a_known_tagged_field_fills_its_size() {
        use crate::messages::fetch::FetchRequest;
        let bytes = encode_body(&FetchRequest::default(), 12).unwrap();
        let tagged = |tags: &[u8]| [&bytes[..bytes.len() - 1], tags].concat();
        let read = decode_body::<FetchRequest>(tagged(&[1, 0, 2, 2, b'c']).into(), 12).unwrap();
        assert_eq!(read.cluster_id.as_deref(), Some("c"));
        assert_eq!(fault::<FetchRequest>(12, &tagged(&[1, 0, 3, 2, b'c', 0])), ("", Fault::TagSize(1)));
        let refused = Fault::Truncated { needed: 1, remaining: 0 };
        assert_eq!(fault::<FetchRequest>(12, &tagged(&[1, 0, 1, 2, b'c'])), ("cluster_id", refused));
    }

    #[test]
    fn records_are_slices_of_the_frame() {
        use crate::messages::produce::{PartitionProduceData, TopicProduceData};
        let records = Some(Bytes::from(vec![7; 3_000]));
        let partition_data = vec![PartitionProduceData { index: 0, records }];
        let topic_data =
            vec![TopicProduceData { name: "t".to_owned(), partition_data, ..Default::default() }];
        let request = ProduceRequest { topic_data, ..Default::default() };
        let frame = encode_body(&request, 9).unwrap();
        let read: ProduceRequest = decode_body(frame.clone(), 9).unwrap();
        assert_eq!(read, request);
        let records = read.topic_data[0].partition_data[0].records.as_ref().unwrap();
        assert!(frame.as_ptr_range().contains(&records.as_ptr()));
    }
}
