//! What an operator sees of this node: counters that are exact, and gauges that cannot drift.
//!
//! Two kinds of figures, and no third:
//!
//! - **Counters** (and the one histogram) are handles, resolved once per app by [`Metrics::app`] and
//!   kept by whoever counts. Adding is one relaxed atomic: cheap once per batch, too dear once per
//!   socket, so the hot loop collects a [`BatchCounts`] and adds it when the batch is done.
//! - **Gauges** (`connected`, `active_channels`, `messages_today`, `outbox_bytes` …) have no handle at
//!   all. Each scrape brings a [`Snapshot`], counted from the structures themselves, and the
//!   gauges show that. A gauge kept beside a structure by `inc` and `dec` drifts from it sooner or
//!   later, and nobody can say since when.
//!
//! Names and labels (`app_id`, `port`) are those which Soketi and Sockudo share, so that their
//! dashboards work once the prefix is set to theirs. Nothing is ever labelled by channel, user or socket:
//! clients choose those, and would choose our memory use with them.
//!
//! Where there is a cluster, each scrape brings what the node knows of it too (`metrics/cluster.rs`, which also says
//! why there is no `horizontal_adapter_*` family). What every family means is in `docs/metrics.md`.
//!
//! Not here: the HTTP server that answers a scrape (`server/admin.rs`).

mod app;
mod broker;
mod cluster;
mod json;
mod reason;
mod room;
mod store;
mod tls;
mod webhook;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use self::app::AppFamilies;
pub use self::app::{AppMetrics, BatchCounts};
pub use self::broker::WebhookBrokerSnapshot;
pub use self::cluster::{Bus, ClusterSnapshot};
pub use self::reason::{CloseReason, ConnectionError, RefusedFor};
pub use self::room::RoomSnapshot;
pub use self::store::StoreSnapshot;
pub use self::tls::TlsMetrics;
use self::webhook::WebhookFamilies;
pub use self::webhook::{WebhookDrop, WebhookMetrics, WebhookSnapshot};

/// The content type of [`Metrics::text`].
pub const TEXT_CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All figures of one node, under one prefix, in a registry of their own.
pub struct Metrics {
    naming: Naming,
    registry: Registry,
    /// One scrape at a time: two at once would mix their snapshots.
    scrape: Mutex<()>,
    families: AppFamilies,
    apps: Mutex<HashMap<Arc<str>, Arc<AppMetrics>>>,
    webhook_families: WebhookFamilies,
    webhooks: Mutex<HashMap<Arc<str>, Arc<WebhookMetrics>>>,
    tls: OnceLock<Arc<TlsMetrics>>,
    closed: Vec<IntCounter>,
    connection_errors: Vec<IntCounter>,
    refused: Vec<IntCounter>,
    outbox_bytes: IntGauge,
    inbox_bytes: IntGaugeVec,
    shards: IntGauge,
    webhook_untold: IntGauge,
    /// How often someone had to wait for permission to publish: a shard was beyond its mark.
    pub inbox_waits_total: IntCounter,
    /// How often that wait was in vain and the API answered 503.
    pub publish_refused_total: IntCounter,
    /// Channels and members whose leave was told without its grace, or left to other nodes: too many waited for theirs.
    pub webhook_hasty_total: IntCounter,
    /// Changes of the configuration that were taken over while the server ran.
    pub config_changes_total: IntCounter,
    /// Changed configurations that were wrong, and not used.
    pub config_refused_total: IntCounter,
    /// How often what the apps used could not be saved, and was kept.
    pub usage_save_failures_total: IntCounter,
    /// How often the porch became full, and nobody was let in for a while.
    pub porch_full_total: IntCounter,
    /// Connections and handshakes that were not counted to their address, for want of room for one more.
    pub address_uncounted_total: IntCounter,
}

/// What is true at the moment of a scrape, counted from the structures themselves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Every app that has a socket; one that is missing here has none.
    pub apps: Vec<AppSnapshot>,
    /// Bytes that wait in the outboxes of all sockets; a buffer shared by many counts once.
    pub outbox_bytes: u64,
    /// Bytes that wait in the inbox of each shard; as many entries as there are shards.
    pub inbox_bytes: Vec<u64>,
    /// Connections and memory, beside their marks.
    pub room: RoomSnapshot,
    /// Changes of channels and members that back ends are yet to be told.
    pub webhook_untold: u64,
    /// Every app for whose endpoints something waits; one that is missing here has nothing that does.
    pub webhooks: Vec<WebhookSnapshot>,
    /// The queue at a broker that webhooks wait in; none where they wait in memory.
    pub webhook_broker: Option<WebhookBrokerSnapshot>,
    /// The way to the other nodes; none where a node is alone.
    pub cluster: Option<ClusterSnapshot>,
    /// The store of apps; none where all apps stand in the configuration.
    pub store: Option<StoreSnapshot>,
    /// What is left of the certificate that the node shows; none where it does not speak TLS. Seconds, negative if it has
    /// expired.
    pub certificate_expiry_s: Option<i64>,
}

/// One app's part of a [`Snapshot`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppSnapshot {
    /// The app's id, as in API paths.
    pub app_id: Arc<str>,
    /// Established sockets on this node.
    pub connected: u64,
    /// Occupied channels on this node.
    pub active_channels: u64,
    /// Messages charged on this node.
    pub messages: u64,
    /// Those of them since midnight, UTC.
    pub messages_today: u64,
    /// Most sockets at once since then, those on other nodes included.
    pub peak_connections: u64,
}

impl Metrics {
    /// Registers every family under `prefix`, which is written in front of each name; an underscore
    /// between them is added where it is missing. `port` is the one that serves the sockets: peers
    /// label with it.
    ///
    /// # Errors
    /// A prefix that cannot begin a metric's name, such as `9lives` or `my-gateway`.
    pub fn new(prefix: &str, port: u16) -> Result<Metrics, prometheus::Error> {
        let naming = Naming::new(prefix, port);
        let registry = Registry::new();
        let families = AppFamilies::register(&naming, &registry)?;
        let webhook_families = WebhookFamilies::register(&naming, &registry)?;
        let closed = register(
            &registry,
            IntCounterVec::new(
                naming.of_node("closed_total", "Sockets that ended, by the reason why"),
                &["reason"],
            )?,
        )?;
        let refused = register(
            &registry,
            IntCounterVec::new(
                naming.of_node(
                    "refused_total",
                    "Newcomers refused although they did nothing wrong, by what stood against them",
                ),
                &["reason"],
            )?,
        )?;
        let connection_errors = register(
            &registry,
            IntCounterVec::new(
                naming.of_app(
                    "connection_errors_total",
                    "Connections that failed, by the kind of error",
                ),
                &["error_type"],
            )?,
        )?;
        let node_counter =
            |name, help| register(&registry, IntCounter::with_opts(naming.of_node(name, help))?);
        let node_gauge = |name, help| register(&registry, IntGauge::with_opts(naming.of_node(name, help))?);
        let build = naming
            .of_node("build_info", "Always 1; the label says which version runs")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(&registry, IntGauge::with_opts(build)?)?.set(1);
        // Other systems than Linux have no /proc to read these from.
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(Metrics {
            scrape: Mutex::new(()),
            apps: Mutex::new(HashMap::new()),
            webhook_families,
            webhooks: Mutex::new(HashMap::new()),
            tls: OnceLock::new(),
            closed: CloseReason::ALL
                .iter()
                .map(|reason| closed.with_label_values(&[reason.as_str()]))
                .collect(),
            connection_errors: ConnectionError::ALL
                .iter()
                .map(|error| connection_errors.with_label_values(&[error.as_str()]))
                .collect(),
            refused: RefusedFor::ALL
                .iter()
                .map(|reason| refused.with_label_values(&[reason.as_str()]))
                .collect(),
            outbox_bytes: node_gauge(
                "outbox_bytes",
                "Bytes that wait for sockets slower than what they get",
            )?,
            inbox_bytes: register(
                &registry,
                IntGaugeVec::new(
                    naming.of_node("inbox_bytes", "Bytes that wait to be worked off by a shard"),
                    &["shard"],
                )?,
            )?,
            shards: node_gauge("shards", "Threads that own sockets")?,
            webhook_untold: node_gauge(
                "webhook_untold",
                "Changes of channels and members that wait for webhook_grace_ms, or to be told by another node",
            )?,
            inbox_waits_total: node_counter(
                "inbox_waits_total",
                "Publications that had to wait for a shard beyond its mark",
            )?,
            config_changes_total: node_counter(
                "config_changes_total",
                "Changes of the configuration that were taken over while the server ran",
            )?,
            config_refused_total: node_counter(
                "config_refused_total",
                "Changed configurations that were wrong, and not used",
            )?,
            publish_refused_total: node_counter(
                "publish_refused_total",
                "Publications refused with 503 because that wait was in vain",
            )?,
            webhook_hasty_total: node_counter(
                "webhook_hasty_total",
                "Changes of channels and members for which webhook_grace_ms was not waited: too many were waiting",
            )?,
            usage_save_failures_total: node_counter(
                "usage_save_failures_total",
                "Attempts in vain to save what the apps used; it is kept and saved later",
            )?,
            porch_full_total: node_counter(
                "porch_full_total",
                "How often as many connections as may were in what comes before HTTP, and further ones had to wait",
            )?,
            address_uncounted_total: node_counter(
                "address_uncounted_total",
                "Connections and handshakes that no limit of their address saw: too many addresses were known",
            )?,
            families,
            registry,
            naming,
        })
    }

    /// The figures of one app, at zero the first time. Look it up once and keep it: this takes a lock.
    ///
    /// `app_id` must be that of an app which exists; ids out of requests would fill the memory.
    pub fn app(&self, app_id: &str) -> Arc<AppMetrics> {
        let mut apps = lock(&self.apps);
        if let Some(app) = apps.get(app_id) {
            return app.clone();
        }
        let app = Arc::new(self.families.app(app_id));
        apps.insert(app_id.into(), app.clone());
        app
    }

    /// The figures of one app's webhooks; as [`Metrics::app`].
    pub fn webhooks(&self, app_id: &str) -> Arc<WebhookMetrics> {
        let mut apps = lock(&self.webhooks);
        if let Some(app) = apps.get(app_id) {
            return app.clone();
        }
        let app = Arc::new(self.webhook_families.app(app_id));
        apps.insert(app_id.into(), app.clone());
        app
    }

    /// The figures of TLS, which are there from the first call on.
    ///
    /// # Panics
    /// Never: their names are known, and no others are like them.
    pub fn tls(&self) -> &Arc<TlsMetrics> {
        self.tls.get_or_init(|| {
            let families = TlsMetrics::register(&self.naming, &self.registry);
            Arc::new(families.expect("families that are registered once"))
        })
    }

    /// How many sockets ended for this reason.
    pub fn closed(&self, reason: CloseReason) -> &IntCounter {
        &self.closed[reason as usize]
    }

    /// How many newcomers were refused for this.
    pub fn refused(&self, reason: RefusedFor) -> &IntCounter {
        &self.refused[reason as usize]
    }

    /// How many connections failed in this way.
    pub fn connection_errors(&self, error: ConnectionError) -> &IntCounter {
        &self.connection_errors[error as usize]
    }

    /// A scrape in Prometheus' text format, [`TEXT_CONTENT_TYPE`].
    ///
    /// Counts the process' descriptors on the way, which takes milliseconds where there are many: not
    /// for a shard's thread.
    ///
    /// # Errors
    /// None is known for the families of this registry; the encoder's signature allows for some.
    pub fn text(&self, snapshot: &Snapshot) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.gather(snapshot))
    }

    /// Takes an app's figures out: nobody counts them any more. If it comes back, they begin anew.
    pub fn forget_app(&self, app_id: &str) {
        if lock(&self.apps).remove(app_id).is_some() {
            self.families.forget(app_id);
        }
        if lock(&self.webhooks).remove(app_id).is_some() {
            self.webhook_families.forget(app_id);
        }
    }

    /// The same as [`Metrics::text`], in the JSON of `prom-client`, which Soketi answers to `?json=1`.
    pub fn json(&self, snapshot: &Snapshot) -> String {
        json::encode(&self.gather(snapshot))
    }

    fn gather(&self, snapshot: &Snapshot) -> Vec<MetricFamily> {
        let _one_at_a_time = lock(&self.scrape);
        let mut idle = lock(&self.apps).clone();
        for app in &snapshot.apps {
            idle.remove(&app.app_id);
            self.app(&app.app_id).show(app);
        }
        idle.values().for_each(|app| app.show_absent());
        let mut idle = lock(&self.webhooks).clone();
        for app in &snapshot.webhooks {
            idle.remove(&app.app_id);
            self.webhooks(&app.app_id).show(app);
        }
        idle.values()
            .for_each(|app| app.show(&WebhookSnapshot::default()));
        self.outbox_bytes.set(shown(snapshot.outbox_bytes));
        self.webhook_untold.set(shown(snapshot.webhook_untold));
        if let Some(left_s) = snapshot.certificate_expiry_s {
            self.tls().show(left_s);
        }
        self.shards.set(shown(snapshot.inbox_bytes.len() as u64));
        for (shard, bytes) in snapshot.inbox_bytes.iter().enumerate() {
            self.inbox_bytes
                .with_label_values(&[shard.to_string()])
                .set(shown(*bytes));
        }
        let mut families = self.registry.gather();
        families.extend(snapshot.room.families(&self.naming));
        if let Some(store) = &snapshot.store {
            families.extend(store.families(&self.naming));
        }
        if let Some(cluster) = &snapshot.cluster {
            families.extend(cluster.families(&self.naming));
        }
        if let Some(broker) = &snapshot.webhook_broker {
            families.extend(broker.families(&self.naming));
        }
        families.sort_by(|one, other| one.name().cmp(other.name()));
        families
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Where names and the labels common to a family come from.
struct Naming {
    prefix: String,
    port: String,
}

impl Naming {
    fn new(prefix: &str, port: u16) -> Naming {
        let mut prefix = prefix.to_owned();
        if !prefix.is_empty() && !prefix.ends_with('_') {
            prefix.push('_');
        }
        Naming {
            prefix,
            port: port.to_string(),
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn of_node(&self, name: &str, help: &str) -> Opts {
        Opts::new(self.full(name), help)
    }

    fn of_app(&self, name: &str, help: &str) -> Opts {
        self.of_node(name, help).const_label("port", self.port.clone())
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// The crate's gauges are signed; no count of ours comes near the difference.
fn shown(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What these locks protect is whole after every statement, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
