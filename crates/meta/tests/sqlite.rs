//! The SQLite journal: the suite, formats, and a process that is killed.

use std::path::PathBuf;
use std::sync::Arc;

use floe_meta::conformance::{self, Place};
use floe_meta::*;

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
        Arc::new(SqliteJournal::open(&Env::real(), &self.path()).expect("the journal opens"))
    }
}

#[tokio::test]
async fn conformance() {
    conformance::run(&Env::real(), || Box::new(Directory::new())).await;
}
