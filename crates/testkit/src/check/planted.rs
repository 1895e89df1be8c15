//! Tests of the checkers with histories written by hand. Right histories pass, and each wrong one is seen by exactly
//! its checker.

use std::collections::BTreeMap;

use super::{CHECKERS, all};
use crate::history::{Answer, CommitRow, Event, History, Line, Phase};

/// A commit, its client, and the first offset and the number of what it appended.
type Committed = (u64, &'static str, Option<(i64, u64)>);

/// The offset, the key and the value of a record; none for a tombstone.
type Keyed<'a> = (i64, &'a str, Option<&'a str>);

fn own(records: &[Keyed<'_>]) -> Vec<(i64, String, Option<String>)> {
    let own = |(offset, key, value): &Keyed<'_>| (*offset, (*key).to_owned(), value.map(str::to_owned));
    records.iter().map(own).collect()
}

/// Writes histories by hand.
#[derive(Default)]
struct Script {
    history: History,
    ops: u64,
}

const P: &str = "t/0";
/// A JSON value, whose row has cells.
const CELLS: &str = r#"{"id":"c","n":1}"#;

impl Script {
    fn line(mut self, op: u64, process: u32, broker: u32, phase: Phase, event: Event) -> Script {
        let at = self.history.lines.len() as u64;
        self.history.push(Line { at, op, process, broker, phase, event });
        self
    }

    fn alone(mut self, broker: u32, event: Event) -> Script {
        self.ops += 1;
        let op = self.ops;
        self.line(op, 0, broker, Phase::Ok, event)
    }

    /// Rows of the history of commits.
    fn commits(self, last: u64, rows: &[Committed]) -> Script {
        let row = |(lsn, client, appended): &Committed| CommitRow {
            lsn: *lsn,
            partition: appended.map(|_| "t#7/0".to_owned()),
            client: (*client).to_owned(),
            base: appended.map_or(0, |(base, _)| base),
            offsets: appended.map_or(0, |(_, offsets)| offsets),
        };
        self.alone(1, Event::Commits { last, rows: rows.iter().map(row).collect(), wrong: Vec::new() })
    }

    fn both(mut self, process: u32, broker: u32, invoke: Event, phase: Phase, end: Event) -> Script {
        self.ops += 1;
        let op = self.ops;
        self.line(op, process, broker, Phase::Invoke, invoke).line(op, process, broker, phase, end)
    }

    fn produce(self, process: u32, values: &[&str], phase: Phase, base: Option<i64>) -> Script {
        let event = |base| Event::Produce {
            partition: P.to_owned(),
            session: 1,
            once: true,
            values: values.iter().map(|v| (*v).to_owned()).collect(),
            base,
        };
        self.both(process, 1, event(None), phase, event(base))
    }

    fn fetch(self, broker: u32, from: i64, values: &[&str], high_watermark: i64) -> Script {
        let event = |records, high_watermark| Event::Fetch {
            partition: P.to_owned(),
            from,
            records,
            high_watermark,
            log_start: 0,
        };
        self.both(9, broker, event(Vec::new(), 0), Phase::Ok, event(seen(from, values), high_watermark))
    }

    fn put(self, records: &[(&str, Option<&str>)], phase: Phase, base: Option<i64>) -> Script {
        let own = |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
        let records: Vec<_> = records.iter().map(own).collect();
        let event = |base| Event::Put { topic: "c".to_owned(), records: records.clone(), base };
        self.both(1, 1, event(None), phase, event(base))
    }

    fn keys(self, high_watermark: i64, records: &[Keyed<'_>]) -> Script {
        self.keys_from(1, 0, high_watermark, records)
    }

    /// The read of a whole log by some broker.
    fn keys_from(self, broker: u32, log_start: i64, high_watermark: i64, records: &[Keyed<'_>]) -> Script {
        let event = |log_start, high_watermark, records| Event::Keys {
            topic: "c".to_owned(),
            log_start,
            high_watermark,
            records,
        };
        let end = event(log_start, high_watermark, own(records));
        self.both(9, broker, event(0, 0, Vec::new()), Phase::Ok, end)
    }

    /// Follows the whole log.
    fn followed(self, high_watermark: i64, records: &[Keyed<'_>]) -> Script {
        let event = |high_watermark, records| Event::Followed {
            topic: "c".to_owned(),
            log_start: 0,
            high_watermark,
            records,
        };
        self.both(9, 0, event(0, Vec::new()), Phase::Ok, event(high_watermark, own(records)))
    }

    /// The rows of the table.
    fn keyed_rows(self, progress: Option<i64>, rows: &[Keyed<'_>]) -> Script {
        let event = |rows| Event::KeyedRows { topic: "c".to_owned(), rows, progress };
        self.both(9, 1, event(Vec::new()), Phase::Ok, event(own(rows)))
    }

    /// The topic of these records, whose tombstones stay for a second.
    fn compacted(self, delete_retention_ms: u64, waits: bool) -> Script {
        self.alone(0, Event::CompactedTopic { delete_retention_ms, waits })
    }

    fn commit(self, offset: i64, phase: Phase) -> Script {
        let event = || Event::Commit { group: "g".to_owned(), partition: P.to_owned(), offset };
        self.both(8, 1, event(), phase, event())
    }

    fn committed(self, offset: Option<i64>) -> Script {
        let event = |offset| Event::Committed { group: "g".to_owned(), partition: P.to_owned(), offset };
        self.both(8, 1, event(None), Phase::Ok, event(offset))
    }

    fn last(self, values: &[&str], high_watermark: i64) -> Script {
        let records = seen(0, values);
        self.alone(1, Event::Final { partition: P.to_owned(), log_start: 0, high_watermark, records })
    }

    /// The final read of an empty partition.
    fn last_of(self, partition: &str) -> Script {
        let partition = partition.to_owned();
        let event = Event::Final { partition, log_start: 0, high_watermark: 0, records: Vec::new() };
        self.alone(1, event)
    }

    /// The final read of the partition, which begins at `from`.
    fn last_from(self, from: i64, values: &[&str], high_watermark: i64) -> Script {
        let records = seen(from, values);
        self.alone(1, Event::Final { partition: P.to_owned(), log_start: from, high_watermark, records })
    }

    /// A deletion of records, and its answer.
    fn delete(self, below: Option<i64>, log_start: i64) -> Script {
        let event = |log_start| Event::DeleteRecords { partition: P.to_owned(), below, log_start };
        self.both(6, 1, event(None), Phase::Ok, event(Some(log_start)))
    }

    /// A deletion of records of another partition.
    fn delete_of(self, partition: &str, below: i64) -> Script {
        let event = |log_start| {
            let partition = partition.to_owned();
            Event::DeleteRecords { partition, below: Some(below), log_start }
        };
        self.both(6, 1, event(None), Phase::Ok, event(Some(below)))
    }

    fn extents(self, what: &[&str], retained: &[&str]) -> Script {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        self.alone(1, Event::Extents { what: own(what), retained: own(retained) })
    }

    fn objects(self, stored: &[&str]) -> Script {
        let own = |keys: &[&str]| keys.iter().map(|k| (*k).to_owned()).collect();
        let (needed, excused) = (own(&["a", "b"]), own(&["c", "gone already"]));
        self.alone(1, Event::Objects { stored: own(stored), needed, excused })
    }

    fn rows(self, rows: &[(i64, &str)], dead: &[i64], progress: i64) -> Script {
        self.alone(
            1,
            Event::Rows {
                topic: "t".to_owned(),
                rows: rows.iter().map(|(offset, value)| (0, *offset, (*value).to_owned())).collect(),
                dead: dead.iter().map(|offset| (0, *offset)).collect(),
                progress: BTreeMap::from([(0, progress)]),
            },
        )
    }

    /// The late read of a pinned snapshot that has two records.
    fn held(self, values: &[&str], error: Option<&str>) -> Script {
        let (records, error) = (seen(0, values), error.map(str::to_owned));
        self.alone(1, Event::Held { partition: P.to_owned(), from: 0, to: 2, records, error })
    }

    /// Records that were removed from offset 0 on, two of them, and came back.
    fn came_back(self, from: i64, values: &[&str], error: Option<&str>) -> Script {
        let (records, error, partition) = (seen(from, values), error.map(str::to_owned), P.to_owned());
        let to = from + i64::try_from(values.len()).expect("a few");
        self.alone(1, Event::CameBack { partition, listed: (0, 2), from, to, records, error })
    }

    /// A statement over the topic, and its answer.
    fn query(self, answer: Answer) -> Script {
        let event = |answer| Event::Query { topic: "t".to_owned(), answer };
        self.both(7, 1, event(None), Phase::Ok, event(Some(answer)))
    }
}

/// The answer with all rows.
fn all_rows(rows: &[(i64, &str)]) -> Answer {
    Answer::Rows(rows.iter().map(|(offset, value)| (0, *offset, (*value).to_owned())).collect())
}

/// One acknowledged record, and the answer of a statement after it.
fn asked(value: &str, answer: Answer) -> Script {
    start().produce(1, &[value], Phase::Ok, Some(0)).query(answer).last(&[value], 1)
}

fn seen(from: i64, values: &[&str]) -> Vec<(i64, String)> {
    (from..).zip(values.iter().map(|v| (*v).to_owned())).collect()
}

fn start() -> Script {
    Script::default().alone(1, Event::Started)
}

/// One record, and what the table shows of it.
fn shown(value: &str, rows: &[(i64, &str)], dead: &[i64], progress: i64) -> Script {
    start().produce(1, &[value], Phase::Info, None).last(&[value], 1).rows(rows, dead, progress)
}

/// Moves the history to an incarnation, away from a topic that always exists.
fn fleeting(mut script: Script) -> Script {
    let text = script.history.to_text().replace(r#""t/0""#, r#""t#7/0""#).replace(r#""t""#, r#""t#7""#);
    script.history = History::from_text(&text).expect("a history");
    script
}

/// Creates or deletes an incarnation.
fn admin(script: Script, creates: bool, asked: &str, phase: Phase, told: &str) -> Script {
    let event = |topic: &str| match creates {
        true => Event::CreateTopic { topic: topic.to_owned() },
        false => Event::DeleteTopic { topic: topic.to_owned() },
    };
    script.both(7, 1, event(asked), phase, event(told))
}

/// The topic comes back, or perhaps does.
fn undelete(script: Script, phase: Phase, told: &str) -> Script {
    let event = |topic: &str| Event::UndeleteTopic { topic: topic.to_owned() };
    let told = if phase == Phase::Ok { told } else { "t" };
    script.both(7, 1, event("t"), phase, event(told))
}

/// Runs all checkers and expects findings of exactly these.
fn check(script: &Script, wanted: &[&str]) {
    let findings = all(&script.history);
    let mut seen: Vec<_> = findings.iter().map(|f| f.checker).collect();
    seen.dedup();
    assert_eq!(seen, wanted, "{findings:#?}");
}

#[test]
fn a_right_history_passes() {
    let script = start()
        .produce(1, &["a", "!b"], Phase::Ok, Some(0))
        .fetch(1, 0, &["a"], 2)
        .query(all_rows(&[(0, "a")]))
        .query(Answer::Counts(vec![(0, 1, 0)]))
        .query(Answer::Unmatched(0))
        .produce(1, &[CELLS], Phase::Info, None)
        .query(all_rows(&[(0, "a"), (2, CELLS)]))
        .produce(2, &["d"], Phase::Fail, None)
        .produce(1, &[CELLS], Phase::Ok, Some(2))
        .commit(1, Phase::Ok)
        .commit(2, Phase::Info)
        .committed(Some(2))
        .committed(Some(1))
        .alone(1, Event::Crashed)
        .alone(2, Event::Started)
        .fetch(2, 1, &["!b", CELLS], 3)
        .last(&["a", "!b", CELLS], 3)
        .objects(&["a", "b", "c"])
        .rows(&[(0, "a"), (2, CELLS)], &[1], 3);
    check(&script, &[]);
    // A repeated send may be acknowledged for the earlier one, with room or without.
    let repeated = start()
        .produce(1, &["a"], Phase::Info, None)
        .alone(0, Event::JournalFull { from: 2, to: 9 })
        .produce(1, &["a"], Phase::Ok, Some(0))
        .last(&["a"], 1);
    check(&repeated, &[]);
}

/// Two acknowledged records.
fn two() -> Script {
    start().produce(1, &["a", "b"], Phase::Ok, Some(0))
}

/// Wrong histories of records and groups, each with the checker that sees it.
fn planted_in_the_log() -> Vec<(&'static str, Script)> {
    vec![
        ("lost", start().produce(1, &["a"], Phase::Ok, Some(0)).last(&[], 1)),
        ("phantom", start().last(&["never"], 1)),
        ("phantom", start().produce(1, &["a"], Phase::Fail, None).last(&["a"], 1)),
        ("duplicated", start().produce(1, &["a"], Phase::Info, None).last(&["a", "a"], 2)),
        (
            "reordered",
            start()
                .produce(1, &["a"], Phase::Info, None)
                .produce(1, &["b"], Phase::Info, None)
                .last(&["b", "a"], 2),
        ),
        ("offsets", start().produce(1, &["a"], Phase::Info, None).last(&["a"], 2)),
        ("watermark", start().produce(1, &["a"], Phase::Ok, Some(0)).fetch(1, 0, &[], 0).last(&["a"], 1)),
        (
            "refused",
            start()
                .alone(0, Event::JournalFull { from: 0, to: 9 })
                .produce(1, &["a"], Phase::Ok, Some(0))
                .last(&["a"], 1),
        ),
        ("refused", start().alone(0, Event::Refused { partition: P.to_owned(), reason: "never".to_owned() })),
        ("starts", two().last_from(1, &["b"], 2)),
        ("starts", two().extents(&[], &["other"]).last_from(1, &["b"], 2)),
        ("starts", two().delete(Some(2), 1).delete(Some(1), 1).last_from(1, &["b"], 2)),
        ("starts", start().extents(&["a gap"], &["t"])),
        ("watermark", two().delete(Some(1), 1).last(&["a", "b"], 2)),
        ("group", start().commit(5, Phase::Ok).committed(Some(4)).commit(4, Phase::Fail)),
        ("group", start().commit(5, Phase::Ok).committed(None)),
        (
            "group",
            start()
                .commit(5, Phase::Ok)
                .committed(Some(5))
                .alone(1, Event::Crashed)
                .alone(2, Event::Started)
                .committed(None),
        ),
    ]
}

/// Wrong histories of compacted topics, each with the checker that sees it.
fn planted_compacted() -> Vec<(&'static str, Script)> {
    vec![
        // The last record of a key is missing, an older one is back, a tombstone went too soon, the newest record is
        // missing, a record is nobody's.
        ("compacted", puts().keys(3, &[(2, "b", Some("3"))])),
        ("compacted", puts().keys(3, &[(0, "a", Some("1")), (2, "b", Some("3"))])),
        ("compacted", tombstone(1_000).keys(2, &[(1, "b", Some("2"))])),
        ("compacted", tombstone(0).keys(2, &[])),
        ("compacted", puts().keys(3, &[(1, "a", Some("9")), (2, "b", Some("3"))])),
        // A record stayed between two that went, and a record is there that a client deleted.
        ("compacted", thrice().keys(3, &[(0, "a", Some("1")), (2, "a", Some("3"))])),
        ("compacted", puts().keys_from(1, 3, 3, &[(2, "b", Some("3"))]).delete_of("c/0", 3)),
        // Nobody deleted records, and the log begins later.
        ("starts", puts().keys_from(1, 3, 3, &[])),
        ("watermark", puts().keys(0, &[])),
        // Who follows the log misses the last record of a key, or meets an older one last.
        ("followed", puts().followed(3, &[(2, "b", Some("3"))])),
        ("followed", puts().followed(3, &[(0, "a", Some("1")), (2, "b", Some("3"))])),
        ("followed", puts().followed(3, &[(1, "a", Some("2")), (0, "a", Some("1")), (2, "b", Some("3"))])),
        ("followed", tombstone(1_000).followed(2, &[(1, "b", Some("2"))])),
        // The table misses the last record of a key, or any record although the log waits for it; it has one twice, one
        // of nobody, and one beyond its progress.
        ("folded", puts().keyed_rows(Some(3), &[(0, "a", Some("1")), (2, "b", Some("3"))])),
        ("folded", puts().keyed_rows(None, &[(2, "b", Some("3"))])),
        ("folded", waiting().keyed_rows(Some(3), &[(1, "a", Some("2")), (2, "b", Some("3"))])),
        ("folded", puts().keyed_rows(Some(3), &[B, (1, "a", Some("2")), B])),
        ("folded", puts().keyed_rows(Some(3), &[B, (1, "a", Some("9"))])),
        ("folded", puts().keyed_rows(Some(2), &[B, (1, "a", Some("2"))])),
    ]
}

/// Wrong histories of everything else, each with the checker that sees it.
fn planted_elsewhere() -> Vec<(&'static str, Script)> {
    vec![
        // A pinned snapshot without its last record, with another one, and one that cannot be read.
        ("held", two().held(&["a"], None).last(&["a", "b"], 2)),
        ("held", two().held(&["a", "c"], None).last(&["a", "b"], 2)),
        ("held", two().held(&[], Some("gone")).last(&["a", "b"], 2)),
        // A commit is missing, the last one is, offsets are left out, or given twice, somebody else wrote them.
        ("commits", committed(3, &[(1, "floe", None), (3, "client-1", Some((0, 2)))])),
        ("commits", committed(3, &[(1, "floe", None), (2, "client-1", Some((0, 2)))])),
        ("commits", committed(2, &[(1, "client-1", Some((0, 2))), (2, "client-1", Some((3, 1)))])),
        ("commits", committed(2, &[(1, "client-1", Some((0, 2))), (2, "client-1", Some((0, 2)))])),
        ("commits", committed(1, &[(1, "client-2", Some((0, 2)))])),
        ("removed", two().came_back(0, &["a"], None).last(&["a", "b"], 2)),
        ("removed", two().came_back(0, &["a", "c"], None).last(&["a", "b"], 2)),
        ("topics", fleeting(deleted().fetch(1, 0, &["a"], 1)).last_of("t#8/0")),
        ("topics", start().alone(1, Event::Leftovers { what: vec!["an extent".to_owned()] })),
        ("objects", start().objects(&["a", "b", "orphan"])),
        ("objects", start().objects(&["a"])),
        ("table", shown("a", &[], &[], 1)),
        // The record was acknowledged and left the log, and the row did with it.
        ("table", two().delete(None, 2).last_from(2, &[], 2).rows(&[(1, "b")], &[], 2)),
        ("table", shown("a", &[(0, "a"), (0, "a")], &[], 1)),
        ("table", shown("a", &[(0, "a")], &[0], 1)),
        ("table", shown("a", &[(0, "a")], &[], 0)),
        ("table", shown("a", &[(0, "b")], &[], 1)),
        // A JSON record without a row, and a record that is not JSON with a row.
        ("table", shown("a", &[], &[0], 1)),
        ("table", shown("!a", &[(0, "!a")], &[], 1)),
        ("table", shown("!a", &[], &[], 1)),
        // A lost cell, and a cell of another record.
        ("table", shown(CELLS, &[(0, r#"{"id":"c"}"#)], &[], 1)),
        ("table", shown(CELLS, &[(0, r#"{"id":"c","n":2}"#)], &[], 1)),
        // A missing row, a row twice, a row of another record, a row from nowhere, a dead letter as a row.
        ("sql", asked("a", all_rows(&[]))),
        ("sql", asked("a", all_rows(&[(0, "a"), (0, "a")]))),
        ("sql", asked(CELLS, all_rows(&[(0, r#"{"id":"c"}"#)]))),
        ("sql", asked("!a", all_rows(&[(0, "!a")]))),
        ("sql", asked("a", Answer::Counts(Vec::new()))),
        ("sql", asked("a", Answer::Counts(vec![(0, 2, 0)]))),
        ("sql", asked("a", Answer::Counts(vec![(0, 1, 0), (0, 1, 0)]))),
        ("sql", asked("a", Answer::Counts(vec![(0, 1, 0), (5, 1, 0)]))),
        ("sql", asked("!a", Answer::Counts(vec![(0, 1, 0)]))),
        ("sql", asked("a", Answer::Unmatched(1))),
        // A gap before a later row, and an answer that lacks a row of an earlier answer, acknowledged or not.
        (
            "sql",
            start()
                .produce(1, &["a", "b"], Phase::Info, None)
                .query(all_rows(&[(1, "b")]))
                .last(&["a", "b"], 2),
        ),
        (
            "sql",
            start()
                .produce(1, &["a"], Phase::Info, None)
                .query(all_rows(&[(0, "a")]))
                .query(all_rows(&[]))
                .last(&["a"], 1),
        ),
        ("live", start().alone(1, Event::Stuck { what: "a producer".to_owned() })),
    ]
}

#[test]
fn records_may_go_by_retention_and_by_deletion() {
    check(&two().extents(&[], &["t"]).last_from(1, &["b"], 2), &[]);
    check(&two().delete(Some(1), 1).last_from(1, &["b"], 2), &[]);
    check(&two().delete(Some(0), 0).delete(None, 2).last_from(2, &[], 2), &[]);
    check(&two().delete(None, 2).last_from(2, &[], 2).rows(&[(0, "a"), (1, "b")], &[], 2), &[]);
}

#[test]
fn every_checker_sees_its_planted_history() {
    let planted: Vec<_> =
        planted_in_the_log().into_iter().chain(planted_compacted()).chain(planted_elsewhere()).collect();
    for (checker, script) in &planted {
        // A lost record is a gap too, if the watermark is right.
        let wanted: &[&str] = if *checker == "lost" { &["lost", "offsets"] } else { &[*checker] };
        check(script, wanted);
    }
    for (checker, _) in CHECKERS {
        assert!(planted.iter().any(|(name, _)| name == checker), "{checker} has no planted history");
    }
}

/// Two records, and the history of commits.
fn committed(last: u64, rows: &[Committed]) -> Script {
    two().last(&["a", "b"], 2).commits(last, rows)
}

#[test]
fn a_history_of_commits_that_tells_all_is_right() {
    check(&committed(2, &[(1, "floe", None), (2, "client-1", Some((0, 2)))]), &[]);
    check(&committed(2, &[(1, "client-1", Some((0, 2))), (1, "floe", None), (2, "floe", None)]), &[]);
}

/// Two records of one key and one of another.
fn puts() -> Script {
    start().put(&[("a", Some("1")), ("a", Some("2")), ("b", Some("3"))], Phase::Ok, Some(0))
}

/// The last of them.
const B: Keyed<'static> = (2, "b", Some("3"));

/// Three records of one key.
fn thrice() -> Script {
    start().put(&[("a", Some("1")), ("a", Some("2")), ("a", Some("3"))], Phase::Ok, Some(0))
}

/// The same in a log that waits for its table.
fn waiting() -> Script {
    start().compacted(1_000, true).put(
        &[("a", Some("1")), ("a", Some("2")), ("b", Some("3"))],
        Phase::Ok,
        Some(0),
    )
}

/// A tombstone, which is to stay for so long, and a record behind it.
fn tombstone(delete_retention_ms: u64) -> Script {
    let script = start().compacted(delete_retention_ms, false);
    script.put(&[("a", None), ("b", Some("2"))], Phase::Ok, Some(0))
}

#[test]
fn who_follows_a_compacted_log_may_miss_what_is_replaced() {
    let (first, second) = ((0, "a", Some("1")), (1, "a", Some("2")));
    check(&puts().followed(3, &[first, second, B]), &[]);
    check(&puts().followed(3, &[second, B]), &[]);
    check(&tombstone(0).followed(2, &[(1, "b", Some("2"))]), &[]);
    // The record was met before its tombstone came, and that was gone when its turn came.
    let script = |ms| start().compacted(ms, false).put(&[("a", Some("1")), ("a", None)], Phase::Ok, Some(0));
    let late = |ms| script(ms).put(&[("b", Some("3"))], Phase::Ok, Some(2)).followed(3, &[first, B]);
    check(&late(0), &[]);
    check(&late(1_000), &["followed"]);
    // Of three records the middle one is replaced meanwhile.
    check(&thrice().followed(3, &[(0, "a", Some("1")), (2, "a", Some("3"))]), &[]);
    // The broker that answers last lags behind: it does not know of more.
    check(&puts().put(&[("a", None)], Phase::Ok, Some(3)).followed(3, &[second, B]), &[]);
}

#[test]
fn a_table_over_a_compacted_log_has_what_was_there() {
    let (first, second) = ((0, "a", Some("1")), (1, "a", Some("2")));
    for progress in [Some(3), None] {
        check(&waiting().keyed_rows(progress, &[B, first, second]), &[]);
        check(&puts().keyed_rows(progress, &[B, second]), &[]);
    }
    check(&puts().keyed_rows(Some(1), &[first]), &[]);
    // What a client deleted may be missing.
    let deleted = waiting().delete_of("c/0", 1).keyed_rows(Some(3), &[B, second]);
    check(&deleted.keys_from(1, 1, 3, &[second, B]), &[]);
    // A marker has no row.
    let marked = || waiting().put(&[("?7 Commit", None)], Phase::Ok, Some(3));
    check(&marked().keyed_rows(Some(4), &[first, second, B]), &[]);
    check(&marked().keyed_rows(Some(4), &[first, second, B, (3, "?7 Commit", None)]), &["folded"]);
}

#[test]
fn what_is_deleted_of_a_compacted_log_is_gone() {
    let deleted = || puts().delete_of("c/0", 2);
    check(&deleted().keys_from(1, 2, 3, &[B]), &[]);
    check(&deleted().keys_from(1, 2, 3, &[(1, "a", Some("2")), B]), &["compacted"]);
    check(&deleted().keys_from(1, 0, 3, &[(1, "a", Some("2")), B]), &["watermark"]);
    check(&deleted().keys_from(1, 3, 3, &[]), &["starts"]);
}

#[test]
fn what_compaction_may_do_is_right() {
    check(&puts().keys(3, &[(0, "a", Some("1")), (1, "a", Some("2")), (2, "b", Some("3"))]), &[]);
    check(&puts().keys(3, &[(1, "a", Some("2")), (2, "b", Some("3"))]), &[]);
    check(&tombstone(0).keys(2, &[(1, "b", Some("2"))]), &[]);
    check(&tombstone(1_000).keys(2, &[(0, "a", None), (1, "b", Some("2"))]), &[]);
    // Nobody knows whether the last send came to the log.
    let sent = |value| puts().put(&[("a", value)], Phase::Info, None);
    check(&sent(Some("4")).keys(4, &[(2, "b", Some("3")), (3, "a", Some("4"))]), &[]);
    check(&sent(Some("4")).keys(3, &[(1, "a", Some("2")), (2, "b", Some("3"))]), &[]);
    check(&sent(None).keys(3, &[(2, "b", Some("3"))]), &[]);
    // A broker that lags behind shows a log that was.
    let more = start().alone(2, Event::Started).put(&[("a", Some("2")), ("b", None)], Phase::Ok, Some(0));
    check(&more.keys_from(2, 0, 1, &[(0, "a", Some("2"))]), &[]);
}

#[test]
fn removed_records_come_back_as_they_were() {
    let taken = || start().produce(1, &["a", "b", "c"], Phase::Ok, Some(0)).delete(Some(2), 2);
    let check_back = |from, values: &[&str], error, seen_by: &[&str]| {
        check(&taken().came_back(from, values, error).last_from(2, &["c"], 3), seen_by);
    };
    check_back(0, &["a", "b"], None, &[]);
    // It grew since it was listed.
    check_back(0, &["a", "b", "c"], None, &[]);
    check_back(0, &["a"], None, &["removed"]);
    check_back(1, &["b"], None, &["removed"]);
    check_back(0, &["a", "c"], None, &["removed"]);
    check_back(0, &[], Some("the log is damaged"), &["removed"]);
}

/// A topic that was created, written to and deleted.
fn deleted() -> Script {
    let script = admin(start(), true, "t", Phase::Ok, "t#7").produce(1, &["a"], Phase::Ok, Some(0));
    admin(script, false, "t#7", Phase::Ok, "t#7")
}

#[test]
fn topics_that_are_created_again_are_judged_by_their_incarnations() {
    check(&fleeting(deleted()).last_of("t#8/0"), &[]);
    check(&fleeting(deleted().fetch(1, 0, &["a"], 1)).last_of("t#8/0"), &["topics"]);
    check(&fleeting(deleted().produce(2, &["b"], Phase::Ok, Some(1))).last_of("t#8/0"), &["topics"]);
    check(&fleeting(deleted().last(&["a"], 1)), &["topics"]);
    // A broker beside the one that deleted the topic may lag behind. A broker that started later may not.
    let beside = |late: bool| {
        let script = if late { start() } else { start().alone(2, Event::Started) };
        let script = admin(script, false, "t#7", Phase::Ok, "t#7");
        let script = if late { script.alone(2, Event::Started) } else { script };
        fleeting(script.fetch(2, 0, &[], 0)).last_of("t#8/0")
    };
    check(&beside(false), &[]);
    check(&beside(true), &["topics"]);
    // It came back: it is read, written to, and there at the end.
    let back = |phase| undelete(deleted(), phase, "t#7");
    check(&fleeting(back(Phase::Ok).fetch(1, 0, &["a"], 1).last(&["a"], 1)), &[]);
    check(&fleeting(back(Phase::Info).fetch(1, 0, &["a"], 1)).last_of("t#8/0"), &[]);
    check(&fleeting(back(Phase::Fail).fetch(1, 0, &["a"], 1)).last_of("t#8/0"), &["topics"]);
    check(&fleeting(back(Phase::Ok)).last_of("t#8/0"), &["topics"]);
    check(&fleeting(back(Phase::Ok).last(&[], 0)), &["lost", "watermark"]);
    let again = || admin(back(Phase::Ok), false, "t#7", Phase::Ok, "t#7");
    check(&fleeting(again()).last_of("t#8/0"), &[]);
    check(&fleeting(again().fetch(1, 0, &["a"], 1)).last_of("t#8/0"), &["topics"]);
    // Created and not deleted, or perhaps deleted.
    let created = || admin(start(), true, "t", Phase::Ok, "t#7");
    check(&created().last_of("t#8/0"), &["topics"]);
    check(&admin(created(), false, "t#7", Phase::Info, "t").last_of("t#8/0"), &[]);
    check(&admin(created(), false, "t", Phase::Info, "t").last_of("t#8/0"), &[]);
    check(&admin(created(), false, "t#6", Phase::Info, "t").last_of("t#8/0"), &["topics"]);
    check(&admin(created(), false, "t#7", Phase::Fail, "t").last_of("t#8/0"), &["topics"]);
    check(&admin(created(), true, "t", Phase::Ok, "t#7").last_of("t#7/0"), &["topics"]);
    // A commit with a lost answer may reach the next incarnation.
    let next = || Event::Committed { group: "g".to_owned(), partition: "t#8/0".to_owned(), offset: Some(5) };
    check(&fleeting(start().commit(5, Phase::Info)).alone(1, next()), &[]);
    check(&fleeting(start().commit(5, Phase::Ok)).alone(1, next()), &["group"]);
    check(&fleeting(start().commit(5, Phase::Ok).committed(Some(5))), &[]);
}

#[test]
fn findings_that_need_two_checkers_are_seen_by_both() {
    let forked =
        start().produce(1, &["a"], Phase::Ok, Some(0)).produce(2, &["b"], Phase::Ok, Some(0)).last(&["b"], 1);
    check(&forked, &["lost", "offsets"]);
    let skipped = start().produce(1, &["a", "b"], Phase::Ok, Some(0)).fetch(1, 0, &[], 2).last(&["a"], 2);
    check(&skipped, &["lost", "offsets"]);
    // A broker beside another one may lag behind. A broker that started later may not.
    let lagging = |late| {
        let script = start().alone(2, Event::Started).produce(1, &["a"], Phase::Ok, Some(0));
        let script = if late { script.alone(3, Event::Started) } else { script };
        script.fetch(if late { 3 } else { 2 }, 0, &[], 0).last(&["a"], 1)
    };
    check(&lagging(false), &[]);
    check(&lagging(true), &["watermark"]);
}
