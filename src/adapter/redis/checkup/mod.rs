//! Is Redis there, and does it give what the nodes of a cluster need? Asked once, by a person, with the settings, the
//! TLS and the sign-in of a node.
//!
//! What must work is tried, not inferred: a probe goes through every server that would carry topics. It is published
//! under the prefix on a topic that no node hears; nothing is stored or changed. What only makes a server better to
//! have is asked for as far as this user may ask.

mod layout;
mod server;
mod streams;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::{Cmd, Value, cmd};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub use streams::checkup_streams;

use super::config::{Login, RedisConfig};
use super::link::{Connector, Fault, Link, Pushes, Signs};
use super::names::Names;
use super::url::{Address, Layout};
use crate::adapter::certificate;
use crate::adapter::config::AdapterConfig;
use crate::adapter::tls;
use crate::checkup::Report;

/// A step of connecting takes no longer, or it counts as failed.
const STEP_MAX: Duration = Duration::from_secs(3);

/// Looks at everything that the section `redis` names.
pub async fn checkup(config: &RedisConfig, adapter: &AdapterConfig, report: &mut Report<'_>) {
    let parts = match config.url.parts() {
        Ok(parts) => parts,
        Err(text) => return report.failure(format!("redis.url {text}"), ""),
    };
    let tls = match parts.tls.then(|| tls::client(&config.tls_files())).transpose() {
        Ok(tls) => tls,
        Err((key, text)) => return report.failure(format!("redis.{key}: {text}"), ""),
    };
    let files = [("ca_file", &config.ca_file), ("cert_file", &config.cert_file)];
    certificate::examine_files("redis", files, SystemTime::now(), report);
    let is_cluster = parts.layout == Layout::Cluster;
    let visitor = Visitor::new(config.login(&parts), tls.clone());
    let names = Names::new(&adapter.prefix, adapter.topics, is_cluster);
    let task = server::Task {
        visitor: &visitor,
        prefix: &adapter.prefix,
        names: &names,
        // For each lane one that publishes and one that hears.
        connections: 2 * (2 + u64::from(adapter.connections)),
    };
    match &parts.layout {
        Layout::Single => task.single(&parts.addresses[0], report).await,
        Layout::Sentinel(name) => {
            let asks = Visitor::new(config.sentinel_login(), tls);
            if let Some(master) = layout::sentinels(&asks, name, &parts.addresses, report).await {
                task.master(&master, report).await;
            }
        }
        Layout::Cluster => {
            for (master, slots) in layout::cluster(&visitor, &parts.addresses, report).await {
                task.master_of_cluster(&master, &slots, report).await;
            }
        }
    }
    report.note(
        "nothing is stored in redis to carry events: maxmemory, eviction and persistence do not matter for that, nor \
         does the number of a database; clusters of nodes are kept apart by adapter.prefix",
    );
}

/// Who connects as a node does, step by step, to tell which step fails.
struct Visitor {
    connector: Connector,
    tls: Option<Arc<ClientConfig>>,
    user: String,
}

impl Visitor {
    fn new(login: Login, tls: Option<Arc<ClientConfig>>) -> Visitor {
        Visitor {
            user: login.username.clone().unwrap_or_else(|| "default".into()),
            tls: tls.clone(),
            connector: Connector { login, tls },
        }
    }

    /// A connection that is signed in, or none, and why is told.
    async fn visit(&self, address: &Address, report: &mut Report<'_>) -> Option<Link> {
        if let Err(error) = within(TcpStream::connect((address.host.as_str(), address.port))).await {
            report.failure(
                format!("{address} cannot be reached: {error}"),
                "does it run, and is this its name and port? A firewall, or a server bound to loopback only, looks the same",
            );
            return None;
        }
        if let Some(tls) = &self.tls
            && let Err(error) = within(self.greet(tls, address, report)).await
        {
            report.failure(
                format!("{address} is there, but TLS fails: {error}"),
                "is it the port for TLS, is its certificate for this name, and signed by what redis.ca_file (or the \
                 system) trusts? Does it ask for a certificate (redis.cert_file, redis.key_file)?",
            );
            return None;
        }
        match self.open(address, Box::new(|_| {})).await {
            Ok(link) => {
                let tls = if self.tls.is_some() { ", with TLS" } else { "" };
                report.good(format!("{address} lets in the user `{}`{tls}", self.user));
                Some(link)
            }
            Err(fault) => {
                report.failure(
                    format!("{address} does not let us in: {fault}"),
                    self.advice(&fault),
                );
                None
            }
        }
    }

    /// What a fault at the door suggests.
    fn advice(&self, fault: &str) -> String {
        let says = |words: &[&str]| words.iter().any(|word| fault.contains(word));
        if says(&[
            "WRONGPASS",
            "NOAUTH",
            "AUTH",
            "uthentication",
            "no password is set",
        ]) {
            let without = self.connector.login.password.is_empty();
            let tried = if without {
                "without a password"
            } else {
                "with the password given"
            };
            return format!(
                "the user `{}` was tried {tried}: see redis.username, redis.password, redis.password_file (for \
                 sentinels redis.sentinel_username, redis.sentinel_password)",
                self.user
            );
        }
        if says(&["NOPROTO", "unknown command"]) {
            return "this is older than Redis 6, or something else: Redis 7 or later is needed".into();
        }
        if self.tls.is_none() {
            return "does it speak TLS only? Then redis.url begins with rediss".into();
        }
        "its log may say more".into()
    }

    async fn open(&self, address: &Address, pushes: Pushes) -> Result<Link, Fault> {
        self.connector
            .connect(address, Arc::new(Signs::default()), pushes)
            .await
    }

    /// Only the TLS of a connection, for the certificate that is shown.
    async fn greet(
        &self,
        tls: &Arc<ClientConfig>,
        address: &Address,
        report: &mut Report<'_>,
    ) -> io::Result<()> {
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls.clone()).connect(name, tcp).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        if let Some(certificate) = shown.first() {
            certificate::examine(
                &format!("the certificate of {address}"),
                certificate,
                SystemTime::now(),
                report,
            );
        }
        Ok(())
    }
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", STEP_MAX.as_secs()),
        )
    };
    timeout(STEP_MAX, step).await.unwrap_or_else(|_| Err(late()))
}

fn command(words: &[&str]) -> Cmd {
    let mut command = cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command
}

/// Whether a refusal is one for want of rights, not for what was asked.
fn is_forbidden(fault: &str) -> bool {
    fault.contains("NOPERM") || fault.contains("no permissions")
}

/// The text of a value, whichever way it is sent.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Okay => Some("OK".into()),
        _ => None,
    }
}

/// What stands at a name, in a map or in a flat list of names and values.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let is_named = |key: &Value| text(key).is_some_and(|key| key == name);
    match value {
        Value::Map(pairs) => pairs
            .iter()
            .find(|(key, _)| is_named(key))
            .map(|(_, value)| value),
        Value::Array(flat) => {
            let mut pairs = flat.chunks_exact(2);
            pairs.find(|pair| is_named(&pair[0])).map(|pair| &pair[1])
        }
        _ => None,
    }
}

/// What stands behind `name:` in a text of lines, as `INFO` answers it.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}
