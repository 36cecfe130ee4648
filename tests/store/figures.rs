//! How fast look-ups are with very many apps. No test: `cargo test --release --test store -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;

use crate::engine::Kind;
use crate::stage::{Place, Served};

const APPS: usize = 100_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute, and measures"]
async fn look_ups_among_100_000_apps() {
    for kind in [Kind::Sqlite, Kind::Postgres, Kind::MariaDb] {
        let place = Place::new(kind).await;
        let now = Timestamp::now();
        let begun = Instant::now();
        for chunk in (0..APPS).collect::<Vec<_>>().chunks(1_000) {
            let row = |app: &usize| format!("('app-{app}')");
            let key = |app: &usize| format!("('key-{app}', 'app-{app}', 's')");
            let rows = |row: &dyn Fn(&usize) -> String| chunk.iter().map(row).collect::<Vec<_>>().join(", ");
            place
                .by_hand(&format!("INSERT INTO apps (id) VALUES {}", rows(&row)))
                .await;
            place
                .by_hand(&format!(
                    "INSERT INTO app_keys (app_key, app_id, secret) VALUES {}",
                    rows(&key)
                ))
                .await;
        }
        eprintln!("{kind:?}, {now}: {APPS} apps put in, {:?}", begun.elapsed());
        let mut config = place.config();
        config.store.timeout_ms = 60_000;
        let served = Served::start(config).await;
        let apps = served.server.node().apps();

        // From the database: all of them, in as many look-ups at once as may wait.
        let begun = Instant::now();
        for chunk in (0..APPS).collect::<Vec<_>>().chunks(10_000) {
            let looked = chunk
                .iter()
                .map(|app| async move { apps.find_by_key(&format!("key-{app}")).await });
            assert!(join_all(looked).await.iter().all(Result::is_ok));
        }
        let queries = served.node().metric("store_queries_total", &[]).await;
        eprintln!(
            "  from the database: {APPS} in {:?}, {queries} queries",
            begun.elapsed()
        );

        // From what is remembered, while all of them are read again and again.
        for _ in 0..3 {
            let mut took: Vec<Duration> = Vec::with_capacity(APPS);
            for app in 0..APPS {
                let key = format!("key-{}", (app * 7_919) % APPS);
                let begun = Instant::now();
                assert!(apps.find_by_key(&key).await.is_ok());
                took.push(begun.elapsed());
            }
            took.sort_unstable();
            let at = |share: f64| took[((APPS - 1) as f64 * share) as usize];
            eprintln!(
                "  remembered: p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            );
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
}
