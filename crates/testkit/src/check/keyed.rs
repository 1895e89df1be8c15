//! What a history proves about the records of a compacted topic, for the checkers of what is read of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, History, Operation, Phase};
use crate::rows::Keyed;
use crate::rows::is_marker;

/// A record that was acknowledged.
struct Put<'a> {
    /// When it was sent.
    sent: u64,
    value: Option<&'a str>,
}

/// What the history says about the records of its compacted topic.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// By key and offset.
    puts: BTreeMap<&'a str, BTreeMap<i64, Put<'a>>>,
    /// Records whose outcome nobody knows, with the line of their send.
    unknown: Vec<(usize, &'a str, Option<&'a str>)>,
    /// How long tombstones stay, in milliseconds.
    retention: u64,
    /// Whether compaction waits for the table.
    pub(super) waits: bool,
    /// Whether a client deleted records, or tried to.
    pub(super) deletes: bool,
    /// The first offset that is kept at the end.
    pub(super) log_start: i64,
}

/// A part of the log as somebody saw it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// The line at which it ended, and the time of that.
    pub(super) ended: (usize, u64),
    /// The first offset that is kept.
    pub(super) log_start: i64,
    /// The offset up to which every record must be known.
    pub(super) end: i64,
    /// What was seen.
    pub(super) records: &'a [Keyed],
}

impl<'a> Known<'a> {
    /// All that these operations prove.
    pub(super) fn of(operations: &[Operation<'a>]) -> Known<'a> {
        let mut known = Known::default();
        for operation in operations {
            known.note(operation);
        }
        known
    }

    /// The same without markers, which have no rows.
    pub(super) fn without_markers(mut self) -> Known<'a> {
        self.puts.retain(|key, _| !is_marker(key));
        self
    }

    fn note(&mut self, operation: &Operation<'a>) {
        match (operation.event, &operation.invoke.event) {
            (Event::CompactedTopic { delete_retention_ms, waits }, _) => {
                (self.retention, self.waits) = (*delete_retention_ms, *waits);
            }
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
            (Event::Keys { log_start, .. }, _) if operation.phase == Phase::Ok => {
                self.log_start = self.log_start.max(*log_start);
            }
            (Event::DeleteRecords { .. }, _) => self.deletes = true,
            _ => {}
        }
    }

    /// Records that nobody wrote, or not there.
    pub(super) fn strangers(&self, ended: usize, records: &[Keyed]) -> Vec<String> {
        let mut found = Vec::new();
        for (offset, key, value) in records {
            let put = self.puts.get(&**key).and_then(|puts| puts.get(offset));
            let is_known = match put {
                Some(put) => put.value == value.as_deref(),
                None => self.maybe(ended, key, |sent| sent == value.as_deref()),
            };
            if !is_known {
                found.push(format!("{offset}: nobody wrote {value:?} under {key}"));
            }
        }
        found
    }

    /// Records that are not in the order of their offsets.
    pub(super) fn disorder(records: &[Keyed]) -> Vec<String> {
        let pairs = records.windows(2).filter(|pair| pair[1].0 <= pair[0].0);
        pairs.map(|pair| format!("{} comes after {}", pair[1].0, pair[0].0)).collect()
    }

    /// Keys whose last record is not that of the log. A tombstone may be gone when its time is over.
    pub(super) fn stale(&self, seen: &Seen<'_>) -> Vec<String> {
        let mut found = Vec::new();
        let mut last: BTreeMap<&str, (i64, Option<&str>)> = BTreeMap::new();
        for (offset, key, value) in seen.records {
            let newest = last.entry(key).or_insert((*offset, value.as_deref()));
            *newest = (*newest).max((*offset, value.as_deref()));
        }
        let (ended, at) = seen.ended;
        for (key, puts) in &self.puts {
            let Some((offset, put)) = puts.range(..seen.end).next_back() else { continue };
            if *offset < seen.log_start {
                continue;
            }
            let age = at.saturating_sub(put.sent);
            let may_be_gone = put.value.is_none() && age >= self.retention;
            match last.get(key) {
                Some((seen, _)) if seen >= offset => {}
                // A tombstone may have taken its place, and may be gone as well.
                None if self.maybe(ended, key, |value| value.is_none()) => {}
                None if put.value.is_some() => {
                    found.push(format!("{key} is not there, but {offset} has {:?}", put.value));
                }
                None if may_be_gone => {}
                None => found.push(format!("the tombstone of {key} at {offset} is gone after {age} ms")),
                Some((seen, value)) => {
                    found.push(format!("{key} is {value:?} of {seen}, but {offset} replaced that"));
                }
            }
        }
        found
    }

    /// Whether all of these findings could be those of somebody who met the records of a key before its tombstone, and
    /// came to the tombstone when it was gone.
    pub(super) fn stale_for_a_slow_reader(&self, seen: &Seen<'_>) -> Vec<String> {
        let gone = self.puts.iter().filter(|(_, puts)| {
            let last = puts.range(..seen.end).next_back();
            last.is_some_and(|(_, put)| {
                put.value.is_none() && seen.ended.1.saturating_sub(put.sent) >= self.retention
            })
        });
        let gone: BTreeSet<&str> = gone.map(|(key, _)| *key).collect();
        let unsure = |key: &str| gone.contains(key) || self.maybe(seen.ended.0, key, |value| value.is_none());
        let records: Vec<Keyed> = seen.records.iter().filter(|(_, key, _)| !unsure(key)).cloned().collect();
        self.stale(&Seen { records: &records, ..*seen })
    }

    /// Records that are missing between others of their key: what is there of a key must be the last of its history.
    pub(super) fn gaps(&self, seen: &Seen<'_>) -> Vec<String> {
        let mut of_key: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
        for (offset, key, _) in seen.records {
            of_key.entry(key).or_default().insert(*offset);
        }
        let mut found = Vec::new();
        for (key, offsets) in of_key {
            let (Some(first), Some(puts)) = (offsets.first(), self.puts.get(key)) else { continue };
            if *first >= seen.end {
                continue;
            }
            let missing = puts.range(first..&seen.end).find(|(offset, _)| !offsets.contains(offset));
            found.extend(missing.map(|(offset, _)| {
                format!("of {key}, {offset} is not there, and the older record at {first} is")
            }));
        }
        found
    }

    /// Acknowledged records in a range of offsets that are not among these.
    pub(super) fn missing(&self, from: i64, to: i64, records: &[Keyed]) -> Vec<String> {
        let there: BTreeSet<i64> = records.iter().map(|(offset, _, _)| *offset).collect();
        let mut found = Vec::new();
        for (key, puts) in &self.puts {
            let missing = puts.range(from..to.max(from)).filter(|(offset, _)| !there.contains(offset));
            found.extend(missing.map(|(offset, put)| format!("{offset}: {key} is {:?} there", put.value)));
        }
        found
    }

    /// Whether a record of unknown outcome may be there that fits.
    fn maybe(&self, ended: usize, key: &str, fits: impl Fn(Option<&str>) -> bool) -> bool {
        self.unknown.iter().any(|(began, other, value)| *began < ended && *other == key && fits(*value))
    }
}

/// The line and the time at which an operation ended.
pub(super) fn ended(history: &History, operation: &Operation<'_>) -> (usize, u64) {
    let ended = operation.ended.and_then(|line| Some((line, history.lines.get(line)?.at)));
    ended.unwrap_or((usize::MAX, u64::MAX))
}
