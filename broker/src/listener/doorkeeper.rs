//! Limits of open connections, in all and per address: counted from accept on, before a byte is read.
//!
//! Behind a balancer the address comes with its header: until then a connection counts in all only.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Counted for this address.
    address: Option<IpAddr>,
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

    /// A place for a connection, whose address may still be unknown or not exist; `None` if there is none.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let mut open = self.lock();
        if open.total >= self.connections_max {
            return None;
        }
        let address = address.map(network);
        if !open.count(address, self.per_address_max) {
            return None;
        }
        open.total += 1;
        self.metrics.connections_open.set(open.total);
        Some(Place {
            doorkeeper: Arc::clone(self),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Is there room for one more of this address? Then it is counted.
    fn count(&mut self, address: Option<IpAddr>, max: usize) -> bool {
        let Some(address) = address else {
            return true;
        };
        let here = self.by_address.get(&address).copied().unwrap_or(0);
        if here < max {
            self.by_address.insert(address, here + 1);
        }
        here < max
    }

    fn discount(&mut self, address: Option<IpAddr>) {
        let Some(address) = address else {
            return;
        };
        if let Some(here) = self.by_address.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Place {
    /// The connection turned out to come from this address. `false`: there are too many of it.
    pub(crate) fn relocate(&mut self, address: Option<IpAddr>) -> bool {
        let mut open = self.doorkeeper.lock();
        open.discount(self.address.take());
        let address = address.map(network);
        let fits = open.count(address, self.doorkeeper.per_address_max);
        if fits {
            self.address = address;
        }
        fits
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.doorkeeper.lock();
        open.total -= 1;
        self.doorkeeper.metrics.connections_open.set(open.total);
        open.discount(self.address);
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

    #[expect(clippy::unnecessary_wraps, reason = "what the doorkeeper takes")]
    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
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

    #[test]
    fn a_connection_behind_a_balancer_counts_for_its_own_address() {
        let doorkeeper = doorkeeper(3, 1);
        let mut first = doorkeeper.admit(None).unwrap();
        let mut second = doorkeeper.admit(None).unwrap();
        assert!(first.relocate(ip("10.0.0.1")));
        assert!(!second.relocate(ip("10.0.0.1")));
        assert!(second.relocate(ip("10.0.0.2")));
        drop(first);
        assert!(second.relocate(ip("10.0.0.1")));
        let third = doorkeeper.admit(ip("10.0.0.2"));
        assert!(third.is_some() && doorkeeper.admit(ip("10.0.0.1")).is_none());
        drop((second, third));
        assert!(doorkeeper.lock().by_address.is_empty());
    }
}
