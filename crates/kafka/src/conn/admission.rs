//! The memory of frames, set aside before it is used. Produces take theirs from the log ([`floe_log::Log::reserve`]).
//! Other requests have a budget of their own: some wait long for records or for other members, and must not hold up
//! producers.

use floe_log::Log;

use crate::budget::{Budget, Held};
use crate::conn::progress::Progress;
use crate::limits;

const PRODUCE: i16 = 0;

/// The memory of a request. It holds it until it is answered, or until it begins to wait.
#[derive(Debug)]
pub(crate) enum RequestPermit {
    /// A produce's, of the log's budget.
    Log { _permit: floe_log::Permit },
    /// Any other request's, of a budget of the front.
    Front { _held: Held },
}

/// How the frames of one connection get their memory.
pub(crate) struct Admission<'a> {
    /// For produces.
    pub(crate) log: &'a Log,
    /// For other requests.
    pub(crate) requests: &'a Budget,
    /// For bytes of frames of this address that have not arrived.
    pub(crate) arriving: &'a Budget,
    /// For small requests, which no other budget counts.
    pub(crate) unreserved: Budget,
    pub(crate) progress: &'a Progress,
}

/// The memory that a frame was given.
pub(crate) struct Admitted {
    pub(crate) permit: RequestPermit,
    /// The caller drops it when the frame is whole.
    pub(crate) arriving: Option<Held>,
}

impl<'a> Admission<'a> {
    pub(crate) fn new(
        log: &'a Log,
        requests: &'a Budget,
        arriving: &'a Budget,
        progress: &'a Progress,
    ) -> Admission<'a> {
        let unreserved = Budget::new(limits::CONNECTION_BYTES_UNRESERVED);
        Admission { log, requests, arriving, unreserved, progress }
    }

    /// Waits until there is room for a frame of `whole` bytes of which `missing` have not arrived.
    ///
    /// The share of the address is taken first, so that a client that announces and does not send holds up its own
    /// address only.
    pub(crate) async fn admit(&self, api_key: i16, whole: usize, missing: usize) -> Admitted {
        if api_key != PRODUCE
            && whole <= limits::FRAME_BYTES_UNRESERVED
            && let Some(held) = self.unreserved.try_take(whole)
        {
            return Admitted { permit: RequestPermit::Front { _held: held }, arriving: None };
        }
        // The requests behind a waiting call cannot begin. So they take no memory yet.
        self.progress.calls_answered().await;
        if api_key == PRODUCE {
            // Large produces wait for each other in the log, where they share half of its budget.
            let counted = if whole > limits::FRAME_BYTES_TRUSTED { 0 } else { missing };
            let arriving = self.arriving(counted).await;
            return Admitted {
                permit: RequestPermit::Log { _permit: self.log.reserve(whole).await },
                arriving,
            };
        }
        let arriving = self.arriving(missing.saturating_mul(limits::OTHER_FRAME_WEIGHT)).await;
        let held = self.requests.take(whole.saturating_mul(limits::OTHER_FRAME_WEIGHT)).await;
        Admitted { permit: RequestPermit::Front { _held: held }, arriving }
    }

    async fn arriving(&self, bytes: usize) -> Option<Held> {
        match bytes {
            0 => None,
            bytes => Some(self.arriving.take(bytes).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use floe_env::Env;
    use floe_log::Config;
    use floe_meta::{MemoryJournal, Meta, Options};
    use floe_store::MemoryStore;
    use floe_wire::ApiKey;
    use futures::FutureExt as _;

    use super::*;

    const CALL: i16 = ApiKey::Metadata.number();

    async fn log(bytes_in_flight_max: usize) -> Log {
        let env = Env::simulated(7);
        let meta = Meta::open(env.clone(), Arc::new(MemoryJournal::new()), Options::default());
        let config = Config { bytes_in_flight_max, ..Config::default() };
        let store = Arc::new(MemoryStore::new());
        Log::open(env, meta.await.expect("opens"), store, config).await.expect("opens")
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_announces_and_does_not_send_holds_up_its_address_only() {
        let log = log(1_000).await;
        let (requests, progress) = (Budget::new(1_000), Progress::default());
        let (here, there) = (Budget::new(500), Budget::new(500));
        let stranger = Admission::new(&log, &requests, &here, &progress);
        let client = Admission::new(&log, &requests, &there, &progress);
        let announced = stranger.admit(PRODUCE, 400, 390).await;
        assert!(announced.arriving.is_some());
        let mut more = Box::pin(stranger.admit(PRODUCE, 400, 390));
        assert!(more.as_mut().now_or_never().is_none(), "it waits for itself");
        assert!(client.admit(PRODUCE, 400, 390).now_or_never().is_some(), "another does not");
        assert!(stranger.admit(PRODUCE, 8, 0).now_or_never().is_some(), "nor a frame that is already there");
        drop(announced);
        assert!(more.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_little_memory_that_no_budget_counts() {
        let log = log(1_000).await;
        let (requests, progress, here) = (Budget::new(100), Progress::default(), Budget::new(1_000_000));
        let admission = Admission::new(&log, &requests, &here, &progress);
        let small = limits::FRAME_BYTES_UNRESERVED;
        let mut held = Vec::new();
        for _ in 0..limits::CONNECTION_BYTES_UNRESERVED / small {
            held.push(admission.admit(CALL, small, 0).now_or_never().expect("no memory is needed"));
        }
        let counted = admission.admit(CALL, small, 0).now_or_never().expect("all of the budget");
        assert!(admission.admit(CALL, 8, 0).now_or_never().is_none(), "beyond that it waits");
        assert!(admission.admit(PRODUCE, 8, 0).now_or_never().is_some(), "producers do not");
        drop(counted);
        assert!(admission.admit(CALL, small + 1, 0).now_or_never().is_some());
        drop(held);
        assert!(admission.admit(CALL, small, 0).now_or_never().is_some());
    }
}
