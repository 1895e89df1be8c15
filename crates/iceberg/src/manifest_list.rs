//! The manifests of a snapshot.

use crate::{
    avro::{Decoder, Encoder},
    container::{self, Header},
    error::Error,
    shapes::MANIFEST_FILE,
};

/// The number of the partition spec that has no fields.
pub(crate) const UNPARTITIONED: i64 = 0;

/// The content of a manifest or of a file: rows, as opposed to deletes of rows.
pub(crate) const DATA: i64 = 0;

/// Members of the header of a manifest list.
pub(crate) const LIST_MEMBERS: [&str; 4] =
    ["snapshot-id", "parent-snapshot-id", "sequence-number", "format-version"];

/// A manifest, as a manifest list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its URL.
    pub manifest_path: String,
    /// Its size in bytes.
    pub manifest_length: u64,
    /// The sequence number of the snapshot that added it.
    pub sequence_number: i64,
    /// The least sequence number of its live files, or its own if it has none.
    pub min_sequence_number: i64,
    /// The snapshot that added it.
    pub added_snapshot_id: i64,
    /// Files that this snapshot added.
    pub added_files_count: u32,
    /// Files that an earlier snapshot added.
    pub existing_files_count: u32,
    /// Files that this snapshot removed.
    pub deleted_files_count: u32,
    /// Rows in files that this snapshot added.
    pub added_rows_count: u64,
    /// Rows in files that an earlier snapshot added.
    pub existing_rows_count: u64,
    /// Rows in files that this snapshot removed.
    pub deleted_rows_count: u64,
}

impl ManifestFile {
    /// Files that are live in it.
    pub fn live(&self) -> u64 {
        u64::from(self.added_files_count) + u64::from(self.existing_files_count)
    }
}

/// Encodes the manifest list of a snapshot.
///
/// # Errors
/// A count is too large for the format.
pub fn write_manifest_list(
    snapshot_id: i64,
    parent_snapshot_id: Option<i64>,
    sequence_number: i64,
    manifests: &[ManifestFile],
) -> Result<Vec<u8>, Error> {
    let header = [
        snapshot_id.to_string(),
        parent_snapshot_id.map_or("null".to_owned(), |parent| parent.to_string()),
        sequence_number.to_string(),
        "2".to_owned(),
    ];
    container::write(&MANIFEST_FILE, &LIST_MEMBERS, &header, manifests, write)
}

/// Reads a manifest list.
///
/// # Errors
/// It is not one that Floe writes.
pub fn read_manifest_list(bytes: &[u8]) -> Result<Vec<ManifestFile>, Error> {
    let check = |header: &Header<'_>| match container::find(header, "format-version") {
        Some(b"2") => Ok(()),
        _ => Err(Error::Avro("its format has another version than 2")),
    };
    container::read(bytes, &MANIFEST_FILE, &LIST_MEMBERS, check, read)
}

fn write(to: &mut Encoder, manifest: &ManifestFile) -> Result<(), Error> {
    to.bytes(manifest.manifest_path.as_bytes());
    to.count(manifest.manifest_length)?;
    to.long(UNPARTITIONED);
    to.long(DATA);
    to.long(manifest.sequence_number);
    to.long(manifest.min_sequence_number);
    to.long(manifest.added_snapshot_id);
    to.long(manifest.added_files_count.into());
    to.long(manifest.existing_files_count.into());
    to.long(manifest.deleted_files_count.into());
    to.count(manifest.added_rows_count)?;
    to.count(manifest.existing_rows_count)?;
    to.count(manifest.deleted_rows_count)?;
    // The summaries of the partition fields: there are none.
    to.some();
    to.array(std::iter::empty(), |_, ()| Ok(()))?;
    // No key: it is not encrypted.
    to.none();
    Ok(())
}

fn read(from: &mut Decoder<'_>) -> Result<ManifestFile, Error> {
    let manifest_path = from.text()?.to_owned();
    let manifest_length = from.count()?;
    if (from.long()?, from.long()?) != (UNPARTITIONED, DATA) {
        return Err(Error::Avro("a manifest has partitions, or deletes rows"));
    }
    let files = |from: &mut Decoder<'_>| {
        u32::try_from(from.int()?).map_err(|_| Error::Avro("a number of files is negative"))
    };
    let manifest = ManifestFile {
        manifest_path,
        manifest_length,
        sequence_number: from.long()?,
        min_sequence_number: from.long()?,
        added_snapshot_id: from.long()?,
        added_files_count: files(from)?,
        existing_files_count: files(from)?,
        deleted_files_count: files(from)?,
        added_rows_count: from.count()?,
        existing_rows_count: from.count()?,
        deleted_rows_count: from.count()?,
    };
    from.optional(|from| from.array(|_| Err(Error::Avro("a manifest has partitions"))))?;
    from.null()?;
    Ok(manifest)
}
