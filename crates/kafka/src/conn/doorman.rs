//! Limits on connections, in all and per address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use floe_env::lock;
use floe_log::Log;
use tokio::sync::Notify;

use crate::budget::Budget;
use crate::config::Config;
use crate::limits::LARGE_ARRIVING_SHARE;

/// Counts open connections.
#[derive(Debug, Clone)]
pub(crate) struct Doorman {
    open: Arc<Mutex<OpenConnections>>,
    left: Arc<Notify>,
    limits: ConnectionLimits,
    /// For the frames of connections without an address.
    nowhere: Arriving,
}

/// The limits that a doorman keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    pub(crate) total: usize,
    pub(crate) per_ip: usize,
    /// Bytes that may be set aside for frames of one address and have not arrived …
    pub(crate) arriving_bytes_per_ip: usize,
    /// … and for those of large produces.
    pub(crate) arriving_large_bytes_per_ip: usize,
}

/// Bytes that frames of one address have announced and not sent. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Arriving {
    pub(crate) frames: Budget,
    /// Large produces have a share of their own, so that the small requests of the address need not wait for them.
    pub(crate) large_produces: Budget,
}

impl Arriving {
    fn new(limits: ConnectionLimits) -> Arriving {
        Arriving {
            frames: Budget::new(limits.arriving_bytes_per_ip),
            large_produces: Budget::new(limits.arriving_large_bytes_per_ip),
        }
    }
}

impl ConnectionLimits {
    pub(crate) fn of(config: &Config, log: &Log) -> ConnectionLimits {
        ConnectionLimits {
            total: config.connections_max,
            per_ip: config.connections_per_ip_max,
            arriving_bytes_per_ip: config.arriving_bytes_per_ip,
            arriving_large_bytes_per_ip: log.large_requests_bytes() / LARGE_ARRIVING_SHARE,
        }
    }
}

#[derive(Debug, Default)]
struct OpenConnections {
    total: usize,
    by_ip: BTreeMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Address {
    connections: usize,
    arriving: Arriving,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TurnedAway {
    #[error("{0} connections are open, the limit of the listener")]
    Full(usize),
    #[error("{0} connections from this address are open, the limit of one address")]
    FullForAddress(usize),
}

/// The seat of one open connection; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Seat {
    open: Arc<Mutex<OpenConnections>>,
    left: Arc<Notify>,
    ip: Option<IpAddr>,
    /// For bytes that frames of this address have announced and not sent.
    pub(crate) arriving: Arriving,
}

impl Doorman {
    pub(crate) fn new(limits: ConnectionLimits) -> Doorman {
        let nowhere = Arriving::new(limits);
        Doorman { open: Arc::default(), left: Arc::default(), limits, nowhere }
    }

    /// Takes a seat for a connection from `ip`.
    pub(crate) fn admit(&self, ip: Option<IpAddr>) -> Result<Seat, TurnedAway> {
        let mut open = lock(&self.open);
        if open.total >= self.limits.total {
            return Err(TurnedAway::Full(open.total));
        }
        let mut arriving = self.nowhere.clone();
        if let Some(ip) = ip {
            let fresh = || Address { connections: 0, arriving: Arriving::new(self.limits) };
            let address = open.by_ip.entry(ip).or_insert_with(fresh);
            if address.connections >= self.limits.per_ip {
                return Err(TurnedAway::FullForAddress(address.connections));
            }
            address.connections += 1;
            arriving = address.arriving.clone();
        }
        open.total += 1;
        metrics::gauge!("floe_kafka_connections").set(open.total as f64);
        Ok(Seat { open: self.open.clone(), left: self.left.clone(), ip, arriving })
    }

    /// Returns when no connection is open.
    pub(crate) async fn empty(&self) {
        while lock(&self.open).total > 0 {
            self.left.notified().await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.total = open.total.checked_sub(1).expect("every seat was counted");
        metrics::gauge!("floe_kafka_connections").set(open.total as f64);
        self.left.notify_one();
        let Some(ip) = self.ip else { return };
        let address = open.by_ip.get_mut(&ip).expect("every address was counted");
        address.connections -= 1;
        if address.connections == 0 {
            open.by_ip.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_limited_and_come_back() {
        let (arriving_bytes_per_ip, arriving_large_bytes_per_ip) = (1, 1);
        let limits =
            ConnectionLimits { total: 3, per_ip: 2, arriving_bytes_per_ip, arriving_large_bytes_per_ip };
        let doorman = Doorman::new(limits);
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
