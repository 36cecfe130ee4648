//! Very many apps of a store: what each takes once it is known, and how fast it is found then, while the server reads them
//! again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use fanwire::app::Apps;
use fanwire::config::Config;
use fanwire::server::Server;
use fanwire::store::{SqlStore, StoreConfig, StoreUrl};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::usage::memory;

/// Very many apps in SQLite: what each takes once it is known, and how fast it is found.
#[derive(Args)]
pub(crate) struct Options {
    /// So many of them.
    #[arg(long, default_value_t = 100_000)]
    count: usize,
    /// Threads that look them up.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How long they do. Seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// Look-ups that may wait at once.
const TOGETHER: usize = 10_000;
/// Look-ups between two looks at the time of the run.
const BETWEEN_LOOKS: usize = 1_000;

pub(crate) fn run(options: &Options) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::TempDir::new()?;
    let url = format!("sqlite://{}/apps.db", folder.path().display());
    let section = StoreConfig {
        url: StoreUrl::new(&url),
        timeout_ms: 60_000,
        apps_max: options.count,
        ..StoreConfig::default()
    };
    SqlStore::migrate(&section).await?;
    fill(&url, options.count).await?;
    let mut config = Config {
        store: section,
        apps: Vec::new(),
        ..Config::default()
    };
    (config.server.port, config.admin.port) = (0, 0);
    let server = Server::start(config).await?;
    let node = Arc::clone(server.node());

    let before = memory()?;
    let began = Instant::now();
    let keys: Arc<Vec<String>> = Arc::new((0..options.count).map(key).collect());
    for keys in keys.chunks(TOGETHER) {
        let found = join_all(keys.iter().map(|key| node.apps().find_by_key(key))).await;
        ensure!(found.iter().all(Result::is_ok), "an app was not found");
    }
    let took = began.elapsed();
    let each = (memory()?.saturating_sub(before)) / options.count;
    println!("{} apps asked for once: {took:.2?}, {each} B each", options.count);

    let lasting = Duration::from_secs(options.seconds);
    let threads: Vec<_> = (0..options.threads)
        .map(|thread| {
            let (node, keys) = (Arc::clone(&node), Arc::clone(&keys));
            std::thread::spawn(move || look_up(node.apps(), &keys, thread, lasting))
        })
        .collect();
    let mut took_ns = Vec::new();
    for thread in threads {
        let of_one = tokio::task::spawn_blocking(move || thread.join()).await?;
        took_ns.extend(of_one.ok().context("a look-up has failed")??);
    }
    took_ns.sort_unstable();
    let at = |share: f64| Duration::from_nanos(took_ns[((took_ns.len() - 1) as f64 * share) as usize].into());
    println!(
        "{} look-ups by {} threads in {lasting:?}: p50 {:?}, p99 {:?}, p99.9 {:?}, at most {:?}",
        took_ns.len(),
        options.threads,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    Ok(())
}

fn key(number: usize) -> String {
    format!("key-{number:016}")
}

/// Puts apps with nothing but defaults into the tables.
async fn fill(url: &str, count: usize) -> Result<()> {
    let mut connection = SqliteConnection::connect(url).await?;
    let numbers: Vec<usize> = (0..count).collect();
    for numbers in numbers.chunks(1_000) {
        let app = |number: &usize| format!("('app-{number:016}')");
        let its_key =
            |number: &usize| format!("('{}', 'app-{number:016}', 'secret-{number:016}')", key(*number));
        let apps: Vec<String> = numbers.iter().map(app).collect();
        let keys: Vec<String> = numbers.iter().map(its_key).collect();
        let sql = format!(
            "INSERT INTO apps (id) VALUES {}; INSERT INTO app_keys (app_key, app_id, secret) VALUES {}",
            apps.join(", "),
            keys.join(", ")
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

/// Looks up one app after the other, as a handshake does, and tells how long each took. Nanoseconds.
fn look_up(apps: &Apps, keys: &[String], thread: usize, lasting: Duration) -> Result<Vec<u32>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let (mut took_ns, mut place) = (Vec::new(), thread);
    let began = Instant::now();
    runtime.block_on(async {
        while began.elapsed() < lasting {
            for _ in 0..BETWEEN_LOOKS {
                // Far from the last one, so that nothing of it is in a cache of the processor.
                place = (place + 7_919) % keys.len();
                let begun = Instant::now();
                let found = apps.find_by_key(&keys[place]).await;
                took_ns.push(begun.elapsed().as_nanos() as u32);
                ensure!(found.is_ok(), "{} was not found", keys[place]);
            }
        }
        Ok(took_ns)
    })
}
