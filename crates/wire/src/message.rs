//! The trait of all messages.

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::fault::WireError;
use crate::versions::Versions;

/// A message with versions: a request or a response.
pub trait Message: Sized + Default {
    /// The versions that can be decoded and encoded.
    const VERSIONS: Versions;
    /// The versions with compact lengths and tagged fields.
    const FLEXIBLE: Versions;
    /// The first version.
    const VERSION_MIN: i16 = Self::VERSIONS.min;
    /// The last version.
    const VERSION_MAX: i16 = Self::VERSIONS.max;
    /// The first version with compact lengths and tagged fields.
    const FLEXIBLE_FROM: i16 = Self::FLEXIBLE.min;

    /// Decodes the message. Bytes may be left in the decoder: see [`Decoder::finish`].
    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, WireError>;

    /// Encodes the message. Fails on a value that the version cannot carry and that may not be dropped.
    fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), WireError>;
}
