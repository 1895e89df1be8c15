//! Batches and records: tested against the kafka-protocol crate, against damage, and against decompression bombs.

use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use proptest::prelude::*;

use super::*;
use crate::format::codec::CodecError;
use crate::format::records::{Record, RecordsError};
use crate::format::{
    batch::Batch,
    header::{BatchError, Blame, HEADER_BYTES, validate},
};
use crate::map::ids::Offset;

const BYTES_MAX: usize = 1 << 20;

fn bytes_strategy() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        // Long runs exercise compression and several blocks.
        (any::<u8>(), 0usize..70_000).prop_map(|(byte, length)| vec![byte; length]),
    ]
    .prop_map(Bytes::from)
}

fn record_strategy() -> impl Strategy<Value = Record> {
    let header = (prop::collection::vec(any::<u8>(), 0..6), prop::option::of(bytes_strategy()));
    let headers = prop::collection::vec(header.prop_map(|(key, value)| (Bytes::from(key), value)), 0..3);
    let timestamp = prop_oneof![Just(-1), 1_700_000_000_000..1_800_000_000_000i64, any::<i64>()];
    (timestamp, prop::option::of(bytes_strategy()), prop::option::of(bytes_strategy()), headers).prop_map(
        |(timestamp, key, value, headers)| Record { offset: Offset(0), timestamp, key, value, headers },
    )
}

fn codec_strategy() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

fn batch_strategy() -> impl Strategy<Value = (Vec<Record>, Compression)> {
    (prop::collection::vec(record_strategy(), 1..6), codec_strategy())
}

fn encode(records: &[Record], codec: Compression) -> Bytes {
    let mut builder = Builder::new(codec);
    for record in records {
        builder.push_record(record);
    }
    builder.build()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_is_built_is_decoded((mut records, codec) in batch_strategy(), base in 0i64..1 << 60) {
        let bytes = encode(&records, codec);
        let header = validate(&bytes).unwrap();
        prop_assert_eq!(header.compression(), Ok(codec));
        prop_assert_eq!(header.offsets() as usize, records.len());
        let batch = Batch::new(Offset(base), bytes).unwrap();
        for (offset, record) in (base..).zip(&mut records) {
            record.offset = Offset(offset);
        }
        prop_assert_eq!(batch.records(BYTES_MAX).unwrap(), records);
        prop_assert_eq!(batch.next_offset(), Offset(base + i64::from(header.count)));
        // A client sees the same records and the assigned offset.
        let stamped = batch.stamped();
        let seen = validate(&stamped).unwrap();
        prop_assert_eq!((seen.base_offset, seen.leader_epoch), (base, 0));
    }

    /// Encodes and decodes with the kafka-protocol crate. It keeps header keys in a map of UTF-8 strings, so this
    /// test makes the keys unique and readable.
    #[test]
    fn kafka_protocol_agrees((mut records, codec) in batch_strategy()) {
        for record in &mut records {
            // The crate computes timestamps with unchecked arithmetic.
            record.timestamp = record.timestamp.rem_euclid(1 << 50);
            for (index, (key, _)) in record.headers.iter_mut().enumerate() {
                *key = Bytes::from(format!("h{index}"));
            }
        }
        let mut ours = encode(&records, codec);
        let decompress = |data: &mut Bytes, _| Ok(codec.decompress(&data.split_off(0), BYTES_MAX)?);
        let set = theirs::RecordBatchDecoder::decode_with_custom_compression(&mut ours, Some(decompress));
        let set = set.unwrap();
        prop_assert_eq!(set.records.len(), records.len());
        for (theirs, ours) in set.records.iter().zip(&records) {
            prop_assert_eq!((&theirs.key, &theirs.value, theirs.timestamp), (&ours.key, &ours.value, ours.timestamp));
            let headers = theirs.headers.iter();
            let headers: Vec<_> = headers.map(|(k, v)| (Bytes::copy_from_slice(k.as_bytes()), v.clone())).collect();
            prop_assert_eq!(&headers, &ours.headers);
        }

        let mut buffer = bytes::BytesMut::new();
        type Codec = theirs::Compression;
        let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
        let options = theirs::RecordEncodeOptions { version: 2, compression: codecs[codec as usize] };
        let compress = |data: &mut bytes::BytesMut, out: &mut bytes::BytesMut, _| {
            out.extend_from_slice(&codec.compress(data));
            Ok(())
        };
        type Encoder = theirs::RecordBatchEncoder;
        Encoder::encode_with_custom_compression(&mut buffer, &set.records, &options, Some(compress)).unwrap();
        let theirs = buffer.freeze();
        let header = validate(&theirs).unwrap();
        prop_assert_eq!(header.count as usize, records.len());
        let decoded = Batch::new(Offset(0), theirs).unwrap().records(BYTES_MAX).unwrap();
        for (offset, (decoded, mut record)) in (0..).zip(decoded.into_iter().zip(records)) {
            record.offset = Offset(offset);
            prop_assert_eq!(decoded, record);
        }
    }

    /// The checksum covers everything from the attributes on. Before them only the base offset and the leader epoch
    /// may differ, because both are replaced on the way out.
    #[test]
    fn a_flipped_bit_is_never_stored(
        (records, codec) in batch_strategy(), place in any::<prop::sample::Index>(), bit in 0u8..8
    ) {
        let bytes = encode(&records, codec);
        let place = place.index(bytes.len());
        let mut flipped = bytes.to_vec();
        flipped[place] ^= 1 << bit;
        let harmless = place < 8 || (12..16).contains(&place);
        prop_assert_eq!(validate(&flipped).is_ok(), harmless, "byte {}", place);
    }

    #[test]
    fn random_bytes_are_no_batch(mut bytes in prop::collection::vec(any::<u8>(), 0..200), with_magic in any::<bool>()) {
        if with_magic && bytes.len() > HEADER_BYTES {
            bytes[16] = 2;
            let length = i32::try_from(bytes.len() - 12).unwrap();
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
        }
        prop_assert!(validate(&bytes).is_err());
    }

    /// A client can put a right checksum on anything, so decoding must end in an answer, with bounded memory.
    #[test]
    fn decoding_signed_rubbish_never_panics(
        (records, codec) in batch_strategy(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&records, codec).to_vec();
        for (place, value) in flips {
            let place = 21 + place.index(bytes.len() - 21);
            bytes[place] ^= value;
        }
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let batch = Batch::new(Offset(0), Bytes::from(bytes)).unwrap();
        if let Ok(records) = batch.records(BYTES_MAX) {
            prop_assert!(records.len() <= BYTES_MAX / 7);
        }
    }

    #[test]
    fn decompressing_rubbish_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..300), codec in codec_strategy(), honest in any::<bool>()
    ) {
        let mut bytes = bytes;
        if honest {
            let start = codec.compress(b"a beginning that decodes");
            bytes.splice(0..0, start[..start.len() / 2].iter().copied());
        }
        if let Ok(out) = codec.decompress(&Bytes::from(bytes), 4096) {
            prop_assert!(out.len() <= 4096);
        }
    }
}

#[test]
fn headers_may_repeat_and_nulls_differ_from_empty() {
    let headers = [(&b"h"[..], Some(&b"1"[..])), (b"h", None), (b"", Some(b"")), (b"\xff\xfe", Some(b"x"))];
    let mut builder = Builder::new(Compression::None);
    builder.push(5, None, Some(b""), &headers).push(3, Some(b""), None, &[]);
    let batch = Batch::new(Offset(40), builder.build()).unwrap();
    assert_eq!((batch.header().base_timestamp, batch.header().max_timestamp), (5, 5));
    let records = batch.records(BYTES_MAX).unwrap();
    let got: Vec<_> = records[0].headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
    assert_eq!(got, headers);
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (None, Some(&b""[..])));
    assert_eq!((records[1].key.as_deref(), records[1].value.as_deref()), (Some(&b""[..]), None));
    assert_eq!((records[1].offset, records[1].timestamp), (Offset(41), 3));
}

#[test]
fn append_time_replaces_every_timestamp() {
    let bytes = header::with_append_time(&plain(3, 1_000), 77);
    let header = validate(&bytes).unwrap();
    assert!(header.is_log_append_time());
    assert_eq!(header.max_timestamp, 77);
    let records = Batch::new(Offset(0), bytes).unwrap().records(BYTES_MAX).unwrap();
    assert!(records.iter().all(|record| record.timestamp == 77));
}

#[test]
fn a_stamp_replaces_time_and_producer_and_keeps_the_records() {
    for codec in Compression::ALL {
        let mut builder = Builder::new(codec);
        builder.push(1_000, None, Some(b"a"), &[]).push(1_007, None, Some(b"b"), &[]);
        let stamp = header::Stamp { timestamp: 5_000, producer: Some((9, 2, 70)) };
        let bytes = header::with_stamp(&builder.build(), stamp);
        let header = validate(&bytes).unwrap();
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (9, 2, 70));
        assert_eq!((header.base_timestamp, header.max_timestamp), (5_000, 5_007));
        let records = Batch::new(Offset(0), bytes.clone()).unwrap().records(BYTES_MAX).unwrap();
        assert_eq!(records.iter().map(|record| record.timestamp).collect::<Vec<_>>(), [5_000, 5_007]);
        let anonymous = header::with_stamp(&bytes, header::Stamp { timestamp: 1_000, producer: None });
        assert_eq!(anonymous, builder.build());
    }
}

/// Rewrites one field of a good batch and recomputes the checksum.
fn with(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = plain(2, 0).to_vec();
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

#[test]
fn each_rule_of_a_batch_is_checked() {
    use Blame::{Client, Transport, Undecodable};
    let check = |bytes: &[u8], blame: Blame, what: &str| {
        let error = validate(bytes).expect_err(what);
        assert_eq!(error.blame(), blame, "{what}: {error}");
        error
    };
    let good = plain(2, 0);
    assert_eq!(validate(&good).unwrap().size, good.len());
    check(&[], Client, "nothing");
    check(&good[..60], Client, "less than a header");
    check(&good[..good.len() - 1], Client, "a byte short");
    let length = check(&with(|b| b[8..12].copy_from_slice(&48i32.to_be_bytes())), Transport, "short length");
    assert_eq!(length, BatchError::Length(48));
    check(&with(|b| b[8..12].copy_from_slice(&(-1i32).to_be_bytes())), Transport, "negative length");
    check(&with(|b| b[8..12].copy_from_slice(&i32::MAX.to_be_bytes())), Client, "huge length");
    check(&with(|b| b[16] = 1), Client, "old magic");
    check(&with(|b| b[57..61].copy_from_slice(&3i32.to_be_bytes())), Client, "count beyond delta");
    check(&with(|b| b[23..27].copy_from_slice(&(-1i32).to_be_bytes())), Client, "negative delta");
    let empty = |b: &mut Vec<u8>| {
        b[23..27].copy_from_slice(&(-1i32).to_be_bytes());
        b[57..61].copy_from_slice(&0i32.to_be_bytes());
    };
    check(&with(empty), Client, "no records");
    let claims = |b: &mut Vec<u8>| {
        b[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
        b[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    };
    check(&with(claims), Client, "more records than bytes");
    check(&with(|b| b[22] |= 7), Undecodable, "unknown codec");
    check(&with(|b| b[22] |= 0x20), Client, "control batch");
    check(&with(|b| b[22] |= 0x10), Client, "transactional batch");
    check(&with(|b| b[43..51].copy_from_slice(&5i64.to_be_bytes())), Client, "producer id without epoch");
    check(&with(|b| b.push(0)), Client, "trailing byte");
    let mut crc = good.to_vec();
    crc[17] ^= 1;
    assert!(matches!(check(&crc, Transport, "checksum"), BatchError::Checksum { .. }));
}

#[test]
fn bombs_are_bounded() {
    let zeros = vec![0u8; 64 << 20];
    for codec in Compression::ALL {
        let data = Bytes::from(codec.compress(&zeros));
        let limit = 1 << 20;
        let result = codec.decompress(&data, limit);
        assert_eq!(result, Err(CodecError::TooLarge { codec: codec.name(), bytes_max: limit }));
        assert_eq!(codec.decompress(&data, zeros.len()).unwrap().len(), zeros.len(), "{}", codec.name());
    }
    // Snappy blocks that promise 4 GiB in five bytes, with and without framing.
    let promise = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x05".to_vec();
    framed.extend_from_slice(&promise);
    for data in [Bytes::copy_from_slice(&promise), Bytes::from(framed)] {
        assert!(Compression::Snappy.decompress(&data, usize::MAX).is_err());
        assert!(Compression::Snappy.decompress(&data, BYTES_MAX).is_err());
    }
}

#[test]
fn the_memory_of_decoded_records_is_bounded() {
    use crate::limits::RECORDS_DECODED_MAX;
    let batch = |count: usize, headers: usize| {
        let headers = vec![(b"".as_slice(), None); headers];
        let mut builder = Builder::new(Compression::Zstd);
        for _ in 0..count {
            builder.push(0, None, None, &headers);
        }
        Batch::new(Offset(0), builder.build()).unwrap().records(1 << 30).map(|records| records.len())
    };
    assert_eq!(batch(RECORDS_DECODED_MAX, 0), Ok(RECORDS_DECODED_MAX));
    assert_eq!(batch(RECORDS_DECODED_MAX + 1, 0), Err(RecordsError::TooMany));
    assert_eq!(batch(1, RECORDS_DECODED_MAX - 1), Ok(1));
    assert_eq!(batch(1, RECORDS_DECODED_MAX), Err(RecordsError::TooMany));
}

#[test]
fn snappy_is_read_with_and_without_framing() {
    let text = Bytes::from_static(b"snappy snappy snappy snappy");
    let raw = snap::raw::Encoder::new().compress_vec(&text).unwrap();
    assert_eq!(Compression::Snappy.decompress(&Bytes::from(raw), 100).unwrap(), text);
    let framed = Compression::Snappy.compress(&text);
    assert!(framed.starts_with(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"));
    for cut in 1..framed.len() {
        let result = Compression::Snappy.decompress(&Bytes::copy_from_slice(&framed[..cut]), 100);
        assert!(result.is_err() || cut == 16, "cut at {cut}");
    }
}

#[test]
fn records_that_contradict_the_header_are_damaged() {
    // One record more and one fewer than the header says, under a right checksum.
    for count in [1i32, 3] {
        let bytes = with(|b| {
            b[23..27].copy_from_slice(&(count - 1).to_be_bytes());
            b[57..61].copy_from_slice(&count.to_be_bytes());
        });
        let batch = Batch::new(Offset(0), Bytes::from(bytes)).unwrap();
        let error = batch.records(BYTES_MAX).unwrap_err();
        assert!(matches!(error, RecordsError::Damaged { .. }), "{error}");
    }
    let mut flipped = plain(2, 0).to_vec();
    flipped[70] ^= 1;
    let error = Batch::new(Offset(0), Bytes::from(flipped)).unwrap().records(BYTES_MAX).unwrap_err();
    assert!(matches!(error, RecordsError::Batch(BatchError::Checksum { .. })), "{error}");
}

/// The crate's encoder and ours write the same bytes for a batch of an idempotent producer.
#[test]
fn their_records_carry_producers() {
    let record = theirs::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: 9,
        producer_epoch: 4,
        timestamp_type: theirs::TimestampType::Creation,
        offset: 0,
        sequence: 11,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(Bytes::from_static(b"v")),
        headers: [(StrBytes::from_static_str("h"), None)].into_iter().collect(),
    };
    let mut buffer = bytes::BytesMut::new();
    let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
    theirs::RecordBatchEncoder::encode(&mut buffer, [&record], &options).unwrap();
    let header = validate(&buffer).unwrap();
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (9, 4, 11));
    let ours = {
        let mut builder = Builder::new(Compression::None).producer(9, 4, 11);
        builder.push(1_700_000_000_000, None, Some(b"v"), &[(b"h", None)]);
        builder.build()
    };
    assert_eq!(ours[..], buffer[..], "byte for byte");
}
