//! Retention and deletion of records, against a model that looks at everything.

use proptest::prelude::*;

use super::*;
use crate::clean::deletion::{Below, Cut, DeleteError, cut};
use crate::clean::retention::{Defaults, Due, Found, Policy, look, take};
use crate::map::extent::ExtentKey;
use crate::map::identity::miscounted;
use crate::map::mark::Mark;
use crate::map::object::{Object, Trash};
use crate::map::partition;
use crate::map::topic_config::TopicConfig;
use crate::write::sequencer::sequence;

/// The time of every commit here.
const BEGIN: i64 = 1_767_225_600_000;
const NO_DEFAULTS: Defaults = Defaults { ms: -1, bytes: -1 };
const KAFKAS: Defaults = Defaults { ms: 604_800_000, bytes: -1 };

fn topic_with(tx: &mut Tx<'_>, settings: &[(&str, &str)]) -> PartitionId {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let configs = settings.iter().map(own).collect();
    lease(tx, 1, 10_000);
    let new = NewTopic { name: "t".to_owned(), partitions: 1, configs };
    PartitionId::new(topic::create(tx, &new).unwrap().id, 0)
}

/// Appends one batch in an object of its own: an extent of so many records, the first with this timestamp.
fn append(tx: &mut Tx<'_>, partition: PartitionId, object: u64, records: u32, timestamp: i64) {
    let (writer, batch) = (Writer::new("User:a", &format!("c{}", object % 3)), plain(records, timestamp));
    assert!(sequence(tx, &uploaded(object, &[(partition, &writer, &batch)]))[0].is_ok());
}

fn policy(tx: &Tx<'_>, partition: PartitionId, defaults: Defaults) -> Option<Policy> {
    Policy::of(&TopicConfig::of(&topic::by_id(tx, partition.topic).unwrap().unwrap()), defaults)
}

/// What retention finds and does until it finds nothing: the log start afterwards.
fn enforce(tx: &mut Tx<'_>, due: Due, defaults: Defaults, now: i64, extents_max: usize) -> i64 {
    let now = Timestamp(now);
    for _ in 0..1_000 {
        let Some(policy) = policy(tx, due.partition, defaults) else { break };
        if look(tx, policy, due, now).unwrap() != Found::Work {
            break;
        }
        let taken = take(tx, &[due], defaults, now, extents_max).unwrap();
        assert!(taken.extents <= extents_max);
    }
    log_start(tx, due.partition)
}

fn log_start(tx: &Tx<'_>, partition: PartitionId) -> i64 {
    partition::head(tx, partition).unwrap().unwrap().log_start.0
}

fn all(partition: PartitionId) -> Due {
    Due { partition, ceiling: None }
}

/// Three extents of two records each, at 0, 100 and 200 milliseconds after the begin.
fn three(tx: &mut Tx<'_>, settings: &[(&str, &str)]) -> PartitionId {
    let partition = topic_with(tx, settings);
    for (object, after) in [(1, 0), (2, 100), (3, 200)] {
        append(tx, partition, object, 2, BEGIN + after);
    }
    partition
}

#[test]
fn records_go_by_age_and_the_first_that_stays_keeps_the_rest() {
    // (time, log start); the second record of a batch is 1 ms younger than the first.
    for (now, start) in [(0, 0), (1_001, 0), (1_002, 2), (1_101, 2), (1_102, 4), (9_999, 6)] {
        in_tx(|tx| {
            let partition = three(tx, &[("retention.ms", "1000")]);
            assert_eq!(enforce(tx, all(partition), KAFKAS, BEGIN + now, 10), start, "after {now} ms");
        });
    }
    in_tx(|tx| {
        let partition = topic_with(tx, &[("retention.ms", "1000")]);
        append(tx, partition, 1, 1, BEGIN + 2_500);
        append(tx, partition, 2, 1, BEGIN);
        assert_eq!(enforce(tx, all(partition), KAFKAS, BEGIN + 3_000, 10), 0, "the first stays");
    });
}

#[test]
fn settings_and_defaults_decide_as_in_kafka() {
    let week = BEGIN + 604_800_000 + 1_000;
    for (settings, defaults, now, start) in [
        (&[][..], KAFKAS, week, 6),
        (&[], KAFKAS, week - 1_000, 0),
        (&[], NO_DEFAULTS, i64::MAX, 0),
        (&[("retention.ms", "-1")], KAFKAS, i64::MAX, 0),
        (&[("retention.ms", "0")], NO_DEFAULTS, BEGIN + 300, 6),
        (&[("cleanup.policy", "compact")], KAFKAS, week, 0),
        (&[("cleanup.policy", "compact,delete")], KAFKAS, week, 6),
        (&[("retention.bytes", "0"), ("retention.ms", "-1")], KAFKAS, BEGIN, 6),
        (&[("retention.bytes", "0"), ("cleanup.policy", "compact")], KAFKAS, BEGIN, 0),
    ] {
        in_tx(|tx| {
            let partition = three(tx, settings);
            assert_eq!(enforce(tx, all(partition), defaults, now, 10), start, "{settings:?} {defaults:?}");
        });
    }
}

#[test]
fn the_rest_has_at_least_the_bytes_that_the_topic_wants() {
    let extent = plain(2, BEGIN).len();
    for (bytes, start) in [(1, 4), (extent, 4), (extent + 1, 2), (2 * extent, 2), (2 * extent + 1, 0)] {
        in_tx(|tx| {
            let partition = three(tx, &[("retention.bytes", &bytes.to_string())]);
            assert_eq!(enforce(tx, all(partition), NO_DEFAULTS, BEGIN, 10), start, "{bytes} bytes");
            let head = partition::head(tx, partition).unwrap().unwrap();
            assert!(head.bytes >= bytes as u64);
        });
    }
}

#[test]
fn what_a_view_has_not_read_waits() {
    for (ceiling, start, then) in
        [(0, 0, Found::Waits), (1, 0, Found::Waits), (2, 2, Found::Waits), (6, 6, Found::Nothing)]
    {
        in_tx(|tx| {
            let partition = three(tx, &[("retention.ms", "1")]);
            let due = Due { partition, ceiling: Some(Offset(ceiling)) };
            assert_eq!(enforce(tx, due, KAFKAS, BEGIN + 9_999, 10), start);
            let policy = policy(tx, partition, KAFKAS).unwrap();
            assert_eq!(look(tx, policy, due, Timestamp(BEGIN + 9_999)), Ok(then), "up to {ceiling}");
        });
    }
}

/// Records with a time in the far future, or without one, age from the mark that retention leaves.
#[test]
fn a_time_in_the_future_keeps_no_record_for_ever() {
    for timestamp in [i64::MAX - 10, BEGIN + 365 * 86_400_000, -1] {
        in_tx(|tx| {
            let partition = topic_with(tx, &[("retention.ms", "1000")]);
            let batch = match timestamp {
                -1 => build_timeless(),
                timestamp => plain(1, timestamp),
            };
            let writer = Writer::new("User:a", "c");
            assert!(sequence(tx, &uploaded(1, &[(partition, &writer, &batch)]))[0].is_ok());
            append(tx, partition, 2, 1, BEGIN);
            assert_eq!(enforce(tx, all(partition), KAFKAS, BEGIN + 10, 10), 0);
            let mark = tx.get::<Mark>(&partition).unwrap();
            assert_eq!(mark, Some(Mark { time: Timestamp(BEGIN), next: Offset(2) }), "{timestamp}");
            let again = take(tx, &[all(partition)], KAFKAS, Timestamp(BEGIN + 500), 10).unwrap();
            assert_eq!((again.extents, tx.get::<Mark>(&partition).unwrap()), (0, mark), "it stays as it is");
            assert_eq!(enforce(tx, all(partition), KAFKAS, BEGIN + 1_001, 10), 2, "{timestamp}");
            assert_eq!(tx.get::<Mark>(&partition).unwrap(), None);
        });
    }
}

fn build_timeless() -> Bytes {
    Builder::new(Compression::None).push(-1, None, Some(b"v"), &[]).build()
}

#[test]
fn a_deletion_answers_as_kafka_does() {
    in_tx(|tx| {
        let partition = three(tx, &[]);
        let mut delete = |offset: Option<i64>, extents_max| {
            let below = Below { partition, offset: offset.map(Offset) };
            let answer = cut(tx, below, extents_max).map(|cut| (cut.log_start.0, cut.target.0));
            (answer, log_start(tx, partition), tx.range::<Extent>(..).count())
        };
        assert_eq!(delete(Some(0), 10), (Ok((0, 0)), 0, 3));
        let beyond = Err(DeleteError::OutOfRange { high_watermark: Offset(6) });
        assert_eq!(delete(Some(7), 10), (beyond.clone(), 0, 3));
        assert_eq!(delete(Some(-2), 10), (beyond, 0, 3));
        assert_eq!(delete(Some(3), 10), (Ok((3, 3)), 3, 2), "the log start lies in an extent");
        assert_eq!(delete(Some(1), 10), (Ok((3, 3)), 3, 2), "below the log start is no error");
        assert_eq!(delete(Some(6), 1), (Ok((4, 6)), 4, 1), "one extent for one command");
        assert_eq!(delete(None, 1), (Ok((6, 6)), 6, 0));
        assert_eq!(delete(None, 1), (Ok((6, 6)), 6, 0), "an empty partition");
    });
    in_tx(|tx| {
        let partition = three(tx, &[("cleanup.policy", "compact")]);
        let below = |partition| Below { partition, offset: None };
        assert_eq!(cut(tx, below(partition), 10), Err(DeleteError::Policy));
        let other = PartitionId::new(partition.topic, 1);
        assert_eq!(cut(tx, below(other), 10), Err(DeleteError::UnknownPartition));
        topic::delete(tx, partition.topic).unwrap();
        assert_eq!(cut(tx, below(partition), 10), Err(DeleteError::UnknownPartition));
    });
}

#[test]
fn a_deleted_topic_takes_its_marks_along() {
    in_tx(|tx| {
        let partition = topic_with(tx, &[("retention.ms", "1000")]);
        append(tx, partition, 1, 1, i64::MAX - 10);
        enforce(tx, all(partition), KAFKAS, BEGIN, 10);
        assert_eq!(tx.range::<Mark>(..).count(), 1);
        topic::delete(tx, partition.topic).unwrap();
        assert_eq!(tx.range::<Mark>(..).count(), 0);
    });
}

/// What happens to a partition.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append { records: u32, after: i64 },
    Retain { later: i64, unread: Option<u8>, extents_max: usize },
    Delete { share: u8, extents_max: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = prop_oneof![4 => 0i64..2_000, 1 => Just(1 << 40), 1 => -5_000i64..0];
    let append = (1u32..4, time).prop_map(|(records, after)| Step::Append { records, after });
    let retain = (0i64..1_500, prop::option::of(any::<u8>()), 1usize..5);
    let retain = retain.prop_map(|(later, unread, extents_max)| Step::Retain { later, unread, extents_max });
    let delete =
        (any::<u8>(), 1usize..5).prop_map(|(share, extents_max)| Step::Delete { share, extents_max });
    prop::collection::vec(prop_oneof![4 => append, 2 => retain, 1 => delete], 1..40)
}

/// The partition as the model has it: each extent with its first offset, its records, its bytes and its largest
/// timestamp.
#[derive(Default)]
struct Model {
    extents: Vec<(i64, u32, u64, i64)>,
    log_start: i64,
    next: i64,
    /// Up to where a mark covers the records.
    marked: Option<i64>,
}

impl Model {
    fn retain(&mut self, ms: Option<i64>, bytes: Option<u64>, ceiling: i64, now: i64) {
        while let Some((base, records, size, timestamp)) = self.extents.first().copied() {
            let end = base + i64::from(records);
            let all: u64 = self.extents.iter().map(|(_, _, bytes, _)| bytes).sum();
            let since = if self.marked.is_some_and(|marked| end <= marked) {
                timestamp.min(BEGIN)
            } else {
                timestamp
            };
            let goes =
                bytes.is_some_and(|least| all - size >= least) || ms.is_some_and(|ms| now - since > ms);
            if !goes && ms.is_some() && timestamp > now && self.marked.is_none_or(|marked| end > marked) {
                self.marked = Some(self.next);
                continue;
            }
            if !goes || end > ceiling {
                return;
            }
            self.extents.remove(0);
            self.log_start = end;
        }
    }

    fn delete(&mut self, below: i64) {
        self.log_start = self.log_start.max(below);
        self.extents.retain(|(base, records, ..)| base + i64::from(*records) > below);
    }
}

/// Compares the map with the model, and what counts extents with the extents.
fn compare(tx: &Tx<'_>, partition: PartitionId, model: &Model) {
    let head = partition::head(tx, partition).unwrap().unwrap();
    assert_eq!((head.log_start.0, head.next.0), (model.log_start, model.next));
    assert_eq!(head.bytes, model.extents.iter().map(|(_, _, bytes, _)| bytes).sum::<u64>());
    let extents: Vec<(ExtentKey, Extent)> = tx.range::<Extent>(..).map(Result::unwrap).collect();
    let seen: Vec<_> =
        extents.iter().map(|(k, e)| (k.base.0, e.offsets() as u32, e.bytes(), e.max_timestamp())).collect();
    assert_eq!(seen, model.extents);
    let objects: Vec<ObjectId> = tx.range::<Object>(..).map(|pair| pair.unwrap().0).collect();
    assert_eq!(objects, extents.iter().filter_map(|(_, extent)| extent.object()).collect::<Vec<_>>());
    assert!(tx.range::<Trash>(..).all(|pair| !objects.contains(&pair.unwrap().0)));
    assert_eq!(miscounted(tx).unwrap(), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn retention_does_what_a_model_does(
        steps in steps(),
        ms in prop::option::of(0i64..2_000),
        bytes in prop::option::of(0u64..400),
    ) {
        in_tx(|tx| {
            let partition = topic_with(tx, &[]);
            let defaults = Defaults { ms: ms.unwrap_or(-1), bytes: bytes.map_or(-1, |bytes| bytes as i64) };
            let (mut model, mut now) = (Model::default(), BEGIN);
            for (object, step) in (1..).zip(steps) {
                match step {
                    Step::Append { records, after } => {
                        append(tx, partition, object, records, now + after);
                        let size = plain(records, now + after).len() as u64;
                        let largest = now + after + i64::from(records) - 1;
                        model.extents.push((model.next, records, size, largest));
                        model.next += i64::from(records);
                    }
                    Step::Retain { later, unread, extents_max } => {
                        now += later;
                        let ceiling = unread.map_or(i64::MAX, |share| model.next * i64::from(share) / 255);
                        let due = Due { partition, ceiling: unread.map(|_| Offset(ceiling)) };
                        enforce(tx, due, defaults, now, extents_max);
                        model.retain(ms, bytes, ceiling, now);
                    }
                    Step::Delete { share, extents_max } => {
                        let below = model.next * i64::from(share) / 255;
                        let mut asked = Below { partition, offset: Some(Offset(below)) };
                        loop {
                            let Cut { log_start, target, .. } = cut(tx, asked, extents_max).unwrap();
                            if log_start >= target {
                                break;
                            }
                            asked.offset = Some(target);
                        }
                        model.delete(below);
                    }
                }
                compare(tx, partition, &model);
            }
        });
    }
}
