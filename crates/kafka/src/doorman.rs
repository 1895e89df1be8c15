//! Who may come in: limits on connections, in all and per address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

/// Counts open connections.
#[derive(Debug, Clone)]
pub(crate) struct Doorman {
    open: Arc<Mutex<Open>>,
    left: Arc<Notify>,
    total_max: usize,
    per_ip_max: usize,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_ip: BTreeMap<IpAddr, usize>,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TurnedAway {
    #[error("{0} connections are open, the limit of the listener")]
    Full(usize),
    #[error("{0} connections from this address are open, the limit of one address")]
    FullForAddress(usize),
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    open: Arc<Mutex<Open>>,
    left: Arc<Notify>,
    ip: Option<IpAddr>,
}

impl Doorman {
    pub(crate) fn new(total_max: usize, per_ip_max: usize) -> Doorman {
        Doorman { open: Arc::default(), left: Arc::default(), total_max, per_ip_max }
    }

    /// A place for a connection from `ip`, if there is one.
    pub(crate) fn admit(&self, ip: Option<IpAddr>) -> Result<Place, TurnedAway> {
        let mut open = self.open.lock().expect("counting does not panic");
        if open.total >= self.total_max {
            return Err(TurnedAway::Full(open.total));
        }
        if let Some(ip) = ip {
            let count = open.by_ip.entry(ip).or_default();
            if *count >= self.per_ip_max {
                return Err(TurnedAway::FullForAddress(*count));
            }
            *count += 1;
        }
        open.total += 1;
        metrics::gauge!("floe_kafka_connections").set(open.total as f64);
        Ok(Place { open: self.open.clone(), left: self.left.clone(), ip })
    }

    /// Returns when nobody is inside.
    pub(crate) async fn empty(&self) {
        while self.open.lock().expect("counting does not panic").total > 0 {
            self.left.notified().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().expect("counting does not panic");
        open.total = open.total.checked_sub(1).expect("every place was counted");
        metrics::gauge!("floe_kafka_connections").set(open.total as f64);
        self.left.notify_one();
        let Some(ip) = self.ip else { return };
        let count = open.by_ip.get_mut(&ip).expect("every address was counted");
        *count -= 1;
        if *count == 0 {
            open.by_ip.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let doorman = Doorman::new(3, 2);
        let (here, there) = (Some(IpAddr::from([127, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 1])));
        let first = doorman.admit(here).expect("room");
        let _second = doorman.admit(here).expect("room");
        assert_eq!(doorman.admit(here).err(), Some(TurnedAway::FullForAddress(2)));
        let _third = doorman.admit(there).expect("room");
        assert_eq!(doorman.admit(None).err(), Some(TurnedAway::Full(3)));
        drop(first);
        assert_eq!(doorman.admit(here).err(), None);
    }
}
