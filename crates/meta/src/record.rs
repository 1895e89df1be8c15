//! Typed, versioned values of the metadata map.
//!
//! ```text
//! +---------+-------------------------------------------+
//! | version | body, written by the record's own encode  |
//! | u8 >= 1 | postcard for most                         |
//! +---------+-------------------------------------------+
//! ```
//! A version that this build does not know is refused, never guessed.

use bytes::Bytes;

use crate::error::DecodeError;
use crate::key::Key;

/// A kind of value in the metadata map.
pub trait MapRecord: Sized {
    /// The first byte of the record's keys. It never changes and is never reused. 255 is not used.
    const KIND: u8;
    /// The newest version; at least 1. Raise it with every change of the body, and keep decoding the old versions.
    const VERSION: u8;
    /// The key of the record.
    type Key: Key;

    /// The version in which this value is written. A record whose old versions are still written says which of them
    /// holds the value; the others always write [`MapRecord::VERSION`].
    fn version(&self) -> u8 {
        Self::VERSION
    }

    /// Appends the body in the layout of [`MapRecord::version`].
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a body of the given version, which is between 1 and [`MapRecord::VERSION`].
    ///
    /// # Errors
    /// The body is not what that version writes.
    fn decode(version: u8, body: &[u8]) -> Result<Self, DecodeError>;
}

/// The value of a record with its version.
pub(crate) fn encode_value<R: MapRecord>(record: &R) -> Vec<u8> {
    const { assert!(R::VERSION > 0, "versions begin at 1") };
    let version = record.version();
    assert!((1..=R::VERSION).contains(&version), "a version that was never written");
    let mut out = Vec::with_capacity(64);
    out.push(version);
    record.encode(&mut out);
    out
}

/// Reads the value of a record with its version, as this build or an older one wrote it.
///
/// # Errors
/// A newer build wrote it, or it is damaged.
pub fn decode_value<R: MapRecord>(value: &Bytes) -> Result<R, DecodeError> {
    let (&version, body) = value.split_first().ok_or(DecodeError::Truncated)?;
    if version > R::VERSION {
        return Err(DecodeError::NewerVersion { kind: R::KIND, found: version, known: R::VERSION });
    }
    if version == 0 {
        return Err(DecodeError::corrupt("version zero"));
    }
    R::decode(version, body)
}

/// Reads the typed key from a full key of this kind.
///
/// # Errors
/// The key is not of that type.
///
/// # Panics
/// The key is of another kind.
pub fn decode_key<R: MapRecord>(key: &Bytes) -> Result<R::Key, DecodeError> {
    let (&kind, body) = key.split_first().ok_or(DecodeError::Truncated)?;
    assert_eq!(kind, R::KIND, "a range of one kind holds keys of that kind");
    R::Key::decode(body)
}

/// Appends `value` as postcard, for use in [`MapRecord::encode`].
pub fn put_postcard<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let bytes = postcard::to_allocvec(value).expect("records hold only what postcard can write");
    out.extend_from_slice(&bytes);
}

/// Reads one postcard value that fills `body`, for use in [`MapRecord::decode`].
///
/// # Errors
/// The bytes are no such value, or some are left over.
pub fn take_postcard<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = take_part(body)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::corrupt("a value has bytes left over")) }
}

/// Reads one postcard value from the front of `body`, for bodies whose later fields depend on earlier ones. Returns the
/// rest.
///
/// # Errors
/// The bytes do not begin with such a value.
pub fn take_part<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    postcard::take_from_bytes(body).map_err(|error| DecodeError::Corrupt(error.to_string()))
}

/// Makes a serde type a [`MapRecord`] with one version: `postcard_record!(Type, kind, version, KeyType);`.
///
/// To change its fields, write out the `impl`, raise the version, and decode both versions.
#[macro_export]
macro_rules! postcard_record {
    ($record:ty, $kind:expr, $version:expr, $key:ty) => {
        impl $crate::MapRecord for $record {
            const KIND: u8 = $kind;
            const VERSION: u8 = $version;
            type Key = $key;
            fn encode(&self, out: &mut Vec<u8>) {
                $crate::put_postcard(self, out);
            }
            fn decode(version: u8, body: &[u8]) -> Result<Self, $crate::DecodeError> {
                if version != $version {
                    return Err($crate::DecodeError::corrupt(format!("version {version} was never written")));
                }
                $crate::take_postcard(body)
            }
        }
    };
}
