//! Two hundred different worlds, the same seed twice, and every planted bug found by its checker.
//!
//! More seeds: `cargo run -p floe-testkit --example simulate -- --seeds 1000 --from 200`.

use floe_testkit::Bug;
use floe_testkit::history::{Event, Phase};
use floe_testkit::sim::{Harm, Options, Report, run};

/// Worlds of one test. The tests run in parallel.
const SEEDS: u64 = 50;
/// A planted bug must be found within this many seeds.
const BUG_SEEDS_MAX: u64 = 30;

fn passes(report: &Report) {
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(
        findings.is_empty(),
        "seed {} fails; repeat with:\n  cargo run -p floe-testkit --example simulate -- --seeds 1 --from {}\n{}",
        report.seed,
        report.seed,
        findings.join("\n")
    );
}

fn worlds(from: u64) {
    let (mut acknowledged, mut crashes, mut harm) = (0, 0, Harm::default());
    let (mut begin_later, mut deletions, mut undeletions, mut restored, mut commits) = (0, 0, 0, 0, 0);
    for seed in from..from + SEEDS {
        let report = run(&Options::seed(seed));
        passes(&report);
        acknowledged += report.acknowledged;
        crashes += report.crashes;
        harm.refused += report.harm.refused;
        harm.rotten += report.harm.rotten;
        harm.copies += report.harm.copies;
        for line in &report.history.lines {
            commits += u64::from(matches!(&line.event, Event::Commits { rows, .. } if rows.len() > 100));
            begin_later += u64::from(matches!(line.event, Event::Final { log_start: 1.., .. }));
            undeletions +=
                u64::from(matches!(line.event, Event::UndeleteTopic { .. } if line.phase == Phase::Ok));
            restored += u64::from(matches!(line.event, Event::CameBack { .. }));
            deletions += u64::from(matches!(line.event, Event::DeleteRecords { log_start: Some(1..), .. }));
        }
    }
    // A harness that does nothing finds nothing.
    assert!(acknowledged > 100 * SEEDS, "only {acknowledged} records were acknowledged");
    assert!(crashes > SEEDS, "only {crashes} crashes");
    assert!(
        begin_later > SEEDS / 2 && deletions > SEEDS / 4,
        "{begin_later} log starts, {deletions} deletions"
    );
    assert!(commits > SEEDS / 2, "only {commits} histories of commits");
    assert!(undeletions > SEEDS / 10, "only {undeletions} topics came back");
    assert!(restored > SEEDS / 10, "only {restored} partitions with removed records came back");
    assert!(harm.refused > 2 && harm.rotten > 2 && harm.copies > 2, "only {harm:?}");
}

#[test]
fn worlds_0_to_49() {
    worlds(0);
}

#[test]
fn worlds_50_to_99() {
    worlds(50);
}

#[test]
fn worlds_100_to_149() {
    worlds(100);
}

#[test]
fn worlds_150_to_199() {
    worlds(150);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1_000..1_005 {
        let (one, two) = (run(&Options::seed(seed)), run(&Options::seed(seed)));
        assert_eq!((one.hash, one.events), (two.hash, two.events), "seed {seed}");
        assert_eq!(one.history, two.history, "seed {seed}");
        let other = run(&Options::seed(seed + 1));
        assert_ne!(one.hash, other.hash, "seeds {seed} and {} are the same run", seed + 1);
    }
}

/// Looks for a seed in which the checker sees its bug.
fn finds(bug: Bug) {
    let sees = |seed: &u64| {
        let report = run(&Options::seed(*seed).with(bug));
        report.findings.iter().any(|finding| finding.checker == bug.seen_by())
    };
    let seen = (0..BUG_SEEDS_MAX).find(sees);
    assert!(seen.is_some(), "the checker `{}` did not see {bug:?} in {BUG_SEEDS_MAX} seeds", bug.seen_by());
}

#[test]
fn lost_records_are_seen() {
    finds(Bug::StoreForgets);
}

#[test]
fn bytes_that_the_journal_acknowledges_too_early_are_seen() {
    finds(Bug::JournalForgetsBytes);
}

#[test]
fn bytes_that_are_released_too_early_are_seen() {
    finds(Bug::JournalReleasesEarly);
}

#[test]
fn bytes_that_are_kept_for_nobody_are_seen() {
    finds(Bug::JournalKeepsReleased);
}

#[test]
fn bytes_that_count_as_an_object_are_seen() {
    finds(Bug::JournalCountsBytesAsObjects);
}

#[test]
fn late_tries_under_other_keys_are_seen() {
    finds(Bug::StoreMisplacesLateTries);
}

#[test]
fn phantom_records_are_seen() {
    finds(Bug::JournalLies);
}

#[test]
fn duplicated_records_are_seen() {
    finds(Bug::WireForgetsProducer);
}

#[test]
fn reordered_records_are_seen() {
    finds(Bug::WireSwapsSends);
}

#[test]
fn inconsistent_offsets_are_seen() {
    finds(Bug::WireShiftsOffsets);
}

#[test]
fn a_watermark_that_goes_back_is_seen() {
    finds(Bug::WireStaleWatermark);
}

#[test]
fn acknowledgements_of_a_full_journal_are_seen() {
    finds(Bug::JournalHasRoom);
}

#[test]
fn refusals_for_good_are_seen() {
    finds(Bug::WireRefusesForGood);
}

#[test]
fn group_offsets_that_go_back_are_seen() {
    finds(Bug::JournalDropsGroupOffsets);
}

#[test]
fn group_offsets_that_a_restart_forgets_are_seen() {
    finds(Bug::JournalForgetsGroupOffsets);
}

#[test]
fn reads_of_deleted_topics_are_seen() {
    finds(Bug::WireAnswersForDeleted);
}

#[test]
fn a_topic_that_comes_back_without_its_records_is_seen() {
    finds(Bug::UndeleteForgetsRecords);
}

#[test]
fn removed_records_that_lack_an_extent_are_seen() {
    finds(Bug::RemovalForgetsExtent);
}

#[test]
fn removed_records_whose_objects_are_freed_are_seen() {
    finds(Bug::RemovalFreesToo);
}

#[test]
fn remains_of_deleted_topics_are_seen() {
    finds(Bug::JournalKeepsExtents);
}

#[test]
fn an_extent_that_retention_should_leave_is_seen() {
    finds(Bug::RetentionTakesOneMore);
}

#[test]
fn extents_below_the_log_start_are_seen() {
    finds(Bug::RetentionKeepsExtents);
}

#[test]
fn a_log_start_without_extents_is_seen() {
    finds(Bug::RetentionKeepsStarts);
}

#[test]
fn retention_that_keeps_too_little_is_seen() {
    finds(Bug::RetentionIsHasty);
}

#[test]
fn orphan_objects_are_seen() {
    finds(Bug::CleanerForgets);
}

#[test]
fn compaction_that_keeps_the_older_record_is_seen() {
    finds(Bug::CompactionKeepsOlder);
}

#[test]
fn compaction_that_keeps_some_records_between_others_is_seen() {
    finds(Bug::CompactionKeepsSome);
}

#[test]
fn compaction_that_does_not_wait_for_the_table_is_seen() {
    finds(Bug::CompactionWaitsForNobody);
}

#[test]
fn batches_that_a_follower_does_not_get_are_seen() {
    finds(Bug::ReaderSkipsBatch);
}

#[test]
fn compaction_that_drops_tombstones_early_is_seen() {
    finds(Bug::CompactionDropsTombstones);
}

#[test]
fn compaction_that_drops_the_newest_record_is_seen() {
    finds(Bug::CompactionDropsNewest);
}

#[test]
fn a_cleaner_that_ignores_readers_is_seen() {
    finds(Bug::CleanerIgnoresPins);
}

#[test]
fn markers_that_look_like_records_are_seen() {
    finds(Bug::WireShowsMarkers);
}

#[test]
fn markers_that_are_lost_are_seen() {
    finds(Bug::JournalLosesMarkers);
}

#[test]
fn batches_that_change_places_in_a_merge_are_seen() {
    finds(Bug::MergeSwapsBatches);
}

#[test]
fn markers_that_a_merge_forgets_are_seen() {
    finds(Bug::MergeForgetsMarkers);
}

#[test]
fn a_merge_without_its_lease_is_seen() {
    finds(Bug::MergeIgnoresLease);
}

#[test]
fn a_journal_that_lets_go_of_too_much_is_seen() {
    finds(Bug::JournalForgetsMore);
}

#[test]
fn a_commit_that_the_history_loses_is_seen() {
    finds(Bug::HistoryLosesACommit);
}

#[test]
fn a_commit_that_the_history_has_twice_is_seen() {
    finds(Bug::HistoryRepeatsACommit);
}

#[test]
fn orphan_files_of_a_table_are_seen() {
    finds(Bug::LakeCleanerForgets);
}

#[test]
fn a_table_that_is_not_the_log_is_seen() {
    finds(Bug::JournalDropsProgress);
}

#[test]
fn merges_of_the_wrong_files_are_seen() {
    finds(Bug::StoreConfusesFiles);
}

#[test]
fn values_that_rotted_are_seen() {
    finds(Bug::JournalServesRot);
}

#[test]
fn an_old_journal_that_is_continued_is_seen() {
    finds(Bug::OldJournalIsContinued);
}

#[test]
fn a_broker_that_goes_on_beside_a_newer_one_is_seen() {
    finds(Bug::StoreHidesWriters);
}

#[test]
fn a_world_that_does_not_heal_is_seen() {
    finds(Bug::StoreNeverHeals);
}

#[test]
fn a_panic_that_nobody_awaits_is_seen() {
    finds(Bug::TaskPanics);
}
