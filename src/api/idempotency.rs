//! Calls that are made once although they are sent twice: the answers of the last two minutes, by the key
//! their caller chose. Bounded for each app by itself, and of this node only: a caller who retries at another
//! node is not recognised there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::events::Form;

/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// What the entries of one app may weigh together; above it its oldest go first.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// What an entry weighs beyond its key and answer, roughly.
const ENTRY_BYTES: usize = 200;

/// By which a repeated call is recognised within its app: what was called, and the caller's key.
pub(super) type CallKey = (Form, Arc<str>);

/// The answers kept for all apps. What an app keeps is its own: no other app's calls push it out.
#[derive(Debug, Default)]
pub(super) struct Idempotency {
    /// By id; an app is here from its first call with a key. Locked for a look-up or an entry at a time.
    apps: Mutex<HashMap<Box<str>, Answers>>,
}

/// What a call with a key is to do.
#[derive(Debug)]
pub(super) enum Begun<'a> {
    /// Its work, and then [`Turn::finish`].
    First(Turn<'a>),
    /// Nothing: the same call is under way.
    UnderWay,
    /// Nothing but to give this answer again.
    Answered(Bytes),
}

/// The right to do the work of a call. Dropped unfinished, it gives the key back: whoever asks again may try.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    of: &'a Idempotency,
    app_id: Box<str>,
    age: u64,
}

impl Idempotency {
    /// A call arrives at an app.
    pub(super) fn begin(&self, app_id: &str, key: CallKey, now: Instant) -> Begun<'_> {
        self.with(app_id, |answers| match answers.begin(key, now) {
            Ok(age) => Begun::First(Turn {
                of: self,
                app_id: app_id.into(),
                age,
            }),
            Err(None) => Begun::UnderWay,
            Err(Some(answer)) => Begun::Answered(answer),
        })
    }

    /// Drops what is kept no longer, of apps too that call no more.
    pub(super) fn sweep(&self, now: Instant) {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<Box<str>> = apps.keys().cloned().collect();
        drop(apps);
        // One at a time: calls come in between.
        for id in ids {
            self.with(&id, |answers| {
                answers.forget(now);
                // The app itself stays: its numbers must not begin anew while a call is under way.
                if answers.ages.is_empty() {
                    answers.ages.shrink_to_fit();
                }
            });
        }
    }

    fn with<T>(&self, app_id: &str, work: impl FnOnce(&mut Answers) -> T) -> T {
        // Nothing in here panics half way, so another thread's panic spoils nothing.
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        match apps.get_mut(app_id) {
            Some(answers) => work(answers),
            None => work(apps.entry(app_id.into()).or_default()),
        }
    }
}

impl Turn<'_> {
    /// The call has been answered.
    pub(super) fn finish(self, answer: Bytes) {
        self.of
            .with(&self.app_id, |answers| answers.finish(self.age, answer));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.of.with(&self.app_id, |answers| answers.give_back(self.age));
    }
}

/// The answers kept for one app. Pure.
#[derive(Debug, Default)]
struct Answers {
    by_age: BTreeMap<u64, Entry>,
    ages: HashMap<CallKey, u64>,
    next_age: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    key: CallKey,
    /// `None` while the first call is under way.
    answer: Option<Bytes>,
}

impl Answers {
    /// The call's number if it is the first, else its answer, as far as there is one.
    fn begin(&mut self, key: CallKey, now: Instant) -> Result<u64, Option<Bytes>> {
        self.forget(now);
        if let Some(entry) = self.ages.get(&key).and_then(|age| self.by_age.get(age)) {
            return Err(entry.answer.clone());
        }
        let age = self.next_age;
        self.next_age += 1;
        let entry = Entry {
            since: now,
            key: key.clone(),
            answer: None,
        };
        self.bytes += entry.weight();
        self.by_age.insert(age, entry);
        self.ages.insert(key, age);
        Ok(age)
    }

    /// Nothing if the entry had to go meanwhile: its key may be another call's by now.
    fn finish(&mut self, age: u64, answer: Bytes) {
        if let Some(entry) = self.by_age.get_mut(&age) {
            self.bytes += answer.len();
            entry.answer = Some(answer);
        }
    }

    /// Nothing if it has an answer.
    fn give_back(&mut self, age: u64) {
        if self.by_age.get(&age).is_some_and(|entry| entry.answer.is_none()) {
            self.remove(age);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((&age, oldest)) = self.by_age.first_key_value()
            && (self.bytes > BYTES_MAX || now.duration_since(oldest.since) >= KEPT_FOR)
        {
            self.remove(age);
        }
    }

    fn remove(&mut self, age: u64) {
        if let Some(entry) = self.by_age.remove(&age) {
            self.bytes -= entry.weight();
            self.ages.remove(&entry.key);
        }
    }
}

impl Entry {
    fn weight(&self) -> usize {
        ENTRY_BYTES + self.key.1.len() + self.answer.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str) -> CallKey {
        (Form::Event, key.into())
    }

    /// Makes a call whose work is to answer this, and tells what came of it.
    fn call(calls: &Idempotency, app_id: &str, key: CallKey, now: Instant, answer: &str) -> Option<String> {
        match calls.begin(app_id, key, now) {
            Begun::First(turn) => {
                turn.finish(answer.to_owned().into());
                None
            }
            Begun::UnderWay => panic!("nobody else is at work"),
            Begun::Answered(answer) => Some(String::from_utf8_lossy(&answer).into_owned()),
        }
    }

    #[test]
    fn a_call_is_made_once_and_answered_again() {
        let (calls, now) = (Idempotency::default(), Instant::now());
        let Begun::First(turn) = calls.begin("1", key("a"), now) else {
            panic!("nobody called before");
        };
        assert!(matches!(calls.begin("1", key("a"), now), Begun::UnderWay));
        turn.finish("{}".into());
        assert_eq!(call(&calls, "1", key("a"), now, "again"), Some("{}".into()));
    }

    #[test]
    fn apps_and_calls_have_keys_of_their_own() {
        let (calls, now) = (Idempotency::default(), Instant::now());
        let all = [
            ("1", (Form::Event, "a".into())),
            ("1", (Form::Batch, "a".into())),
            ("1", (Form::Event, "2/a".into())),
            ("1/2", (Form::Event, "a".into())),
            ("2", (Form::Event, "a".into())),
        ];
        for (n, (app_id, key)) in all.iter().enumerate() {
            assert_eq!(call(&calls, app_id, key.clone(), now, &n.to_string()), None);
        }
        for (n, (app_id, key)) in all.iter().enumerate() {
            assert_eq!(call(&calls, app_id, key.clone(), now, ""), Some(n.to_string()));
        }
    }

    #[test]
    fn who_fails_gives_the_key_back() {
        let (calls, now) = (Idempotency::default(), Instant::now());
        drop(calls.begin("1", key("a"), now));
        let panicked = std::panic::catch_unwind(|| {
            let _turn = calls.begin("1", key("a"), now);
            panic!("the work fails");
        });
        assert!(panicked.is_err());
        assert_eq!(call(&calls, "1", key("a"), now, "{}"), None);
        assert_eq!(
            call(&calls, "1", key("a"), now, "again"),
            Some("{}".into()),
            "it is kept when its turn is over"
        );
    }

    #[test]
    fn an_answer_is_forgotten_after_two_minutes_from_the_first_call() {
        let (calls, now) = (Idempotency::default(), Instant::now());
        call(&calls, "1", key("a"), now, "{}");
        let last = now + KEPT_FOR - Duration::from_millis(1);
        assert_eq!(call(&calls, "1", key("a"), last, ""), Some("{}".into()));
        assert_eq!(call(&calls, "1", key("a"), now + KEPT_FOR, ""), None);
    }

    #[test]
    fn a_sweep_drops_what_is_over_of_apps_that_call_no_more() {
        let (calls, now) = (Idempotency::default(), Instant::now());
        let later = now + KEPT_FOR / 2;
        for (app_id, since) in [("1", now), ("2", later)] {
            call(&calls, app_id, key("a"), since, "{}");
        }
        calls.sweep(now + KEPT_FOR);
        let held = |app_id| calls.with(app_id, |answers| (answers.ages.capacity() > 0, answers.bytes));
        assert_eq!(held("1"), (false, 0));
        assert_eq!(call(&calls, "2", key("a"), now + KEPT_FOR, ""), Some("{}".into()));
    }

    #[test]
    fn however_many_keys_there_are_memory_is_bounded_and_other_apps_lose_nothing() {
        let (calls, now) = (Idempotency::default(), Instant::now());
        let large = "x".repeat(64 * 1024);
        call(&calls, "2", key("0"), now, "{}");
        for n in 0..1000 {
            assert_eq!(call(&calls, "1", key(&n.to_string()), now, &large), None);
            calls.with("1", |answers| {
                assert!(answers.bytes <= BYTES_MAX + 65 * 1024);
                assert_eq!(answers.ages.len(), answers.by_age.len());
            });
        }
        assert_eq!(
            call(&calls, "1", key("999"), now, ""),
            Some(large),
            "the newest stayed"
        );
        assert_eq!(call(&calls, "1", key("0"), now, ""), None, "the oldest went");
        assert_eq!(call(&calls, "2", key("0"), now, ""), Some("{}".into()));
        let _turn = calls.begin("1", key("x"), now + KEPT_FOR);
        calls.with("1", |answers| {
            let held = (answers.ages.len(), answers.by_age.len(), answers.bytes);
            assert_eq!(held, (1, 1, ENTRY_BYTES + 1));
        });
    }

    #[test]
    fn whose_key_was_forgotten_meanwhile_leaves_the_next_one_alone() {
        let (calls, now) = (Idempotency::default(), Instant::now());
        let slow = |answer: Option<&'static str>| {
            let Begun::First(turn) = calls.begin("1", key("a"), now) else {
                panic!("the key is free");
            };
            let later = calls.begin("1", key("a"), now + KEPT_FOR);
            match answer {
                Some(answer) => turn.finish(answer.into()),
                None => drop(turn),
            }
            let still = matches!(calls.begin("1", key("a"), now + KEPT_FOR), Begun::UnderWay);
            drop(later);
            still
        };
        assert!(slow(Some("{}")));
        assert!(slow(None));
        calls.with("1", |answers| {
            assert_eq!((answers.ages.len(), answers.bytes), (0, 0))
        });
    }
}
