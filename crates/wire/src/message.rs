//! What requests and responses have in common.

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::fault::WireError;
use crate::versions::Versions;

/// A message with versions: a request or a response.
pub trait Message: Sized + Default {
    /// The versions that can be read and written.
    const VERSIONS: Versions;
    /// The versions with compact lengths and tagged fields.
    const FLEXIBLE: Versions;
    /// The first version that can be read and written.
    const VERSION_MIN: i16 = Self::VERSIONS.min;
    /// The last version that can be read and written.
    const VERSION_MAX: i16 = Self::VERSIONS.max;
    /// The first version with compact lengths and tagged fields.
    const FLEXIBLE_FROM: i16 = Self::FLEXIBLE.min;

    /// Reads the message. Bytes may be left in the decoder: see [`Decoder::finish`].
    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, WireError>;

    /// Writes the message. Fails if the version cannot say a value that may not be dropped.
    fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), WireError>;
}
