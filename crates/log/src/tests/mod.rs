//! Tests of the log's formats and pure functions.

use std::collections::BTreeMap;

use bytes::Bytes;
use floe_env::Timestamp;
use floe_meta::{Envelope, Lsn, Snapshot, Tx};

use crate::format::codec::Compression;
use crate::format::header::{self, Header};
use crate::format::records::Builder;
use crate::map::extent::{Data, Extent, Place, Spacing, WrittenBy};
use crate::map::ids::{ObjectId, Offset, PartitionId, TopicId, WriterId};
use crate::map::object::ObjectLease;
use crate::map::topic::{self, NewTopic, Topic};
use crate::map::{cluster, identity, identity::Writer};
use crate::read::walk;
use crate::write::sequencer::{Placed, Uploaded};

mod batches;
mod checking;
mod compaction;
mod deleted;
mod formats;
mod merging;
mod reading;
mod removed;
mod retention;
mod seeking;
mod segments;
mod sequencing;
mod starting;
mod topic_settings;
mod topics;
mod wal;

/// The owner of the leases on all objects of these tests.
const OWNER: u128 = 7;

/// A batch of `count` records without a producer; timestamps start at `timestamp`.
fn plain(count: u32, timestamp: i64) -> Bytes {
    build(Builder::new(Compression::None), count, timestamp)
}

/// A batch of `count` records of an idempotent producer.
fn idempotent(id: i64, epoch: i16, base_sequence: i32, count: u32) -> Bytes {
    build(Builder::new(Compression::None).producer(id, epoch, base_sequence), count, 0)
}

fn build(mut builder: Builder, count: u32, timestamp: i64) -> Bytes {
    for index in 0..count {
        builder.push(timestamp + i64::from(index), None, Some(b"v"), &[]);
    }
    builder.build()
}

fn header_of(bytes: &[u8]) -> Header {
    header::validate(bytes).expect("tests build valid batches")
}

/// Runs `test` in one command over an empty map with an open cluster.
fn in_tx<T>(test: impl FnOnce(&mut Tx<'_>) -> T) -> T {
    let snapshot = Snapshot::default();
    let mut envelope = Envelope::broker("test");
    envelope.time = Timestamp(1_767_225_600_000);
    let mut tx = Tx::new(&snapshot, &envelope);
    cluster::open(&mut tx, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).unwrap();
    test(&mut tx)
}

fn create(tx: &mut Tx<'_>, name: &str, partitions: u32) -> Topic {
    let new = NewTopic { name: name.to_owned(), partitions, configs: BTreeMap::new() };
    topic::create(tx, &new).unwrap()
}

fn lease(tx: &mut Tx<'_>, first: u64, end: u64) {
    let lease = ObjectLease { end: ObjectId(end), owner: OWNER, expires: Timestamp(0) };
    tx.put(&ObjectId(first), &lease);
}

/// The batches of an extent that has some.
fn data(extent: Extent) -> Data {
    *extent.data().expect("it has batches")
}

/// Counted batches of one writer, as level 1 has them.
fn counted(object: ObjectId, position: u64, bytes: u64, offsets: u64, max_timestamp: i64) -> Data {
    Data {
        place: Place::Object(object),
        position,
        bytes,
        offsets,
        spacing: Spacing::Counted,
        max_timestamp,
        written_by: WrittenBy::One(WriterId(12)),
        lsn: Lsn(0),
    }
}

/// The walk over counted batches.
fn run(base: Offset) -> walk::Run {
    let partition = PartitionId::new(TopicId(1), 0);
    walk::Run { partition, spacing: Spacing::Counted, base, end: Offset(i64::MAX), sought: false }
}

/// An object whose batches lie back to back in the given order.
fn uploaded(object: u64, batches: &[(PartitionId, &Writer, &Bytes)]) -> Uploaded {
    let mut position = crate::format::wal::HEAD_BYTES as u64;
    let mut placed = Vec::new();
    for (partition, writer, bytes) in batches {
        let header = header_of(bytes);
        placed.push(Placed {
            partition: *partition,
            writer: (*writer).clone(),
            position,
            header,
            follows: false,
        });
        position += bytes.len() as u64;
    }
    Uploaded { object: ObjectId(object), owner: OWNER, size: position + 100, batches: placed }
}
