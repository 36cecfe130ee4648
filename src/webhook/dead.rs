//! What was given up: kept for a while, so that it can be looked at and sent again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::body::Event;

/// A request that was given up.
#[derive(Debug)]
pub(super) struct Letter {
    /// That of its body.
    pub(super) id: u128,
    pub(super) app_id: Arc<str>,
    pub(super) endpoint: Arc<str>,
    pub(super) events: Vec<Event>,
    /// When it was given up, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// How often it was tried.
    pub(super) attempts: u32,
    /// Why the last attempt failed.
    pub(super) error: String,
}

impl Letter {
    fn bytes(&self) -> usize {
        self.events.iter().map(Event::bytes).sum::<usize>() + self.error.len()
    }
}

/// The newest of each app, as many as the bounds allow.
#[derive(Debug)]
pub(super) struct DeadLetters {
    /// By app; of each that is here there is at least one letter.
    piles: BTreeMap<Arc<str>, Pile>,
    letters: usize,
    bytes: usize,
    letters_max: usize,
    bytes_max: usize,
}

/// The letters of one app, the oldest first.
#[derive(Debug, Default)]
struct Pile {
    letters: VecDeque<Letter>,
    bytes: usize,
}

impl DeadLetters {
    pub(super) fn new(letters_max: usize, bytes_max: usize) -> DeadLetters {
        DeadLetters {
            piles: BTreeMap::new(),
            letters: 0,
            bytes: 0,
            letters_max,
            bytes_max,
        }
    }

    /// Keeps one; the oldest of the app that has the most give way, so that one whose endpoints fail leaves the others
    /// theirs.
    pub(super) fn keep(&mut self, letter: Letter) {
        let bytes = letter.bytes();
        let pile = self.piles.entry(letter.app_id.clone()).or_default();
        pile.bytes += bytes;
        pile.letters.push_back(letter);
        self.letters += 1;
        self.bytes += bytes;
        while self.letters > self.letters_max {
            self.shorten(|pile| pile.letters.len());
        }
        while self.bytes > self.bytes_max {
            self.shorten(|pile| pile.bytes);
        }
    }

    /// Drops the oldest letter of the app that has the most; among equals, the oldest of all.
    fn shorten(&mut self, size: impl Fn(&Pile) -> usize) {
        let oldest = |pile: &Pile| Reverse(pile.letters.front().map(|letter| letter.time_ms));
        let piles = self.piles.iter();
        let most = piles.max_by_key(|(_, pile)| (size(pile), oldest(pile)));
        let Some(app_id) = most.map(|(app_id, _)| app_id.clone()) else {
            return;
        };
        let Some(pile) = self.piles.get_mut(&app_id) else {
            return;
        };
        if let Some(letter) = pile.letters.pop_front() {
            pile.bytes -= letter.bytes();
            self.letters -= 1;
            self.bytes -= letter.bytes();
        }
        if pile.letters.is_empty() {
            self.piles.remove(&app_id);
        }
    }

    /// Keeps one, if there is one.
    pub(super) fn extend(&mut self, letter: Option<Letter>) {
        if let Some(letter) = letter {
            self.keep(letter);
        }
    }

    /// Those of an app, the newest first.
    pub(super) fn of_app(&self, app_id: &str) -> impl Iterator<Item = &Letter> {
        let pile = self.piles.get(app_id).into_iter();
        pile.flat_map(|pile| pile.letters.iter().rev())
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Letter> {
        self.piles.values().flat_map(|pile| &pile.letters)
    }

    /// Takes those of an app out that are meant, the oldest first.
    pub(super) fn take(&mut self, app_id: &str, is_meant: impl Fn(&Letter) -> bool) -> Vec<Letter> {
        let Some((app_id, pile)) = self.piles.remove_entry(app_id) else {
            return Vec::new();
        };
        let (taken, left): (VecDeque<_>, VecDeque<_>) = pile.letters.into_iter().partition(is_meant);
        let bytes = left.iter().map(Letter::bytes).sum();
        self.letters -= taken.len();
        self.bytes -= pile.bytes - bytes;
        if !left.is_empty() {
            self.piles.insert(app_id, Pile { letters: left, bytes });
        }
        taken.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: u128, error_bytes: usize) -> Letter {
        letter_of("1", id, error_bytes)
    }

    fn letter_of(app_id: &str, id: u128, error_bytes: usize) -> Letter {
        Letter {
            id,
            app_id: app_id.into(),
            endpoint: "e".into(),
            events: Vec::new(),
            time_ms: id as u64,
            attempts: 1,
            error: "x".repeat(error_bytes),
        }
    }

    fn ids(dead: &DeadLetters) -> Vec<u128> {
        ids_of("1", dead)
    }

    fn ids_of(app_id: &str, dead: &DeadLetters) -> Vec<u128> {
        dead.of_app(app_id).map(|letter| letter.id).collect()
    }

    #[test]
    fn the_newest_are_kept() {
        let mut dead = DeadLetters::new(3, 100);
        (1..=4).for_each(|id| dead.keep(letter(id, 10)));
        assert_eq!(ids(&dead), [4, 3, 2]);
        dead.keep(letter(5, 85));
        assert_eq!(ids(&dead), [5, 4]);
        dead.keep(letter(6, 101));
        assert_eq!(ids(&dead), [0; 0], "larger than all that may be kept");
        assert_eq!(dead.bytes, 0);
    }

    #[test]
    fn what_is_sent_again_is_taken_out() {
        let mut dead = DeadLetters::new(4, 100);
        (1..=3).for_each(|id| dead.keep(letter(id, 10)));
        dead.keep(letter_of("2", 4, 10));
        assert_eq!(ids_of("2", &dead), [4]);
        let taken = dead.take("1", |letter| letter.id != 2);
        assert_eq!(taken.iter().map(|letter| letter.id).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((ids(&dead), ids_of("2", &dead)), (vec![2], vec![4]));
        assert_eq!((dead.letters, dead.bytes), (2, 20));
        assert_eq!(dead.take("2", |_| true).len(), 1);
        assert_eq!((dead.piles.len(), dead.iter().count()), (1, 1));
    }

    #[test]
    fn who_has_the_most_gives_way() {
        let mut dead = DeadLetters::new(4, 100);
        dead.keep(letter_of("2", 1, 10));
        (2..=9).for_each(|id| dead.keep(letter(id, 10)));
        assert_eq!((ids(&dead), ids_of("2", &dead)), (vec![9, 8, 7], vec![1]));
        dead.keep(letter_of("3", 10, 90));
        assert_eq!((ids(&dead), ids_of("2", &dead)), (vec![9, 8], vec![1]));
        assert_eq!(ids_of("3", &dead), [0; 0], "its bytes are the most");
        for id in 11..=14 {
            dead.keep(letter_of(&id.to_string(), id, 10));
        }
        let left: Vec<_> = dead.iter().map(|letter| letter.id).collect();
        assert_eq!(left, [11, 12, 13, 14], "of equals the oldest goes");
        assert_eq!((dead.letters, dead.bytes), (4, 40));
    }
}
