//! `fanwire migrate` and `fanwire app …`: what an operator does with the apps in the store.
//!
//! Secrets are shown once, by what makes them. With `--json` each answer is one JSON value; without, it is for a person.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use fanwire::app::{AppConfig, AppRecord, AppStore, KeyRecord, KeyState, Secret};
use fanwire::config::{AppReader, Config};
use fanwire::secret::file::{SECRET_BYTES_MAX, read_text};
use fanwire::store::{SchemaState, SqlStore, VERSION};
use jiff::{SpanRelativeTo, Timestamp};
use rand::TryRng;
use rand::rngs::SysRng;
use serde_json::{Map, Value, json};

/// What `fanwire app` can be told to do.
#[derive(Clone, Subcommand)]
pub(super) enum AppCommand {
    /// Make an app, and show its key and secret: the secret this once
    Create(Create),
    /// List all apps
    List,
    /// Show an app, its settings and its keys, without secrets
    Show { id: String },
    /// Switch an app off: its sockets are closed with 4003, its calls answered 403
    Disable { id: String },
    /// Switch an app on again
    Enable { id: String },
    /// Give an app a new key and secret, shown this once; those it has go on for the overlap
    RotateKey {
        id: String,
        /// How long the keys that there are go on, such as `24h`, `7d` or `0s`
        #[arg(long, value_name = "TIME", default_value = "24h")]
        overlap: String,
    },
    /// Show what an app used, day by day in UTC, the newest first
    Usage {
        id: String,
        /// How many days at most
        #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=3660))]
        days: u32,
    },
}

/// What a new app is to be.
#[derive(Clone, Args)]
pub(super) struct Create {
    /// The id; digits are made up if it is left out
    #[arg(long)]
    id: Option<String>,
    /// A name for humans
    #[arg(long)]
    name: Option<String>,
    /// The key, for an app that clients know already; made up if it is left out
    #[arg(long)]
    key: Option<String>,
    /// A file that holds the secret, for an app that has one already; made up if it is left out
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// A setting by its name in the configuration file, such as `client_events=true`; lists and sections as JSON
    #[arg(long = "set", value_name = "SETTING=VALUE")]
    settings: Vec<String>,
}

/// An answer, for a person and as JSON.
pub(super) struct Told {
    pub(super) text: String,
    pub(super) json: Value,
}

fn told(text: impl Into<String>, json: Value) -> anyhow::Result<Told> {
    Ok(Told {
        text: text.into(),
        json,
    })
}

/// Brings the tables of the store up to date.
pub(super) async fn migrate(config: &Config) -> anyhow::Result<Told> {
    require_store(config)?;
    let before = SqlStore::migrate(&config.store).await?;
    let (before, text) = match before {
        SchemaState::Missing => (0, format!("made the tables of the store, version {VERSION}")),
        SchemaState::Older(before) => (
            before,
            format!("brought the tables from version {before} to {VERSION}"),
        ),
        _ => (
            VERSION,
            format!("nothing to do: the tables are of version {VERSION}"),
        ),
    };
    told(text, json!({ "before": before, "version": VERSION }))
}

/// Does what is asked with the apps of the store.
pub(super) async fn app(config: &Config, command: AppCommand) -> anyhow::Result<Told> {
    require_store(config)?;
    let store =
        SqlStore::open(&config.store).map_err(|(key, text)| anyhow::anyhow!("store.{key}: {text}"))?;
    let done = carry_out(config, &store, command).await;
    store.close().await;
    done
}

async fn carry_out(config: &Config, store: &SqlStore, command: AppCommand) -> anyhow::Result<Told> {
    let now = Timestamp::now();
    match command {
        AppCommand::Create(create) => {
            let record = new_app(config, create)?;
            store.create(&record, now).await?;
            let key = record.keys.first().context("a new app has a key")?;
            let (id, key, secret) = (&record.id, &key.key, key.secret.expose());
            told(
                format!("id      {id}\nkey     {key}\nsecret  {secret}\nThe secret is not shown again."),
                json!({ "id": id, "key": key, "secret": secret }),
            )
        }
        AppCommand::List => {
            let apps = store.list().await?;
            let mut text = format!("{} apps", apps.len());
            for app in &apps {
                let state = if app.enabled { "enabled" } else { "disabled" };
                let name = app.name.as_deref().unwrap_or_default();
                let _ = write!(text, "\n{:<20}  {state:<8}  {}  {name}", app.id, app.created_at);
            }
            let listed = apps.iter().map(|app| {
                json!({"id": app.id, "name": app.name, "enabled": app.enabled, "created_at": app.created_at})
            });
            told(text, listed.collect())
        }
        AppCommand::Show { id } => show(config, &store.app(&id).await?, now),
        AppCommand::Disable { id } => switch(store, &id, false, now).await,
        AppCommand::Enable { id } => switch(store, &id, true, now).await,
        AppCommand::RotateKey { id, overlap } => rotate_key(store, &id, &overlap, now).await,
        AppCommand::Usage { id, days } => {
            let used = store.usage(&id, days).await?;
            let mut text = String::from(
                "date            messages       delivered  bytes received      bytes sent  peak connections",
            );
            for day in &used {
                let _ = write!(
                    text,
                    "\n{}  {:>12}  {:>14}  {:>14}  {:>14}  {:>16}",
                    day.day,
                    day.messages,
                    day.delivered,
                    day.bytes_received,
                    day.bytes_sent,
                    day.connections_peak
                );
            }
            // By the names that the API has for them.
            let used = used.iter().map(|day| {
                json!({
                    "date": day.day.to_string(),
                    "messages": day.messages,
                    "delivered": day.delivered,
                    "bytes_received": day.bytes_received,
                    "bytes_sent": day.bytes_sent,
                    "peak_connections": day.connections_peak,
                })
            });
            told(text, json!({ "id": id, "days": used.collect::<Value>() }))
        }
    }
}

fn require_store(config: &Config) -> anyhow::Result<()> {
    if !config.store.is_on() {
        bail!(
            "no store is configured: name the database by `store.url` in the configuration file, or by FANWIRE_STORE__URL"
        );
    }
    Ok(())
}

/// The app to be made, with what it was not given made up, and held to the rules of the configuration file.
fn new_app(config: &Config, create: Create) -> anyhow::Result<AppRecord> {
    let reader = AppReader::new(config);
    let mut settings = Map::new();
    for setting in &create.settings {
        let (key, value) = setting
            .split_once('=')
            .with_context(|| format!("--set {setting:?}: write it as SETTING=VALUE"))?;
        if let "id" | "name" | "enabled" | "key" | "keys" | "secret" | "secret_file" = key {
            bail!("--set {key}: there are --id, --name, --key and --secret-file, and `fanwire app disable`");
        }
        reader.set(&mut settings, key, value)?;
    }
    // Only what differs, so that a default that changes one day changes here too.
    let defaults = serde_json::to_value(AppConfig::default())?;
    settings.retain(|key, value| defaults[key.as_str()] != *value);
    let secret = match &create.secret_file {
        Some(path) => {
            let text = read_text(path, SECRET_BYTES_MAX).map_err(anyhow::Error::msg)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => random_hex::<20>()?,
    };
    let record = AppRecord {
        id: create.id.map_or_else(random_digits, Ok)?,
        name: create.name,
        enabled: true,
        settings: Value::Object(settings).to_string(),
        keys: vec![KeyRecord {
            key: create.key.map_or_else(random_hex::<10>, Ok)?,
            secret: Secret::new(&secret),
            active_from: None,
            expires_at: None,
        }],
    };
    record.fits().map_err(anyhow::Error::msg)?;
    let written = record.written().map_err(anyhow::Error::msg)?;
    reader.read(written).context("the app would not be in order")?;
    Ok(record)
}

fn show(config: &Config, app: &AppRecord, now: Timestamp) -> anyhow::Result<Told> {
    let read = app.written().and_then(|written| {
        let read = AppReader::new(config).read(written);
        read.map_err(|error| error.to_string())
    });
    let settings: Value = serde_json::from_str(&app.settings).unwrap_or_else(|_| app.settings.clone().into());
    let state = if app.enabled { "enabled" } else { "disabled" };
    let name = app.name.as_deref().unwrap_or("-");
    let mut text = format!(
        "id        {}\nname      {name}\nstate     {state}\nsettings  {settings}",
        app.id
    );
    let mut keys = Vec::new();
    for key in &app.keys {
        let state = key_state(key, now);
        let _ = write!(text, "\nkey       {}  {state}", key.key);
        if let Some(from) = &key.active_from {
            let _ = write!(text, ", from {from}");
        }
        if let Some(until) = &key.expires_at {
            let _ = write!(text, ", until {until}");
        }
        keys.push(json!({
            "key": key.key, "state": state, "active_from": key.active_from, "expires_at": key.expires_at,
        }));
    }
    if let Err(problem) = &read {
        let _ = write!(text, "\nWRONG     servers cannot use it: {problem}");
    }
    told(
        text,
        json!({
            "id": app.id, "name": app.name, "enabled": app.enabled, "settings": settings, "keys": keys,
            "problem": read.err(),
        }),
    )
}

/// Whether a key may be used now.
fn key_state(key: &KeyRecord, now: Timestamp) -> &'static str {
    let time = |text: &Option<String>| text.as_ref().map(|text| text.parse::<Timestamp>()).transpose();
    let (Ok(from), Ok(until)) = (time(&key.active_from), time(&key.expires_at)) else {
        return "wrong time";
    };
    match KeyState::of(from, until, now) {
        KeyState::NotYet => "not yet active",
        KeyState::Active => "active",
        KeyState::Expired => "expired",
    }
}

async fn switch(store: &SqlStore, id: &str, enabled: bool, now: Timestamp) -> anyhow::Result<Told> {
    store.set_enabled(id, enabled, now).await?;
    let state = if enabled { "enabled" } else { "disabled" };
    told(
        format!("app {id} is {state}"),
        json!({ "id": id, "enabled": enabled }),
    )
}

async fn rotate_key(store: &SqlStore, id: &str, overlap: &str, now: Timestamp) -> anyhow::Result<Told> {
    let end = overlap
        .parse::<jiff::Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .and_then(|overlap| now.checked_add(overlap))
        .ok()
        .filter(|end| *end >= now)
        .with_context(|| format!("--overlap {overlap:?}: write a time such as 24h, 7d or 0s"))?;
    let new = KeyRecord {
        key: random_hex::<10>()?,
        secret: Secret::new(&random_hex::<20>()?),
        // It tells which of the keys is the newer one.
        active_from: Some(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        expires_at: None,
    };
    let rotated = store.rotate_key(id, &new, end, now).await?;
    let (key, secret) = (&new.key, new.secret.expose());
    let until = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut text = format!("key     {key}\nsecret  {secret}\nThe secret is not shown again.");
    for old in &rotated.ending {
        let _ = write!(
            text,
            "\n{old} goes on until {until}, and signs webhooks until then."
        );
    }
    told(
        text,
        json!({ "id": id, "key": key, "secret": secret, "ending": rotated.ending, "ends_at": until }),
    )
}

/// As many random bytes of the system, in hex.
fn random_hex<const BYTES: usize>() -> anyhow::Result<String> {
    let mut bytes = [0; BYTES];
    SysRng
        .try_fill_bytes(&mut bytes)
        .context("the system gives no random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An id that nobody guesses by chance: digits, since the official Python library takes nothing else.
fn random_digits() -> anyhow::Result<String> {
    const DIGITS: u64 = 1_000_000_000_000;
    let mut bytes = [0; 8];
    SysRng
        .try_fill_bytes(&mut bytes)
        .context("the system gives no random bytes")?;
    Ok((DIGITS / 10 + u64::from_le_bytes(bytes) % (DIGITS / 10 * 9)).to_string())
}
