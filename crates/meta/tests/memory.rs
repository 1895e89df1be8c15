//! The journal in memory passes the suite, and the suite sees journals that break the contract.

use std::sync::Arc;

use floe_meta::conformance::{self, Place};
use floe_meta::*;

impl Place for Memory {
    fn open(&self) -> Arc<dyn Journal> {
        Arc::new(self.0.clone())
    }
}
struct Memory(MemoryJournal);

#[tokio::test(start_paused = true)]
async fn conformance() {
    conformance::run(&Env::simulated(1), || Box::new(Memory(MemoryJournal::new()))).await;
}
