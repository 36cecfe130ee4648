//! Usage in a database, whatever becomes of the answers on their way.

use std::collections::VecDeque;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use jiff::ToSpan;
use jiff::civil::Date;
use tempfile::TempDir;

use super::*;
use crate::app::{AppConfig, AppName, AppRecord, Apps};
use crate::hub::inbox::Inboxes;
use crate::metrics::Metrics;
use crate::store::{SqlStore, StoreConfig, StoreUrl};

/// What happens to an attempt to add something.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    /// It never reaches the database.
    Lost,
    /// It is done, and nobody hears of it.
    AnswerLost,
}

/// A database at the end of a bad line. When no more fates are laid down, all is done.
#[derive(Debug)]
struct BadLine {
    store: SqlStore,
    fates: Mutex<VecDeque<Fate>>,
    _directory: Arc<TempDir>,
}

impl BadLine {
    async fn new() -> BadLine {
        let directory = Arc::new(TempDir::new().expect("a temporary directory"));
        let config = section(&directory);
        SqlStore::migrate(&config).await.expect("tables are made");
        BadLine::to(directory)
    }

    /// Another line to the same database.
    fn to(directory: Arc<TempDir>) -> BadLine {
        BadLine {
            store: SqlStore::open(&section(&directory)).expect("a sound section"),
            fates: Mutex::default(),
            _directory: directory,
        }
    }

    fn again(&self) -> BadLine {
        BadLine::to(self._directory.clone())
    }

    fn will(self, fates: &[Fate]) -> BadLine {
        *self.fates.lock().expect("no test panics here") = fates.iter().copied().collect();
        self
    }
}

fn section(directory: &TempDir) -> StoreConfig {
    StoreConfig {
        url: StoreUrl::new(&format!("sqlite://{}/apps.db", directory.path().display())),
        timeout_ms: 10_000,
        ..StoreConfig::default()
    }
}

impl AppStore for BadLine {
    fn find(&self, names: Vec<AppName>) -> BoxFuture<'_, Result<Vec<AppRecord>, StoreError>> {
        self.store.find(names)
    }

    fn add_usage<'a>(&'a self, batch: &'a UsageBatch) -> BoxFuture<'a, Result<(), StoreError>> {
        let fate = self.fates.lock().expect("no test panics here").pop_front();
        let is_gone = || StoreError::Down("the line is bad".into());
        Box::pin(async move {
            match fate.unwrap_or(Fate::Done) {
                Fate::Done => self.store.add_usage(batch).await,
                Fate::Lost => Err(is_gone()),
                Fate::AnswerLost => {
                    self.store.add_usage(batch).await?;
                    Err(is_gone())
                }
            }
        })
    }

    fn usage<'a>(&'a self, app_id: &'a str, days: u32) -> BoxFuture<'a, Result<Vec<UsageDay>, StoreError>> {
        self.store.usage(app_id, days)
    }

    fn messages<'a>(
        &'a self,
        day: Date,
        app_ids: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, StoreError>> {
        self.store.messages(day, app_ids)
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.check()
    }

    fn kind(&self) -> &'static str {
        self.store.kind()
    }
}

/// A node with apps that have this quota.
struct Place {
    node: Node,
    saver: UsageSaver,
}

impl Place {
    fn new(store: BadLine, apps: usize, messages_per_day: u64) -> Place {
        let app = |id: usize| AppConfig {
            id: id.to_string(),
            key: format!("key-{id}"),
            messages_per_day,
            ..AppConfig::demo()
        };
        let apps = Apps::new((1..=apps).map(app)).expect("sound apps");
        let metrics = Arc::new(Metrics::new("", 0).expect("no prefix is a good one"));
        Place {
            node: Node::new(apps, Inboxes::new(1, 1), metrics),
            saver: UsageSaver::new(Arc::new(store)),
        }
    }

    fn app(&self, id: &str) -> Arc<App> {
        let app = self.node.apps().by_id(id).expect("an app of this node");
        self.node.namespace(&app).app.clone()
    }

    fn charge(&self, id: &str, count: u64, now: Timestamp) -> bool {
        self.app(id).charge_messages(count, || now).is_ok()
    }

    async fn save(&mut self, now: Timestamp) {
        self.node.settle_usage(now);
        self.saver.save(&self.node, Day::of(now)).await;
    }
}

async fn messages(store: &dyn AppStore, app_id: &str) -> Vec<u64> {
    let days = store.usage(app_id, 10).await.expect("an answer");
    days.iter().map(|day| day.messages).collect()
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_is_doubled_on_a_bad_line() {
    use Fate::{AnswerLost, Done, Lost};
    let store = BadLine::new().await;
    let fates = [
        Lost, AnswerLost, Lost, AnswerLost, Done, AnswerLost, Lost, Lost, Done,
    ];
    let mut place = Place::new(store.again().will(&fates), 2, 0);
    let now = Timestamp::now();
    for round in 1..=20 {
        place.charge("1", round, now);
        place.charge("2", 1, now);
        place.save(now).await;
    }
    assert_eq!(messages(&store, "1").await, [210]);
    assert_eq!(messages(&store, "2").await, [20]);
    assert_eq!(place.node.metrics.usage_save_failures_total.get(), 7);
}

#[tokio::test]
async fn a_store_that_is_away_over_midnight_gets_each_day_as_it_was() {
    let store = BadLine::new().await;
    let mut place = Place::new(store.again().will(&[Fate::Lost; 3]), 1, 0);
    let today = Timestamp::now();
    let tomorrow = today.checked_add(24.hours()).expect("a time in range");
    place.charge("1", 3, today);
    place.save(today).await;
    place.charge("1", 4, today);
    place.save(tomorrow).await;
    place.charge("1", 5, tomorrow);
    place.save(tomorrow).await;
    assert!(messages(&store, "1").await.is_empty());
    place.save(tomorrow).await;
    assert_eq!(messages(&store, "1").await, [5, 7]);
}

#[tokio::test]
async fn the_quota_holds_for_all_nodes_and_over_a_restart() {
    let store = BadLine::new().await;
    let now = Timestamp::now();
    let mut ada = Place::new(store.again(), 1, 10);
    let mut bob = Place::new(store.again(), 1, 10);
    assert!(ada.charge("1", 6, now) && bob.charge("1", 1, now));
    ada.save(now).await;
    bob.save(now).await;
    // Ada has not heard of bob's one yet: so far it goes beyond.
    assert!(!bob.charge("1", 4, now) && bob.charge("1", 3, now));
    ada.save(now).await;
    assert!(!ada.charge("1", 4, now) && ada.charge("1", 3, now));
    bob.save(now).await;
    ada.save(now).await;
    assert!(!ada.charge("1", 1, now) && !bob.charge("1", 1, now));
    // One that starts anew hears of it when it saves for the first time.
    let mut eve = Place::new(store.again(), 1, 10);
    eve.node.namespace(&eve.app("1"));
    eve.save(now).await;
    assert!(!eve.charge("1", 1, now));
    let tomorrow = now.checked_add(24.hours()).expect("a time in range");
    assert!(eve.charge("1", 10, tomorrow));
}

#[tokio::test]
async fn more_apps_than_fit_one_batch_are_saved_in_several() {
    let store = BadLine::new().await;
    let mut place = Place::new(store.again().will(&[Fate::Done, Fate::AnswerLost]), 1_050, 0);
    let now = Timestamp::now();
    let charge_all = |place: &Place| {
        for id in 1..=1_050 {
            place.charge(&id.to_string(), 1, now);
        }
    };
    charge_all(&place);
    place.save(now).await;
    charge_all(&place);
    place.save(now).await;
    for id in ["1", "1000", "1001", "1050"] {
        assert_eq!(messages(&store, id).await, [2], "{id}");
    }
}

#[tokio::test]
async fn the_end_is_saved() {
    let store = BadLine::new().await;
    let Place { node, saver } = Place::new(store.again(), 1, 0);
    let (end, ends) = oneshot::channel();
    let app = node.apps().by_id("1").expect("the app");
    node.namespace(&app)
        .app
        .charge_messages(5, Timestamp::now)
        .expect("no quota");
    drop(end);
    node.keep_usage(Some(saver), ends).await;
    let today = Day::of(Timestamp::now()).date();
    let days = store.usage("1", 1).await.expect("an answer");
    assert_eq!(days.iter().map(|day| day.messages).sum::<u64>(), 5);
    assert!(days.iter().all(|day| day.day <= today));
}
