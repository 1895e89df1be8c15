//! Data files and their statistics.

use std::collections::BTreeMap;

use crate::{
    avro::{Decoder, Encoder},
    container::{self, Header},
    error::Error,
    manifest_list::{DATA, ManifestFile, UNPARTITIONED},
    schema::{Primitive, Schema},
    shapes::MANIFEST_ENTRY,
};

const PARQUET: &str = "PARQUET";

/// What a manifest says of a data file.
#[derive(Clone, Debug, PartialEq)]
pub struct ManifestEntry {
    /// What became of the file.
    pub status: Status,
    /// The snapshot that added the file, or that removed it if it is removed. None is that of the manifest.
    pub snapshot_id: Option<i64>,
    /// The sequence number of the file's rows. None is that of the manifest, if the file is added.
    pub sequence_number: Option<i64>,
    /// The sequence number of the snapshot that added the file. None as above.
    pub file_sequence_number: Option<i64>,
    /// The file.
    pub data_file: DataFile,
}

/// What became of a file in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was there before.
    Existing = 0,
    /// This snapshot added it.
    Added = 1,
    /// This snapshot removed it.
    Deleted = 2,
}

/// A Parquet file of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataFile {
    /// Its URL.
    pub file_path: String,
    /// Its rows.
    pub record_count: u64,
    /// Its size.
    pub file_size_in_bytes: u64,
    /// What it says of its columns.
    pub metrics: Metrics,
}

/// Statistics of a file's leaves, by their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Bytes in the file.
    pub column_sizes: BTreeMap<i32, u64>,
    /// Values, nulls included.
    pub value_counts: BTreeMap<i32, u64>,
    /// Nulls.
    pub null_value_counts: BTreeMap<i32, u64>,
    /// No value is below this one, as [`crate::Primitive::compare_bounds`] takes it.
    pub lower_bounds: BTreeMap<i32, Vec<u8>>,
    /// No value is above this one.
    pub upper_bounds: BTreeMap<i32, Vec<u8>>,
    /// Where the row groups begin, ascending.
    pub split_offsets: Vec<i64>,
}

impl ManifestEntry {
    /// A file that a snapshot adds.
    pub fn added(data_file: DataFile, snapshot_id: i64) -> ManifestEntry {
        let (sequence_number, file_sequence_number) = (None, None);
        let snapshot_id = Some(snapshot_id);
        ManifestEntry { status: Status::Added, snapshot_id, sequence_number, file_sequence_number, data_file }
    }

    /// A file that a snapshot adds for rows which the table had before, the youngest of which this sequence number
    /// has.
    pub fn replacing(data_file: DataFile, snapshot_id: i64, sequence_number: i64) -> ManifestEntry {
        let sequence_number = Some(sequence_number);
        ManifestEntry { sequence_number, ..ManifestEntry::added(data_file, snapshot_id) }
    }

    /// The file of an earlier snapshot, in the manifest of a later one.
    #[must_use]
    pub fn kept(self) -> ManifestEntry {
        ManifestEntry { status: Status::Existing, ..self }
    }

    /// The file of an earlier snapshot, which this one removes.
    #[must_use]
    pub fn removed(self, snapshot_id: i64) -> ManifestEntry {
        ManifestEntry { status: Status::Deleted, snapshot_id: Some(snapshot_id), ..self }
    }

    /// Fills in what the entry does not say itself from the manifest that it is in (Iceberg's specification, "Sequence
    /// Number Inheritance").
    pub fn inherit(&mut self, manifest: &ManifestFile) {
        self.snapshot_id.get_or_insert(manifest.added_snapshot_id);
        if self.status == Status::Added {
            self.sequence_number.get_or_insert(manifest.sequence_number);
            self.file_sequence_number.get_or_insert(manifest.sequence_number);
        }
    }

    /// Whether the file is in the table.
    pub fn is_alive(&self) -> bool {
        self.status != Status::Deleted
    }
}

/// Members of the header of a manifest.
const MANIFEST_MEMBERS: [&str; 6] =
    ["schema", "schema-id", "partition-spec", "partition-spec-id", "format-version", "content"];

/// Encodes the manifest of these entries. `path` is the URL that it will have, and the rest is of the snapshot that
/// adds it. The bounds of columns that the schema does not have are left out.
///
/// # Errors
/// A file that was not added by this snapshot has no sequence number, or a count is too large for the format.
pub fn write_manifest(
    path: &str,
    snapshot_id: i64,
    sequence_number: i64,
    schema: &Schema,
    entries: &[ManifestEntry],
) -> Result<(ManifestFile, Vec<u8>), Error> {
    let header = [
        serde_json::to_string(schema)?,
        schema.schema_id().to_string(),
        "[]".to_owned(),
        UNPARTITIONED.to_string(),
        "2".to_owned(),
        "data".to_owned(),
    ];
    let types = schema.primitives();
    let write = |to: &mut Encoder, entry: &ManifestEntry| write(to, &types, entry);
    let bytes = container::write(&MANIFEST_ENTRY, &MANIFEST_MEMBERS, &header, entries, write)?;
    let of = |status| entries.iter().filter(move |entry: &&ManifestEntry| entry.status == status);
    let files = |status| {
        let files = of(status).count();
        u32::try_from(files).ok().filter(|n| i32::try_from(*n).is_ok()).ok_or(Error::TooLarge(files as u64))
    };
    let rows = |status| of(status).fold(0_u64, |sum, entry| sum.saturating_add(entry.data_file.record_count));
    let live = entries.iter().filter(|entry| entry.is_alive());
    let least = live.map(|entry| entry.sequence_number.unwrap_or(sequence_number)).min();
    let manifest = ManifestFile {
        manifest_path: path.to_owned(),
        manifest_length: bytes.len() as u64,
        sequence_number,
        min_sequence_number: least.unwrap_or(sequence_number),
        added_snapshot_id: snapshot_id,
        added_files_count: files(Status::Added)?,
        existing_files_count: files(Status::Existing)?,
        deleted_files_count: files(Status::Deleted)?,
        added_rows_count: rows(Status::Added),
        existing_rows_count: rows(Status::Existing),
        deleted_rows_count: rows(Status::Deleted),
    };
    Ok((manifest, bytes))
}

/// Reads the entries of a manifest as it has them: [`ManifestEntry::inherit`] completes them.
///
/// # Errors
/// It is not one that Floe writes.
pub fn read_manifest(bytes: &[u8]) -> Result<Vec<ManifestEntry>, Error> {
    let check = |header: &Header<'_>| {
        let is = |name, wanted: &[u8]| container::find(header, name) == Some(wanted);
        if is("format-version", b"2") && is("content", b"data") && is("partition-spec", b"[]") {
            return Ok(());
        }
        Err(Error::Avro("its format has another version than 2, or it has partitions or deletes"))
    };
    container::read(bytes, &MANIFEST_ENTRY, &MANIFEST_MEMBERS, check, read)
}

/// The same, completed with what they inherit from `file`, the manifest as its list names it.
///
/// # Errors
/// It is not one that Floe writes.
pub fn read_entries(bytes: &[u8], file: &ManifestFile) -> Result<Vec<ManifestEntry>, Error> {
    let mut entries = read_manifest(bytes)?;
    entries.iter_mut().for_each(|entry| entry.inherit(file));
    Ok(entries)
}

fn write(to: &mut Encoder, types: &BTreeMap<i32, Primitive>, entry: &ManifestEntry) -> Result<(), Error> {
    let file = &entry.data_file;
    let numbers = [entry.snapshot_id, entry.sequence_number, entry.file_sequence_number];
    if entry.status != Status::Added && numbers.contains(&None) {
        return Err(Error::NoSequenceNumber(file.file_path.clone()));
    }
    to.long(entry.status as i64);
    numbers.into_iter().for_each(|number| to.optional_long(number));
    to.long(DATA);
    to.bytes(file.file_path.as_bytes());
    to.bytes(PARQUET.as_bytes());
    // The partition is a record without fields, which takes no bytes.
    to.count(file.record_count)?;
    to.count(file.file_size_in_bytes)?;
    let metrics = &file.metrics;
    for counts in [&metrics.column_sizes, &metrics.value_counts, &metrics.null_value_counts] {
        write_map(to, counts.iter().map(|(id, count)| (*id, *count)).collect(), Encoder::count)?;
    }
    // Floe does not count values that are not a number.
    write_map(to, Vec::new(), Encoder::count)?;
    for bounds in [&metrics.lower_bounds, &metrics.upper_bounds] {
        let bounds = bounds.iter().filter_map(|(id, bound)| Some((*id, types.get(id)?.widen(bound))));
        write_map(to, bounds.collect(), |to, bound| {
            to.bytes(&bound);
            Ok(())
        })?;
    }
    // No key: it is not encrypted.
    to.none();
    to.some();
    to.array(metrics.split_offsets.iter(), |to, offset| {
        to.long(*offset);
        Ok(())
    })?;
    // equality_ids, sort_order_id, first_row_id, referenced_data_file, content_offset, content_size_in_bytes
    (0..6).for_each(|_| to.none());
    Ok(())
}

fn write_map<T>(
    to: &mut Encoder,
    pairs: Vec<(i32, T)>,
    write: impl Fn(&mut Encoder, T) -> Result<(), Error>,
) -> Result<(), Error> {
    to.some();
    to.array(pairs.into_iter(), |to, (id, value)| {
        to.long(id.into());
        write(to, value)
    })
}

fn read(from: &mut Decoder<'_>) -> Result<ManifestEntry, Error> {
    let status = match from.long()? {
        0 => Status::Existing,
        1 => Status::Added,
        2 => Status::Deleted,
        _ => return Err(Error::Avro("an entry is neither added nor kept nor removed")),
    };
    let snapshot_id = from.optional(Decoder::long)?;
    let sequence_number = from.optional(Decoder::long)?;
    let file_sequence_number = from.optional(Decoder::long)?;
    if from.long()? != DATA {
        return Err(Error::Avro("a file has deletes of rows"));
    }
    let file_path = from.text()?.to_owned();
    if !from.text()?.eq_ignore_ascii_case(PARQUET) {
        return Err(Error::Avro("a file is not Parquet"));
    }
    let (record_count, file_size_in_bytes) = (from.count()?, from.count()?);
    let mut metrics = Metrics {
        column_sizes: read_map(from, Decoder::count)?,
        value_counts: read_map(from, Decoder::count)?,
        null_value_counts: read_map(from, Decoder::count)?,
        ..Metrics::default()
    };
    read_map(from, Decoder::count)?;
    metrics.lower_bounds = read_map(from, |from| Ok(from.bytes()?.to_vec()))?;
    metrics.upper_bounds = read_map(from, |from| Ok(from.bytes()?.to_vec()))?;
    from.null()?;
    from.optional(|from| {
        from.array(|from| {
            metrics.split_offsets.push(from.long()?);
            Ok(())
        })
    })?;
    (0..6).try_for_each(|_| from.null())?;
    let data_file = DataFile { file_path, record_count, file_size_in_bytes, metrics };
    Ok(ManifestEntry { status, snapshot_id, sequence_number, file_sequence_number, data_file })
}

fn read_map<'a, T>(
    from: &mut Decoder<'a>,
    read: impl Fn(&mut Decoder<'a>) -> Result<T, Error>,
) -> Result<BTreeMap<i32, T>, Error> {
    let mut map = BTreeMap::new();
    from.optional(|from| {
        from.array(|from| {
            map.insert(from.int()?, read(from)?);
            Ok(())
        })
    })?;
    Ok(map)
}
