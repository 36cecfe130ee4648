//! Calls that are made once although they are sent twice: the answers of the last two minutes, by the key
//! their caller chose. Pure, bounded, and of this node only: a caller who retries at another node is not
//! recognised there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// What all entries may weigh together; above it the oldest go first.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// What an entry weighs beyond its key and answer, roughly.
const ENTRY_BYTES: usize = 200;

/// The answers kept, in order of age.
#[derive(Debug, Default)]
pub(super) struct Idempotency {
    /// `None` while the first call is being answered.
    answers: HashMap<Arc<str>, Option<Bytes>>,
    by_age: VecDeque<(Instant, Arc<str>)>,
    bytes: usize,
}

/// What a call with a key is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// Its work, and then [`Idempotency::finish`].
    First,
    /// Nothing: the same call is at work on another thread.
    AtWork,
    /// Nothing but to give this answer again.
    Answered(Bytes),
}

impl Idempotency {
    /// A call arrives. `key` names app and call.
    pub(super) fn begin(&mut self, key: &str, now: Instant) -> Begun {
        self.forget(now);
        match self.answers.get(key) {
            Some(Some(answer)) => Begun::Answered(answer.clone()),
            Some(None) => Begun::AtWork,
            None => {
                let key: Arc<str> = key.into();
                self.bytes += weight(&key, None);
                self.answers.insert(Arc::clone(&key), None);
                self.by_age.push_back((now, key));
                Begun::First
            }
        }
    }

    /// The first call has been answered.
    pub(super) fn finish(&mut self, key: &str, answer: Bytes) {
        if let Some(kept) = self.answers.get_mut(key) {
            self.bytes += answer.len();
            *kept = Some(answer);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((since, key)) = self.by_age.front() {
            if self.bytes <= BYTES_MAX && now.duration_since(*since) < KEPT_FOR {
                break;
            }
            let answer = self.answers.remove(key).flatten();
            self.bytes -= weight(key, answer.as_ref());
            self.by_age.pop_front();
        }
    }
}

fn weight(key: &str, answer: Option<&Bytes>) -> usize {
    ENTRY_BYTES + key.len() + answer.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_made_once_and_answered_again() {
        let (mut calls, now) = (Idempotency::default(), Instant::now());
        assert_eq!(calls.begin("1/a", now), Begun::First);
        assert_eq!(calls.begin("1/a", now), Begun::AtWork);
        calls.finish("1/a", "{}".into());
        assert_eq!(calls.begin("1/a", now), Begun::Answered("{}".into()));
        assert_eq!(calls.begin("2/a", now), Begun::First);
    }

    #[test]
    fn an_answer_is_forgotten_after_two_minutes_from_the_first_call() {
        let (mut calls, now) = (Idempotency::default(), Instant::now());
        calls.begin("1/a", now);
        calls.finish("1/a", "{}".into());
        let last = now + KEPT_FOR - Duration::from_millis(1);
        assert_eq!(calls.begin("1/a", last), Begun::Answered("{}".into()));
        assert_eq!(calls.begin("1/a", now + KEPT_FOR), Begun::First);
    }

    #[test]
    fn however_many_keys_there_are_memory_is_bounded() {
        let (mut calls, now) = (Idempotency::default(), Instant::now());
        for n in 0..1000 {
            let key = format!("1/{n}");
            assert_eq!(calls.begin(&key, now), Begun::First);
            calls.finish(&key, vec![b'x'; 64 * 1024].into());
            assert!(calls.bytes <= BYTES_MAX + 65 * 1024);
            assert_eq!(calls.answers.len(), calls.by_age.len());
        }
        assert_eq!(calls.begin("1/0", now), Begun::First, "the oldest went");
        assert!(
            matches!(calls.begin("1/999", now), Begun::Answered(_)),
            "the newest stayed"
        );
        calls.begin("1/x", now + KEPT_FOR);
        assert_eq!((calls.answers.len(), calls.bytes), (1, weight("1/x", None)));
    }

    #[test]
    fn an_answer_that_comes_after_its_key_was_forgotten_is_not_kept() {
        let mut calls = Idempotency::default();
        calls.finish("1/a", "{}".into());
        assert_eq!((calls.answers.len(), calls.bytes), (0, 0));
    }
}
