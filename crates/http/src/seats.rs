//! The seats of connections. There are few, because each takes a file descriptor, and whoever sits idle must not keep
//! others out: above all not the one who asks whether this process is alive.
//!
//! When all seats are taken, a new connection gets the seat of the one that has been idle longest. If none is idle, it
//! gets one of a few seats on which only probes are answered. If those are taken too, it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use floe_env::{Env, lock};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::limits::{IDLE_BEFORE_EVICTION, PROBE_CONNECTIONS};

/// All seats. Clones share them.
#[derive(Clone)]
pub(crate) struct Seats {
    env: Env,
    taken: Arc<Mutex<Taken>>,
    left: Arc<Notify>,
    /// Seats beside those for probes.
    seats: usize,
}

#[derive(Default)]
struct Taken {
    next: u64,
    connections: BTreeMap<u64, Connection>,
    /// Connections without a request, those that have been idle longest first.
    idle: BTreeSet<(Instant, u64)>,
}

struct Connection {
    /// Ends the connection.
    evict: oneshot::Sender<()>,
    /// Requests whose answers are not complete.
    requests: usize,
    idle_since: Instant,
    /// Whether it has had no request yet.
    is_fresh: bool,
}

/// The seat of one connection; dropping it frees it.
pub(crate) struct Seat {
    seats: Seats,
    number: u64,
    /// Answered when another connection gets this seat.
    pub(crate) evicted: oneshot::Receiver<()>,
    /// Whether only probes are answered here.
    pub(crate) is_for_probes: bool,
}

/// A request that is being answered; its connection is not idle.
pub(crate) struct Busy {
    seats: Seats,
    number: u64,
}

impl Seats {
    /// `seats` in all, and a few more for probes.
    pub(crate) fn new(env: Env, seats: usize) -> Seats {
        Seats { env, taken: Arc::default(), left: Arc::default(), seats }
    }

    /// A seat for a new connection; `None` if there is none.
    pub(crate) fn admit(&self) -> Option<Seat> {
        let now = self.env.monotonic();
        let mut taken = lock(&self.taken);
        let is_full = taken.connections.len() >= self.seats;
        if is_full && !taken.evict_idle(now) && taken.connections.len() >= self.seats + PROBE_CONNECTIONS {
            return None;
        }
        // The one that gave way may have had a seat for probes.
        let is_for_probes = taken.connections.len() >= self.seats;
        let number = taken.next;
        taken.next += 1;
        let (evict, evicted) = oneshot::channel();
        let connection = Connection { evict, requests: 0, idle_since: now, is_fresh: true };
        taken.connections.insert(number, connection);
        taken.idle.insert((now, number));
        metrics::gauge!("floe_http_connections").set(taken.connections.len() as f64);
        Some(Seat { seats: self.clone(), number, evicted, is_for_probes })
    }

    /// Returns when all seats are free.
    pub(crate) async fn empty(&self) {
        while !lock(&self.taken).connections.is_empty() {
            self.left.notified().await;
        }
    }

    /// Notes that a request of a connection begins.
    pub(crate) fn begin(&self, number: u64) -> Busy {
        let mut taken = lock(&self.taken);
        if let Some(connection) = taken.connections.get_mut(&number) {
            connection.requests += 1;
            connection.is_fresh = false;
            let idle = (connection.idle_since, number);
            taken.idle.remove(&idle);
        }
        Busy { seats: self.clone(), number }
    }
}

impl Taken {
    /// Ends the connection that has been idle longest. Its last answer may be on its way still, so one that had a
    /// request must have been idle for a while.
    fn evict_idle(&mut self, now: Instant) -> bool {
        let may_go = |(since, number): &(Instant, u64)| {
            let is_fresh = self.connections.get(number).is_some_and(|connection| connection.is_fresh);
            is_fresh || now.saturating_duration_since(*since) >= IDLE_BEFORE_EVICTION
        };
        let Some(idle) = self.idle.iter().find(|&idle| may_go(idle)).copied() else { return false };
        self.idle.remove(&idle);
        let connection = self.connections.remove(&idle.1).expect("an idle connection is connected");
        // If nobody listens, the connection has just ended.
        let _ = connection.evict.send(());
        metrics::counter!("floe_http_evicted_connections_total").increment(1);
        true
    }
}

impl Seat {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.seats.taken);
        if let Some(connection) = taken.connections.remove(&self.number) {
            taken.idle.remove(&(connection.idle_since, self.number));
        }
        metrics::gauge!("floe_http_connections").set(taken.connections.len() as f64);
        self.seats.left.notify_one();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = self.seats.env.monotonic();
        let mut taken = lock(&self.seats.taken);
        if let Some(connection) = taken.connections.get_mut(&self.number) {
            connection.requests -= 1;
            if connection.requests == 0 {
                connection.idle_since = now;
                taken.idle.insert((now, self.number));
            }
        }
    }
}

/// The body of an answer; while it is sent, its connection is not idle.
pub(crate) struct BusyBody {
    pub(crate) body: Body,
    pub(crate) _busy: Busy,
}

impl HttpBody for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(count: usize) -> Seats {
        Seats::new(Env::simulated(1), count)
    }

    fn is_evicted(seat: &mut Seat) -> bool {
        seat.evicted.try_recv().is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_gets_the_seat_that_was_idle_longest() {
        let seats = seats(2);
        let (mut first, mut second) = (seats.admit().expect("free"), seats.admit().expect("free"));
        let busy = seats.begin(first.number());
        let third = seats.admit().expect("the second is idle");
        assert!(is_evicted(&mut second) && !is_evicted(&mut first) && !third.is_for_probes);
        drop(second);
        // The third has had no request, and the first has just been answered.
        drop(busy);
        let fourth = seats.admit().expect("the third is idle");
        assert!(!is_evicted(&mut first) && !fourth.is_for_probes);
        tokio::time::sleep(IDLE_BEFORE_EVICTION).await;
        let _fifth = seats.admit().expect("the first is idle");
        assert!(is_evicted(&mut first));
        drop((first, third));
        let open = lock(&seats.taken).connections.len();
        assert_eq!(open, 2, "an evicted connection frees no seat a second time");
    }

    #[tokio::test(start_paused = true)]
    async fn among_busy_connections_there_is_room_for_probes() {
        let seats = seats(2);
        let taken: Vec<Seat> = (0..2).map(|_| seats.admit().expect("free")).collect();
        let _busy: Vec<Busy> = taken.iter().map(|seat| seats.begin(seat.number())).collect();
        let mut probes: Vec<(Seat, Busy)> = Vec::new();
        for _ in 0..PROBE_CONNECTIONS {
            let mut idle = seats.admit().expect("kept");
            let seat = seats.admit().expect("the idle one gives way");
            assert!(is_evicted(&mut idle) && idle.is_for_probes && seat.is_for_probes);
            let busy = seats.begin(seat.number());
            probes.push((seat, busy));
        }
        assert!(seats.admit().is_none());
        drop(probes);
        assert!(seats.admit().is_some_and(|seat| seat.is_for_probes));
        drop(taken);
        assert!(seats.admit().is_some_and(|seat| !seat.is_for_probes));
        seats.empty().await;
    }
}
