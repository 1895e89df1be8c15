//! The format level of a map: the newest formats that may be written into it and into its store.
//!
//! Every record has a version of its own, and a build refuses versions that it does not know. So while brokers of two
//! builds share a map, the newer ones write what the older ones read. Each session says up to which level its broker
//! reads, and the level rises when all of them are far enough. It never falls.
//!
//! ```text
//! 1   everything before there were levels; a map without the record
//! 2   extents and trash know their commit (version 2 of both); markers, gaps, stamped offsets, segments, frames
//! ```

use floe_meta::{DecodeError, Lookup, Tx, postcard_record};
use serde::{Deserialize, Serialize};

/// A format level. As a record of the map: the level in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FormatLevel(pub u16);

postcard_record!(FormatLevel, 22, 1, ());

/// The level of maps without the record.
pub const FIRST: FormatLevel = FormatLevel(1);
/// From this level on, extents and trash know their commit, and extents may be all that `extent.rs` describes.
pub const WITH_LSNS: FormatLevel = FormatLevel(2);
/// The highest level that this build reads and writes.
pub const NEWEST: FormatLevel = WITH_LSNS;

/// The level in force.
///
/// # Errors
/// The record cannot be read.
pub fn get(map: &impl Lookup) -> Result<FormatLevel, DecodeError> {
    Ok(map.get::<FormatLevel>(&())?.unwrap_or(FIRST))
}

/// Part of a command: raises the level, if it is lower.
///
/// # Errors
/// The record cannot be read.
pub(crate) fn raise(tx: &mut Tx<'_>, to: FormatLevel) -> Result<(), DecodeError> {
    if to > get(tx)? {
        tx.put(&(), &to);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use floe_meta::MapRecord as _;

    use super::*;

    // Users' journals hold these bytes, so they never change.
    #[test]
    fn levels_are_as_they_were() {
        let mut body = Vec::new();
        FormatLevel(300).encode(&mut body);
        assert_eq!((FormatLevel::KIND, FormatLevel::VERSION, &*body), (22, 1, &[0xac, 0x02][..]));
        assert_eq!(FormatLevel::decode(1, &body), Ok(FormatLevel(300)));
    }
}
