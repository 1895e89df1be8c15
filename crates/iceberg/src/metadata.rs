//! The metadata document of a table (Iceberg's specification, "Table Metadata Fields").

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{error::Error, schema::Schema, snapshot::Snapshot};

/// The branch that readers take unless they ask for another.
pub const MAIN_BRANCH: &str = "main";

/// The version of Iceberg's table format.
const FORMAT_VERSION: u8 = 2;

/// The id of the last partition field of a table that has none.
const NO_PARTITION_ID: i32 = 999;

/// The property with the checksum of the file.
const CHECKSUM: &str = "floe.crc32c";

const CHECKSUM_DIGITS: usize = 8;

/// The metadata of a table: its schemas, its snapshots, and which of them are the current ones. It is consistent in
/// itself.
#[derive(Clone, Debug, PartialEq)]
pub struct TableMetadata(pub(crate) Document);

/// The document as it is in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Document {
    format_version: u8,
    table_uuid: Uuid,
    location: String,
    pub(crate) last_sequence_number: i64,
    pub(crate) last_updated_ms: i64,
    pub(crate) last_column_id: i32,
    /// By id.
    pub(crate) schemas: Vec<Schema>,
    pub(crate) current_schema_id: i32,
    partition_specs: Vec<PartitionSpec>,
    default_spec_id: i32,
    last_partition_id: i32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) properties: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current_snapshot_id: Option<i64>,
    /// By sequence number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) snapshots: Vec<Snapshot>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) snapshot_log: Vec<SnapshotLog>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) metadata_log: Vec<MetadataLog>,
    sort_orders: Vec<SortOrder>,
    default_sort_order_id: i64,
    #[serde(default)]
    pub(crate) refs: BTreeMap<String, Reference>,
}

/// No partitions. A document with some does not parse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PartitionSpec {
    spec_id: i32,
    fields: [(); 0],
}

/// No order. A document with one does not parse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SortOrder {
    order_id: i64,
    fields: [(); 0],
}

/// When a snapshot became the current one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotLog {
    /// The snapshot.
    pub snapshot_id: i64,
    /// Milliseconds since 1970 in UTC.
    pub timestamp_ms: i64,
}

/// An earlier metadata document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MetadataLog {
    /// Its URL.
    pub metadata_file: String,
    /// The time of its commit, in milliseconds since 1970 in UTC.
    pub timestamp_ms: i64,
}

/// The name of a snapshot: a branch, or a tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reference {
    /// The snapshot.
    pub snapshot_id: i64,
    /// `branch` or `tag`, and how long it is kept.
    #[serde(flatten)]
    pub(crate) kept: BTreeMap<String, Value>,
}

impl TableMetadata {
    /// The first state of a table, without a snapshot. `location` is the URL of its folder, and `time_ms` counts
    /// milliseconds since 1970 in UTC. The largest id that columns had so far is `last_column_id`, or that of `schema`.
    pub fn new(
        table_uuid: Uuid,
        location: &str,
        schema: Schema,
        last_column_id: i32,
        properties: BTreeMap<String, String>,
        time_ms: i64,
    ) -> TableMetadata {
        TableMetadata(Document {
            format_version: FORMAT_VERSION,
            table_uuid,
            location: location.trim_end_matches('/').to_owned(),
            last_sequence_number: 0,
            last_updated_ms: time_ms,
            last_column_id: last_column_id.max(schema.highest_field_id()),
            current_schema_id: schema.schema_id(),
            schemas: vec![schema],
            partition_specs: vec![PartitionSpec { spec_id: 0, fields: [] }],
            default_spec_id: 0,
            last_partition_id: NO_PARTITION_ID,
            properties,
            current_snapshot_id: None,
            snapshots: Vec::new(),
            snapshot_log: Vec::new(),
            metadata_log: Vec::new(),
            sort_orders: vec![SortOrder { order_id: 0, fields: [] }],
            default_sort_order_id: 0,
            refs: BTreeMap::new(),
        })
    }

    /// Reads a document. An early version of Floe wrote documents without a checksum.
    ///
    /// # Errors
    /// It is not one that Floe writes, it contradicts itself, or a byte of it has changed.
    pub fn read(json: &[u8]) -> Result<TableMetadata, Error> {
        if let Some(at) = checksum_place(json)
            && json.get(at..at + CHECKSUM_DIGITS) != Some(checksum(json, at).as_bytes())
        {
            return Err(Error::Metadata("its bytes have another checksum".to_owned()));
        }
        let mut document: Document = serde_json::from_slice(json)?;
        // It is the file's, and no setting of the table.
        document.properties.remove(CHECKSUM);
        document.schemas.sort_by_key(Schema::schema_id);
        document.snapshots.sort_by_key(|snapshot| snapshot.sequence_number);
        check(&document)?;
        Ok(TableMetadata(document))
    }

    /// The document as JSON. Members without a value are left out, because readers refuse nulls.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn document(&self) -> Result<Value, Error> {
        Ok(serde_json::to_value(&self.0)?)
    }

    /// The document as a file has it, with a checksum among the properties.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn file(&self) -> Result<Vec<u8>, Error> {
        let mut document = self.0.clone();
        document.properties.insert(CHECKSUM.to_owned(), "0".repeat(CHECKSUM_DIGITS));
        let mut json = serde_json::to_value(&document)?.to_string().into_bytes();
        let at = checksum_place(&json).expect("it was just written");
        let digits = checksum(&json, at);
        json[at..at + CHECKSUM_DIGITS].copy_from_slice(digits.as_bytes());
        Ok(json)
    }

    /// The id of the table, which stays when it is renamed.
    pub fn uuid(&self) -> Uuid {
        self.0.table_uuid
    }

    /// The URL of its folder.
    pub fn location(&self) -> &str {
        &self.0.location
    }

    /// The sequence number of the next snapshot.
    pub fn next_sequence_number(&self) -> i64 {
        self.0.last_sequence_number + 1
    }

    /// The time of the last commit, in milliseconds since 1970 in UTC.
    pub fn last_updated_ms(&self) -> i64 {
        self.0.last_updated_ms
    }

    /// The schema of the table.
    pub fn current_schema(&self) -> &Schema {
        let id = self.0.current_schema_id;
        self.0.schemas.iter().find(|schema| schema.schema_id() == id).expect("a document is checked")
    }

    /// The schemas of the table and of its snapshots, by id.
    pub fn schemas(&self) -> &[Schema] {
        &self.0.schemas
    }

    /// The state of the table; none before the first commit.
    pub fn current_snapshot(&self) -> Option<&Snapshot> {
        let id = self.0.current_snapshot_id?;
        self.0.snapshots.iter().find(|snapshot| snapshot.snapshot_id == id)
    }

    /// The snapshots that have not expired, oldest first.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.0.snapshots
    }

    /// When each snapshot became the current one, oldest first.
    pub fn snapshot_log(&self) -> &[SnapshotLog] {
        &self.0.snapshot_log
    }

    /// The documents before this one, oldest first.
    pub fn metadata_log(&self) -> &[MetadataLog] {
        &self.0.metadata_log
    }

    /// Settings of the table.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.0.properties
    }

    /// Branches and tags.
    pub fn refs(&self) -> &BTreeMap<String, Reference> {
        &self.0.refs
    }
}

/// Where the digits of the checksum begin. In JSON the first quote cannot be in a text, nor end one: it begins a name.
fn checksum_place(json: &[u8]) -> Option<usize> {
    let before = format!("\"{CHECKSUM}\":\"");
    let at = json.windows(before.len()).position(|window| window == before.as_bytes())?;
    Some(at + before.len())
}

/// CRC-32C of the document without the digits of the checksum, which begin at `at`.
fn checksum(json: &[u8], at: usize) -> String {
    let (before, rest) = json.split_at(at);
    let after = rest.get(CHECKSUM_DIGITS..).unwrap_or_default();
    format!("{:08x}", crc32c::crc32c_append(crc32c::crc32c(before), after))
}

/// Refuses a document that says one thing here and another there.
pub(crate) fn check(document: &Document) -> Result<(), Error> {
    let wrong = |what: String| Err(Error::Metadata(what));
    if document.format_version != FORMAT_VERSION {
        return wrong(format!("its format has version {}", document.format_version));
    }
    let schemas: BTreeSet<i32> = document.schemas.iter().map(Schema::schema_id).collect();
    let snapshots: BTreeSet<i64> = document.snapshots.iter().map(|snapshot| snapshot.snapshot_id).collect();
    if schemas.len() != document.schemas.len() || snapshots.len() != document.snapshots.len() {
        return wrong("two schemas or two snapshots have one id".to_owned());
    }
    if !schemas.contains(&document.current_schema_id) {
        return wrong(format!("there is no schema {}, the current one", document.current_schema_id));
    }
    if let Some(snapshot) =
        document.snapshots.iter().find(|s| s.sequence_number > document.last_sequence_number)
    {
        return wrong(format!("snapshot {} is newer than the table", snapshot.snapshot_id));
    }
    let named = document.refs.values().map(|reference| reference.snapshot_id);
    if let Some(lost) = named.chain(document.current_snapshot_id).find(|id| !snapshots.contains(id)) {
        return wrong(format!("there is no snapshot {lost}"));
    }
    let main = document.refs.get(MAIN_BRANCH).map(|main| main.snapshot_id);
    if main != document.current_snapshot_id {
        return wrong(format!(
            "the current snapshot is {:?}, and that of the branch {MAIN_BRANCH} is {main:?}",
            document.current_snapshot_id
        ));
    }
    if document.last_sequence_number == i64::MAX {
        return wrong("it has no sequence numbers left".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &[u8] = include_bytes!("../tests/golden/table.metadata.json");

    #[test]
    fn every_changed_byte_of_a_file_is_seen() {
        let table = TableMetadata::read(DOCUMENT).unwrap();
        let file = table.file().unwrap();
        assert_eq!(TableMetadata::read(&file).unwrap(), table);
        assert_eq!(table.file().unwrap(), file);
        let name = checksum_place(&file).unwrap() - CHECKSUM.len() - 3;
        // A change of the checksum's own name hides the checksum, and nothing else has changed.
        let is_name = |at: &usize| (name - 1..name + CHECKSUM.len() + 3).contains(at);
        for at in (0..file.len()).step_by(3).filter(|at| !is_name(at)) {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(TableMetadata::read(&damaged).is_err(), "byte {at}");
        }
    }

    // The bytes are in the stores of running clusters and never change.
    #[test]
    fn the_checksum_is_as_it_was() {
        let file = TableMetadata::read(DOCUMENT).unwrap().file().unwrap();
        let at = checksum_place(&file).unwrap();
        assert_eq!(&file[at..at + CHECKSUM_DIGITS], b"21d89e89", "persisted");
        assert!(TableMetadata::read(&file[..at]).is_err());
    }
}
