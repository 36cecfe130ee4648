//! The apps of a store: look-ups answered, apps in use read again, others forgotten.
//!
//! Two tasks on the control runtime. The *desk* takes up the questions of [`Apps`](crate::app::Apps), joins those for
//! one app, and asks the store for many names at once. The *round* reads every app in use again, so that what changed in
//! the store changes here, whoever wrote it there and however. Neither knows SQL; how a record becomes the settings of an
//! app is told by whoever starts them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{Node, now};
use crate::app::{
    App, AppConfig, AppName, AppRecord, AppStore, Day, NAMES_MAX, NotFound, NotTaken, QUESTIONS_MAX,
    Question, Settings, StoreError,
};
use crate::hub::namespace::Namespace;

/// After the store has not answered, it is not asked for so long: who asks meanwhile is told at once to come again.
const REST: Duration = Duration::from_secs(1);
/// Between two chunks of a round: 10,000 apps in a second, and never all at once.
const CHUNK_PAUSE: Duration = Duration::from_millis(10);

/// Reads an app that is written as in the configuration file. The error is for a person, and holds no secret.
pub type ReadApp = Box<dyn Fn(serde_json::Value) -> Result<AppConfig, String> + Send + Sync>;

/// A store at work.
pub struct StoreDesk {
    /// Where the apps are.
    pub store: Arc<dyn AppStore>,
    /// How one is read.
    pub read: ReadApp,
    /// Questions to the store at once.
    pub queries_max: usize,
    /// How often apps in use are read again.
    pub refresh: Duration,
    /// So long an app that nobody uses is remembered.
    pub ttl: Duration,
    /// Apps without sockets that are remembered.
    pub unused_max: usize,
}

impl fmt::Debug for StoreDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreDesk")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

type Answer = oneshot::Sender<Result<Arc<App>, NotFound>>;
type Answered = (Vec<AppName>, Result<Reading, StoreError>);

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiting {
    by_name: HashMap<AppName, Vec<Answer>>,
    /// Names that the store has not been asked for yet.
    due: VecDeque<AppName>,
    count: usize,
}

impl Waiting {
    fn add(&mut self, question: Question) {
        self.count += 1;
        let answers = self.by_name.entry(question.name.clone()).or_default();
        if answers.is_empty() {
            self.due.push_back(question.name);
        }
        answers.push(question.answer);
    }

    fn next(&mut self) -> Vec<AppName> {
        let many = self.due.len().min(NAMES_MAX);
        self.due.drain(..many).collect()
    }

    fn answer(&mut self, name: &AppName, found: &Result<Arc<App>, NotFound>) {
        for answer in self.by_name.remove(name).unwrap_or_default() {
            self.count -= 1;
            // Whoever waited may have gone.
            let _ = answer.send(found.clone());
        }
    }
}

/// What the store has of some names.
struct Reading {
    records: Vec<AppRecord>,
    today: Day,
    /// Messages of today, of the apps that are not known yet and have a quota.
    messages: HashMap<String, u64>,
}

/// What apps of a store are called.
struct Names<'a> {
    ids: HashSet<&'a str>,
    keys: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    fn of(records: &'a [AppRecord]) -> Names<'a> {
        let keys = records.iter().flat_map(|record| &record.keys);
        Names {
            ids: records.iter().map(|record| record.id.as_str()).collect(),
            keys: keys.map(|key| key.key.as_str()).collect(),
        }
    }

    /// Whether one has this name: databases may take names for equal that are not.
    fn has(&self, name: &AppName) -> bool {
        match name {
            AppName::Id(id) => self.ids.contains(&**id),
            AppName::Key(key) => self.keys.contains(&**key),
        }
    }
}

impl Node {
    /// Answers questions to the store, for ever.
    pub async fn answer_lookups(&self, desk: &StoreDesk, mut questions: mpsc::Receiver<Question>) {
        let mut waiting = Waiting::default();
        let mut asked: FuturesUnordered<BoxFuture<'_, Answered>> = FuturesUnordered::new();
        let mut taken = Vec::new();
        let mut rests_until: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                Some((names, answer)) = asked.next() => {
                    rests_until = match self.heard_of_store(desk, answer.as_ref().err()) {
                        true => None,
                        false => Some(now() + REST),
                    };
                    if let Ok(reading) = &answer {
                        self.take_in(desk, reading, &names, |name, found| waiting.answer(name, &found));
                    } else {
                        for name in &names {
                            waiting.answer(name, &Err(NotFound::Unavailable));
                        }
                    }
                }
                count = questions.recv_many(&mut taken, NAMES_MAX), if waiting.count < QUESTIONS_MAX => {
                    if count == 0 {
                        return;
                    }
                    let rests = rests_until.is_some_and(|until| now() < until);
                    for question in taken.drain(..) {
                        let known = self.apps.known_of(&question.name);
                        match known.or(rests.then_some(Err(NotFound::Unavailable))) {
                            Some(found) => drop(question.answer.send(found)),
                            None => waiting.add(question),
                        }
                    }
                }
            }
            while asked.len() < desk.queries_max && !waiting.due.is_empty() {
                let names = waiting.next();
                asked.push(Box::pin(async move {
                    let answer = self.read(desk, &names).await;
                    (names, answer)
                }));
            }
        }
    }

    /// Reads the apps in use again and forgets the others, for ever.
    pub async fn refresh_apps(&self, desk: &StoreDesk) {
        loop {
            tokio::time::sleep(desk.refresh).await;
            let sweep = self.apps.sweep(desk.ttl, desk.unused_max, now());
            let mut answers = true;
            if sweep.used.is_empty() {
                // Whether it would answer is worth knowing before somebody needs it.
                answers = self.heard_of_store(desk, desk.store.check().await.err().as_ref());
            }
            for ids in sweep.used.chunks(NAMES_MAX) {
                let names: Vec<_> = ids.iter().map(|id| AppName::Id((**id).into())).collect();
                let answer = self.read(desk, &names).await;
                answers = self.heard_of_store(desk, answer.as_ref().err());
                match answer {
                    Ok(reading) => self.take_in(desk, &reading, &names, |_, _| {}),
                    Err(_) => break,
                }
                tokio::time::sleep(CHUNK_PAUSE).await;
            }
            // What cannot be read again is kept.
            if answers {
                for id in &sweep.unused {
                    let is_saved = |namespace: &Namespace| self.is_usage_saved(namespace);
                    if self.hub.forget(id, &self.metrics, is_saved) && self.apps.forget(id) {
                        tracing::debug!(app = %id, "an app of the store that nobody uses is forgotten");
                    }
                }
            }
        }
    }

    /// Asks the store for these names, and what is used up of the quotas of apps that come with them: before somebody may
    /// use more.
    async fn read(&self, desk: &StoreDesk, names: &[AppName]) -> Result<Reading, StoreError> {
        let records = desk.store.find(names.to_vec()).await?;
        let comes_with_quota = |record: &&AppRecord| {
            let is_known = self.apps.held(&record.id).is_some();
            let config = || (desk.read)(record.written().ok()?).ok();
            !is_known && config().is_some_and(|config| config.messages_per_day > 0)
        };
        let coming = records.iter().filter(comes_with_quota);
        let mut messages: HashMap<_, _> = coming.map(|record| (record.id.clone(), 0)).collect();
        let today = Day::of(Timestamp::now());
        let ids: Vec<_> = messages.keys().cloned().collect();
        // As many as the names at most, but not where a database takes names for equal that are not.
        for ids in ids.chunks(NAMES_MAX) {
            messages.extend(desk.store.messages(today.date(), ids).await?);
        }
        Ok(Reading {
            records,
            today,
            messages,
        })
    }

    /// Takes in what the store has of these names, notes what it does not have, and tells of each what it led to.
    fn take_in(
        &self,
        desk: &StoreDesk,
        reading: &Reading,
        names: &[AppName],
        mut tell: impl FnMut(&AppName, Result<Arc<App>, NotFound>),
    ) {
        for record in &reading.records {
            let fingerprint = record.fingerprint();
            if !self.apps.has_read(&record.id, fingerprint) {
                let messages = reading.messages.get(&record.id);
                let today = messages.map(|messages| (reading.today, *messages));
                self.take_in_one(desk, record, fingerprint, today);
            }
        }
        let there = Names::of(&reading.records);
        for name in names {
            let is_there = there.has(name);
            if let (AppName::Id(id), false) = (name, is_there) {
                self.gone_from_store(id);
            }
            // One that is there and cannot be used: its clients are to come again, and the operator was told.
            let absent = match is_there {
                true => NotFound::Unavailable,
                false => NotFound::Unknown,
            };
            let known = self.apps.known_of(name).filter(Result::is_ok);
            // What is remembered may be forgotten at once if there is much of it: it is no way to answer.
            let found = known.unwrap_or_else(|| {
                self.apps.remember_absent(name.clone(), absent);
                Err(absent)
            });
            tell(name, found);
        }
    }

    fn take_in_one(&self, desk: &StoreDesk, record: &AppRecord, fingerprint: u64, today: Option<(Day, u64)>) {
        let settings = record
            .written()
            .and_then(|written| (desk.read)(written))
            .and_then(|config| {
                Settings::new(config).map_err(|faults| {
                    let faults: Vec<_> = faults
                        .iter()
                        .map(|fault| format!("{}: {}", fault.key, fault.text))
                        .collect();
                    faults.join("; ")
                })
            });
        let settings = match settings {
            Ok(settings) => settings,
            Err(wrong) => {
                tracing::error!(app = %record.id, "an app of the store cannot be used as it is written: {wrong}");
                self.apps.keep_as_it_was(&record.id, fingerprint);
                return;
            }
        };
        match self.apps.put_stored(settings, fingerprint, today, now()) {
            Ok((app, was_known)) => {
                if was_known {
                    tracing::info!(app = %app.id(), "an app of the store has changed");
                }
                self.close_sockets_of(&app);
            }
            Err(NotTaken::InConfiguration) => tracing::warn!(
                app = %record.id,
                "the store and the configuration have an app of this id; that of the configuration counts"
            ),
        }
    }

    /// The store has no app of this id any more.
    fn gone_from_store(&self, id: &str) {
        if self.apps.is_stored(id) && self.remove_app(id) {
            tracing::info!(app = %id, "an app is gone from the store");
        }
    }

    /// Notes whether the store answered, and says so when that changes. The answer is whether it did.
    fn heard_of_store(&self, desk: &StoreDesk, error: Option<&StoreError>) -> bool {
        let is_news = self.apps.store_answered(error.is_none());
        match error {
            Some(error) if is_news => tracing::error!(
                store = desk.store.kind(),
                "{error}; apps that are known go on, others are refused for now"
            ),
            None if is_news => tracing::info!(store = desk.store.kind(), "the store answers again"),
            _ => {}
        }
        error.is_none()
    }
}

#[cfg(test)]
mod tests;
