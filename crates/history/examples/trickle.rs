//! What the history of a trickle costs in the store: bytes for each commit, and for each run of offsets.
//!
//! `cargo run --release -p floe-history --example trickle -- [COMMITS]`
//!
//! Sensors send a record now and then, to partitions that nobody orders. Each commit has one run of offsets, or eight.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use bytes::Bytes;
use floe_env::{Env, Timestamp};
use floe_history::limits::COMMITS_DUE;
use floe_history::{Encoder, Names, decode, rows};
use floe_log::extent::{Data, Extent, ExtentKey, Place, Spacing, WrittenBy};
use floe_log::object::ObjectKind;
use floe_log::partition::Head;
use floe_log::{ObjectId, Offset, PartitionId, TopicId, WriterId, WriterNumber};
use floe_meta::key::Key;
use floe_meta::{Change, Entry, Envelope, Lsn, MapRecord};

const PARTITIONS: u64 = 16;
const CLIENTS: u64 = 100;

fn change<R: MapRecord>(key: &R::Key, record: &R) -> Change {
    let (mut full, mut value) = (vec![R::KIND], vec![record.version()]);
    key.encode(&mut full);
    record.encode(&mut value);
    Change { key: full.into(), value: Some(value.into()) }
}

/// The records of the principal and of its clients, as the first commit writes them.
fn writers() -> Vec<Change> {
    let put = |kind: u8, number: u32, value: Vec<u8>| {
        let key = [&[kind][..], &number.to_be_bytes()].concat();
        Change { key: key.into(), value: Some(value.into()) }
    };
    let mut changes = vec![put(6, 1, [&[1, 9][..], b"anonymous"].concat())];
    for client in 1..=CLIENTS as u32 {
        let name = format!("sensor-{client:04}");
        changes.push(put(4, client, [&[2, 1, name.len() as u8][..], name.as_bytes()].concat()));
    }
    changes
}

struct Trickle {
    env: Env,
    next: Vec<i64>,
    time: i64,
    runs: u64,
}

impl Trickle {
    fn below(&self, limit: u64) -> u64 {
        self.env.random_u64() % limit
    }

    fn entry(&mut self, lsn: u64) -> Entry {
        self.time += 1 + self.below(40).cast_signed();
        let mut changes = if lsn == 1 { writers() } else { Vec::new() };
        let client = 1 + self.below(CLIENTS);
        for run in 0..self.runs {
            // Different partitions of one commit.
            let index = (self.below(PARTITIONS / self.runs) * self.runs + run) as usize;
            let partition = PartitionId::new(TopicId(3), index as u32);
            let (base, offsets) = (self.next[index], 1 + self.below(4) / 3);
            self.next[index] += offsets.cast_signed();
            let data = Data {
                place: Place::Object(ObjectId::new(ObjectKind::Wal, WriterNumber(1), lsn)),
                position: 64,
                bytes: 90 * offsets + self.below(20),
                offsets,
                spacing: Spacing::Counted,
                max_timestamp: self.time,
                written_by: WrittenBy::One(WriterId(client as u32)),
                lsn: Lsn(lsn),
            };
            let head = Head { next: Offset(self.next[index]), ..Head::default() };
            changes.push(change(&partition, &head));
            changes.push(change(&ExtentKey::new(partition, Offset(base)), &Extent::Data(data)));
        }
        let mut envelope = Envelope::client("anonymous".into(), format!("sensor-{client:04}").into());
        envelope.time = Timestamp(self.time);
        Entry { lsn: Lsn(lsn), attempt: 0, envelope, changes }
    }
}

fn main() {
    let commits: u64 =
        std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("a number of commits"));
    for runs in [1, 8] {
        let next = vec![0; PARTITIONS as usize];
        let mut trickle = Trickle { env: Env::simulated(1), next, time: 1_767_225_600_000, runs };
        let mut names = Names::default();
        let (mut objects, mut lsn): (Vec<Bytes>, u64) = (Vec::new(), 0);
        while lsn < commits {
            let mut encoder = Encoder::new().expect("the schema is right");
            for _ in 0..COMMITS_DUE.min(commits - lsn) {
                lsn += 1;
                for row in rows(&trickle.entry(lsn), &mut names).expect("it can be read") {
                    encoder.push(row).expect("it is a row");
                }
            }
            objects.push(encoder.finish(Some(&names)).expect("it ends"));
        }
        let bytes: usize = objects.iter().map(Bytes::len).sum();
        let mut encoder = Encoder::new().expect("the schema is right");
        for object in &objects {
            for batch in &decode(object.clone(), false).expect("it was just written").batches {
                encoder.push_batch(batch).expect("they are rows");
            }
        }
        let merged = encoder.finish(Some(&names)).expect("it ends").len();
        let each = |bytes: usize| bytes as f64 / commits as f64;
        println!(
            "{commits} commits of {runs} runs: {:.1} bytes for each commit in {} objects, {:.1} merged into one",
            each(bytes),
            objects.len(),
            each(merged)
        );
    }
}
