//! The history's records in the metadata map. They are persisted: a new field needs a new version.
//!
//! ```text
//! key 50 Part    first LSN        -> last LSN, object, rows, times
//! key 51 Loose   object number    -> an object that may be in the store and that no part names
//! ```
//! The parts of a map have every commit up to the last of them, each once. The store is never searched: an object is of
//! a part, or loose.

use floe_env::Timestamp;
use floe_meta::{DecodeError, Lookup, Lsn, postcard_record};
use serde::{Deserialize, Serialize};

/// The folder of the objects. The number is the version of the key scheme.
pub const FOLDER: &str = "history/1";

/// The rows of a range of commits, in one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The last commit in it.
    pub last: Lsn,
    /// The number of the object: that of the process that put it, and a count.
    pub number: u64,
    /// Bytes of the object.
    pub bytes: u64,
    /// CRC-32C of the object.
    pub crc: u32,
    /// Rows.
    pub rows: u64,
    /// The time of the first commit.
    pub from: Timestamp,
    /// The time of the last commit.
    pub to: Timestamp,
    /// The commit from which on a map has a part with these rows. Snapshots before it read the journal.
    pub since: Lsn,
}

/// An object that may be in the store and that no part names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loose {
    /// The first commit in it.
    pub first: Lsn,
    /// Why it is there.
    pub why: Why,
}

/// Why an object is loose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// It is being written, under this epoch of the lease.
    Begun {
        /// The epoch.
        epoch: u64,
    },
    /// Nothing needs it any more.
    Waste {
        /// Since when.
        since: Timestamp,
        /// The commit that removed its part. Snapshots before it refer to the object. 0 if none ever did.
        lsn: Lsn,
    },
}

postcard_record!(Part, 50, 1, u64);
postcard_record!(Loose, 51, 1, u64);

/// The key of an object in the store.
pub fn object_key(first: Lsn, number: u64) -> String {
    format!("{FOLDER}/{:016x}-{number:016x}", first.0)
}

/// A part with its first commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedPart {
    /// The first commit in it.
    pub first: Lsn,
    /// The rest.
    pub part: Part,
}

impl PlacedPart {
    /// The key of its object.
    pub fn key(&self) -> String {
        object_key(self.first, self.part.number)
    }

    /// The commits in it.
    pub fn commits(&self) -> u64 {
        self.part.last.0 - self.first.0 + 1
    }
}

/// The parts of a map in order.
///
/// # Errors
/// A record cannot be read, or the parts leave commits out.
pub fn parts(map: &impl Lookup) -> Result<Vec<PlacedPart>, DecodeError> {
    let mut found: Vec<PlacedPart> = Vec::new();
    for pair in map.range::<Part>(..) {
        let (first, part) = pair?;
        let due = found.last().map_or(Lsn(1), |before| before.part.last.next());
        if Lsn(first) != due || part.last < due {
            return Err(DecodeError::corrupt(format!(
                "the history has the commits {first} to {} where {due} was due",
                part.last
            )));
        }
        found.push(PlacedPart { first: Lsn(first), part });
    }
    Ok(found)
}

/// The last commit of which the history of a map has the rows; 0 before the first.
///
/// # Errors
/// A record cannot be read.
pub fn end(map: &impl Lookup) -> Result<Lsn, DecodeError> {
    let last = map.range::<Part>(..).next_back().transpose()?;
    Ok(last.map_or(Lsn(0), |(_, part)| part.last))
}

/// The objects that may exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// The keys of those that parts name, with their bytes.
    pub named: Vec<(String, u64)>,
    /// The keys of loose ones.
    pub loose: Vec<String>,
}

/// The objects that a map names.
///
/// # Errors
/// A record cannot be read.
pub fn objects(map: &impl Lookup) -> Result<Objects, DecodeError> {
    let named = parts(map)?.into_iter().map(|part| (part.key(), part.part.bytes)).collect();
    let mut loose = Vec::new();
    for pair in map.range::<Loose>(..) {
        let (number, found) = pair?;
        loose.push(object_key(found.first, number));
    }
    Ok(Objects { named, loose })
}

/// The keys of waste, and since when it is waste.
///
/// # Errors
/// A record cannot be read.
pub fn waste(map: &impl Lookup) -> Result<Vec<(String, Timestamp)>, DecodeError> {
    let mut found = Vec::new();
    for pair in map.range::<Loose>(..) {
        let (number, loose) = pair?;
        if let Why::Waste { since, .. } = loose.why {
            found.push((object_key(loose.first, number), since));
        }
    }
    Ok(found)
}

/// Objects of the history that are missing from a store or have another length, one line each. `length` says how long
/// an object is, if it is there.
///
/// # Errors
/// A record cannot be read.
pub fn damage(map: &impl Lookup, length: impl Fn(&str) -> Option<u64>) -> Result<Vec<String>, DecodeError> {
    let mut lines = Vec::new();
    for part in parts(map)? {
        let key = part.key();
        let what = format!("the history of the commits {} to {}", part.first, part.part.last);
        match length(&key) {
            None => lines.push(format!("{key} is missing: {what}")),
            Some(found) if found != part.part.bytes => {
                lines.push(format!("{key} has {found} bytes instead of {}: {what}", part.part.bytes));
            }
            Some(_) => {}
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use floe_meta::MapRecord;

    use super::*;

    fn check<R: MapRecord + PartialEq + std::fmt::Debug>(record: &R, golden: &str) {
        let mut body = Vec::new();
        record.encode(&mut body);
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden, "persisted: a change needs a new version");
        assert_eq!(&R::decode(R::VERSION, &body).expect("just encoded"), record);
    }

    // The bytes below are in users' journals and never change.
    #[test]
    fn records_are_as_they_were() {
        let part = Part {
            last: Lsn(300),
            number: 1 << 40 | 5,
            bytes: 7,
            crc: 8,
            rows: 9,
            from: Timestamp(10),
            to: Timestamp(-1),
            since: Lsn(301),
        };
        check(&part, "ac02 8580808080 20 07 08 09 14 01 ad02".replace(' ', "").as_str());
        check(&Loose { first: Lsn(1), why: Why::Begun { epoch: 2 } }, "010002");
        let waste = Why::Waste { since: Timestamp(3), lsn: Lsn(4) };
        check(&Loose { first: Lsn(1), why: waste }, "01010604");
        assert_eq!(object_key(Lsn(300), 5), "history/1/000000000000012c-0000000000000005");
    }
}
