//! Facts that ended operations prove about a partition. A later operation must see them if it ran on the same broker,
//! or on a broker that started after the earlier operation had ended. A broker that lives beside another one may lag
//! behind.

use std::collections::BTreeMap;

use crate::history::{Answer, Event, Operation, Phase};

/// All facts that a history proves.
pub(super) struct Facts {
    /// The line at which each broker started.
    started: BTreeMap<u32, usize>,
    /// Facts by partition, in the order of their lines.
    known: BTreeMap<String, Vec<Known>>,
}

/// A fact about a partition, known from some line on.
#[derive(Debug, Clone, Copy)]
struct Known {
    line: usize,
    broker: u32,
    high_watermark: i64,
    log_start: i64,
}

impl Facts {
    /// The facts that these operations prove.
    pub(super) fn of(operations: &[Operation<'_>]) -> Facts {
        let started = started(operations);
        let mut known: BTreeMap<String, Vec<Known>> = BTreeMap::new();
        for operation in operations.iter().filter(|o| o.phase == Phase::Ok) {
            for (partition, high_watermark, log_start) in proved(operation.event) {
                let line = operation.ended.unwrap_or(operation.began);
                let broker = operation.invoke.broker;
                known.entry(partition).or_default().push(Known { line, broker, high_watermark, log_start });
            }
        }
        known.values_mut().for_each(|facts| facts.sort_by_key(|fact| fact.line));
        Facts { started, known }
    }

    /// The lowest high watermark and log start that this operation may see.
    pub(super) fn bound(&self, partition: &str, operation: &Operation<'_>) -> (i64, i64) {
        let broker = operation.invoke.broker;
        let facts = self.known.get(partition).map(Vec::as_slice).unwrap_or_default();
        let until = facts.partition_point(|fact| fact.line < operation.began);
        let binds = |fact: &&Known| {
            let fresh = self.started.get(&broker).is_some_and(|start| fact.line < *start);
            fact.broker == broker || fresh
        };
        facts[..until].iter().filter(binds).fold((i64::MIN, i64::MIN), |(high, start), fact| {
            (high.max(fact.high_watermark), start.max(fact.log_start))
        })
    }
}

/// The line at which each broker started. The broker has seen everything that was acknowledged before that line.
pub(super) fn started(operations: &[Operation<'_>]) -> BTreeMap<u32, usize> {
    let starts = operations.iter().filter(|o| matches!(o.event, Event::Started));
    starts.map(|o| (o.invoke.broker, o.began)).collect()
}

/// The partitions of an event, each with a high watermark and a log start that the event proves.
fn proved(event: &Event) -> Vec<(String, i64, i64)> {
    match event {
        Event::Produce { partition, values, base: Some(base), .. } => {
            let end = base + i64::try_from(values.len()).expect("a batch is small");
            vec![(partition.clone(), end, i64::MIN)]
        }
        Event::Fetch { partition, high_watermark, log_start, .. }
        | Event::Final { partition, high_watermark, log_start, .. } => {
            vec![(partition.clone(), *high_watermark, *log_start)]
        }
        Event::Put { topic, records, base: Some(base) } => {
            let end = base + i64::try_from(records.len()).expect("a batch is small");
            vec![(format!("{topic}/0"), end, i64::MIN)]
        }
        Event::Keys { topic, log_start, high_watermark, .. } => {
            vec![(format!("{topic}/0"), *high_watermark, *log_start)]
        }
        Event::DeleteRecords { partition, log_start: Some(log_start), .. } => {
            vec![(partition.clone(), *log_start, *log_start)]
        }
        Event::Query { topic, answer: Some(answer) } => {
            let name = |partition| format!("{topic}/{partition}");
            let seen = |(partition, offset): (u32, i64)| (name(partition), offset + 1, i64::MIN);
            match answer {
                Answer::Rows(rows) => {
                    let mut ends = BTreeMap::new();
                    for (partition, offset, _) in rows {
                        let end = ends.entry(*partition).or_insert(*offset);
                        *end = (*end).max(*offset);
                    }
                    ends.into_iter().map(seen).collect()
                }
                Answer::Counts(counts) => counts.iter().map(|(p, _, last)| seen((*p, *last))).collect(),
                Answer::Unmatched(_) => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}
