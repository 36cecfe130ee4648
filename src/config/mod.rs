//! The settings of the whole server, composed of each part's own, read once at start-up.
//!
//! The defaults stand at the fields; a JSON file overrides them, the environment overrides the file. What is
//! wrong stops start-up, all of it told at once. Not here: what a setting does, and the command line.

mod admin;
mod app;
mod check;
mod drain;
mod env;
mod explain;
mod file;
mod hint;
mod log;
mod metrics;
mod path;
mod problem;
mod server;
mod shape;
mod source;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use admin::AdminConfig;
pub use app::AppReader;
pub use drain::{DrainConfig, LEAVING_S};
pub use explain::ChannelReport;
pub use log::{LogConfig, LogFormat, LogLevel};
pub use metrics::MetricsConfig;
pub use path::KeyPath;
pub use problem::{ConfigError, Problem};
pub use server::ServerConfig;
pub use source::ConfigSource;

use crate::adapter::config::{AdapterConfig, Driver};
use crate::adapter::nats::NatsConfig;
use crate::adapter::redis::RedisConfig;
use crate::app::{AppConfig, Apps};
use crate::secret::Secret;
use crate::store::StoreConfig;
use crate::tls::TlsConfig;
use crate::webhook::{WebhookQueue, WebhooksConfig};
use problem::Report;
use shape::Shape;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the server listens, and the bounds of the whole process.
    pub server: ServerConfig,
    /// Encryption of what is served there.
    pub tls: TlsConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// The metrics that the admin listener serves.
    pub metrics: MetricsConfig,
    /// How the server leaves when it is asked to.
    pub drain: DrainConfig,
    /// The way to the other nodes of a cluster.
    pub adapter: AdapterConfig,
    /// Redis, for what is told to use it.
    pub redis: RedisConfig,
    /// NATS, for what is told to use it.
    pub nats: NatsConfig,
    /// How the apps' webhooks are delivered.
    pub webhooks: WebhooksConfig,
    /// Apps in a SQL database.
    pub store: StoreConfig,
    /// The apps that are served. None at all, and no store, is development mode: a demo app, on a loopback
    /// address only.
    pub apps: Vec<AppConfig>,
}

impl Config {
    /// Reads the configuration: the defaults, overridden by the file if there is one, overridden by those
    /// variables of the environment that begin with `FANWIRE_`.
    ///
    /// The error holds everything that is wrong: what is unknown, of a wrong type or out of range, and, as
    /// far as the settings concerned are right by themselves, what does not go together.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Config, ConfigError> {
        let shape = Shape::of_config();
        let mut report = Report::new(shape.keys(&KeyPath::default()));
        let (settings, set_by) = gather(file, environment, &shape, &mut report);
        let variable = |key: &KeyPath| {
            let mut variables = set_by.iter().rev();
            variables
                .find(|(path, _)| path.contains(key))
                .map(|(_, variable)| variable.as_str())
        };

        match typed::<Config>(settings) {
            Ok(mut config) => {
                let unread = read_secrets(&mut config);
                for (key, text) in unread.into_iter().chain(check::contradictions(&config)) {
                    // What follows from a problem that is told already would only confuse.
                    if !report.concerns(&key) {
                        let variable = variable(&key);
                        report.add(key, variable, text);
                    }
                }
                if report.problems.is_empty() {
                    return Ok(config);
                }
            }
            Err((key, text)) => {
                let variable = variable(&key);
                report.add(key, variable, text);
            }
        }
        Err(ConfigError {
            problems: report.problems,
        })
    }

    /// The settings of the admin port alone, as far as they are right: what else is wrong does not matter.
    fn load_admin(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> AdminConfig {
        let shape = Shape::of_config();
        let mut report = Report::new(shape.keys(&KeyPath::default()));
        let (mut settings, _) = gather(file, environment, &shape, &mut report);
        typed(settings["admin"].take()).unwrap_or_default()
    }

    /// The same configuration with other apps, for a server that runs.
    ///
    /// # Errors
    /// What does not go together: with this configuration, whatever else stands where the apps come from.
    pub fn with_apps(&self, apps: Vec<AppConfig>) -> Result<Config, ConfigError> {
        let config = Config { apps, ..self.clone() };
        let mut problems = check::contradictions(&config);
        if config.development() {
            let text = "is empty: only a server that is started like this serves the demo app; to serve nobody, set \
                        `enabled` of each app to false";
            problems.push((KeyPath::new("apps"), text.into()));
        }
        match problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigError::of(problems)),
        }
    }

    /// The JSON schema of the configuration file, with the description, default and range of every setting.
    pub fn schema() -> Value {
        shape::schema()
    }

    /// Whether neither an app nor a store is configured, so that the demo app is served.
    pub fn development(&self) -> bool {
        self.apps.is_empty() && !self.store.is_on()
    }

    /// Whether connections to `server.port` have something to do before HTTP.
    pub fn has_porch(&self) -> bool {
        self.server.proxy_protocol || self.tls.is_on()
    }

    /// Whether anything is told to use Redis: only then what the section `redis` says is checked.
    pub fn uses_redis(&self) -> bool {
        self.adapter.driver == Driver::Redis || self.webhooks.queue == WebhookQueue::Redis
    }

    /// Whether anything is told to use NATS.
    pub fn uses_nats(&self) -> bool {
        self.adapter.driver == Driver::Nats || self.webhooks.queue == WebhookQueue::Nats
    }

    /// The apps to serve: those configured, or the demo app in development mode.
    pub fn resolve_apps(&self) -> Result<Apps, ConfigError> {
        let demo = self.development().then(AppConfig::demo);
        let apps = Apps::new(self.apps.iter().cloned().chain(demo));
        apps.map_err(|faults| ConfigError::of(check::faults_of_apps(faults)))
    }
}

/// The settings of the file and the environment that fit the shape, and which variable set what. What does not fit is
/// reported and left out.
fn gather(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    shape: &Shape,
    report: &mut Report,
) -> (Value, Vec<(KeyPath, String)>) {
    let root = KeyPath::default();
    let mut settings = json!({});
    match file.map(file::read) {
        Some(Ok(written)) => settings = written,
        Some(Err(text)) => report.add(root.clone(), None, text),
        None => {}
    }
    if !shape.prune(&mut settings, &root, &mut |key, fault| {
        report.fault(key, None, fault)
    }) {
        settings = json!({});
    }
    let set_by = env::apply(environment, shape, &mut settings, report);
    (settings, set_by)
}

/// The settings as their types. What fits the shape fits these but for bounds that only a type knows.
fn typed<T: DeserializeOwned>(settings: Value) -> Result<T, (KeyPath, String)> {
    let typed = serde_path_to_error::deserialize(settings);
    typed.map_err(|error| (KeyPath::new(&error.path().to_string()), error.inner().to_string()))
}

/// Reads the secrets that stand in files of their own.
fn read_secrets(config: &mut Config) -> Vec<(KeyPath, String)> {
    let mut unread = Vec::new();
    for (index, app) in config.apps.iter_mut().enumerate() {
        let key = || KeyPath::new("apps").index(index).key("secret_file");
        unread.extend(read_secret(&app.secret_file, &mut app.secret, "secret", key));
        for (place, further) in app.keys.iter_mut().enumerate() {
            let key = || {
                KeyPath::new("apps")
                    .index(index)
                    .key("keys")
                    .index(place)
                    .key("secret_file")
            };
            unread.extend(read_secret(
                &further.secret_file,
                &mut further.secret,
                "secret",
                key,
            ));
        }
    }
    let StoreConfig {
        password_file,
        password,
        ..
    } = &mut config.store;
    let key = || KeyPath::new("store.password_file");
    unread.extend(read_secret(password_file, password, "password", key));
    if config.uses_redis() {
        let RedisConfig {
            password_file,
            password,
            ..
        } = &mut config.redis;
        let key = || KeyPath::new("redis.password_file");
        unread.extend(read_secret(password_file, password, "password", key));
    }
    if config.uses_nats() {
        let NatsConfig {
            password_file,
            password,
            ..
        } = &mut config.nats;
        let key = || KeyPath::new("nats.password_file");
        unread.extend(read_secret(password_file, password, "password", key));
    }
    unread
}

/// Reads a secret from its file, if it has one. `name` is that of the setting that would hold the secret itself.
fn read_secret(
    file: &Option<PathBuf>,
    secret: &mut Secret,
    name: &str,
    key: impl Fn() -> KeyPath,
) -> Option<(KeyPath, String)> {
    let path = file.as_ref()?;
    let read = match secret.is_empty() {
        true => file::read_secret(path),
        false => Err(format!("stands beside `{name}`: only one of them can be meant")),
    };
    match read {
        Ok(read) => {
            *secret = read;
            None
        }
        Err(text) => Some((key(), text)),
    }
}
