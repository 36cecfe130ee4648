//! How much one address may have: connections at a time, handshakes each second. Off unless asked for.
//!
//! An IPv6 address counts with all of its /64: that is what one customer has, and can take any address of. Each connection
//! holds a [`Place`] and gives it back when it is dropped. What a table holds is bounded; where there is no room for one more
//! address it is let in without being counted, since a limit must not keep out whom it does not concern.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::Client;
use crate::limit::{Bucket, Rate};

/// Addresses that are known at a time: some 17 MB.
const ADDRESSES_MAX: usize = 262_144;
/// Connections of an address beyond its limit that are told so. Further ones are dropped without a word: to be told,
/// a client has to ask first, and whoever opens so many does not ask.
const TOLD_MAX: u32 = 64;
/// A full table is looked through so often for those who are not heard of any more.
const SWEEP: Duration = Duration::from_secs(1);

/// Whoever is counted as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counted {
    V4(u32),
    /// The upper half.
    V6(u64),
}

impl From<IpAddr> for Counted {
    fn from(address: IpAddr) -> Counted {
        match address.to_canonical() {
            IpAddr::V4(address) => Counted::V4(address.to_bits()),
            IpAddr::V6(address) => Counted::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// What is known of one address.
#[derive(Debug, Default)]
struct Known {
    /// Within the limit.
    connections: u32,
    /// Beyond it: they are being told so. Counted apart, for who is on the way out must not keep the next one out: of those
    /// who try again and again nobody would get the place that was given back.
    told: u32,
    handshakes: Bucket,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Counted, Known>,
    swept_at: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    /// 0: any number.
    connections_max: u32,
    handshakes: Option<Rate>,
    addresses_max: usize,
    begun: Instant,
    table: Mutex<Table>,
    /// What is let in uncounted.
    uncounted: IntCounter,
}

/// The limits of all addresses. Cheap to clone, and nothing at all while they are off.
#[derive(Clone, Debug, Default)]
pub struct AddressLimits(Option<Arc<Shared>>);

/// An address has so many connections that a further one is not even told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// A connection's place among those of its address, given back when it is dropped. As small as a pointer, for there may be
/// one with each socket.
#[derive(Debug)]
pub struct Place(Box<Held>);

#[derive(Debug)]
struct Held {
    shared: Arc<Shared>,
    address: Counted,
    is_beyond: bool,
}

impl Place {
    /// It is beyond the limit: the connection is to be told so.
    pub fn is_beyond(&self) -> bool {
        self.0.is_beyond
    }
}

impl AddressLimits {
    /// So many connections and handshakes each second for one address; 0 is any number. What is let in without being
    /// counted, for want of room for one more address, `uncounted` tells.
    pub fn new(connections_max: u32, handshakes_per_s: u32, now: Instant, uncounted: IntCounter) -> Self {
        AddressLimits::within(ADDRESSES_MAX, (connections_max, handshakes_per_s), now, uncounted)
    }

    fn within(
        addresses_max: usize,
        (connections_max, handshakes_per_s): (u32, u32),
        now: Instant,
        uncounted: IntCounter,
    ) -> Self {
        if connections_max == 0 && handshakes_per_s == 0 {
            return AddressLimits(None);
        }
        let rate = || Rate::per_second(handshakes_per_s, handshakes_per_s);
        AddressLimits(Some(Arc::new(Shared {
            connections_max,
            handshakes: (handshakes_per_s > 0).then(rate),
            addresses_max,
            begun: now,
            table: Mutex::default(),
            uncounted,
        })))
    }

    /// Takes a place for a connection. There is none for whom there is no address to count it to, which is let in: a
    /// trusted proxy that does not say for whom it speaks, and who comes by the Unix socket.
    ///
    /// # Errors
    /// So many are there that the connection is to be dropped without a word.
    pub fn enter(&self, client: &Client, now: impl FnOnce() -> Instant) -> Result<Option<Place>, TooMany> {
        let Some((shared, address)) = self.concerned(client) else {
            return Ok(None);
        };
        if shared.connections_max == 0 {
            return Ok(None);
        }
        let entered = shared.with(address, now(), |known| known.enter(shared.connections_max));
        let Some(is_beyond) = entered.transpose()? else {
            return Ok(None);
        };
        Ok(Some(Place(Box::new(Held {
            shared: shared.clone(),
            address,
            is_beyond,
        }))))
    }

    /// Whether this client may have a handshake now. Each that may counts.
    pub fn may_shake_hands(&self, client: &Client, now: impl FnOnce() -> Instant) -> bool {
        let Some((shared, address)) = self.concerned(client) else {
            return true;
        };
        let Some(rate) = shared.handshakes else {
            return true;
        };
        let now = now();
        let now_ns = shared.ns(now);
        let taken = shared.with(address, now, |known| known.handshakes.take(rate, now_ns).is_ok());
        taken.unwrap_or(true)
    }

    fn concerned(&self, client: &Client) -> Option<(&Arc<Shared>, Counted)> {
        let shared = self.0.as_ref()?;
        let address = client.address.filter(|_| !client.is_proxy)?;
        Some((shared, address.into()))
    }
}

impl Shared {
    /// Held for a few steps, and whole after each of them.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ns(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_nanos() as u64
    }

    /// Does something with what is known of an address. `None`: there is no room for one more.
    fn with<R>(&self, address: Counted, now: Instant, act: impl FnOnce(&mut Known) -> R) -> Option<R> {
        let mut table = self.table();
        if let Some(known) = table.known.get_mut(&address) {
            return Some(act(known));
        }
        if table.known.len() >= self.addresses_max {
            self.sweep(&mut table, now);
        }
        if table.known.len() >= self.addresses_max {
            self.uncounted.inc();
            return None;
        }
        Some(act(table.known.entry(address).or_default()))
    }

    /// Forgets those of whom nothing is worth knowing any more.
    fn sweep(&self, table: &mut Table, now: Instant) {
        let is_due = table
            .swept_at
            .is_none_or(|at| now.saturating_duration_since(at) >= SWEEP);
        if is_due {
            table.swept_at = Some(now);
            let now_ns = self.ns(now);
            table.known.retain(|_, known| !known.is_forgettable(now_ns));
        }
    }

    fn leave(&self, address: Counted, is_beyond: bool) {
        let mut table = self.table();
        let Slot::Occupied(mut slot) = table.known.entry(address) else {
            return;
        };
        let known = slot.get_mut();
        *known.count(is_beyond) -= 1;
        // With a rate it is kept until there is no room: otherwise it would have a full bucket when it comes again.
        if known.is_empty() && self.handshakes.is_none() {
            slot.remove();
        }
        let room = table.known.capacity();
        if room > 1024 && table.known.len() < room / 8 {
            table.known.shrink_to_fit();
        }
    }
}

impl Known {
    /// Counts one more. True: it is beyond the limit.
    fn enter(&mut self, connections_max: u32) -> Result<bool, TooMany> {
        let is_beyond = self.connections >= connections_max;
        if is_beyond && self.told >= TOLD_MAX {
            return Err(TooMany);
        }
        *self.count(is_beyond) += 1;
        Ok(is_beyond)
    }

    fn count(&mut self, is_beyond: bool) -> &mut u32 {
        if is_beyond {
            &mut self.told
        } else {
            &mut self.connections
        }
    }

    fn is_empty(&self) -> bool {
        self.connections == 0 && self.told == 0
    }

    fn is_forgettable(&self, now_ns: u64) -> bool {
        self.is_empty() && self.handshakes.full_in(now_ns).is_zero()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.shared.leave(self.0.address, self.0.is_beyond);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AddressLimits {
        fn addresses(&self) -> usize {
            self.0.as_ref().map_or(0, |shared| shared.table().known.len())
        }

        fn uncounted(&self) -> u64 {
            self.0.as_ref().map_or(0, |shared| shared.uncounted.get())
        }
    }

    fn counter() -> IntCounter {
        IntCounter::new("uncounted", "let in uncounted").expect("a legal name")
    }

    fn limits(connections_max: u32, handshakes_per_s: u32, now: Instant) -> AddressLimits {
        AddressLimits::new(connections_max, handshakes_per_s, now, counter())
    }

    fn client(address: &str) -> Client {
        Client {
            address: Some(address.parse().expect("an address")),
            ..Client::default()
        }
    }

    fn within(place: Result<Option<Place>, TooMany>) -> Place {
        let place = place.expect("there is room").expect("it is counted");
        assert!(!place.is_beyond());
        place
    }

    fn beyond(place: Result<Option<Place>, TooMany>) -> Place {
        let place = place.expect("it is told").expect("it is counted");
        assert!(place.is_beyond());
        place
    }

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let now = Instant::now();
        let limits = limits(2, 0, now);
        let enter = |address| limits.enter(&client(address), || now);
        let first = within(enter("192.0.2.7"));
        let _second = within(enter("::ffff:192.0.2.7"));
        let third = beyond(enter("192.0.2.7"));
        let _other = within(enter("192.0.2.8"));
        // Who goes makes room, also while somebody is still being told that there is none.
        drop(first);
        let _fourth = within(enter("192.0.2.7"));
        drop(third);
        let _fifth = beyond(enter("192.0.2.7"));
    }

    #[test]
    fn only_so_many_are_told_that_there_are_too_many() {
        let now = Instant::now();
        let limits = limits(1, 0, now);
        let enter = || limits.enter(&client("192.0.2.7"), || now);
        let _within = within(enter());
        let told: Vec<_> = (0..TOLD_MAX).map(|_| beyond(enter())).collect();
        assert_eq!(enter().unwrap_err(), TooMany);
        assert_eq!(enter().unwrap_err(), TooMany);
        drop((_within, told));
        assert_eq!(limits.addresses(), 0, "nothing is left of them");
        drop(within(enter()));
    }

    #[test]
    fn a_whole_64_of_ipv6_counts_as_one() {
        let now = Instant::now();
        let limits = limits(1, 0, now);
        let enter = |address| limits.enter(&client(address), || now);
        let _first = within(enter("2001:db8:0:1::7"));
        let _second = beyond(enter("2001:db8:0:1:ffff::1"));
        let _neighbour = within(enter("2001:db8:0:2::7"));
    }

    #[test]
    fn who_has_no_address_of_its_own_is_not_limited() {
        let now = Instant::now();
        let limits = limits(1, 1, now);
        let proxy = Client {
            is_proxy: true,
            ..client("10.0.0.1")
        };
        for client in [Client::default(), proxy] {
            for _ in 0..10 {
                assert!(limits.enter(&client, || now).expect("it may come in").is_none());
                assert!(limits.may_shake_hands(&client, || now));
            }
        }
        assert_eq!(limits.addresses(), 0);
    }

    #[test]
    fn while_they_are_off_nothing_is_looked_at() {
        let limits = limits(0, 0, Instant::now());
        let never = || unreachable!("the clock is not asked");
        assert!(
            limits
                .enter(&client("192.0.2.7"), never)
                .expect("anybody may")
                .is_none()
        );
        assert!(limits.may_shake_hands(&client("192.0.2.7"), never));
    }

    #[test]
    fn handshakes_come_back_with_time() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let limits = limits(0, 2, begun);
        let may = |ms| limits.may_shake_hands(&client("192.0.2.7"), || at(ms));
        let expected = [true, true, false, false, true, false];
        assert_eq!([0, 0, 0, 499, 500, 501].map(may), expected);
        assert!(limits.may_shake_hands(&client("192.0.2.8"), || at(501)));
        assert_eq!([5_000, 5_000, 5_000].map(may), [true, true, false]);
        // No connections are counted where they are not limited.
        let place = limits.enter(&client("192.0.2.7"), || begun);
        assert!(place.expect("it may come in").is_none());
    }

    #[test]
    fn a_table_that_is_full_keeps_nobody_out() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let limits = AddressLimits::within(2, (1, 1), begun, counter());
        let enter = |address, ms| limits.enter(&client(address), || at(ms));
        let first = within(enter("192.0.2.1", 0));
        let _second = within(enter("192.0.2.2", 0));
        for _ in 0..3 {
            assert!(enter("192.0.2.3", 0).expect("it may come in").is_none());
            assert!(limits.may_shake_hands(&client("192.0.2.3"), || begun));
        }
        assert_eq!(limits.uncounted(), 6);
        // Those who are known stay limited.
        drop(beyond(enter("192.0.2.2", 0)));
        // Who has left, and has not shaken hands of late, makes room at the next look.
        drop(first);
        let _third = within(enter("192.0.2.3", 1_000));
        assert!(limits.may_shake_hands(&client("192.0.2.3"), || at(1_000)));
        assert_eq!((limits.addresses(), limits.uncounted()), (2, 6));
    }

    #[test]
    fn a_place_is_as_small_as_a_pointer() {
        assert_eq!(size_of::<Option<Place>>(), size_of::<usize>());
    }
}
