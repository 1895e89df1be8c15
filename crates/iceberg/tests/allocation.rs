//! No document makes its reader allocate much more than its length.
//!
//! The allocator counts for the whole process, so this binary has one test only.

use floe_iceberg::{
    DataFile, Field, ManifestEntry, Primitive, Schema, TableMetadata, Type, read_manifest,
    read_manifest_list, write_manifest, write_manifest_list,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes of memory that a byte of a document may take: an entry of a map takes the most.
const PER_BYTE: usize = 64;

/// What the schemas take, with which a file's is compared.
const BASE: usize = 128 * 1024;

fn measure(input: &[u8]) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let _ = read_manifest(input).map(|entries| entries.len());
    let _ = read_manifest_list(input).map(|manifests| manifests.len());
    let _ = TableMetadata::read(input).map(|metadata| metadata.snapshots().len());
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(peak <= PER_BYTE * input.len() + BASE, "{peak} bytes for an input of {}", input.len());
}

/// Lengths and counts that lie: 2^31, 2^62, 2^20, and the least number, as Avro writes them.
const LIES: [&[u8]; 4] = [
    &[0x80, 0x80, 0x80, 0x80, 0x10],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    &[0x80, 0x80, 0x80, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
];

#[test]
fn memory_is_bounded_by_the_input() {
    let field_type = Type::Primitive(Primitive::Long);
    let field = Field { id: 1, name: "c".to_owned(), required: true, field_type, doc: None };
    let schema = Schema::new(0, vec![field]).unwrap();
    let mut file = DataFile { file_path: "file:///1.parquet".to_owned(), ..DataFile::default() };
    file.metrics.value_counts.insert(1, 5);
    file.metrics.lower_bounds.insert(1, vec![0; 8]);
    file.metrics.split_offsets = vec![4];
    let (manifest, bytes) =
        write_manifest("file:///m", 7, 2, &schema, &[ManifestEntry::added(file, 7)]).unwrap();
    let list = write_manifest_list(7, None, 2, &[manifest]).unwrap();
    measure(&[]);
    for whole in [bytes, list] {
        measure(&whole);
        for at in 0..whole.len() {
            for lie in LIES {
                let mut lying = whole[..at].to_vec();
                lying.extend_from_slice(lie);
                lying.extend_from_slice(&whole[(at + lie.len()).min(whole.len())..]);
                measure(&lying);
            }
        }
    }
}
