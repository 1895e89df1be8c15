//! Time goes forward: a read that began after another one ended sees no lower high watermark and no lower log
//! start, and a read that began after an acknowledgement sees its offset. It holds within one broker, and
//! between brokers if the later one started after the earlier operation had ended: a broker that lives beside
//! another may lag behind it.

use std::collections::BTreeMap;

use crate::history::{Event, History, Operation, Phase};

/// What is known about a partition at some line.
#[derive(Debug, Clone, Copy)]
struct Known {
    line: usize,
    broker: u32,
    high_watermark: i64,
    log_start: i64,
}

/// Says which reads went back.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let started = started(&operations);
    let mut known: BTreeMap<&str, Vec<Known>> = BTreeMap::new();
    for operation in &operations {
        if let (Some((partition, fact)), Some(_)) = (fact(operation), operation.ended) {
            known.entry(partition).or_default().push(fact);
        }
    }
    for facts in known.values_mut() {
        facts.sort_by_key(|fact| fact.line);
    }
    let mut found = Vec::new();
    for operation in &operations {
        let (Event::Fetch { .. } | Event::Final { .. }) = operation.event else { continue };
        let Some((partition, seen)) = fact(operation) else { continue };
        let binds = |fact: &&Known| {
            let fresh = started.get(&seen.broker).is_some_and(|start| fact.line < *start);
            fact.line < operation.began && (fact.broker == seen.broker || fresh)
        };
        let facts = known.get(partition).map(Vec::as_slice).unwrap_or_default();
        let until = facts.partition_point(|fact| fact.line < operation.began);
        let bound = facts[..until].iter().filter(binds);
        let (high_watermark, log_start) = bound.fold((i64::MIN, i64::MIN), |(high, start), fact| {
            (high.max(fact.high_watermark), start.max(fact.log_start))
        });
        let at = operation.invoke.at;
        if seen.high_watermark < high_watermark {
            let (now, before) = (seen.high_watermark, high_watermark);
            found.push(format!(
                "{partition}: the high watermark went back from {before} to {now} after {at} ms"
            ));
        }
        if seen.log_start < log_start {
            found
                .push(format!("{partition}: the log start went back from {log_start} to {}", seen.log_start));
        }
    }
    found
}

/// The line at which each broker started.
fn started(operations: &[Operation<'_>]) -> BTreeMap<u32, usize> {
    let starts = operations.iter().filter(|o| matches!(o.event, Event::Started));
    starts.map(|o| (o.invoke.broker, o.began)).collect()
}

/// What an operation that ended `ok` proves about its partition.
fn fact<'a>(operation: &Operation<'a>) -> Option<(&'a str, Known)> {
    if operation.phase != Phase::Ok {
        return None;
    }
    let line = operation.ended.unwrap_or(operation.began);
    let broker = operation.invoke.broker;
    match operation.event {
        Event::Produce { partition, values, base: Some(base), .. } => {
            let high_watermark = base + i64::try_from(values.len()).expect("a batch is small");
            Some((partition, Known { line, broker, high_watermark, log_start: i64::MIN }))
        }
        Event::Fetch { partition, high_watermark, log_start, .. }
        | Event::Final { partition, high_watermark, log_start, .. } => {
            let (high_watermark, log_start) = (*high_watermark, *log_start);
            Some((partition, Known { line, broker, high_watermark, log_start }))
        }
        _ => None,
    }
}
