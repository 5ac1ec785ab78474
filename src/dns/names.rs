//! Which names the child was told an address stands for.

use crate::host::Host;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Addresses remembered; beyond it the quarter that was learnt longest ago is forgotten.
const CAPACITY: usize = 4096;

/// Names remembered for one address; a front of many sites has one each, and the one learnt longest ago is forgotten first.
const MAX_NAMES: usize = 64;

/// Which names the child was told an address stands for.
#[derive(Default)]
pub struct Names(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The latest name last; with the time of learning, in answers.
    hosts: HashMap<IpAddr, (Vec<Host>, u64)>,
    clock: u64,
}

impl Names {
    /// The name most recently answered with this address, if any.
    pub fn name(&self, addr: IpAddr) -> Option<Host> {
        self.known().hosts.get(&addr.to_canonical()).and_then(|(hosts, _)| hosts.last().cloned())
    }

    /// Whether this address was an answer for that very name.
    pub fn gave(&self, addr: IpAddr, host: &Host) -> bool {
        self.known().hosts.get(&addr.to_canonical()).is_some_and(|(hosts, _)| hosts.contains(host))
    }

    pub(super) fn learn(&self, addr: IpAddr, host: Host) {
        let mut known = self.known();
        known.clock += 1;
        let now = known.clock;
        let (hosts, learnt) = known.hosts.entry(addr.to_canonical()).or_default();
        *learnt = now;
        hosts.retain(|known| *known != host);
        hosts.push(host);
        if hosts.len() > MAX_NAMES {
            hosts.remove(0);
        }
        if known.hosts.len() > CAPACITY {
            known.forget(CAPACITY / 4);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self, count: usize) {
        let mut ages: Vec<u64> = self.hosts.values().map(|(_, learnt)| *learnt).collect();
        let (_, newest_to_go, _) = ages.select_nth_unstable(count);
        let newest_to_go = *newest_to_go;
        self.hosts.retain(|_, (_, learnt)| *learnt > newest_to_go);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u32) -> Host {
        format!("h{n}.acme.test").parse().unwrap()
    }

    fn addr(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0xcb00_0000 + n).into()
    }

    #[test]
    fn the_latest_name_of_an_address_wins() {
        let names = Names::default();
        assert_eq!(names.name(addr(1)), None);
        names.learn(addr(1), host(1));
        names.learn("::ffff:203.0.0.1".parse().unwrap(), host(2));
        assert_eq!(names.name(addr(1)), Some(host(2)));
        assert_eq!(names.name("::ffff:203.0.0.1".parse().unwrap()), Some(host(2)));
        assert!(names.gave(addr(1), &host(1)) && names.gave(addr(1), &host(2)));
        assert!(!names.gave(addr(1), &host(3)) && !names.gave(addr(2), &host(1)));
        (3..100).for_each(|n| names.learn(addr(1), host(n)));
        assert!(!names.gave(addr(1), &host(1)), "memory is bounded");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let names = Names::default();
        for n in 0..20_000 {
            names.learn(addr(n), host(n));
            names.learn(addr(0), host(0));
            assert!(names.known().hosts.len() <= CAPACITY);
        }
        assert_eq!((names.name(addr(0)), names.name(addr(19_999)), names.name(addr(1))), (Some(host(0)), Some(host(19_999)), None));
        assert!(names.known().hosts.len() >= CAPACITY / 2);
    }
}
