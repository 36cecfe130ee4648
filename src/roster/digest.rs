//! A sum over all that a node announced, whatever the order: who heard all of it has the same sum.
//!
//! Both sides keep it up with each change, so that a heartbeat can show a wrong view for the price of eight bytes. It
//! guards against mistakes, not against malice.

use xxhash_rust::xxh3::Xxh3;

/// The sum over counts of channels, members and connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u64);

impl Digest {
    /// The subscribers of a channel were `before` and are `after`.
    pub fn count(&mut self, app: &str, channel: &str, before: u32, after: u32) {
        let difference = u64::from(after).wrapping_sub(before.into());
        self.add(&[app, channel], difference);
    }

    /// The sockets of an app were `before` and are `after`.
    pub fn connections(&mut self, app: &str, before: u32, after: u32) {
        let difference = u64::from(after).wrapping_sub(before.into());
        self.add(&[app], difference);
    }

    /// A user is a member of a channel now, or no longer.
    pub fn member(&mut self, app: &str, channel: &str, user_id: &str, was: bool, is: bool) {
        let difference = u64::from(is).wrapping_sub(was.into());
        self.add(&[app, channel, user_id], difference);
    }

    fn add(&mut self, path: &[&str], difference: u64) {
        if difference == 0 {
            return;
        }
        let mut hash = Xxh3::new();
        for name in path {
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
        }
        self.0 = self.0.wrapping_add(hash.digest().wrapping_mul(difference));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_does_not_matter_and_the_end_does() {
        let mut straight = Digest::default();
        straight.count("1", "a", 0, 3);
        straight.member("1", "presence-b", "u", false, true);
        let mut winding = Digest::default();
        winding.member("1", "presence-b", "u", false, true);
        winding.count("1", "a", 0, 7);
        winding.member("1", "presence-b", "v", false, true);
        winding.count("1", "a", 7, 3);
        assert_ne!(straight, winding);
        winding.member("1", "presence-b", "v", true, false);
        assert_eq!(straight, winding);
        winding.count("1", "a", 3, 0);
        winding.count("1a", "", 0, 3);
        assert_ne!(straight, winding, "names are not run together");
    }
}
