//! Which names the child was told an address stands for.

use crate::host::Host;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Addresses remembered; beyond it the quarter that was learnt longest ago is forgotten.
const CAPACITY: usize = 4096;

/// Names remembered for one address; a front of many sites has one each, and the one learnt longest ago is forgotten first.
const MAX_NAMES: usize = 64;

/// Names that get an address of ours because only a proxy can look them up. They keep it for the whole run, so there is an end to them.
const MAX_MADE_UP: usize = 16_384;

/// Where addresses of ours come from: 198.18.0.0/15 is for benchmarks within one's own network (RFC 2544 §C.2.2) and never routed; the other is a
/// unique local network (RFC 4193) with a fixed random global id.
const MADE_UP_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 15);
const MADE_UP_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd8b, 0x3a5e, 0x91c4, 0xc612, 0, 0, 0, 0), 64);

/// Every network that addresses are made up from, with its prefix length.
pub fn made_up_networks() -> [(IpAddr, u8); 2] {
    [(MADE_UP_V4.0.into(), MADE_UP_V4.1), (MADE_UP_V6.0.into(), MADE_UP_V6.1)]
}

/// Which names the child was told an address stands for.
#[derive(Default)]
pub struct Names(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The latest name last; with the time of learning, in answers.
    hosts: HashMap<IpAddr, (Vec<Host>, u64)>,
    clock: u64,
    /// In the order of their addresses.
    made_up: Vec<Host>,
    numbers: HashMap<Host, usize>,
}

impl Names {
    /// The name most recently answered with this address, if any.
    pub fn name(&self, addr: IpAddr) -> Option<Host> {
        let known = self.known();
        known.of_made_up(addr).or_else(|| known.hosts.get(&addr.to_canonical()).and_then(|(hosts, _)| hosts.last())).cloned()
    }

    /// Whether this address was made up here for a name that only a proxy can look up.
    pub fn made_up(&self, addr: IpAddr) -> bool {
        self.known().of_made_up(addr).is_some()
    }

    /// An address of each family that stands for this name and no other for the whole run. None: too many have been made up.
    pub(super) fn make_up(&self, host: &Host) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let mut known = self.known();
        let number = match known.numbers.get(host) {
            Some(number) => *number,
            None if known.made_up.len() >= MAX_MADE_UP => return None,
            None => {
                let number = known.made_up.len();
                known.made_up.push(host.clone());
                known.numbers.insert(host.clone(), number);
                number
            }
        };
        // From 1 on: the networks' own addresses stand for nobody.
        let number = u32::try_from(number).ok()? + 1;
        let v6 = u128::from(MADE_UP_V6.0) + u128::from(number);
        Some((Ipv4Addr::from(u32::from(MADE_UP_V4.0) + number), Ipv6Addr::from(v6)))
    }

    /// Whether this address was an answer for that very name.
    pub fn gave(&self, addr: IpAddr, host: &Host) -> bool {
        let known = self.known();
        known.of_made_up(addr) == Some(host) || known.hosts.get(&addr.to_canonical()).is_some_and(|(hosts, _)| hosts.contains(host))
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
    fn of_made_up(&self, addr: IpAddr) -> Option<&Host> {
        let number = match addr.to_canonical() {
            IpAddr::V4(v4) => u128::from(u32::from(v4).checked_sub(u32::from(MADE_UP_V4.0))?),
            IpAddr::V6(v6) => u128::from(v6).checked_sub(u128::from(MADE_UP_V6.0))?,
        };
        self.made_up.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

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
    fn made_up_addresses_are_stable_and_bounded() {
        let names = Names::default();
        let (v4, v6) = names.make_up(&host(1)).unwrap();
        assert_eq!((v4.to_string(), v6.to_string()), ("198.18.0.1".to_owned(), "fd8b:3a5e:91c4:c612::1".to_owned()));
        assert_ne!(names.make_up(&host(2)).unwrap(), (v4, v6));
        assert_eq!(names.make_up(&host(1)), Some((v4, v6)));
        for addr in [IpAddr::from(v4), v6.into()] {
            assert!(names.made_up(addr) && names.gave(addr, &host(1)) && !names.gave(addr, &host(2)));
            assert_eq!(names.name(addr), Some(host(1)));
        }
        for other in ["198.18.0.0", "198.18.0.3", "198.17.255.255", "203.0.113.1", "fd8b:3a5e:91c4:c612::", "fd8b:3a5e:91c4:c612::3"] {
            assert!(!names.made_up(other.parse().unwrap()), "{other}");
        }
        (3..=MAX_MADE_UP as u32).for_each(|n| assert!(names.make_up(&host(n)).is_some()));
        assert_eq!(names.make_up(&host(0)), None);
        assert!(names.make_up(&host(1)).is_some());
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
