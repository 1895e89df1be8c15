//! What happened, one line per event, as the clients saw it. The checkers read nothing else, so the same lines may come
//! from the simulation, from real processes or from a client of another house.
//!
//! ```text
//! {"at":1204,"op":17,"process":3,"broker":2,"phase":"invoke","event":{"produce":{"partition":"orders/0",…}}}
//! {"at":1219,"op":17,"process":3,"broker":2,"phase":"ok","event":{"produce":{"partition":"orders/0","base":40,…}}}
//! ```
//!
//! `op` joins an invocation with its end. An operation ends `ok` (it took effect), `fail` (it did not and
//! never will) or `info` (nobody knows: it may take effect now, later or never). An operation without an end is `info`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rows::Row;

/// How far an operation is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The client has sent it.
    Invoke,
    /// It took effect, and the event holds the answer.
    Ok,
    /// It did not take effect and never will.
    Fail,
    /// Unknown: the answer was lost.
    Info,
}

/// A record as a client reads it: its offset and its unique value.
pub type Seen = (i64, String);

/// What a statement answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// All rows of the table: partition, offset and what it says the record was.
    Rows(Vec<Row>),
    /// Per partition that has rows, how many and the largest offset.
    Counts(Vec<(u32, i64, i64)>),
    /// How many rows of the table have no equal in the same table, named twice in one statement.
    Unmatched(i64),
}

/// What an operation is about. Partitions are named `topic/index`, and `topic#id/index` if the topic is one that is
/// deleted and created again: each incarnation is a topic of its own. A value is unique in the whole history. In a
/// topic with a table it is the record's text, so that a row can be compared with it ([`crate::rows`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A broker takes requests from now on; it has seen everything that was acknowledged before this line.
    Started,
    /// A broker died where it stood.
    Crashed,
    /// One batch. `base` is the offset of the first value, known when it ended `ok`.
    Produce {
        /// The partition written to.
        partition: String,
        /// Sends of one session of one process reach the broker in order, or not at all.
        session: u64,
        /// A repeated send of the batch must not be appended twice.
        once: bool,
        /// The values in their order.
        values: Vec<String>,
        /// The offset of the first value.
        base: Option<i64>,
    },
    /// A read from one offset on.
    Fetch {
        /// The partition read.
        partition: String,
        /// The first offset asked for.
        from: i64,
        /// What came, starting at `from`.
        records: Vec<Seen>,
        /// The next offset that will be assigned, as far as the broker knew.
        high_watermark: i64,
        /// The first offset that is kept.
        log_start: i64,
    },
    /// A group stores an offset.
    Commit {
        /// The name of the group.
        group: String,
        /// The partition.
        partition: String,
        /// The next offset the group will read.
        offset: i64,
    },
    /// A group asks for its offset.
    Committed {
        /// The name of the group.
        group: String,
        /// The partition.
        partition: String,
        /// The stored offset, none if there is none.
        offset: Option<i64>,
    },
    /// The whole partition, read when all faults had ended.
    Final {
        /// The partition.
        partition: String,
        /// The first offset that is kept.
        log_start: i64,
        /// The next offset that will be assigned.
        high_watermark: i64,
        /// Every record that could be read.
        records: Vec<Seen>,
    },
    /// A send was refused in a way that no client tries again.
    Refused {
        /// The partition written to.
        partition: String,
        /// What was said.
        reason: String,
    },
    /// For a while the journal had no room: whatever was begun and ended in it is not in the journal.
    JournalFull {
        /// Milliseconds since the start of the run.
        from: u64,
        /// Milliseconds since the start of the run.
        to: u64,
    },
    /// A topic is created. Known when it ended `ok`, its name is that of the incarnation: `topic#id`.
    CreateTopic {
        /// The topic.
        topic: String,
    },
    /// A topic is deleted: an incarnation, or whichever has the name.
    DeleteTopic {
        /// The topic; that of the answer when it ended `ok`.
        topic: String,
    },
    /// What the metadata still holds of topics that are gone, when the cleaners had their time.
    Leftovers {
        /// What it is and of which topic.
        what: Vec<String>,
    },
    /// The store after the cleaner had its time.
    Objects {
        /// Keys in the store.
        stored: Vec<String>,
        /// Keys that something refers to: their loss is a loss of data.
        needed: Vec<String>,
        /// Keys that may exist although nothing refers to them: leased, waiting for deletion, young.
        excused: Vec<String>,
    },
    /// The rows of a table's current snapshot, read back from its files.
    Rows {
        /// The topic that the table shows.
        topic: String,
        /// Partition, offset and what it says the record was, of each row.
        rows: Vec<Row>,
        /// Partition and offset of each dead letter of the topic.
        dead: Vec<(u32, i64)>,
        /// Per partition, the next offset that the view will read.
        progress: BTreeMap<u32, i64>,
    },
    /// A statement over the table of a topic.
    Query {
        /// The topic.
        topic: String,
        /// What it answered, none if it did not.
        answer: Option<Answer>,
    },
    /// Something that had to make progress after all faults had ended did not.
    Stuck {
        /// What waits, and for what.
        what: String,
    },
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the start of the run.
    pub at: u64,
    /// Joins the two lines of an operation.
    pub op: u64,
    /// The client that acts.
    pub process: u32,
    /// The incarnation of the broker that is asked, counted from one over the whole run; 0 for none.
    pub broker: u32,
    /// How far the operation is.
    pub phase: Phase,
    /// What it is.
    pub event: Event,
}

/// All lines of a run in the order in which they happened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The lines. What stands before another line happened before it.
    pub lines: Vec<Line>,
}

/// An operation with both its ends.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// The number of the line that began it.
    pub began: usize,
    /// The number of the line that ended it; none for an operation that never ended.
    pub ended: Option<usize>,
    /// The line that began it.
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

    /// All operations by the order of their beginnings. A line that stands alone (`Started`, `Final`, …) is one whose
    /// beginning is its end.
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

/// What the final read of a partition found.
#[derive(Debug, Clone, Copy)]
pub struct FinalRead<'a> {
    /// The first offset that is kept.
    pub log_start: i64,
    /// The next offset that will be assigned.
    pub high_watermark: i64,
    /// Every record that could be read.
    pub records: &'a [Seen],
}

/// The incarnation that a partition belongs to, of a topic that has several: `topic#id`.
pub fn incarnation(partition: &str) -> Option<&str> {
    let topic = partition.rsplit_once('/')?.0;
    topic.contains('#').then_some(topic)
}

/// A name without what tells incarnations apart.
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
