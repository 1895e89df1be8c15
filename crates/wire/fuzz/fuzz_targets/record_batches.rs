//! Record batches. The input is one batch; its length, magic and checksum are corrected, so that the fuzzer gets past
//! them to the records. A batch that decodes must encode, and then decode to the same records.
#![no_main]

use bytes::Bytes;
use floe_log::{batch::Batch, header::{HEADER_BYTES, LENGTH_OVERHEAD, validate}};
use floe_log::codec::Compression;
use floe_log::Offset;
use floe_log::records::{Builder, Record};
use libfuzzer_sys::fuzz_target;

/// The most bytes of decompressed records.
const RECORD_BYTES_MAX: usize = 1024 * 1024;

fuzz_target!(|input: &[u8]| {
    let _ = validate(input);
    if input.len() < HEADER_BYTES {
        return;
    }
    let Ok(batch) = Batch::new(Offset(7), mended(input)) else { return };
    let _ = validate(&batch.bytes);
    let Ok(records) = batch.records(RECORD_BYTES_MAX) else { return };
    if records.is_empty() {
        return;
    }
    let mut builder = Builder::new(Compression::None);
    for record in &records {
        builder.push_record(record);
    }
    let built = Batch::new(Offset(7), builder.build()).expect("a built batch is whole");
    let again = built.records(usize::MAX).expect("a built batch decodes");
    assert!(records.iter().map(contents).eq(again.iter().map(contents)));
});

fn mended(input: &[u8]) -> Bytes {
    let mut batch = input.to_vec();
    let length = (input.len() - LENGTH_OVERHEAD) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

/// Everything but the offset, which depends on the batch.
#[allow(clippy::type_complexity)]
fn contents(record: &Record) -> (i64, &Option<Bytes>, &Option<Bytes>, &[(Bytes, Option<Bytes>)]) {
    (record.timestamp, &record.key, &record.value, &record.headers)
}
