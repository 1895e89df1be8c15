//! The journal in ring files: the suite, on real files and on a simulated disk.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::PathBuf;
use std::sync::Arc;

use floe_env::*;
use floe_meta::conformance::{self, Place};
use floe_meta::*;

/// Files so small that the suite uses them many times, and large enough for its largest commit.
const OPTIONS: RingOptions =
    RingOptions { file_bytes: 8 << 20, files_max: 6, image_bytes: 64 << 10, history_bytes: 256 << 10 };

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Directory {
        Directory(tempfile::tempdir().expect("there is a directory for temporary files"))
    }
    fn path(&self) -> PathBuf {
        self.0.path().join("meta")
    }
}

impl Place for Directory {
    fn open(&self) -> Arc<dyn Journal> {
        Arc::new(RingJournal::open(&Env::real(), &self.path(), OPTIONS).expect("the journal opens"))
    }
}

#[tokio::test]
async fn conformance_on_files() {
    conformance::run(&Env::real(), || Box::new(Directory::new())).await;
}

struct Simulated(Env, SimulatedDisk);

impl Place for Simulated {
    fn open(&self) -> Arc<dyn Journal> {
        let disk = Arc::new(self.1.clone());
        Arc::new(RingJournal::open_on(&self.0, disk, OPTIONS).expect("the journal opens"))
    }
}

#[tokio::test(start_paused = true)]
async fn conformance_on_a_simulated_disk() {
    let env = Env::simulated(1);
    conformance::run(&env, || Box::new(Simulated(env.clone(), SimulatedDisk::new(1)))).await;
}
