//! Round trips, and documents that are damaged or lie.

use std::collections::BTreeMap;

use proptest::{collection, option, prelude::*};

use crate::{
    DataFile, Field, List, ManifestEntry, ManifestFile, Metrics, Primitive, Schema, Status, Struct, Type,
    read_manifest, read_manifest_list, write_manifest, write_manifest_list,
};

mod golden;

/// A column of each type: 1 is boolean, and so on in the order of the types. The elements of the list have id 8, and
/// the columns of the struct 9 and 10.
pub(crate) fn schema() -> Schema {
    let field = |id: i32, field_type| Field {
        id,
        name: format!("c{id}"),
        required: id == 1,
        field_type,
        doc: (id == 2).then(|| "why \"it\" is here".to_owned()),
    };
    let primitives = [
        Primitive::Boolean,
        Primitive::Int,
        Primitive::Long,
        Primitive::Double,
        Primitive::String,
        Primitive::Binary,
        Primitive::Timestamptz,
    ];
    let mut fields: Vec<Field> =
        (1..).zip(primitives).map(|(id, of)| field(id, Type::Primitive(of))).collect();
    let element = Box::new(Type::Primitive(Primitive::String));
    fields.push(field(11, Type::List(List { element_id: 8, element_required: false, element })));
    let inner = [9, 10].map(|id| field(id, Type::Primitive(Primitive::Long))).to_vec();
    fields.push(field(12, Type::Struct(Struct { fields: inner })));
    Schema::new(5, fields).unwrap()
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_000_u64, 0..=i64::MAX.cast_unsigned()]
}

fn counts() -> impl Strategy<Value = BTreeMap<i32, u64>> {
    collection::btree_map(any::<i32>(), count(), 0..6)
}

/// Bounds of columns that the schema has. Those of a long column have eight bytes when they come back.
fn bounds() -> impl Strategy<Value = BTreeMap<i32, Vec<u8>>> {
    let bytes = collection::vec(any::<u8>(), 5..40);
    collection::btree_map(1..=10, bytes, 0..6)
}

fn data_file() -> impl Strategy<Value = DataFile> {
    let maps = (counts(), counts(), counts(), bounds(), bounds());
    let offsets = collection::vec(any::<i64>(), 0..4);
    (".{0,40}", count(), count(), maps, offsets).prop_map(|(file_path, rows, bytes, maps, split_offsets)| {
        let (column_sizes, value_counts, null_value_counts, lower_bounds, upper_bounds) = maps;
        let metrics = Metrics {
            column_sizes,
            value_counts,
            null_value_counts,
            lower_bounds,
            upper_bounds,
            split_offsets,
        };
        DataFile { file_path, record_count: rows, file_size_in_bytes: bytes, metrics }
    })
}

fn entry() -> impl Strategy<Value = ManifestEntry> {
    let added = (data_file(), option::of(any::<i64>())).prop_map(|(data_file, number)| {
        let entry = ManifestEntry::added(data_file, 1);
        ManifestEntry { snapshot_id: number, sequence_number: number, ..entry }
    });
    let status = prop_oneof![Just(Status::Existing), Just(Status::Deleted)];
    let numbers = (any::<i64>(), any::<i64>(), any::<i64>());
    let others =
        (data_file(), status, numbers).prop_map(|(data_file, status, (id, rows, file))| ManifestEntry {
            status,
            snapshot_id: Some(id),
            sequence_number: Some(rows),
            file_sequence_number: Some(file),
            data_file,
        });
    prop_oneof![added, others]
}

fn manifest_file() -> impl Strategy<Value = ManifestFile> {
    let files = 0..=i32::MAX.cast_unsigned();
    let files = (files.clone(), files.clone(), files);
    let numbers = (any::<i64>(), any::<i64>(), any::<i64>());
    (".{0,40}", count(), numbers, files, (count(), count(), count())).prop_map(
        |(manifest_path, manifest_length, numbers, files, rows)| ManifestFile {
            manifest_path,
            manifest_length,
            sequence_number: numbers.0,
            min_sequence_number: numbers.1,
            added_snapshot_id: numbers.2,
            added_files_count: files.0,
            existing_files_count: files.1,
            deleted_files_count: files.2,
            added_rows_count: rows.0,
            existing_rows_count: rows.1,
            deleted_rows_count: rows.2,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn manifests_come_back(entries in collection::vec(entry(), 0..40)) {
        let (manifest, bytes) = write_manifest("file:///m", 1, 9, &schema(), &entries).unwrap();
        prop_assert_eq!(&read_manifest(&bytes).unwrap(), &entries);
        prop_assert_eq!(manifest.manifest_length, bytes.len() as u64);
        let counted = manifest.added_files_count + manifest.existing_files_count + manifest.deleted_files_count;
        prop_assert_eq!(counted as usize, entries.len());
        let live = entries.iter().filter(|entry| entry.is_alive());
        let least = live.map(|entry| entry.sequence_number.unwrap_or(9)).min().unwrap_or(9);
        prop_assert_eq!(manifest.min_sequence_number, least);
        let (_, again) = write_manifest("file:///m", 1, 9, &schema(), &entries).unwrap();
        prop_assert_eq!(bytes, again);
    }

    #[test]
    fn manifest_lists_come_back(manifests in collection::vec(manifest_file(), 0..200)) {
        let bytes = write_manifest_list(1, Some(2), 3, &manifests).unwrap();
        prop_assert_eq!(read_manifest_list(&bytes).unwrap(), manifests);
    }

    #[test]
    fn damaged_documents_do_no_harm(
        entries in collection::vec(entry(), 1..8),
        manifests in collection::vec(manifest_file(), 1..8),
        damage in collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let (_, manifest) = write_manifest("file:///m", 1, 9, &schema(), &entries).unwrap();
        let list = write_manifest_list(1, None, 3, &manifests).unwrap();
        for whole in [manifest, list] {
            let mut bytes = whole.clone();
            for (at, value) in &damage {
                bytes[at.index(whole.len())] = *value;
            }
            bytes.truncate(cut.map_or(whole.len(), |cut| cut.index(whole.len())));
            // Nearly all are errors. That neither panics is what counts.
            let _ = (read_manifest(&bytes), read_manifest_list(&bytes));
        }
    }

    #[test]
    fn bytes_that_are_no_document_are_errors(bytes in collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read_manifest(&bytes).is_err());
        let with_magic = [&b"Obj\x01"[..], &bytes].concat();
        prop_assert!(read_manifest_list(&with_magic).is_err());
        prop_assert!(crate::TableMetadata::read(&bytes).is_err());
    }
}

fn small() -> Vec<ManifestEntry> {
    let file = DataFile { file_path: "file:///1.parquet".to_owned(), record_count: 3, ..DataFile::default() };
    vec![ManifestEntry::added(file, 7)]
}

#[test]
fn a_document_that_ends_too_soon_is_an_error_at_every_byte() {
    let (manifest, bytes) = write_manifest("file:///m", 7, 2, &schema(), &small()).unwrap();
    let list = write_manifest_list(7, None, 2, &[manifest]).unwrap();
    // A container has no end of its own. Without its only block it would be one without records, but for the checksum.
    for length in 0..bytes.len() {
        assert!(read_manifest(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
    }
    for length in 0..list.len() {
        assert!(read_manifest_list(&list[..length]).is_err(), "{length} of {}", list.len());
    }
}

#[test]
fn each_document_is_of_its_own_kind() {
    let (manifest, bytes) = write_manifest("file:///m", 7, 2, &schema(), &small()).unwrap();
    let list = write_manifest_list(7, None, 2, &[manifest]).unwrap();
    assert!(read_manifest(&list).unwrap_err().to_string().contains("another schema"));
    assert!(read_manifest_list(&bytes).unwrap_err().to_string().contains("another schema"));
}

#[test]
fn entries_inherit_from_their_manifest() {
    let (manifest, bytes) = write_manifest("file:///m", 7, 2, &schema(), &small()).unwrap();
    let mut entry = read_manifest(&bytes).unwrap().remove(0);
    assert_eq!((entry.snapshot_id, entry.sequence_number, entry.file_sequence_number), (Some(7), None, None));
    entry.snapshot_id = None;
    entry.inherit(&manifest);
    assert_eq!(
        (entry.snapshot_id, entry.sequence_number, entry.file_sequence_number),
        (Some(7), Some(2), Some(2))
    );
    // A later manifest changes nothing of it.
    let later = ManifestFile { sequence_number: 8, added_snapshot_id: 9, ..manifest };
    let kept = entry.clone().kept();
    let mut inherited = kept.clone();
    inherited.inherit(&later);
    assert_eq!(inherited, kept);
    assert!(kept.is_alive());
    let removed = entry.removed(9);
    assert_eq!((removed.is_alive(), removed.snapshot_id, removed.sequence_number), (false, Some(9), Some(2)));
}

#[test]
fn a_kept_file_without_its_numbers_is_refused() {
    let entries: Vec<ManifestEntry> = small().into_iter().map(ManifestEntry::kept).collect();
    let error = write_manifest("file:///m", 8, 3, &schema(), &entries).unwrap_err();
    assert!(error.to_string().contains("file:///1.parquet has no sequence number"), "{error}");
    let mut entries = small();
    entries[0].data_file.record_count = u64::MAX;
    let error = write_manifest("file:///m", 8, 3, &schema(), &entries).unwrap_err();
    assert!(error.to_string().contains("can count"), "{error}");
}

#[test]
fn bounds_follow_the_schema_of_the_manifest() {
    let mut entries = small();
    let int = (-5_i32).to_le_bytes().to_vec();
    let bounds = [(2, int.clone()), (3, int.clone()), (8, b"x".to_vec()), (77, int.clone())];
    entries[0].data_file.metrics.lower_bounds = BTreeMap::from(bounds);
    let (_, bytes) = write_manifest("file:///m", 7, 2, &schema(), &entries).unwrap();
    let found = read_manifest(&bytes).unwrap().remove(0).data_file.metrics.lower_bounds;
    // The third column is long, and no column has the id 77 any more.
    let expected = [(2, int), (3, (-5_i64).to_le_bytes().to_vec()), (8, b"x".to_vec())];
    assert_eq!(found, BTreeMap::from(expected));
}
