//! Lets connections in: limits in all and per address, before a byte is read.

pub(crate) mod tcp;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Metrics;

/// Counts open connections.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    open: Mutex<Open>,
    connections_max: usize,
    per_address_max: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The place of one open connection; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    doorkeeper: Arc<Doorkeeper>,
    address: IpAddr,
}

impl Doorkeeper {
    pub(crate) fn new(
        connections_max: usize,
        per_address_max: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            open: Mutex::default(),
            connections_max,
            per_address_max,
            metrics,
        }
    }

    /// A place for a connection from this address; `None` if there is none.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.by_address.get(&address).copied().unwrap_or(0);
        if open.total >= self.connections_max || here >= self.per_address_max {
            return None;
        }
        open.by_address.insert(address, here + 1);
        open.total += 1;
        self.metrics.connections_open.set(open.total);
        Some(Place {
            doorkeeper: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let doorkeeper = &self.doorkeeper;
        let mut open = doorkeeper
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        doorkeeper.metrics.connections_open.set(open.total);
        if let Some(here) = open.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: IPv4 (also inside IPv6) as it is, IPv6 by its /64, which is what one customer gets.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doorkeeper(connections_max: usize, per_address_max: usize) -> Arc<Doorkeeper> {
        Arc::new(Doorkeeper::new(
            connections_max,
            per_address_max,
            Arc::default(),
        ))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let doorkeeper = doorkeeper(1, 1);
        let place = doorkeeper.admit(ip("10.0.0.1"));
        assert!(place.is_some());
        assert!(doorkeeper.admit(ip("10.0.0.2")).is_none());
        drop(place);
        assert!(doorkeeper.admit(ip("10.0.0.2")).is_some());
    }

    #[test]
    fn addresses_are_limited_one_by_one_and_ipv6_by_network() {
        let doorkeeper = doorkeeper(10, 1);
        let _places: Vec<_> = ["10.0.0.1", "2001:db8::1"]
            .map(|text| doorkeeper.admit(ip(text)).unwrap())
            .into();
        assert!(doorkeeper.admit(ip("::ffff:10.0.0.1")).is_none());
        assert!(doorkeeper.admit(ip("2001:db8::2")).is_none());
        assert!(doorkeeper.admit(ip("2001:db8:0:1::1")).is_some());
    }
}
