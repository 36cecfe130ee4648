//! What was given up: kept for a while, so that it can be looked at and sent again.

use std::collections::VecDeque;
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

/// The newest of them, as many as the bounds allow.
#[derive(Debug)]
pub(super) struct DeadLetters {
    letters: VecDeque<Letter>,
    bytes: usize,
    letters_max: usize,
    bytes_max: usize,
}

impl DeadLetters {
    pub(super) fn new(letters_max: usize, bytes_max: usize) -> DeadLetters {
        DeadLetters {
            letters: VecDeque::new(),
            bytes: 0,
            letters_max,
            bytes_max,
        }
    }

    /// Keeps one; the oldest give way.
    pub(super) fn keep(&mut self, letter: Letter) {
        self.bytes += letter.bytes();
        self.letters.push_back(letter);
        while self.letters.len() > self.letters_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.letters.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
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
        self.letters
            .iter()
            .rev()
            .filter(move |letter| &*letter.app_id == app_id)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Letter> {
        self.letters.iter()
    }

    /// Takes out those that are meant, the oldest first.
    pub(super) fn take(&mut self, is_meant: impl Fn(&Letter) -> bool) -> Vec<Letter> {
        let (taken, left): (VecDeque<_>, VecDeque<_>) = self.letters.drain(..).partition(is_meant);
        self.letters = left;
        self.bytes = self.letters.iter().map(Letter::bytes).sum();
        taken.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: u128, error_bytes: usize) -> Letter {
        Letter {
            id,
            app_id: "1".into(),
            endpoint: "e".into(),
            events: Vec::new(),
            time_ms: 0,
            attempts: 1,
            error: "x".repeat(error_bytes),
        }
    }

    fn ids(dead: &DeadLetters) -> Vec<u128> {
        dead.of_app("1").map(|letter| letter.id).collect()
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
        let mut dead = DeadLetters::new(3, 100);
        (1..=3).for_each(|id| dead.keep(letter(id, 10)));
        let taken = dead.take(|letter| letter.id != 2);
        assert_eq!(taken.iter().map(|letter| letter.id).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((ids(&dead), dead.bytes), (vec![2], 10));
    }
}
