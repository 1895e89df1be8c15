//! Bytes in several pieces.

use bytes::Bytes;

/// Bytes in several pieces, which are written one after the other and never joined.
///
/// Two ropes are equal if their bytes are; the cuts do not matter.
#[derive(Debug, Clone, Default)]
pub struct Rope(pub Vec<Bytes>);

impl Rope {
    /// The number of bytes in all pieces.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// True without a byte.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// The bytes in one piece; copies only if there is more than one.
    pub fn to_bytes(&self) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [piece] => piece.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

impl From<Bytes> for Rope {
    fn from(piece: Bytes) -> Rope {
        Rope(vec![piece])
    }
}

impl From<Vec<Bytes>> for Rope {
    fn from(pieces: Vec<Bytes>) -> Rope {
        Rope(pieces)
    }
}

impl PartialEq for Rope {
    fn eq(&self, other: &Rope) -> bool {
        self.len() == other.len() && self.0.iter().flatten().eq(other.0.iter().flatten())
    }
}

impl Eq for Rope {}
