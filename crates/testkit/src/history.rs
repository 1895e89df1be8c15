//! The history of a run: one line per event, as the clients saw it. The checkers read nothing else. So the lines may
//! come from the simulation, from real processes or from a foreign client.
//!
//! ```text
//! {"at":1204,"op":17,"process":3,"broker":2,"phase":"invoke","event":{"produce":{"partition":"orders/0",…}}}
//! {"at":1219,"op":17,"process":3,"broker":2,"phase":"ok","event":{"produce":{"partition":"orders/0","base":40,…}}}
//! ```
//!
//! `op` joins an invocation with its end. An operation ends `ok` (it took effect), `fail` (it did not take effect and
//! never will) or `info` (nobody knows: it may take effect now, later or never). An operation without an end is `info`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rows::{Keyed, Row};

/// The phase of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The client has sent the operation.
    Invoke,
    /// The operation took effect. The event holds the answer.
    Ok,
    /// The operation did not take effect and never will.
    Fail,
    /// Unknown: the answer was lost.
    Info,
}

/// A record as a client reads it: its offset and its unique value.
pub type Seen = (i64, String);

/// The answer to a statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// All rows of the table: partition, offset, and the record that the row shows.
    Rows(Vec<Row>),
    /// For each partition with rows: its number, the number of rows, the largest offset.
    Counts(Vec<(u32, i64, i64)>),
    /// The number of rows without an equal row in the same table. The statement names the table twice.
    Unmatched(i64),
}

/// A row of the history of commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRow {
    /// The commit.
    pub lsn: u64,
    /// The partition to which it appended records, with the number of its topic: `topic#number/index`.
    pub partition: Option<String>,
    /// The client that wrote the records.
    pub client: String,
    /// The first offset.
    pub base: i64,
    /// How many offsets.
    pub offsets: u64,
}

/// The subject of an operation. Partitions are named `topic/index`. If the topic is one that is deleted and created
/// again, the name is `topic#id/index`: each incarnation is a topic of its own. A value is unique in the whole history.
/// In a topic with a table, the value is the record's text, so that a row can be compared with it ([`crate::rows`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A broker takes requests from now on. It has seen everything that was acknowledged before this line.
    Started,
    /// A broker crashed.
    Crashed,
    /// A client appends one batch.
    Produce {
        /// The partition written to.
        partition: String,
        /// Sends of one session of one process reach the broker in order or not at all.
        session: u64,
        /// Whether the batch is idempotent: a repeated send must not be appended twice.
        once: bool,
        /// The values in the order of the batch.
        values: Vec<String>,
        /// The offset of the first value. Known when the operation ended `ok`.
        base: Option<i64>,
    },
    /// A client reads from an offset on.
    Fetch {
        /// The partition read.
        partition: String,
        /// The first requested offset.
        from: i64,
        /// The records, starting at `from`.
        records: Vec<Seen>,
        /// The next offset to assign, as far as the broker knew.
        high_watermark: i64,
        /// The first offset that is kept.
        log_start: i64,
    },
    /// The late read of a snapshot that a broker had pinned.
    Held {
        /// The partition.
        partition: String,
        /// The first offset that the snapshot has.
        from: i64,
        /// The offset after the last.
        to: i64,
        /// The records that were found.
        records: Vec<Seen>,
        /// Why no more were found.
        error: Option<String>,
    },
    /// The run has a compacted topic.
    CompactedTopic {
        /// How long its tombstones stay at least, in milliseconds.
        delete_retention_ms: u64,
        /// Whether compaction and retention wait for its table.
        waits: bool,
    },
    /// A client appends one batch to a compacted topic of one partition, or ends a transaction there. A marker stands
    /// for a tombstone of a key that nothing else has: its value ([`crate::rows::marker`]).
    Put {
        /// The topic.
        topic: String,
        /// Keys and unique values in the order of the batch; none for a tombstone.
        records: Vec<(String, Option<String>)>,
        /// The offset of the first record. Known when the operation ended `ok`.
        base: Option<i64>,
    },
    /// A client reads all of a compacted topic of one partition, at one moment.
    Keys {
        /// The topic.
        topic: String,
        /// The first offset that is kept.
        log_start: i64,
        /// The offset after the newest record.
        high_watermark: i64,
        /// Every record that is there.
        records: Vec<Keyed>,
    },
    /// A client follows a compacted topic of one partition from its start to its end, in many reads. The log is
    /// compacted meanwhile.
    Followed {
        /// The topic.
        topic: String,
        /// The first offset that is kept, by the last read.
        log_start: i64,
        /// The largest high watermark of all reads, which was reached.
        high_watermark: i64,
        /// Every record that it met.
        records: Vec<Keyed>,
    },
    /// The rows of the table over a compacted topic of one partition: those of its files, or the answer to a statement.
    KeyedRows {
        /// The topic.
        topic: String,
        /// Offset and key of each row, and the value that it shows.
        rows: Vec<Keyed>,
        /// The next offset that the view will read; none for a statement, which shows the log as well.
        progress: Option<i64>,
    },
    /// Records that retention or a client took are back in a topic of their own, which was read whole.
    CameBack {
        /// The partition that lost them.
        partition: String,
        /// The offsets that a list showed before: the first, and the one after the last.
        listed: (i64, i64),
        /// The first offset that the topic has.
        from: i64,
        /// The offset after the last.
        to: i64,
        /// The records that were found.
        records: Vec<Seen>,
        /// Why no more were found.
        error: Option<String>,
    },
    /// A client commits an offset for a group.
    Commit {
        /// The name of the group.
        group: String,
        /// The partition.
        partition: String,
        /// The next offset that the group will read.
        offset: i64,
    },
    /// A client asks for the offset of a group.
    Committed {
        /// The name of the group.
        group: String,
        /// The partition.
        partition: String,
        /// The stored offset, or none.
        offset: Option<i64>,
    },
    /// A client deletes the records of a partition below an offset.
    DeleteRecords {
        /// The partition.
        partition: String,
        /// The first offset that is to stay; none for all records that there are.
        below: Option<i64>,
        /// The first offset that is kept. Known when the operation ended `ok`.
        log_start: Option<i64>,
    },
    /// What is wrong with the extents of some partition after some commit of the run.
    Extents {
        /// Each entry names the commit and the partition.
        what: Vec<String>,
        /// The topics whose records go by age or size.
        retained: Vec<String>,
    },
    /// The read of a whole partition after all faults had ended.
    Final {
        /// The partition.
        partition: String,
        /// The first offset that is kept.
        log_start: i64,
        /// The next offset to assign.
        high_watermark: i64,
        /// Every readable record.
        records: Vec<Seen>,
    },
    /// A broker refused a send in a way that no client retries.
    Refused {
        /// The partition written to.
        partition: String,
        /// The broker's reason.
        reason: String,
    },
    /// The journal had no room for a while. Operations that began and ended in that time are not in the journal.
    JournalFull {
        /// Start, in milliseconds since the start of the run.
        from: u64,
        /// End, in milliseconds since the start of the run.
        to: u64,
    },
    /// A client creates a topic.
    CreateTopic {
        /// The name of the topic. When the operation ended `ok`, the name of the incarnation: `topic#id`.
        topic: String,
    },
    /// A client deletes a topic: an incarnation, or the one that has the name now.
    DeleteTopic {
        /// The topic. When the operation ended `ok`, the topic of the answer.
        topic: String,
    },
    /// A client brings the topic back that was deleted last under a name.
    UndeleteTopic {
        /// The name. When the operation ended `ok`, the incarnation that is back.
        topic: String,
    },
    /// A client lets all deleted topics go for good.
    PurgeTopics,
    /// The metadata of deleted topics that still exists after the cleaners had their time.
    Leftovers {
        /// Each entry names the kind of metadata and the topic.
        what: Vec<String>,
    },
    /// The content of the store after the cleaners had their time.
    Objects {
        /// Keys in the store.
        stored: Vec<String>,
        /// Keys that something refers to. Their loss would lose data.
        needed: Vec<String>,
        /// Keys that may exist although nothing refers to them: leased, waiting for deletion, young.
        excused: Vec<String>,
    },
    /// The rows of a table's current snapshot, read back from its files.
    Rows {
        /// The topic that the table shows.
        topic: String,
        /// Partition and offset of each row, and the record that it shows.
        rows: Vec<Row>,
        /// Partition and offset of each dead letter of the topic.
        dead: Vec<(u32, i64)>,
        /// The next offset that the view will read, by partition.
        progress: BTreeMap<u32, i64>,
    },
    /// The rows of the history of commits.
    Commits {
        /// The last commit.
        last: u64,
        /// The rows in their order.
        rows: Vec<CommitRow>,
        /// Where they differ from what the journal ever had, and why there are no more.
        wrong: Vec<String>,
    },
    /// A statement over the table of a topic.
    Query {
        /// The topic.
        topic: String,
        /// The answer, or none if the statement failed.
        answer: Option<Answer>,
    },
    /// Something made no progress although all faults had ended.
    Stuck {
        /// Names the part that waits, and its reason.
        what: String,
    },
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the start of the run.
    pub at: u64,
    /// The same number joins the two lines of an operation.
    pub op: u64,
    /// The number of the client.
    pub process: u32,
    /// The incarnation of the broker, counted from one over the whole run; 0 for none.
    pub broker: u32,
    /// The phase of the operation.
    pub phase: Phase,
    /// The subject of the operation.
    pub event: Event,
}

/// All lines of a run in the order in which they happened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The lines. An earlier line happened earlier.
    pub lines: Vec<Line>,
}

/// An operation with its beginning and its end.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// The number of its first line.
    pub began: usize,
    /// The number of its last line; none for an operation that never ended.
    pub ended: Option<usize>,
    /// Its first line.
    pub invoke: &'a Line,
    /// How it ended.
    pub phase: Phase,
    /// The event of its last line: the answer, if there is one.
    pub event: &'a Event,
}

impl History {
    /// Adds a line.
    pub fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// All operations in the order of their beginnings. A single line (`Started`, `Final`, …) is its own end.
    pub fn operations(&self) -> Vec<Operation<'_>> {
        let mut found: Vec<Operation<'_>> = Vec::new();
        let mut open: BTreeMap<u64, usize> = BTreeMap::new();
        for (number, line) in self.lines.iter().enumerate() {
            match (line.phase, open.remove(&line.op)) {
                (Phase::Invoke, _) => {
                    open.insert(line.op, found.len());
                    found.push(operation(number, None, line, Phase::Info, &line.event));
                }
                (phase, Some(place)) => {
                    let began = found[place].began;
                    found[place] = operation(began, Some(number), found[place].invoke, phase, &line.event);
                }
                (phase, None) => found.push(operation(number, Some(number), line, phase, &line.event)),
            }
        }
        found
    }

    /// The final reads by partition.
    pub fn finals(&self) -> BTreeMap<&str, FinalRead<'_>> {
        let reads = self.lines.iter().filter_map(|line| match &line.event {
            Event::Final { partition, log_start, high_watermark, records } => {
                let read = FinalRead { log_start: *log_start, high_watermark: *high_watermark, records };
                Some((partition.as_str(), read))
            }
            _ => None,
        });
        reads.collect()
    }

    /// The history as text, one JSON document per line.
    pub fn to_text(&self) -> String {
        let lines = self.lines.iter().map(|line| serde_json::to_string(line).expect("a line is plain data"));
        lines.fold(String::new(), |text, line| text + &line + "\n")
    }

    /// Reads what [`History::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<History, serde_json::Error> {
        let lines = text.lines().filter(|line| !line.is_empty()).map(serde_json::from_str);
        Ok(History { lines: lines.collect::<Result<_, _>>()? })
    }
}

/// The result of the final read of a partition.
#[derive(Debug, Clone, Copy)]
pub struct FinalRead<'a> {
    /// The first offset that is kept.
    pub log_start: i64,
    /// The next offset to assign.
    pub high_watermark: i64,
    /// Every readable record.
    pub records: &'a [Seen],
}

/// The incarnation `topic#id` of a partition, if its topic has incarnations.
pub fn incarnation(partition: &str) -> Option<&str> {
    let topic = partition.rsplit_once('/')?.0;
    topic.contains('#').then_some(topic)
}

/// The name without the id of its incarnation.
pub fn without_incarnation(name: &str) -> String {
    match name.split_once('#') {
        Some((topic, rest)) => format!("{topic}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => name.to_owned(),
    }
}

/// Whether an operation may have deleted this incarnation.
pub fn may_delete(operation: &Operation<'_>, topic: &str) -> bool {
    let (Event::DeleteTopic { topic: asked }, Event::DeleteTopic { topic: told }) =
        (&operation.invoke.event, operation.event)
    else {
        return false;
    };
    match operation.phase {
        Phase::Ok => told == topic,
        Phase::Fail => false,
        Phase::Invoke | Phase::Info => asked == topic || *asked == without_incarnation(topic),
    }
}

/// Whether an operation may have brought this incarnation back.
pub fn may_undelete(operation: &Operation<'_>, topic: &str) -> bool {
    let Event::UndeleteTopic { topic: told } = operation.event else { return false };
    match operation.phase {
        Phase::Ok => told == topic,
        Phase::Fail => false,
        Phase::Invoke | Phase::Info => told == topic || *told == without_incarnation(topic),
    }
}

fn operation<'a>(
    began: usize,
    ended: Option<usize>,
    invoke: &'a Line,
    phase: Phase,
    event: &'a Event,
) -> Operation<'a> {
    Operation { began, ended, invoke, phase, event }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_survives_its_text_and_joins_its_operations() {
        let produce = |base| Event::Produce {
            partition: "orders/0".to_owned(),
            session: 1,
            once: true,
            values: vec!["a".to_owned(), "b".to_owned()],
            base,
        };
        let line = |op, phase, event| Line { at: 7, op, process: 3, broker: 1, phase, event };
        let mut history = History::default();
        history.push(line(1, Phase::Ok, Event::Started));
        history.push(line(2, Phase::Invoke, produce(None)));
        history.push(line(3, Phase::Invoke, produce(None)));
        history.push(line(2, Phase::Ok, produce(Some(40))));

        let text = history.to_text();
        assert_eq!(History::from_text(&text).expect("reads back"), history);
        assert!(text.lines().nth(1).expect("second line").starts_with(
            r#"{"at":7,"op":2,"process":3,"broker":1,"phase":"invoke","event":{"produce":{"partition":"orders/0""#
        ));

        let operations = history.operations();
        let ends: Vec<_> = operations.iter().map(|o| (o.began, o.ended, o.phase)).collect();
        assert_eq!(ends, [(0, Some(0), Phase::Ok), (1, Some(3), Phase::Ok), (2, None, Phase::Info)]);
        assert_eq!(operations[1].event, &produce(Some(40)));
    }
}
