//! How far a connection has read: which partitions it asks for, and what answers change. No socket, no clock.

use anyhow::{Context, Result};
use bytes::Bytes;
use floe_wire::ErrorCode;
use floe_wire::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};

use crate::bench::batches::{values, walk};
use crate::bench::limits::RECORD_BYTES_MAX;
use crate::bench::plan::ReadPlan;

/// Bytes that a batch of one marked record decompresses to, rounded up.
const MARKED_BATCH_BYTES_MAX: usize = RECORD_BYTES_MAX as usize + 1_024;

/// A partition, and how far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Where reading ends; `None` for a reader that follows the topic.
    pub(super) end: Option<i64>,
}

/// The partitions of a connection.
#[derive(Debug)]
pub(super) struct Cursor {
    positions: Vec<Position>,
    /// Which partition is asked for first: another one each time, because the first may fill the answer.
    first: usize,
}

/// What one answer brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) records: u64,
    /// Bytes of the batches.
    pub(super) bytes: u64,
    /// Whether any partition was read further.
    pub(super) moved: bool,
    /// The codes with which the fetch, or one of its partitions, was refused.
    pub(super) refused: Vec<i16>,
    /// The values of the records, if they were asked for.
    pub(super) values: Vec<Bytes>,
}

impl Position {
    fn is_open(&self) -> bool {
        self.end.is_none_or(|end| self.offset < end)
    }
}

impl Cursor {
    pub(super) fn new(positions: Vec<Position>) -> Cursor {
        assert!(!positions.is_empty(), "a connection reads something");
        Cursor { positions, first: 0 }
    }

    pub(super) fn positions(&self) -> &[Position] {
        &self.positions
    }

    /// A partition that is not yet read to its end.
    pub(super) fn behind(&self) -> Option<(Position, i64)> {
        let mut open = self.positions.iter().filter(|position| position.is_open());
        open.find_map(|position| position.end.map(|end| (*position, end)))
    }

    /// The request for all partitions that have more; `None` if there is none.
    pub(super) fn request(&mut self, topic: &str, plan: &ReadPlan) -> Option<FetchRequest> {
        let (before, from_first) = self.positions.split_at(self.first);
        let open = from_first.iter().chain(before).filter(|position| position.is_open());
        let asked = |position: &Position| FetchPartition {
            partition: position.partition,
            fetch_offset: position.offset,
            partition_max_bytes: plan.partition_bytes.min(plan.fetch_bytes),
            ..Default::default()
        };
        let partitions: Vec<FetchPartition> = open.map(asked).collect();
        self.first = (self.first + 1) % self.positions.len();
        (!partitions.is_empty()).then(|| FetchRequest {
            max_wait_ms: plan.wait_ms,
            min_bytes: 1,
            max_bytes: plan.fetch_bytes,
            topics: vec![FetchTopic { topic: topic.to_owned(), partitions, ..Default::default() }],
            ..Default::default()
        })
    }

    /// Takes an answer; the records' values too if `with_values`.
    ///
    /// # Errors
    /// A batch is damaged, or the broker answers what nobody asked for.
    pub(super) fn take(&mut self, answer: FetchResponse, with_values: bool) -> Result<Taken> {
        let mut taken = Taken::default();
        if answer.error_code != ErrorCode::None.number() {
            taken.refused.push(answer.error_code);
        }
        for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            match partition.error_code == ErrorCode::None.number() {
                true => self.take_partition(&mut taken, partition, with_values)?,
                false => taken.refused.push(partition.error_code),
            }
        }
        Ok(taken)
    }

    fn take_partition(&mut self, taken: &mut Taken, data: PartitionData, with_values: bool) -> Result<()> {
        let index = data.partition_index;
        let position = self.positions.iter_mut().find(|position| position.partition == index);
        let position = position.with_context(|| format!("nobody asked for partition {index}"))?;
        let asked = position.offset;
        let damaged = || format!("partition {index} is damaged after offset {asked}");
        let batches = data.records.unwrap_or_default().to_bytes();
        let walked = walk(batches.clone(), asked).with_context(damaged)?;
        if with_values {
            taken.values.extend(values(batches, asked, MARKED_BATCH_BYTES_MAX).with_context(damaged)?);
        }
        taken.moved |= walked.next > asked;
        taken.records += walked.records;
        taken.bytes += walked.bytes;
        position.offset = walked.next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use floe_log::Offset;
    use floe_log::batch::Batch;
    use floe_log::codec::Compression;
    use floe_log::records::Builder;
    use floe_wire::fetch::FetchableTopicResponse;

    use super::*;
    use crate::bench::args::Begin;

    const PLAN: ReadPlan = ReadPlan {
        connections: 1,
        from: Begin::Start,
        fetch_bytes: 1_000,
        partition_bytes: 5_000,
        wait_ms: 7,
    };

    fn cursor(end: Option<i64>) -> Cursor {
        Cursor::new([2, 5, 8].map(|partition| Position { partition, offset: 0, end }).to_vec())
    }

    /// The partitions that are asked for, with their offsets.
    fn asked(cursor: &mut Cursor) -> Vec<(i32, i64)> {
        let request = cursor.request("t", &PLAN);
        let topics = request.map(|request| request.topics).unwrap_or_default();
        let partitions = topics.into_iter().flat_map(|topic| topic.partitions);
        partitions.map(|partition| (partition.partition, partition.fetch_offset)).collect()
    }

    fn answer(partition_index: i32, error_code: i16, base: i64, records: i64) -> FetchResponse {
        let mut builder = Builder::new(Compression::None);
        for _ in 0..records {
            builder.push(1, None, Some(b"value"), &[]);
        }
        let batch =
            (records > 0).then(|| Batch::new(Offset(base), builder.build()).expect("a batch").stamped());
        let records = Some(batch.unwrap_or_default().into());
        let data = PartitionData { partition_index, error_code, records, ..Default::default() };
        let topic = FetchableTopicResponse { partitions: vec![data], ..Default::default() };
        FetchResponse { responses: vec![topic], ..Default::default() }
    }

    #[test]
    fn another_partition_comes_first_each_time() {
        let mut cursor = cursor(None);
        let firsts: Vec<i32> = (0..4).map(|_| asked(&mut cursor)[0].0).collect();
        assert_eq!(firsts, [2, 5, 8, 2]);
        let request = cursor.request("t", &PLAN).expect("there is more");
        assert_eq!((request.max_wait_ms, request.max_bytes, request.session_epoch), (7, 1_000, -1));
        assert_eq!(request.topics[0].partitions[0].partition_max_bytes, 1_000);
    }

    #[test]
    fn a_partition_is_asked_for_until_its_end() {
        let mut cursor = cursor(Some(3));
        assert_eq!(asked(&mut cursor), [(2, 0), (5, 0), (8, 0)]);
        let taken = cursor.take(answer(5, 0, 0, 3), true).expect("it is right");
        assert_eq!((taken.records, taken.moved, taken.values.len()), (3, true, 3));
        assert_eq!(asked(&mut cursor), [(8, 0), (2, 0)]);
        for partition in [8, 2] {
            assert!(cursor.behind().is_some());
            // Others write meanwhile: a batch may go beyond the end.
            cursor.take(answer(partition, 0, 0, 4), false).expect("it is right");
        }
        assert_eq!((asked(&mut cursor), cursor.behind()), (vec![], None));
        assert_eq!(cursor.positions().iter().map(|position| position.offset).collect::<Vec<_>>(), [4, 3, 4]);
    }

    #[test]
    fn nothing_moves_what_is_refused_or_empty() {
        let mut cursor = cursor(None);
        let refused = cursor.take(answer(2, 6, 0, 3), false).expect("it is right");
        assert_eq!(refused, Taken { refused: vec![6], ..Taken::default() });
        let whole = FetchResponse { error_code: 70, ..Default::default() };
        assert_eq!(cursor.take(whole, false).expect("it is right").refused, [70]);
        assert_eq!(cursor.take(answer(2, 0, 0, 0), true).expect("it is right"), Taken::default());
        assert_eq!(cursor.positions()[0].offset, 0);
        assert_eq!(cursor.behind(), None, "a reader without an end is never behind it");
        let error = cursor.take(answer(3, 0, 0, 1), false).expect_err("nobody asked for it");
        assert_eq!(error.to_string(), "nobody asked for partition 3");
    }
}
