//! A log that runs for long holds no more than one that runs for short: a run of ten thousand commits, with each way of
//! a journal to keep bytes, and every leak on purpose found.
//!
//! More commits: `cargo run --release -p floe-testkit --example growth -- --commits 1000000`.

use floe_testkit::sim::growth::{Figure, Leak, Options, Report, run};

/// Commits of a run that must not grow, and of one that leaks.
const COMMITS: u64 = 10_000;
const LEAKING_COMMITS: u64 = 5_000;

fn stands_still(options: Options) {
    let report = run(&options);
    assert!(report.findings.is_empty(), "{}", report.findings.join("\n"));
    assert!(report.acknowledged > COMMITS / 4, "only {} records", report.acknowledged);
    // A world in which nothing happens does not grow either.
    let largest = |figure| report.samples.iter().filter_map(|sample| sample.figures.get(&figure)).max();
    for figure in
        [Figure::Extents, Figure::Objects, Figure::HistoryParts, Figure::TableFiles, Figure::LogFiles]
    {
        assert!(largest(figure).is_some_and(|most| *most > 3), "{figure}: {:?}", largest(figure));
    }
}

#[test]
fn nothing_grows_with_ten_thousand_commits() {
    stands_still(Options::commits(COMMITS));
}

#[test]
fn nothing_grows_where_the_journal_carries_bytes() {
    stands_still(Options { carries: true, ..Options::commits(COMMITS) });
}

fn leaks(leak: Leak, carries: bool, figure: Figure) {
    let options = Options { carries, leak: Some(leak), ..Options::commits(LEAKING_COMMITS) };
    let Report { findings, .. } = run(&options);
    let is_found = findings.iter().any(|finding| finding.starts_with(&figure.to_string()));
    assert!(is_found, "{leak:?} is not found: {findings:?}");
}

#[test]
fn objects_that_are_never_deleted_are_seen() {
    leaks(Leak::Objects, false, Figure::LogFiles);
}

#[test]
fn files_of_tables_that_are_never_deleted_are_seen() {
    leaks(Leak::Files, false, Figure::TableFiles);
}

#[test]
fn bytes_that_the_journal_never_lets_go_of_are_seen() {
    leaks(Leak::Bytes, true, Figure::JournalBytes);
}

#[test]
fn commits_that_the_journal_never_forgets_are_seen() {
    leaks(Leak::Commits, false, Figure::JournalEntries);
}

#[test]
fn extents_that_are_neither_merged_nor_removed_are_seen() {
    leaks(Leak::Extents, false, Figure::LogBytes);
}
