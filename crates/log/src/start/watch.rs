//! Looks for a newer writer while this one lives, and keeps its high water fresh.

use std::sync::Arc;

use floe_env::{Backoff, Env};
use floe_meta::Meta;
use floe_store::{Store, StoreError};

use crate::limits::{HIGH_WATER_ROUNDS, START_PAUSE_MAX, START_PAUSE_MIN, START_TRIES_MAX, WATCH_PAUSE};
use crate::map::writer_number::{self, WriterNumber};
use crate::start::taken::Fenced;
use crate::start::writers::OwnWater;
use crate::write::intake::Intake;

pub(crate) struct Watchman {
    pub(crate) env: Env,
    pub(crate) meta: Meta,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) water: OwnWater,
    pub(crate) intake: Intake,
    /// Whether no other process can open the journal. Then a newer writer has a copy of it, and this one must stop.
    pub(crate) looks: bool,
    /// The newer writer, once it was seen: here, or in a journal that others can open (`taken.rs`).
    pub(crate) fenced: Fenced,
}

impl Watchman {
    /// Runs until a newer writer is seen, or the task is dropped.
    pub(crate) async fn run(self) {
        let mut newer = self.fenced.subscribe();
        for round in 1u64.. {
            tokio::select! {
                biased;
                // The sender lives in this task.
                newer = newer.wait_for(Option::is_some) => {
                    let newer = newer.ok().and_then(|newer| *newer).map_or(0, |newer| newer.0);
                    return self.is_replaced(newer);
                }
                () = tokio::time::sleep(WATCH_PAUSE) => {}
            }
            if self.looks && self.is_fenced().await {
                return;
            }
            if round % HIGH_WATER_ROUNDS == 0 {
                self.raise().await;
            }
        }
    }

    /// A newer broker has noted its number in the journal that both can open.
    fn is_replaced(&self, newer: u64) {
        tracing::error!(
            number = self.water.number.0,
            newer,
            "a newer broker has started on this store and its journal, and one broker at a time serves them; this one \
             takes no more records and stops. The newer one has everything that this one acknowledged"
        );
        self.intake.close();
    }

    async fn is_fenced(&self) -> bool {
        let newer = WriterNumber(self.water.number.0 + 1);
        match self.store.size(&writer_number::key(newer)).await {
            Ok(_) => {
                tracing::error!(
                    number = self.water.number.0,
                    newer = newer.0,
                    "another broker has started on this store with a copy of this broker's metadata; this one takes no \
                     more records and stops. Start only one of them again: what the other one acknowledged is in its \
                     own data directory"
                );
                self.intake.close();
                self.note_last().await;
                self.fenced.send_replace(Some(newer));
                true
            }
            Err(StoreError::NotFound(_)) => false,
            Err(error) => {
                tracing::warn!(%error, "cannot look for a newer writer, trying again");
                false
            }
        }
    }

    /// Notes how far this process got, so that the newer one deletes nothing of it (`former.rs`).
    async fn note_last(&self) {
        let mut backoff = Backoff::new(&self.env, START_PAUSE_MIN, START_PAUSE_MAX);
        for _ in 0..START_TRIES_MAX {
            match self.water.raise(self.meta.snapshot().lsn(), 0).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot note the last commit in the store, trying again");
                }
            }
            backoff.pause().await;
        }
    }

    async fn raise(&self) {
        if let Err(error) = self.water.raise(self.meta.snapshot().lsn(), 0).await {
            tracing::warn!(%error, "cannot note the last commit in the store, trying again");
        }
    }
}
