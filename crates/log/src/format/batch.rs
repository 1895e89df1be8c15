//! A batch with its assigned offset.

use bytes::Bytes;

use crate::format::control;
use crate::format::header::{BatchError, HEADER_BYTES, Header, LENGTH_AT, verify_checksum};
use crate::format::records::{Record, RecordsError};
use crate::map::extent::Marker;
use crate::map::ids::Offset;

/// The most offsets that one batch covers.
pub(crate) const GAP_OFFSETS_MAX: u64 = 1 << 31;

/// Bytes that [`Batch::stamped_prefix`] replaces.
pub const PREFIX_BYTES: usize = 16;

/// A batch with the offset that the sequencer assigned. Its bytes are those of the client, or of the broker where the
/// log has no bytes: a marker is a control batch, and offsets without records are an empty batch, as Kafka's cleaner
/// leaves. So the batches of a read leave no offset out.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The offset of the first record.
    pub base_offset: Offset,
    /// The batch as stored; ignore the base offset inside.
    pub bytes: Bytes,
    header: Header,
}

impl Batch {
    /// One whole batch and the offset of its first record. Does not compare the checksum: readers do that.
    ///
    /// # Errors
    /// What [`Header::parse`] finds, and bytes that are less or more than one batch.
    pub fn new(base_offset: Offset, bytes: Bytes) -> Result<Batch, BatchError> {
        let header = Header::parse(&bytes)?;
        if bytes.len() < header.size {
            return Err(BatchError::Truncated { have: bytes.len(), need: header.size });
        }
        if bytes.len() > header.size {
            return Err(BatchError::Trailing(bytes.len() - header.size));
        }
        Ok(Batch { base_offset, bytes, header })
    }

    /// The control batch of a marker.
    pub(crate) fn of_marker(base_offset: Offset, marker: &Marker) -> Batch {
        let bytes = control::marker(marker);
        Batch::new(base_offset, bytes).expect("the broker made the batch")
    }

    /// A batch without records that covers offsets, [`GAP_OFFSETS_MAX`] at most.
    pub(crate) fn of_gap(base_offset: Offset, offsets: u64) -> Batch {
        let bytes = control::empty(offsets.min(GAP_OFFSETS_MAX));
        Batch::new(base_offset, bytes).expect("the broker made the batch")
    }

    /// Whether it has records of clients: it is no marker, and no gap.
    pub fn has_records(&self) -> bool {
        self.header.count > 0 && !self.header.is_control()
    }

    /// The same batch in memory of its own.
    #[must_use]
    pub(crate) fn owned(self) -> Batch {
        Batch { bytes: Bytes::copy_from_slice(&self.bytes), ..self }
    }

    /// The parsed header, which includes the client's base offset.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The offset of the last record.
    pub fn last_offset(&self) -> Offset {
        Offset(self.next_offset().0 - 1)
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.header.offsets())
    }

    /// The first 16 bytes as a client gets them: assigned base offset, length, leader epoch 0. Send them in place
    /// of the batch's own, followed by `bytes[16..]`. The batch's checksum covers none of them.
    pub fn stamped_prefix(&self) -> [u8; PREFIX_BYTES] {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..8].copy_from_slice(&self.base_offset.0.to_be_bytes());
        prefix[LENGTH_AT..12].copy_from_slice(&self.bytes[LENGTH_AT..12]);
        prefix
    }

    /// A copy of the batch with its assigned offset, as a client receives it.
    pub fn stamped(&self) -> Bytes {
        let mut out = self.bytes.to_vec();
        out[..PREFIX_BYTES].copy_from_slice(&self.stamped_prefix());
        Bytes::from(out)
    }

    /// Decodes the records, which may take `bytes_max` bytes when decompressed. Keys and values are slices of one
    /// buffer.
    ///
    /// # Errors
    /// The checksum is wrong, the decompression fails or exceeds `bytes_max`, or the records contradict the header.
    pub fn records(&self, bytes_max: usize) -> Result<Vec<Record>, RecordsError> {
        self.records_in(bytes_max, &mut |_| true)
    }

    /// Like [`Batch::records`], but asks `memory` for the bytes of each piece before it allocates the piece: the
    /// decompressed data, the list of records, and their headers.
    ///
    /// # Errors
    /// As [`Batch::records`], and [`CodecError::NoMemory`](crate::format::codec::CodecError::NoMemory) when
    /// `memory` says no.
    pub fn records_in(
        &self,
        bytes_max: usize,
        memory: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Vec<Record>, RecordsError> {
        verify_checksum(&self.header, &self.bytes)?;
        let body = self.bytes.slice(HEADER_BYTES..);
        crate::format::records::decode(self.base_offset, &self.header, &body, bytes_max, memory)
    }
}
