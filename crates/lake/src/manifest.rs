//! Manifests: which are merged, and how they are read and written.
//!
//! Every commit adds one manifest. [`plan`] keeps their number logarithmic: as soon as there are eight of about the
//! same size, they become one. So the entry of a file is rewritten about once for each power of eight in the number of
//! the table's files.

use std::sync::Arc;

use bytes::Bytes;
use iceberg::{
    io::FileIO,
    spec::{
        DataFile, FormatVersion, Manifest, ManifestEntry, ManifestFile, ManifestList, ManifestListWriter,
        ManifestStatus, ManifestWriterBuilder, PartitionSpec, SchemaRef,
    },
};

use crate::limits::{MANIFEST_ENTRIES_MAX, MANIFEST_MERGE};

/// Which manifests are merged, given their numbers of entries: groups of indices.
pub(crate) fn plan(entries: &[u64]) -> Vec<Vec<usize>> {
    let base = MANIFEST_MERGE as u64;
    let level = |entries: u64| entries.max(1).ilog(base);
    let mut groups: Vec<(u64, Vec<usize>)> =
        entries.iter().enumerate().map(|(at, n)| (*n, vec![at])).collect();
    let mut current = 0;
    while current <= level(MANIFEST_ENTRIES_MAX) {
        let fits = |(n, _): &(u64, Vec<usize>)| level(*n) == current && *n < MANIFEST_ENTRIES_MAX;
        if groups.iter().filter(|group| fits(group)).count() >= MANIFEST_MERGE {
            let (merged, rest): (Vec<_>, Vec<_>) = groups.into_iter().partition(fits);
            groups = rest;
            let total = merged.iter().map(|(n, _)| n).sum();
            groups.push((total, merged.into_iter().flat_map(|(_, at)| at).collect()));
        }
        current += 1;
    }
    groups.into_iter().map(|(_, group)| group).filter(|group| group.len() > 1).collect()
}

/// The manifests that a manifest list names.
pub(crate) fn parse_list(bytes: &[u8]) -> Result<Vec<ManifestFile>, iceberg::Error> {
    let list = ManifestList::parse_with_version(bytes, FormatVersion::V2)?;
    Ok(list.consume_entries().into_iter().collect())
}

/// Files that are live in a manifest.
pub(crate) fn live(manifest: &ManifestFile) -> u64 {
    u64::from(manifest.added_files_count.unwrap_or(0)) + u64::from(manifest.existing_files_count.unwrap_or(0))
}

/// The entries of a manifest, with the values that they inherit from `file` (Iceberg's specification, "Sequence Number
/// Inheritance").
pub(crate) fn parse(bytes: &[u8], file: &ManifestFile) -> Result<Vec<ManifestEntry>, iceberg::Error> {
    let (entries, _) = Manifest::parse_avro(bytes)?.into_parts();
    let inherit = |entry: Arc<ManifestEntry>| {
        let mut entry = Arc::unwrap_or_clone(entry);
        entry.snapshot_id = entry.snapshot_id.or(Some(file.added_snapshot_id));
        if entry.status == ManifestStatus::Added {
            entry.sequence_number = entry.sequence_number.or(Some(file.sequence_number));
            entry.file_sequence_number = entry.file_sequence_number.or(Some(file.sequence_number));
        }
        entry
    };
    Ok(entries.into_iter().map(inherit).collect())
}

/// What a new manifest says of a file.
pub(crate) enum Change {
    Added(DataFile),
    Kept(ManifestEntry),
    Removed(ManifestEntry),
}

/// Encodes a manifest for `url`.
pub(crate) async fn write(
    url: &str,
    snapshot_id: i64,
    schema: SchemaRef,
    changes: Vec<Change>,
) -> Result<(ManifestFile, Bytes), iceberg::Error> {
    let io = FileIO::new_with_memory();
    let spec = PartitionSpec::unpartition_spec();
    let builder = ManifestWriterBuilder::new(io.new_output(url)?, Some(snapshot_id), schema, spec);
    let mut writer = builder.build_v2_data();
    let lost =
        || iceberg::Error::new(iceberg::ErrorKind::DataInvalid, "a manifest entry has no sequence number");
    for change in changes {
        match change {
            Change::Added(file) => writer.add_file(file, -1)?,
            Change::Kept(entry) => {
                let added = entry.snapshot_id.ok_or_else(lost)?;
                let sequence = entry.sequence_number.ok_or_else(lost)?;
                writer.add_existing_file(entry.data_file, added, sequence, entry.file_sequence_number)?;
            }
            Change::Removed(entry) => {
                let sequence = entry.sequence_number.ok_or_else(lost)?;
                writer.add_delete_file(entry.data_file, sequence, entry.file_sequence_number)?;
            }
        }
    }
    let manifest = writer.write_manifest_file().await?;
    let bytes = io.new_input(url)?.read().await?;
    Ok((manifest, bytes))
}

/// Encodes a manifest list for `url`.
pub(crate) async fn write_list(
    url: &str,
    snapshot_id: i64,
    parent: Option<i64>,
    sequence: i64,
    manifests: Vec<ManifestFile>,
) -> Result<Bytes, iceberg::Error> {
    let io = FileIO::new_with_memory();
    let output = io.new_output(url)?.writer().await?;
    let mut writer = ManifestListWriter::v2(output, snapshot_id, parent, sequence);
    writer.add_manifests(manifests.into_iter())?;
    writer.close().await?;
    io.new_input(url)?.read().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_manifests_stays_logarithmic() {
        let (mut manifests, mut written) = (Vec::<u64>::new(), 0);
        for commits in 1..=20_000_u64 {
            let groups = plan(&manifests);
            let gone: Vec<usize> = groups.iter().flatten().copied().collect();
            let merged = groups.iter().map(|group| group.iter().map(|at| manifests[*at]).sum::<u64>());
            let merged: Vec<u64> = merged.collect();
            written += merged.iter().sum::<u64>();
            manifests =
                (0..manifests.len()).filter(|at| !gone.contains(at)).map(|at| manifests[at]).collect();
            manifests.extend(merged);
            manifests.push(1);
            assert_eq!(manifests.iter().sum::<u64>(), commits, "no file is lost");
            assert!(manifests.len() <= 8 * 5 + 5, "{manifests:?}");
        }
        assert!(written <= 20_000 * 5, "an entry is written again once for each power of eight: {written}");
    }
}
