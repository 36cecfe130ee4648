//! The door: builds every part, serves, and leaves in good order. The only place that knows them all.
//!
//! Two kinds of threads: the shards, each with its sockets, and a small multi-thread runtime called *control*, where
//! the admin port, the drain and all that may be slow live, so that none of it can hold a shard. The listener has a
//! thread of its own.

pub mod admin;
mod answers;
mod apps;
mod callers;
mod certificates;
mod cluster;
mod demo;
mod drain;
mod entrances;
mod folders;
mod follow;
mod handshake;
pub mod health;
mod http;
mod issuing;
mod leave;
mod listener;
mod marks;
pub mod memory;
mod operators;
mod porch;
mod priority;
mod refusals;
mod reread;
pub(crate) mod room;
mod router;
mod store;
mod stream;
pub(crate) mod unix_socket;
mod upgrade;
mod waiting;
mod webhooks;

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

use self::callers::Callers;
use self::certificates::Renewals;
use self::cluster::{Membership, Threads};
use self::drain::Drain;
use self::entrances::Entrances;
use self::follow::Follower;
use self::health::Health;
use self::http::Gate;
use self::issuing::Issuing;
use self::listener::Listening;
use self::marks::Marks;
use crate::adapter::Link;
use crate::address::AddressLimits;
use crate::api::{Api, ApiConfig};
use crate::app::{AppStore, StoreError};
use crate::config::{Config, ConfigError, ConfigSource};
use crate::hub::inbox::{Entry, Inboxes};
use crate::metrics::Metrics;
use crate::node::{Cluster, Node, UsageSaver};
use crate::shard::{self, LiveBytes};
use crate::tls::acme::Issuer;
use crate::tls::{Acceptor, TlsFault};
use crate::webhook::queue::JournalFault;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The main or the admin port.
    #[error("cannot listen on {host}:{port}, as {setting} say{}", remedy(.source))]
    Listen {
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
        /// The settings that say so.
        setting: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The Unix socket.
    #[error("cannot listen on {path}, as server.unix_socket says")]
    UnixSocket {
        /// The path asked for.
        path: String,
        /// What is in the way.
        source: io::Error,
    },
    /// A metric's name is not legal: the prefix.
    #[error("metrics.prefix: {0}")]
    Metrics(#[from] prometheus::Error),
    /// What a section of the configuration is about cannot be set up as it says.
    #[error("{section}.{key}: {text}")]
    Setting {
        /// The section of the configuration.
        section: &'static str,
        /// The key in it.
        key: &'static str,
        /// What is wrong, and what to do.
        text: String,
    },
    /// The certificate, its key or who may sign those of clients.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The tables of the store of apps are not those that are expected.
    #[error(transparent)]
    Store(StoreError),
    /// The queue that webhooks are to wait in cannot be used.
    #[error(transparent)]
    Webhooks(#[from] JournalFault),
    /// A thread or another resource of the system.
    #[error("cannot start")]
    System(#[from] io::Error),
    /// The apps are wrong: the same that loading a configuration would have said.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The task that books what the apps use, which ends when its sender does.
struct Usage {
    end: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// Hurries a drain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Haste(Arc<Drain>);

impl Haste {
    /// What is left is closed over about a second, and nothing waited for longer than that.
    pub fn hurry(&self) {
        self.0.hurry();
    }
}

/// A server at work.
pub struct Server {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    node: Arc<Node>,
    config: Config,
    shards: Vec<JoinHandle<()>>,
    listening: Option<Listening>,
    membership: Option<Membership>,
    usage: Option<Usage>,
    tasks: JoinSet<()>,
    /// Ends with the server.
    _delivery: webhooks::Delivery,
    drain: Arc<Drain>,
    /// Told when the configuration is to be read again.
    reread: Arc<Notify>,
    /// The same for the files of TLS.
    reread_files: Arc<Notify>,
    closing: watch::Sender<bool>,
    stop_admin: Option<oneshot::Sender<()>>,
    admin: Option<tokio::task::JoinHandle<()>>,
}

impl Server {
    /// Binds and serves. To be called on the control runtime, a multi-thread one. Port 0 takes a free port.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        let joined = cluster::open(&config)?;
        // Whoever starts a server would carry all that it takes.
        Box::pin(Server::start_joined(config, joined)).await
    }

    /// As [`Server::start`], joined to other nodes by this link, whatever the configuration says.
    pub async fn start_on(config: Config, link: Link) -> Result<Server, StartError> {
        let threads = Threads::start()?;
        Box::pin(Server::start_joined(config, Some((link, threads)))).await
    }

    async fn start_joined(config: Config, joined: Option<(Link, Threads)>) -> Result<Server, StartError> {
        let server = &config.server;
        let tls = Acceptor::new(&config.tls)?.map(Arc::new);
        let issuer = Issuer::new(&config.tls.acme)?;
        let entrances = Entrances::bind(server).await?;
        let admin_listener = match &config.admin {
            admin if admin.enabled => {
                Some(bind(&admin.host, admin.port, 128, "admin.host, admin.port").await?)
            }
            _ => None,
        };
        let address = entrances.address()?;
        let admin_address = admin_listener
            .as_ref()
            .map(std::net::TcpListener::local_addr)
            .transpose()?;

        let metrics = Arc::new(Metrics::new(&config.metrics.prefix, address.port())?);
        let shards = match server.shards {
            0 => std::thread::available_parallelism()?.get(),
            shards => shards,
        };
        let inboxes = Inboxes::new(shards, server.inbox_bytes_max);
        let (apps, store) = store::open(&config, config.resolve_apps()?).await?;
        let mut node = Node::new(apps, inboxes, metrics.clone());
        let to_back_ends = webhooks::open(&config, &metrics).await?;
        node.tell(to_back_ends.webhooks.clone());
        let incoming = joined.map(|(link, threads)| {
            let on_threads = threads.enter();
            let (cluster, incoming) = Cluster::new(config.adapter.clone(), link);
            node.join(cluster);
            drop(on_threads);
            (incoming, threads)
        });
        let node = Arc::new(node);
        let live = LiveBytes::default();
        let health = Arc::new(Health::default());
        let (closing, is_closing) = watch::channel(false);
        let marks = Arc::new(Marks::new(&config));
        let kept_in = store
            .as_ref()
            .map(|opened| opened.store.clone() as Arc<dyn AppStore>);
        let api = Api::new(node.clone(), api_config(&config), Handle::current());
        let api = match &kept_in {
            Some(store) => api.with_store(store.clone()),
            None => api,
        };
        let limits = AddressLimits::new(
            server.address_connections_max,
            server.address_handshakes_per_s,
            std::time::Instant::now(),
            metrics.address_uncounted_total.clone(),
        );
        let gate = Arc::new(Gate {
            node: node.clone(),
            api,
            health: health.clone(),
            config: server.clone(),
            development: config.development(),
            knows_callers: config.tls.client_ca_file.is_some(),
            marks: marks.clone(),
            callers: Callers::new(marks.room.http, shards),
            refused: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            forwarding: entrances.forwarding(server),
            limits: limits.clone(),
            pending_max: server.pending_connections_max.div_ceil(shards),
            closing: is_closing,
        });
        let doors = http::doors(gate.clone());
        let shards = (0..shards)
            .map(|index| {
                let total_max = server.outbox_total_bytes_max;
                shard::start(index as u16, node.clone(), live.clone(), total_max, doors.clone())
            })
            .collect::<io::Result<Vec<_>>>()?;

        let mut tasks = JoinSet::new();
        let duties = node.clone();
        tasks.spawn(vital(
            "the node's duties",
            async move { duties.work_duties().await },
        ));
        let back_ends = node.clone();
        tasks.spawn(vital("what back ends are told", async move {
            back_ends.tell_back_ends().await
        }));
        if let Some(opened) = store {
            store::begin(opened, &config, &node, &mut tasks);
        }
        let delivery = webhooks::begin(&node, to_back_ends, &mut tasks)?;
        tasks.spawn(vital(
            "what health tells",
            marks::watch(node.clone(), health.clone(), marks),
        ));
        let drain = Arc::new(Drain::new(node.clone(), health.clone(), config.drain.clone()));
        let drained = drain.clone();
        tasks.spawn(vital("sending sockets away", async move { drained.work().await }));
        let tidied = gate.clone();
        tasks.spawn(vital("forgetting old calls", async move {
            tidied.api.forget_old_calls().await;
        }));
        let (end, ends) = oneshot::channel();
        let books = node.clone();
        let task = tokio::spawn(vital("booking what apps use", async move {
            books.keep_usage(kept_in.map(UsageSaver::new), ends).await;
        }));
        let usage = Usage { end, task };
        let (stop_admin, admin_stops) = oneshot::channel::<()>();
        let admin = match admin_listener {
            None => None,
            Some(listener) => {
                let state = Arc::new(operators::state(&config.admin, &gate, &drain, &live, &tls));
                let stops = async move {
                    // A sender that is dropped says the same.
                    let _ = admin_stops.await;
                };
                let listener = TcpListener::from_std(listener)?;
                Some(tokio::spawn(admin::serve(
                    listener,
                    state,
                    admin::Limits::default(),
                    stops,
                )))
            }
        };
        let reread_files = Arc::new(Notify::new());
        if let Some(acceptor) = &tls {
            let renewals = Renewals::new(
                acceptor.clone(),
                &config.tls,
                health.clone(),
                node.metrics(),
                reread_files.clone(),
            );
            tasks.spawn(vital("what follows the certificate", renewals.work()));
        }
        if let Some((acceptor, issuer)) = tls.clone().zip(issuer) {
            let issuing = Issuing::new(acceptor, issuer, node.metrics(), address.port());
            tasks.spawn(vital("what has certificates issued", issuing.work()));
        }
        let listening = entrances.open(&config.server, &gate.marks, limits, tls, &node)?;
        let membership = incoming.map(|incoming| Membership::begin(&node, incoming, &health));
        let membership = membership.transpose()?;
        health.started();
        Ok(Server {
            address,
            admin_address,
            node,
            config,
            shards,
            listening: Some(listening),
            membership,
            usage: Some(usage),
            tasks,
            _delivery: delivery,
            drain,
            reread: Arc::new(Notify::new()),
            reread_files,
            closing,
            stop_admin: Some(stop_admin),
            admin,
        })
    }

    /// From now on takes over what changes about the apps where the configuration came from: when its files change, if
    /// they are to be watched, and with each [`Server::reread`]. To be called once, with what the server was started from.
    pub fn follow(&mut self, source: ConfigSource) {
        let follower = Follower::new(
            self.node.clone(),
            source,
            self.config.clone(),
            self.reread.clone(),
        );
        self.tasks
            .spawn(vital("what follows the configuration", follower.work()));
    }

    /// Has the configuration read again, if it is followed, and the files of TLS. Does not wait for it.
    pub fn reread(&self) {
        self.reread.notify_one();
        self.reread_files.notify_one();
    }

    /// Where sockets and the HTTP API are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health and metrics are served.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The node, for tests that look inside.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// For who asks to leave again while the server drains: what is left is closed over a second, and nothing waited for
    /// longer than that.
    pub fn haste(&self) -> Haste {
        Haste(self.drain.clone())
    }
}

impl Drop for Server {
    /// Without a drain the shards' threads would serve on for ever.
    fn drop(&mut self) {
        drop(self.listening.take());
        let mut delivery = self.node.inboxes().deliver();
        for shard in 0..self.shards.len() {
            delivery.push(shard as u16, Entry::Stop);
        }
    }
}

/// What to do where a port cannot be had.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            " (another process listens there, `fanwire doctor` says more: stop it, or choose another port)"
        }
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need the capability CAP_NET_BIND_SERVICE: choose a higher one, or a proxy)"
        }
        io::ErrorKind::AddrNotAvailable => " (name an address of this machine, or 0.0.0.0 for all)",
        _ => "",
    }
}

async fn bind(
    host: &str,
    port: u16,
    backlog: u32,
    setting: &'static str,
) -> Result<std::net::TcpListener, StartError> {
    let failed = |source| StartError::Listen {
        host: host.to_owned(),
        port,
        setting,
        source,
    };
    listener::bind(host, port, backlog).await.map_err(failed)
}

fn api_config(config: &Config) -> ApiConfig {
    ApiConfig {
        path_prefix: config.server.path_prefix.clone(),
        body_bytes_max: config.server.body_bytes_max,
        body_timeout_s: config.server.request_timeout_s.into(),
    }
}

/// A task without which the server would go on half dead: if it panics, the process ends and is started anew.
async fn vital(name: &'static str, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!("a task that nothing can replace has panicked: {name}");
        std::process::abort();
    }
}
