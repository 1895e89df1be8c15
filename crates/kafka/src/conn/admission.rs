//! The memory of frames, set aside before it is used. Produces take theirs from the log ([`floe_log::Log::reserve`]).
//! Other requests have a budget of their own: some wait long for records or for other members, and must not hold up
//! producers.

use floe_log::Log;

use crate::budget::{Budget, Held};
use crate::conn::doorman::Arriving;
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
    pub(crate) arriving: &'a Arriving,
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
        arriving: &'a Arriving,
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
            let share = match whole > limits::FRAME_BYTES_TRUSTED {
                true => &self.arriving.large_produces,
                false => &self.arriving.frames,
            };
            let arriving = taken(share, missing).await;
            return Admitted {
                permit: RequestPermit::Log { _permit: self.log.reserve(whole).await },
                arriving,
            };
        }
        let missing = missing.saturating_mul(limits::OTHER_FRAME_WEIGHT);
        let arriving = taken(&self.arriving.frames, missing).await;
        let held = self.requests.take(whole.saturating_mul(limits::OTHER_FRAME_WEIGHT)).await;
        Admitted { permit: RequestPermit::Front { _held: held }, arriving }
    }
}

/// The share of an address for bytes that have not arrived; none is needed for a frame that is already there.
async fn taken(share: &Budget, bytes: usize) -> Option<Held> {
    match bytes {
        0 => None,
        bytes => Some(share.take(bytes).await),
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

    /// The share of an address: `bytes` of frames, and as many of large produces.
    fn address(bytes: usize) -> Arriving {
        Arriving { frames: Budget::new(bytes), large_produces: Budget::new(bytes) }
    }

    /// Two of three slow clients of one address would use up what large produces share in the log.
    #[tokio::test(start_paused = true)]
    async fn slow_large_produces_hold_up_their_address_only() {
        const MIB: usize = 1 << 20;
        let log = log(16 * MIB).await;
        let (requests, progress) = (Budget::new(1_000), Progress::default());
        let share = log.large_requests_bytes() / limits::LARGE_ARRIVING_SHARE;
        assert_eq!(share, 4 * MIB);
        let (here, there) = (address(share), address(share));
        let stranger = Admission::new(&log, &requests, &here, &progress);
        let client = Admission::new(&log, &requests, &there, &progress);
        let slow = stranger.admit(PRODUCE, 3 * MIB, 3 * MIB - limits::READ_BYTES).await;
        let mut second = Box::pin(stranger.admit(PRODUCE, 3 * MIB, 3 * MIB - limits::READ_BYTES));
        assert!(second.as_mut().now_or_never().is_none(), "it waits for itself");
        let large = client.admit(PRODUCE, 4 * MIB, 4 * MIB - limits::READ_BYTES).now_or_never();
        assert!(large.is_some(), "another address does not");
        assert!(stranger.admit(PRODUCE, 1_000, 500).now_or_never().is_some(), "nor do its small requests");
        drop((slow, large));
        assert!(second.now_or_never().is_some());
        let whole = stranger.admit(PRODUCE, 6 * MIB, 5 * MIB).now_or_never();
        assert!(whole.is_some(), "a frame above the share takes all of it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_announces_and_does_not_send_holds_up_its_address_only() {
        let log = log(1_000).await;
        let (requests, progress) = (Budget::new(1_000), Progress::default());
        let (here, there) = (address(500), address(500));
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
        let (requests, progress, here) = (Budget::new(100), Progress::default(), address(1_000_000));
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
