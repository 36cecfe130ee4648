//! Presence channels as their members see them: who was told of whom, when, and whether every member knows the right ones
//! in the end. One thread's sockets; what several threads saw adds up.
//!
//! Pure: it is told what arrived and when. A member's id is its client's number in the run.

use std::mem;

/// What the members of one thread saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    /// By the number of the client that came or went.
    pub(crate) joined: Vec<Notice>,
    pub(crate) left: Vec<Notice>,
    /// By the number of the client that looks.
    pub(crate) views: Vec<View>,
}

/// What became of one coming or going. Nanoseconds since the run's epoch, zero for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    /// When it was asked for, or when the socket was dropped.
    pub(crate) asked_ns: u64,
    /// When it was acknowledged.
    pub(crate) answered_ns: u64,
    /// How many others were told, and the last of them when.
    pub(crate) told: u32,
    pub(crate) last_ns: u64,
}

/// Who is there, as one member knows it: how many, and the sum of their ids, which no wrong set is likely to share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) count: i64,
    pub(crate) sum: i64,
}

/// The entry of that number, made if it is not there yet.
fn entry<T: Clone + Default>(of: &mut Vec<T>, number: u32) -> &mut T {
    let index = number as usize;
    if of.len() <= index {
        of.resize(index + 1, T::default());
    }
    &mut of[index]
}

impl Members {
    /// A client asks to join.
    pub(super) fn ask(&mut self, client: u32, now_ns: u64) {
        entry(&mut self.joined, client).asked_ns = now_ns;
    }

    /// It has joined, and was given the list of members.
    pub(super) fn answer(&mut self, client: u32, text: &str, now_ns: u64) {
        entry(&mut self.joined, client).answered_ns = now_ns;
        *entry(&mut self.views, client) = listed(text);
    }

    /// It has been dropped.
    pub(super) fn drop(&mut self, client: u32, now_ns: u64) {
        entry(&mut self.left, client).asked_ns = now_ns;
    }

    /// A client is told of another one that has joined.
    pub(super) fn added(&mut self, client: u32, member: u32, now_ns: u64) {
        entry(&mut self.joined, member).tell(now_ns);
        let view = entry(&mut self.views, client);
        view.count += 1;
        view.sum += i64::from(member);
    }

    /// A client is told of another one that has left.
    pub(super) fn removed(&mut self, client: u32, member: u32, now_ns: u64) {
        entry(&mut self.left, member).tell(now_ns);
        let view = entry(&mut self.views, client);
        view.count -= 1;
        view.sum -= i64::from(member);
    }

    /// Adds what another thread's sockets saw.
    pub(crate) fn add(&mut self, mut other: Members) {
        for (mine, others) in [
            (&mut self.joined, mem::take(&mut other.joined)),
            (&mut self.left, mem::take(&mut other.left)),
        ] {
            for (number, notice) in (0..).zip(others) {
                entry(mine, number).add(notice);
            }
        }
        for (number, view) in (0..).zip(other.views) {
            // A client belongs to one thread.
            if view != View::default() {
                *entry(&mut self.views, number) = view;
            }
        }
    }
}

impl Notice {
    fn tell(&mut self, now_ns: u64) {
        self.told += 1;
        self.last_ns = self.last_ns.max(now_ns);
    }

    fn add(&mut self, other: Notice) {
        self.asked_ns = self.asked_ns.max(other.asked_ns);
        self.answered_ns = self.answered_ns.max(other.answered_ns);
        self.told += other.told;
        self.last_ns = self.last_ns.max(other.last_ns);
    }
}

/// The members in the acknowledgement of a subscription: the numbers in the array `ids`.
fn listed(text: &str) -> View {
    let mut view = View::default();
    let Some((_, rest)) = text
        .split_once("ids\\\":[")
        .or_else(|| text.split_once("ids\":["))
    else {
        return view;
    };
    let ids = rest.split(']').next().unwrap_or_default();
    for id in ids.split(',') {
        let digits = id.trim_matches(|letter: char| !letter.is_ascii_digit());
        if let Ok(member) = digits.parse::<i64>() {
            view.count += 1;
            view.sum += member;
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_members_is_read_whatever_its_escapes() {
        for text in [
            r#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":3,\"ids\":[\"1\",\"20\",\"7\"],\"hash\":{\"1\":null}}}"}"#,
            r#"{"data":{"presence":{"hash":{},"ids":["1","20","7"]}}}"#,
        ] {
            assert_eq!(listed(text), View { count: 3, sum: 28 });
        }
        assert_eq!(listed(r#"{"data":"{}"}"#), View::default());
    }

    #[test]
    fn two_threads_know_together_who_was_told_last() {
        let (mut one, mut other) = (Members::default(), Members::default());
        one.ask(5, 100);
        one.answer(5, r#""ids":["2","5"]"#, 110);
        one.added(3, 5, 130);
        other.added(2, 5, 120);
        other.removed(2, 5, 150);
        one.add(other);
        let joined = Notice {
            asked_ns: 100,
            answered_ns: 110,
            told: 2,
            last_ns: 130,
        };
        assert_eq!(one.joined[5], joined);
        assert_eq!((one.left[5].told, one.left[5].last_ns), (1, 150));
        assert_eq!(one.views[5], View { count: 2, sum: 7 });
        assert_eq!(one.views[2], View::default());
    }
}
