use floe_env::Env;

use super::crash::{self, Met};
use super::planted::{Planted, plant};

/// Disks of the test. `examples/ring_crashes.rs` runs as many as one likes.
const DISKS: u64 = 170;
/// Disks after which a planted bug must have been seen.
const DISKS_PER_BUG: u64 = 150;

/// Each disk ends six times, in starts too: more than 1,000 images of a crash.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_invented() {
    let mut met = Met::default();
    for seed in 0..DISKS {
        met.add(&lives(seed).unwrap());
    }
    assert!(met.ends >= 1_000 && met.starts_cut > 40, "{met:?}");
    assert!(met.acknowledged > 5_000 && met.read_back > 3_000, "{met:?}");
    assert!(met.applied_unanswered > 20 && met.not_applied > 20, "{met:?}");
}

fn lives(seed: u64) -> Result<Met, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread").block_on(async { crash::lives(Env::simulated(seed), seed) })
}

fn seen(bug: Planted) -> Option<(u64, String)> {
    plant(Some(bug));
    let found = (0..DISKS_PER_BUG).find_map(|seed| {
        // A checker inside of the journal may be the first to see it.
        let caught = std::panic::catch_unwind(|| lives(seed));
        match caught {
            Ok(Ok(_)) => None,
            Ok(Err(wrong)) => Some((seed, wrong)),
            Err(_) => Some((seed, "an assertion".to_owned())),
        }
    });
    plant(None);
    found
}

#[test]
fn planted_bugs_are_seen() {
    use Planted::*;
    for bug in [
        AnswersBeforeSync,
        TakesOldFrames,
        PayloadUnread,
        ReusedTooEarly,
        ForgetsAttachments,
        ImageAhead,
        NoVoid,
        SealUnsynced,
        PassedUnmarked,
        NamedTooEarly,
        NoHistory,
    ] {
        let found = seen(bug);
        assert!(found.is_some(), "{bug:?} was not seen");
    }
}
