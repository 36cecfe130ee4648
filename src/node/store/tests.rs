//! Questions to a store of SQLite, and what becomes of its answers.

use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::app::{Apps, KeyRecord, LookupBounds, Secret, UsageBatch, UsageDay};
use crate::hub::inbox::Inboxes;
use crate::metrics::Metrics;
use crate::store::{SqlStore, StoreConfig, StoreUrl};

/// A node that asks a database.
struct Place {
    node: Arc<Node>,
    store: Arc<SqlStore>,
    _directory: TempDir,
}

impl Place {
    /// Beside apps of the configuration, and remembering so many names that no app has.
    async fn new(apps: Apps, unknown_max: usize) -> Place {
        let directory = TempDir::new().expect("a temporary directory");
        let config = StoreConfig {
            url: StoreUrl::new(&format!("sqlite://{}/apps.db", directory.path().display())),
            timeout_ms: 10_000,
            ..StoreConfig::default()
        };
        SqlStore::migrate(&config).await.expect("tables are made");
        let store = Arc::new(SqlStore::open(&config).expect("a sound section"));
        let bounds = LookupBounds {
            timeout: Duration::from_secs(60),
            unknown_max,
            unknown_ttl: Duration::from_secs(60),
        };
        let (apps, questions) = apps.with_store("sqlite", bounds);
        let metrics = Arc::new(Metrics::new("", 0).expect("no prefix is a good one"));
        let node = Arc::new(Node::new(apps, Inboxes::new(1, 1), metrics));
        let desk = StoreDesk {
            store: store.clone(),
            read: Box::new(|written| serde_json::from_value(written).map_err(|error| error.to_string())),
            queries_max: 2,
            refresh: Duration::from_secs(3_600),
            ttl: Duration::from_secs(3_600),
            unused_max: 1_000,
        };
        let answering = node.clone();
        tokio::spawn(async move { answering.answer_lookups(&desk, questions).await });
        Place {
            node,
            store,
            _directory: directory,
        }
    }

    async fn put(&self, id: &str, key: &str, settings: &str) {
        let record = AppRecord {
            id: id.into(),
            name: None,
            enabled: true,
            settings: settings.into(),
            keys: vec![KeyRecord {
                key: key.into(),
                secret: Secret::new("secret"),
                active_from: None,
                expires_at: None,
            }],
        };
        let made = self.store.create(&record, Timestamp::now()).await;
        made.expect("the app is made");
    }

    async fn id_of_key(&self, key: &str) -> Result<String, NotFound> {
        let found = self.node.apps.find_by_key(key).await;
        found.map(|app| app.id().to_owned())
    }
}

#[tokio::test]
async fn names_that_no_app_has_are_unknown_even_if_none_can_be_remembered() {
    let place = Place::new(Apps::default(), 0).await;
    place.put("1", "a", "{}").await;
    let made_up: Vec<_> = (0..1_000).map(|name| format!("made-up-{name}")).collect();
    let found = join_all(made_up.iter().map(|name| place.id_of_key(name))).await;
    assert!(found.iter().all(|found| *found == Err(NotFound::Unknown)));
    assert_eq!(place.id_of_key("a").await, Ok("1".into()));
}

#[tokio::test]
async fn an_app_that_is_wrong_is_unavailable_even_if_that_cannot_be_remembered() {
    let place = Place::new(Apps::default(), 0).await;
    place.put("1", "a", r#"{"no_such_setting": 1}"#).await;
    assert_eq!(place.id_of_key("a").await, Err(NotFound::Unavailable));
}

#[tokio::test]
async fn the_first_message_of_an_app_knows_what_was_used_of_its_quota_before() {
    let place = Place::new(Apps::default(), 10).await;
    place.put("1", "a", r#"{"messages_per_day": 10}"#).await;
    let now = Timestamp::now();
    let used = |day: Day| UsageDay {
        messages: 9,
        ..UsageDay::new(day.date())
    };
    // It may be midnight.
    let tomorrow = Day::of(Day::of(now).ends());
    let batch = UsageBatch {
        writer: "another".into(),
        number: 0,
        used: [Day::of(now), tomorrow]
            .map(|day| ("1".to_owned(), used(day)))
            .into(),
    };
    place.store.add_usage(&batch).await.expect("added");
    let app = place.node.apps.find_by_key("a").await.expect("it is there");
    assert!(app.charge_messages(2, Timestamp::now).is_err());
    assert!(app.charge_messages(1, Timestamp::now).is_ok());
    assert!(app.charge_messages(1, Timestamp::now).is_err());
}
