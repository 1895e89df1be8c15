//! Writes the history of a run and folds each line into the run's hash.

use std::sync::{Arc, Mutex};

use crate::history::{Answer, Event, History, Line, Phase};
use crate::trace::Trace;
use floe_env::lock;

/// Writes the history of one run. A clone writes the same history.
#[derive(Clone)]
pub struct Recorder {
    trace: Trace,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    history: History,
    ops: u64,
}

/// An operation that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    op: u64,
    process: u32,
    broker: u32,
}

impl Recorder {
    /// An empty history.
    pub fn new(trace: &Trace) -> Recorder {
        Recorder { trace: trace.clone(), inner: Arc::default() }
    }

    /// Notes that an operation begins.
    pub fn invoke(&self, process: u32, broker: u32, event: Event) -> Begun {
        let op = self.take_op();
        self.write(Line { at: self.trace.at(), op, process, broker, phase: Phase::Invoke, event });
        Begun { op, process, broker }
    }

    /// Notes that an operation ends.
    pub fn end(&self, begun: Begun, phase: Phase, event: Event) {
        let Begun { op, process, broker } = begun;
        self.write(Line { at: self.trace.at(), op, process, broker, phase, event });
    }

    /// Notes an event without a duration.
    pub fn note(&self, broker: u32, event: Event) {
        let op = self.take_op();
        self.write(Line { at: self.trace.at(), op, process: 0, broker, phase: Phase::Ok, event });
    }

    /// Notes that something made no progress.
    pub fn stuck(&self, what: String) {
        self.note(0, Event::Stuck { what });
    }

    /// The history so far.
    pub fn history(&self) -> History {
        lock(&self.inner).history.clone()
    }

    fn take_op(&self) -> u64 {
        let mut inner = lock(&self.inner);
        inner.ops += 1;
        inner.ops
    }

    fn write(&self, line: Line) {
        let Line { op, process, broker, phase, .. } = line;
        self.trace.fold(&format!("op {op} of {process} at {broker} {phase:?} {}", digest(&line.event)));
        lock(&self.inner).history.push(line);
    }
}

/// The part of an event that tells two runs apart, without the bulk of its records.
fn digest(event: &Event) -> String {
    match event {
        Event::Produce { partition, values, base, .. } => format!("produce {partition} {values:?} {base:?}"),
        Event::Fetch { partition, from, records, high_watermark, log_start } => {
            format!("fetch {partition} {from} {} {high_watermark} {log_start}", records.len())
        }
        Event::Held { partition, from, to, records, error } => {
            format!("held {partition} {from} {to} {} {error:?}", records.len())
        }
        Event::CameBack { partition, listed, from, to, records, error } => {
            format!("came back {partition} {listed:?} {from} {to} {} {error:?}", records.len())
        }
        Event::Final { partition, log_start, high_watermark, records } => {
            format!("final {partition} {} {high_watermark} {log_start}", records.len())
        }
        Event::Keys { topic, log_start, high_watermark, records } => {
            format!("keys {topic} {} {high_watermark} {log_start}", records.len())
        }
        Event::Followed { topic, log_start, high_watermark, records } => {
            format!("followed {topic} {} {high_watermark} {log_start}", records.len())
        }
        Event::KeyedRows { topic, rows, progress } => {
            format!("keyed rows {topic} {} {progress:?}", rows.len())
        }
        Event::Rows { topic, rows, dead, progress } => {
            format!("rows {topic} {} {} {progress:?}", rows.len(), dead.len())
        }
        Event::Query { topic, answer: Some(Answer::Rows(rows)) } => {
            format!("query {topic} {} rows", rows.len())
        }
        other => format!("{other:?}"),
    }
}
