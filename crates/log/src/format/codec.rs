//! The five compressions of a batch, with bounded decompression.
//!
//! The input comes from strangers. Every decoder here compares a size that it reads with the limit before it
//! allocates. The zstd decoder may reserve the window that a frame asks for, at most 128 MiB (window log 27, the
//! library's own ceiling), and releases it at its end.

use std::io::Read;
use std::io::Write;

use bytes::Bytes;

use crate::limits::DECOMPRESSED_BYTES_MAX;

/// How the records of a batch are compressed. The numbers are Kafka's and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Compression {
    /// No compression.
    #[default]
    None = 0,
    /// gzip (RFC 1952), one or more members.
    Gzip = 1,
    /// Snappy blocks in the framing of xerial's snappy-java; a single raw block is read as well.
    Snappy = 2,
    /// The LZ4 frame format, independent blocks.
    Lz4 = 3,
    /// Zstandard (KIP-110).
    Zstd = 4,
}

/// Why records could not be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The data does not decode.
    #[error("{codec} data is damaged: {reason}")]
    Damaged {
        /// The codec, as Kafka names it.
        codec: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The data decodes to more than the caller allows.
    #[error("{codec} data exceeds {bytes_max} bytes when decompressed")]
    TooLarge {
        /// The codec, as Kafka names it.
        codec: &'static str,
        /// The limit of the caller.
        bytes_max: usize,
    },
    /// The caller refused the memory.
    #[error("there is no memory for what the data holds when decompressed")]
    NoMemory,
}

/// Magic of Kafka's snappy framing: eight bytes, followed by the version and the oldest compatible version, both 1.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Uncompressed bytes per block of the xerial framing, as in snappy-java.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Bytes that one block of snappy may decompress to in a walk: what one batch may at most.
const SNAPPY_BLOCK_BYTES_MAX: usize = DECOMPRESSED_BYTES_MAX as usize;
/// Bytes that one byte of snappy can expand to at most: an element of three bytes makes at most 64.
const SNAPPY_GROWTH_MAX: usize = 64;
/// Bytes that a decoder gets room for at first. The buffer then grows by as much as was decoded.
const DECODED_PIECE_BYTES: usize = 64 << 10;
/// log2 of the largest zstd window that is accepted; the library's own default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

impl Compression {
    /// All compressions, for tests and tables.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The compression named by the lowest three bits of a batch's attributes; `None` for 5 to 7.
    pub fn from_bits(bits: i16) -> Option<Compression> {
        Compression::ALL.into_iter().find(|codec| *codec as i16 == bits)
    }

    /// The name in Kafka's settings.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// Compresses `data` as Kafka's own clients do.
    pub fn compress(self, data: &[u8]) -> Vec<u8> {
        // Writes to memory do not fail.
        match self {
            Compression::None => data.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(data).expect("memory takes every write");
                encoder.finish().expect("memory takes every write")
            }
            Compression::Snappy => compress_xerial(data),
            Compression::Lz4 => {
                let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(data).expect("memory takes every write");
                encoder.finish().expect("memory takes every write")
            }
            Compression::Zstd => zstd::stream::encode_all(data, 0).expect("memory takes every write"),
        }
    }

    /// Decompresses `data` into at most `bytes_max` bytes. The result for uncompressed data is a slice of the
    /// input.
    ///
    /// # Errors
    /// [`CodecError::Damaged`], [`CodecError::TooLarge`].
    pub fn decompress(self, data: &Bytes, bytes_max: usize) -> Result<Bytes, CodecError> {
        self.decompress_in(data, bytes_max, &mut |_| true)
    }

    /// Like [`Compression::decompress`], but asks `memory` for the bytes of each piece before it allocates the
    /// piece.
    ///
    /// # Errors
    /// Also [`CodecError::NoMemory`], when `memory` says no.
    pub(crate) fn decompress_in(
        self,
        data: &Bytes,
        bytes_max: usize,
        memory: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Bytes, CodecError> {
        let codec = self.name();
        match self {
            Compression::None if data.len() > bytes_max => Err(CodecError::TooLarge { codec, bytes_max }),
            Compression::None => Ok(data.clone()),
            Compression::Gzip => {
                read_bounded(codec, flate2::read::MultiGzDecoder::new(&data[..]), bytes_max, memory)
            }
            Compression::Snappy => decompress_snappy(data, bytes_max, memory),
            Compression::Lz4 => {
                read_bounded(codec, lz4_flex::frame::FrameDecoder::new(&data[..]), bytes_max, memory)
            }
            Compression::Zstd => {
                let damaged = |e: std::io::Error| CodecError::Damaged { codec, reason: e.to_string() };
                read_bounded(codec, zstd_reader(data).map_err(damaged)?, bytes_max, memory)
            }
        }
    }
}

/// Reads to the end, but at most one byte past the limit. The buffer grows with what was decoded, never with what
/// the data promises.
fn read_bounded(
    codec: &'static str,
    reader: impl Read,
    bytes_max: usize,
    memory: &mut dyn FnMut(usize) -> bool,
) -> Result<Bytes, CodecError> {
    let mut out = Vec::new();
    let mut reader = reader.take((bytes_max as u64).saturating_add(1));
    loop {
        let piece = out.len().max(DECODED_PIECE_BYTES);
        if !memory(piece) {
            return Err(CodecError::NoMemory);
        }
        match reader.by_ref().take(piece as u64).read_to_end(&mut out) {
            Err(e) => return Err(CodecError::Damaged { codec, reason: e.to_string() }),
            Ok(_) if out.len() > bytes_max => return Err(CodecError::TooLarge { codec, bytes_max }),
            Ok(read) if read < piece => return Ok(Bytes::from(out)),
            Ok(_) => {}
        }
    }
}

/// A decoder of zstd that refuses windows above [`ZSTD_WINDOW_LOG_MAX`].
pub(crate) fn zstd_reader(data: &[u8]) -> std::io::Result<impl Read + '_> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(data)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Reads snappy block by block, and holds one block.
pub(crate) struct SnappyReader<'d> {
    /// What is not decompressed yet: blocks, in the xerial framing or bare.
    rest: &'d [u8],
    framed: bool,
    block: Vec<u8>,
    position: usize,
}

impl<'d> SnappyReader<'d> {
    pub(crate) fn new(data: &'d [u8]) -> SnappyReader<'d> {
        let framed = data.starts_with(&XERIAL_MAGIC);
        // A header that is cut off leaves a block that does not decompress.
        let rest = if framed { data.get(XERIAL_HEADER_BYTES..).unwrap_or(data) } else { data };
        SnappyReader { rest, framed, block: Vec::new(), position: 0 }
    }

    /// The next block into `block`; empty at the end.
    fn next_block(&mut self) -> Result<(), CodecError> {
        self.block.clear();
        self.position = 0;
        while self.block.is_empty() && !self.rest.is_empty() {
            let compressed = match self.framed {
                true => take_xerial_block(&mut self.rest)?,
                false => std::mem::take(&mut self.rest),
            };
            decompress_snappy_block(compressed, &mut self.block, SNAPPY_BLOCK_BYTES_MAX, &mut |_| true)?;
        }
        Ok(())
    }
}

impl Read for SnappyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.position == self.block.len() {
            self.next_block().map_err(std::io::Error::other)?;
        }
        let read = (&self.block[self.position..]).read(buffer)?;
        self.position += read;
        Ok(read)
    }
}

/// Cuts the next block off the blocks of the xerial framing.
fn take_xerial_block<'d>(rest: &mut &'d [u8]) -> Result<&'d [u8], CodecError> {
    let (length, body) =
        rest.split_first_chunk::<4>().ok_or_else(|| snappy_damaged("a block length is cut off"))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).expect("usize has at least 32 bits");
    let (block, after) = body.split_at_checked(length).ok_or_else(|| snappy_damaged("a block is cut off"))?;
    *rest = after;
    Ok(block)
}

fn compress_xerial(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_BYTES + data.len() / 2);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(&1u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in data.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block).expect("a block is far below snappy's limit");
        let length = u32::try_from(compressed.len()).expect("a block is far below 4 GiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    out
}

fn decompress_snappy(
    data: &[u8],
    bytes_max: usize,
    memory: &mut dyn FnMut(usize) -> bool,
) -> Result<Bytes, CodecError> {
    let mut out = Vec::new();
    if !data.starts_with(&XERIAL_MAGIC) {
        decompress_snappy_block(data, &mut out, bytes_max, memory)?;
        return Ok(Bytes::from(out));
    }
    let mut rest = data.get(XERIAL_HEADER_BYTES..).ok_or_else(|| snappy_damaged("the header is cut off"))?;
    while !rest.is_empty() {
        let block = take_xerial_block(&mut rest)?;
        decompress_snappy_block(block, &mut out, bytes_max, memory)?;
    }
    Ok(Bytes::from(out))
}

/// Appends one block, after comparing its promised size with the limit and with the best ratio that snappy can
/// reach.
fn decompress_snappy_block(
    block: &[u8],
    out: &mut Vec<u8>,
    bytes_max: usize,
    memory: &mut dyn FnMut(usize) -> bool,
) -> Result<(), CodecError> {
    let length = snap::raw::decompress_len(block).map_err(|e| snappy_damaged(&e.to_string()))?;
    if length > bytes_max - out.len() {
        return Err(CodecError::TooLarge { codec: "snappy", bytes_max });
    }
    if length > block.len().saturating_mul(SNAPPY_GROWTH_MAX) {
        return Err(snappy_damaged("a block promises more than it can hold"));
    }
    if !memory(length) {
        return Err(CodecError::NoMemory);
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|e| snappy_damaged(&e.to_string()))?;
    assert_eq!(written, length, "snappy checks the length that it promised");
    Ok(())
}

fn snappy_damaged(reason: &str) -> CodecError {
    CodecError::Damaged { codec: "snappy", reason: reason.to_owned() }
}
