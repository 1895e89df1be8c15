//! The history's records in the metadata map. They are persisted: a new field needs a new version.
//!
//! ```text
//! key 50 Part    first LSN        -> last LSN, object, rows, times
//! key 51 Loose   object number    -> an object that may be in the store and that no part names
//! key 52 Table                    -> the newest state of the Iceberg table that the parts are
//! key 53 Document number          -> a document of that table
//! ```
//! The parts of a map have every commit up to the last of them, each once. The store is never searched: an object is of
//! a part, or loose, or a document.

use floe_env::Timestamp;
use floe_log::WriterNumber;
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

/// The newest state of the Iceberg table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its id.
    pub uuid: u128,
    /// The number of its metadata document.
    pub metadata: u64,
    /// The number of the manifest list of its current snapshot.
    pub list: u64,
    /// Snapshots so far.
    pub snapshots: u64,
    /// Snapshots that it keeps.
    pub kept: u64,
    /// The last commit of which it has the rows.
    pub end: Lsn,
    /// The parts that are its data files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest snapshot that it keeps has the parts that there were at this commit. Whatever part was replaced
    /// later is still needed.
    pub oldest: Lsn,
    /// When `oldest` moved.
    pub moved: Timestamp,
    /// The time of that snapshot.
    pub oldest_time: Timestamp,
}

impl Table {
    /// Whether a part that a commit replaced is of no snapshot that the table keeps.
    pub(crate) fn is_rid_of(&self, replaced: Lsn) -> bool {
        replaced <= self.oldest
    }
}

/// A document of the Iceberg table that may be in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// What it is.
    pub form: Form,
    /// Its bytes; 0 while it is being written.
    pub bytes: u64,
    /// CRC-32C of it; 0 while it is being written.
    pub crc: u32,
    /// Why it is there.
    pub state: State,
}

/// The form of a document. Its name follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// A manifest or a manifest list.
    Avro,
    /// A metadata document.
    Metadata,
}

/// Why a document is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It is being written, under this epoch of the lease.
    Begun {
        /// The epoch.
        epoch: u64,
    },
    /// The table needs it.
    Live,
    /// Nothing needs it any more.
    Waste {
        /// Since when.
        since: Timestamp,
        /// The commit since which nothing does.
        lsn: Lsn,
    },
}

postcard_record!(Part, 50, 1, u64);
postcard_record!(Loose, 51, 1, u64);
postcard_record!(Table, 52, 1, ());
postcard_record!(Document, 53, 1, u64);

/// The key of an object in the store.
pub fn object_key(first: Lsn, number: u64) -> String {
    format!("{FOLDER}/{:016x}-{number:016x}", first.0)
}

/// The key of a document in the store. The name of a metadata document is `<version>-<uuid>.metadata.json`, as
/// Iceberg's specification says, so that readers without a catalog find the newest.
pub fn document_key(form: Form, number: u64) -> String {
    match form {
        Form::Avro => format!("{FOLDER}/metadata/{number:016x}.avro"),
        Form::Metadata => {
            // RFC 9562's version 8, whose bits are the application's.
            let uuid = uuid::Builder::from_custom_bytes(u128::from(number).to_be_bytes()).into_uuid();
            format!("{FOLDER}/metadata/{:05}-{uuid}.metadata.json", WriterNumber::count(number))
        }
    }
}

/// The Iceberg table of a map; none before its first snapshot.
///
/// # Errors
/// The record cannot be read.
pub fn table(map: &impl Lookup) -> Result<Option<Table>, DecodeError> {
    map.get::<Table>(&())
}

/// The documents of the table that may exist, by their numbers.
///
/// # Errors
/// A record cannot be read.
pub fn documents(map: &impl Lookup) -> Result<Vec<(u64, Document)>, DecodeError> {
    map.range::<Document>(..).collect()
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
    /// The keys of those that parts name, and of the documents of their table, with their bytes.
    pub named: Vec<(String, u64)>,
    /// The keys of loose ones, and of documents that nothing needs.
    pub loose: Vec<String>,
}

/// The objects that a map names.
///
/// # Errors
/// A record cannot be read.
pub fn objects(map: &impl Lookup) -> Result<Objects, DecodeError> {
    let mut named: Vec<_> = parts(map)?.into_iter().map(|part| (part.key(), part.part.bytes)).collect();
    let mut loose = Vec::new();
    for pair in map.range::<Loose>(..) {
        let (number, found) = pair?;
        loose.push(object_key(found.first, number));
    }
    for (number, document) in documents(map)? {
        let key = document_key(document.form, number);
        match document.state {
            State::Live => named.push((key, document.bytes)),
            State::Begun { .. } | State::Waste { .. } => loose.push(key),
        }
    }
    Ok(Objects { named, loose })
}

/// The keys of waste, and since when nothing needs it.
///
/// # Errors
/// A record cannot be read.
pub fn waste(map: &impl Lookup) -> Result<Vec<(String, Timestamp)>, DecodeError> {
    Ok(wasted(map)?.into_iter().map(|waste| (waste.key, waste.since)).collect())
}

/// An object that nothing needs: no part, and no snapshot of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waste {
    pub(crate) key: String,
    pub(crate) number: u64,
    pub(crate) since: Timestamp,
    /// Snapshots of the map before this commit refer to it.
    pub(crate) lsn: Lsn,
}

pub(crate) fn wasted(map: &impl Lookup) -> Result<Vec<Waste>, DecodeError> {
    let table = table(map)?;
    let mut found = Vec::new();
    for pair in map.range::<Loose>(..) {
        let (number, loose) = pair?;
        if let Why::Waste { since, lsn } = loose.why
            && table.is_none_or(|table| table.is_rid_of(lsn))
        {
            // One that was never a part's is of no snapshot.
            let moved = table.filter(|_| lsn > Lsn(0)).map_or(since, |table| table.moved);
            let key = object_key(loose.first, number);
            found.push(Waste { key, number, since: since.max(moved), lsn });
        }
    }
    for (number, document) in documents(map)? {
        if let State::Waste { since, lsn } = document.state {
            found.push(Waste { key: document_key(document.form, number), number, since, lsn });
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
    for (number, document) in
        documents(map)?.into_iter().filter(|(_, document)| document.state == State::Live)
    {
        let key = document_key(document.form, number);
        let what = "a document of the table system.commits, which other readers need";
        match length(&key) {
            None => lines.push(format!("{key} is missing: {what}")),
            Some(found) if found != document.bytes => {
                lines.push(format!("{key} has {found} bytes instead of {}: {what}", document.bytes));
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

    #[test]
    fn the_table_and_its_documents_are_as_they_were() {
        let table = Table {
            uuid: 300,
            metadata: 1,
            list: 2,
            snapshots: 3,
            kept: 10,
            end: Lsn(4),
            files: 5,
            rows: 6,
            bytes: 7,
            oldest: Lsn(8),
            moved: Timestamp(9),
            oldest_time: Timestamp(-1),
        };
        check(&table, "ac020102030a0405060708 1201".replace(' ', "").as_str());
        let document = Document { form: Form::Avro, bytes: 300, crc: 5, state: State::Begun { epoch: 2 } };
        check(&document, "00ac02050002");
        check(&Document { form: Form::Metadata, state: State::Live, ..document }, "01ac020501");
        let waste = State::Waste { since: Timestamp(3), lsn: Lsn(4) };
        check(&Document { state: waste, ..document }, "00ac0205020604");
        let number = WriterNumber(7).number(12);
        assert_eq!(document_key(Form::Avro, number), "history/1/metadata/000007000000000c.avro");
        assert_eq!(
            document_key(Form::Metadata, number),
            "history/1/metadata/00012-00000000-0000-8000-8000-07000000000c.metadata.json"
        );
    }
}
