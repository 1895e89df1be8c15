//! Statements in the simulation. Brokers die, store and journal fail, and still every answer is one cut of the log.
//! More seeds: `cargo run -p floe-sql --example simulate_sql -- --seeds 1000 --from 20`.

use floe_testkit::Bug;
use floe_testkit::history::{Event, Phase};
use floe_testkit::sim::{Options, Report, run};

use crate::opener;

/// Seeds of the test, from 0.
const SEEDS: u64 = 20;

fn answers(report: &Report) -> usize {
    let answered = |event: &Event| matches!(event, Event::Query { answer: Some(_), .. });
    report.history.lines.iter().filter(|line| line.phase == Phase::Ok && answered(&line.event)).count()
}

#[test]
fn every_answer_is_a_cut_of_the_log() {
    let mut asked = 0;
    for seed in 0..SEEDS {
        let report = run(&Options::seed(seed).asking(opener::open));
        let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert!(
            findings.is_empty(),
            "seed {seed} fails; repeat with:\n  \
             cargo run -p floe-sql --example simulate_sql -- --seeds 1 --from {seed}\n{}",
            findings.join("\n")
        );
        asked += answers(&report);
    }
    // Each run asks three statements after the faults have ended.
    assert!(asked > 6 * SEEDS as usize, "only {asked} answers");
}

#[test]
fn the_same_seed_is_the_same_run_with_statements_too() {
    let run = |seed| run(&Options::seed(seed).asking(opener::open));
    let (one, two) = (run(1_000), run(1_000));
    assert_eq!((one.hash, one.events), (two.hash, two.events));
    assert_ne!(one.hash, run(1_001).hash);
}

#[test]
fn an_answer_without_one_row_is_seen() {
    let report = run(&Options::seed(0).asking(opener::open).with(Bug::SqlDropsRow));
    let by: Vec<_> = report.findings.iter().map(|finding| finding.checker).collect();
    assert!(by.contains(&Bug::SqlDropsRow.seen_by()), "{by:?}");
}
