//! A compacted topic means what all of its records mean: of each key the last record is there. A tombstone may be gone
//! when its time is over, and then no older record of its key is there. The newest record of the partition stays.

use std::collections::BTreeMap;

use crate::history::{Event, History, Keyed, Operation, Phase};

/// A record that was acknowledged.
struct Put<'a> {
    /// When it was sent.
    sent: u64,
    value: Option<&'a str>,
}

/// What the history says about the records of a topic.
#[derive(Default)]
struct Known<'a> {
    /// By key and offset.
    puts: BTreeMap<&'a str, BTreeMap<i64, Put<'a>>>,
    /// Records whose outcome nobody knows, with the line of their send.
    unknown: Vec<(usize, &'a str, Option<&'a str>)>,
    /// How long tombstones stay, in milliseconds.
    retention: u64,
}

/// Reports reads that lack a record, or have one that should be gone.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let mut known = Known::default();
    for operation in &operations {
        known.note(operation);
    }
    let mut found = Vec::new();
    for operation in operations.iter().filter(|operation| operation.phase == Phase::Ok) {
        if let Event::Keys { high_watermark, records, .. } = operation.event {
            let ended = operation.ended.and_then(|line| Some((line, history.lines.get(line)?.at)));
            let ended = ended.unwrap_or((usize::MAX, u64::MAX));
            let what = known.judge(ended, *high_watermark, records);
            let at = operation.invoke.at;
            found.extend(what.into_iter().map(|what| format!("read after {at} ms: {what}")));
        }
    }
    found
}

impl<'a> Known<'a> {
    fn note(&mut self, operation: &Operation<'a>) {
        match (operation.event, &operation.invoke.event) {
            (Event::CompactedTopic { delete_retention_ms }, _) => self.retention = *delete_retention_ms,
            (Event::Put { records, base: Some(base), .. }, _) if operation.phase == Phase::Ok => {
                for (offset, (key, value)) in (*base..).zip(records) {
                    let put = Put { sent: operation.invoke.at, value: value.as_deref() };
                    self.puts.entry(key).or_default().insert(offset, put);
                }
            }
            (Event::Put { .. }, Event::Put { records, .. }) if operation.phase == Phase::Info => {
                let sent = records.iter().map(|(key, value)| (operation.began, &**key, value.as_deref()));
                self.unknown.extend(sent);
            }
            _ => {}
        }
    }

    /// Judges a read that ended at this line and time. Its high watermark says which records it must know.
    fn judge(&self, (ended, at): (usize, u64), high_watermark: i64, records: &[Keyed]) -> Vec<String> {
        let mut found = Vec::new();
        let mut last: BTreeMap<&str, (i64, Option<&str>)> = BTreeMap::new();
        let mut before = -1;
        for (offset, key, value) in records {
            if *offset <= before {
                found.push(format!("{offset} comes after {before}"));
            }
            before = *offset;
            last.insert(key, (*offset, value.as_deref()));
            let put = self.puts.get(&**key).and_then(|puts| puts.get(offset));
            let is_known = match put {
                Some(put) => put.value == value.as_deref(),
                None => self.maybe(ended, key, |sent| sent == value.as_deref()),
            };
            if !is_known {
                found.push(format!("{offset}: nobody wrote {value:?} under {key}"));
            }
        }
        if high_watermark > 0 && before != high_watermark - 1 {
            found.push(format!("the newest record, at {}, is not there", high_watermark - 1));
        }
        for (key, puts) in &self.puts {
            let Some((offset, put)) = puts.range(..high_watermark).next_back() else { continue };
            let age = at.saturating_sub(put.sent);
            match last.get(key) {
                Some((seen, _)) if seen >= offset => {}
                Some((seen, value)) => {
                    found.push(format!("{key} is {value:?} of {seen}, but {offset} replaced that"));
                }
                // A tombstone may have taken its place, and may be gone as well.
                None if self.maybe(ended, key, |value| value.is_none()) => {}
                None if put.value.is_some() => {
                    found.push(format!("{key} is not there, but {offset} has {:?}", put.value));
                }
                None if age < self.retention => {
                    found.push(format!("the tombstone of {key} at {offset} is gone after {age} ms"));
                }
                None => {}
            }
        }
        found
    }

    /// Whether a record of unknown outcome may be there that fits.
    fn maybe(&self, ended: usize, key: &str, fits: impl Fn(Option<&str>) -> bool) -> bool {
        self.unknown.iter().any(|(began, other, value)| *began < ended && *other == key && fits(*value))
    }
}
