//! What the operator asks for, and what it means. Each scenario declares its own settings; here is what they share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::figures::FigureArguments;
use crate::floor::FloorArguments;
use crate::report::{ReportArguments, TableArguments};
use crate::scenario::{
    churn, client_events, connect, fanout, idle, mixed, occupancy, overload, presence, sustain,
};
use crate::target::{ChannelKind, Target, Whereabouts};
use crate::tls::Trust;

/// What an ordinary event carries.
const PAYLOAD_BYTES: usize = 200;
/// Clients that one local address has ports for, with room for those that come back while the ports of the last
/// time still rest.
const CLIENTS_PER_SOURCE: u32 = 4_000;

/// Loads a Pusher-compatible server and tells what it did.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// What to do. Without it, BROADCAST_TEST=true in the environment means `fanout`.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What can be done: workloads, and what becomes of their results.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Fanout(fanout::Options),
    Sustain(sustain::Options),
    Connect(connect::Options),
    Presence(presence::Options),
    Churn(churn::Options),
    Mixed(mixed::Options),
    Occupancy(occupancy::Options),
    Overload(overload::Options),
    Idle(idle::Options),
    ClientEvents(client_events::Options),
    /// Shows runs that were kept: as text, as a page, as a plot.
    Report(ReportArguments),
    /// Shows medians of runs that were kept, and ratios between labels.
    Table(TableArguments),
    Figures(FigureArguments),
    /// What figures are held against.
    #[command(hide = true)]
    Floor(FloorArguments),
}

/// What all scenarios share.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Name or address of the server.
    #[arg(long, global = true, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Its port.
    #[arg(long, global = true, default_value_t = 6001)]
    pub(crate) port: u16,
    /// What stands in front of /app and /apps in its paths.
    #[arg(long, global = true, default_value = "")]
    pub(crate) path: String,
    /// The app's id.
    #[arg(long, global = true, default_value = "1")]
    pub(crate) app_id: String,
    /// The app's key.
    #[arg(long, global = true, default_value = "app-key")]
    pub(crate) key: String,
    /// The app's secret.
    #[arg(
        long,
        global = true,
        default_value = "app-secret",
        env = "APP_SECRET",
        hide_env_values = true
    )]
    pub(crate) secret: String,
    /// The server speaks TLS, mostly on port 443. Each client takes about 9 KiB of memory then, instead of a third of one.
    #[arg(long, global = true)]
    pub(crate) tls: bool,
    /// Trusts the certificate authorities in this file, in PEM, and no others. Without it, those that this machine trusts.
    #[arg(long, global = true, value_name = "FILE", requires = "tls")]
    pub(crate) ca: Option<PathBuf>,
    /// Trusts any certificate.
    #[arg(long, global = true, requires = "tls", conflicts_with = "ca")]
    pub(crate) insecure: bool,
    /// The server's process, if it runs on this machine: its CPU time and memory are told too.
    #[arg(long, global = true)]
    pub(crate) pid: Option<u32>,
    /// Threads for the clients. The first one publishes, too.
    #[arg(long, global = true, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) threads: usize,
    /// How many local addresses of 127.0.0.0/8 to connect from: without it, one for every 4,000 clients.
    #[arg(long, global = true)]
    pub(crate) sources: Option<u32>,
    /// Bytes of data in each event [default: 200; 100 for client events, 10000 for bursts].
    #[arg(long, visible_alias = "data-bytes", global = true)]
    pub(crate) payload: Option<usize>,
    /// A name for this run in reports: the server, a version, an experiment.
    #[arg(long, global = true, default_value = "server")]
    pub(crate) label: String,
    /// Keeps what was measured, as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Keeps what was measured, as a page that needs nothing but itself.
    #[arg(long, global = true, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// No live view.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Set when somebody wants it to end.
    #[arg(skip)]
    pub(crate) stop: Arc<AtomicBool>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().map_err(|error| error.to_string())?;
    if number == 0 {
        Err("at least one is needed".to_owned())
    } else {
        Ok(number)
    }
}

impl Common {
    /// Bytes of data in each event.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload.unwrap_or(PAYLOAD_BYTES)
    }

    /// Whether somebody wants it to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// The server that is meant, for a run of so many clients.
    pub(crate) fn target(&self, kind: ChannelKind, clients: u32) -> Result<Target> {
        let is_loopback = self.host == "localhost" || self.host.starts_with("127.");
        let needed = if is_loopback {
            clients.div_ceil(CLIENTS_PER_SOURCE)
        } else {
            1
        };
        let trust = match &self.ca {
            _ if self.insecure => Trust::Anybody,
            Some(file) => Trust::File(file),
            None => Trust::System,
        };
        let whereabouts = Whereabouts {
            host: &self.host,
            port: self.port,
            path: &self.path,
            app_id: &self.app_id,
            key: &self.key,
            secret: &self.secret,
            sources: self.sources.unwrap_or(needed),
            trust: self.tls.then_some(trust),
        };
        Target::new(rand::random(), kind, &whereabouts)
    }
}

/// The command that was given, without the secret.
pub(crate) fn command_line() -> String {
    let mut words: Vec<String> = vec!["loadtest".to_owned()];
    let mut is_secret = false;
    for word in std::env::args().skip(1) {
        let told = match word.strip_prefix("--secret=") {
            Some(_) => "--secret=…".to_owned(),
            None if is_secret => "…".to_owned(),
            None => word.clone(),
        };
        is_secret = word == "--secret";
        words.push(told);
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_arguments_may_stand_anywhere() {
        for words in ["--port 7001 sustain --rate 10", "sustain --rate 10 --port 7001"] {
            let arguments = Arguments::parse_from(["loadtest"].into_iter().chain(words.split(' ')));
            assert_eq!(arguments.common.port, 7001);
            assert!(matches!(arguments.command, Some(Command::Sustain(_))));
        }
    }

    #[test]
    fn a_rate_and_a_window_exclude_each_other() {
        let words = ["loadtest", "sustain", "--rate", "10", "--in-flight", "3"];
        assert!(Arguments::try_parse_from(words).is_err());
    }
}
