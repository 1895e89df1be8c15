//! Whether the process before this one lived on.
//!
//! A start takes the place of the last writer that its journal knows: what that one had in flight becomes trash. If the
//! journal is a copy and the other process still runs, it goes on for the few seconds until it sees the newer writer,
//! and what it acknowledges then looks like trash here. It notes its last commit in the store when it stops. So nothing
//! of it is deleted before that note was looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use floe_env::Env;
use floe_meta::Lsn;
use floe_store::Store;

use crate::error::OpenError;
use crate::map::object::Trash;
use crate::map::writer_number::WriterNumber;
use crate::start::writers::Writers;

/// The last writer that the journal knew at this start.
#[derive(Clone)]
pub(crate) struct Former {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) number: WriterNumber,
    /// The last commit of the journal at the start.
    pub(crate) last: Lsn,
    lived_on: Arc<AtomicBool>,
}

impl Former {
    pub(crate) fn new(env: Env, store: Arc<dyn Store>, number: WriterNumber, last: Lsn) -> Former {
        Former { env, store, number, last, lived_on: Arc::default() }
    }

    /// Whether an object fell into the trash in the life of that process. Whoever had a snapshot that refers to it died
    /// with the process, so it needs no grace: a broker that never lives for a grace period would delete nothing.
    pub(crate) fn left(&self, trash: &Trash) -> bool {
        // What no snapshot refers to may still be on its way to the store.
        self.number != WriterNumber(0) && trash.lsn != Lsn(0) && trash.lsn <= self.last
    }

    /// Whether that writer has noted a commit that this journal did not have at its start.
    ///
    /// # Errors
    /// The store does not answer. Then nothing may be deleted.
    pub(crate) async fn lived_on(&self) -> Result<bool, OpenError> {
        if self.number == WriterNumber(0) {
            return Ok(false);
        }
        if self.lived_on.load(Ordering::SeqCst) {
            return Ok(true);
        }
        let writers = Writers { env: &self.env, store: &self.store };
        let lived_on = writers.high_water(self.number).await?.is_some_and(|water| water.is_after(self.last));
        if lived_on && !self.lived_on.swap(true, Ordering::SeqCst) {
            tracing::error!(
                writer = self.number.0,
                "another broker went on with a copy of this broker's metadata and acknowledged records that this one \
                 does not know. Nothing of it is deleted. Decide which of the two goes on: docs/reliability.md"
            );
            metrics::gauge!("floe_log_former_writer_lived_on").set(1.0);
        }
        Ok(lived_on)
    }
}
