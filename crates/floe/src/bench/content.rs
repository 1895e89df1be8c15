//! The batches that are sent. They are made before the load begins, because encoding and compressing would take the
//! processor time that the broker needs. Then each is sent many times, with another time and another sequence.

use std::time::Duration;

use bytes::Bytes;
use floe_log::codec::Compression;
use floe_log::header::{Stamp, with_stamp};
use floe_log::records::Builder;

use crate::bench::args::Content;
use crate::bench::limits::{TEMPLATES_BYTES_MAX, TEMPLATES_MAX};
use crate::bench::plan::{MARK_BYTES, WritePlan};

/// Words of the JSON records.
const WORDS: [&str; 16] = [
    "ice", "drift", "north", "current", "berg", "cold", "sheet", "melt", "polar", "snow", "open", "water",
    "ridge", "lead", "frost", "wind",
];
/// The same load every time.
const SEED: u64 = 0x0f10_e000_bec4;

/// Batches to be sent in turn.
#[derive(Debug)]
pub(super) struct Batches {
    full: Vec<Bytes>,
    /// For the last request of a run, if it has fewer records.
    rest: Option<Bytes>,
    records_per_batch: u64,
}

/// Where the batch of a request comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// Batches made before.
    Made(Batches),
    /// One record that carries when it was due.
    Marked(Marked),
}

/// Makes batches of one marked record.
#[derive(Debug)]
pub(super) struct Marked {
    /// Tells the records of this run from others in the topic.
    pub(super) run: u64,
    filler: Vec<u8>,
    compression: Compression,
}

/// What a marked record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) number: u64,
    /// Since the beginning of the run.
    pub(super) due: Duration,
}

/// Numbers that look random: splitmix64, whose constants these are (Steele, Lea, Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// So many bytes that do not compress.
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_be_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// A JSON object of exactly so many bytes.
fn json(numbers: &mut Numbers, bytes: usize) -> Vec<u8> {
    let mut text = format!("{{\"n\":{},\"text\":\"", numbers.next() as u32);
    let end = "\"}";
    let room = bytes.checked_sub(end.len()).expect("the plan has checked the size");
    assert!(text.len() <= room, "the plan has checked the size");
    while text.len() < room {
        text.push_str(WORDS[numbers.next() as usize % WORDS.len()]);
        text.push(' ');
    }
    text.truncate(room);
    text.push_str(end);
    text.into_bytes()
}

/// One batch of so many records.
fn batch(plan: &WritePlan, numbers: &mut Numbers, records: u64) -> Bytes {
    let mut builder = Builder::new(plan.compression);
    for _ in 0..records {
        let value = match plan.content {
            Content::Random => numbers.bytes(plan.record_bytes),
            Content::Json => json(numbers, plan.record_bytes),
        };
        builder.push(0, None, Some(&value), &[]);
    }
    builder.build()
}

impl Batches {
    /// The batches of a plan; `rest` records are in the last request, if it has fewer than the others.
    pub(super) fn new(plan: &WritePlan, rest: Option<u64>) -> Batches {
        let mut numbers = Numbers(SEED);
        let records_per_batch = plan.records_per_batch as u64;
        let first = batch(plan, &mut numbers, records_per_batch);
        let count = (TEMPLATES_BYTES_MAX / first.len()).clamp(1, TEMPLATES_MAX);
        let mut full = vec![first];
        full.extend((1..count).map(|_| batch(plan, &mut numbers, records_per_batch)));
        let rest = rest.map(|records| batch(plan, &mut numbers, records));
        Batches { full, rest, records_per_batch }
    }

    fn pick(&self, number: u64, records: u64) -> &Bytes {
        match &self.rest {
            Some(rest) if records < self.records_per_batch => rest,
            _ => &self.full[(number % self.full.len() as u64) as usize],
        }
    }
}

impl Marked {
    /// Marked records of a plan.
    pub(super) fn new(plan: &WritePlan, run: u64) -> Marked {
        let filler = Numbers(SEED).bytes(plan.record_bytes - MARK_BYTES);
        Marked { run, filler, compression: plan.compression }
    }

    fn batch(&self, mark: Mark, timestamp: i64) -> Bytes {
        let mut value = Vec::with_capacity(MARK_BYTES + self.filler.len());
        let ns = u64::try_from(mark.due.as_nanos()).unwrap_or(u64::MAX);
        for word in [self.run, mark.number, ns] {
            value.extend_from_slice(&word.to_be_bytes());
        }
        value.extend_from_slice(&self.filler);
        let mut builder = Builder::new(self.compression);
        builder.push(timestamp, None, Some(&value), &[]);
        builder.build()
    }
}

impl Mark {
    /// Reads the mark of a record; `None` for a record of another run.
    pub(super) fn read(run: u64, value: &[u8]) -> Option<Mark> {
        let (words, _) = value.as_chunks::<8>();
        let [of_run, number, ns, ..] = words else { return None };
        let due = Duration::from_nanos(u64::from_be_bytes(*ns));
        (u64::from_be_bytes(*of_run) == run).then(|| Mark { number: u64::from_be_bytes(*number), due })
    }
}

impl Source {
    /// The batch of one request with so many records.
    pub(super) fn batch(&self, mark: Mark, records: u64, stamp: Stamp) -> Bytes {
        match self {
            Source::Made(batches) => with_stamp(batches.pick(mark.number, records), stamp),
            Source::Marked(marked) => marked.batch(mark, stamp.timestamp),
        }
    }
}

#[cfg(test)]
mod tests {
    use floe_log::Offset;
    use floe_log::batch::Batch;
    use floe_log::header::validate;

    use super::*;

    const STAMP: Stamp = Stamp { timestamp: 1_767_225_600_000, producer: None };

    fn plan(content: Content, compression: Compression) -> WritePlan {
        WritePlan {
            connections: 1,
            in_flight: 1,
            batch_bytes: 10_000,
            record_bytes: 100,
            records_per_batch: 50,
            content,
            compression,
            acks: -1,
            idempotent: false,
            pace: None,
        }
    }

    fn values(bytes: &Bytes) -> Vec<Bytes> {
        let batch = Batch::new(Offset(0), bytes.clone()).expect("a batch");
        let records = batch.records(1 << 20).expect("it decodes");
        records.into_iter().map(|record| record.value.expect("a value")).collect()
    }

    #[test]
    fn batches_have_their_records_and_their_time() {
        for content in [Content::Random, Content::Json] {
            for compression in Compression::ALL {
                let source = Source::Made(Batches::new(&plan(content, compression), Some(7)));
                for (number, records) in [(0, 50), (3, 50), (1_000_003, 50), (9, 7)] {
                    let mark = Mark { number, due: Duration::ZERO };
                    let bytes = source.batch(mark, records, STAMP);
                    let header = validate(&bytes).expect("a broker takes it");
                    assert_eq!((header.count as u64, header.max_timestamp), (records, STAMP.timestamp));
                    assert_eq!(header.compression(), Ok(compression));
                    assert!(values(&bytes).iter().all(|value| value.len() == 100));
                }
            }
        }
    }

    #[test]
    fn json_records_are_json_of_any_size() {
        let mut numbers = Numbers(SEED);
        for bytes in (32..200).chain([10_000]) {
            let record = json(&mut numbers, bytes);
            assert_eq!(record.len(), bytes);
            assert!(serde_json::from_slice::<serde_json::Value>(&record).expect("JSON")["n"].is_u64());
        }
    }

    #[test]
    fn random_records_do_not_compress_and_json_does() {
        let size = |content, compression| Batches::new(&plan(content, compression), None).full[0].len();
        let plain = size(Content::Random, Compression::None);
        assert!(size(Content::Random, Compression::Zstd) * 100 > plain * 90);
        assert!(size(Content::Json, Compression::Zstd) * 2 < plain);
    }

    #[test]
    fn the_templates_are_bounded_and_differ() {
        let batches = Batches::new(&plan(Content::Random, Compression::None), None);
        assert_eq!(batches.full.len(), TEMPLATES_MAX);
        assert_ne!(batches.full[0], batches.full[1]);
        let large = WritePlan {
            record_bytes: 1 << 20,
            records_per_batch: 15,
            ..plan(Content::Random, Compression::None)
        };
        let batches = Batches::new(&large, None);
        assert!(batches.full.iter().map(Bytes::len).sum::<usize>() <= TEMPLATES_BYTES_MAX);
    }

    #[test]
    fn a_mark_says_which_record_it_is_and_when_it_was_due() {
        let marked = Marked::new(&plan(Content::Random, Compression::None), 77);
        let mark = Mark { number: 5, due: Duration::from_micros(1_234) };
        let values = values(&marked.batch(mark, STAMP.timestamp));
        assert_eq!(values.len(), 1);
        assert_eq!(values[0].len(), 100);
        assert_eq!(Mark::read(77, &values[0]), Some(mark));
        assert_eq!(Mark::read(78, &values[0]), None, "a record of another run");
        assert_eq!(Mark::read(77, &values[0][..23]), None, "too short");
    }
}
