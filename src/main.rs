//! The binary: arguments, the log, signals, and nothing else. What it does is in the library.

#![allow(
    clippy::print_stderr,
    reason = "before the log there is, a person is told why the start failed"
)]

mod allocator;
mod console;
mod farewell;
mod probe;
mod systemd;
mod welcome;

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};
use fanwire::checkup::Report;
use fanwire::config::{Config, ConfigError, ConfigSource, LogConfig, LogFormat, LogLevel};
use fanwire::doctor::examine;
use fanwire::server::Server;
use fanwire::tls::Credentials;
use hyper::Uri;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::farewell::{Signals, leave};

/// A self-hosted, drop-in replacement for Pusher Channels.
///
/// Browser and mobile clients made for Pusher connect to it over WebSocket, back ends trigger events through
/// the official HTTP SDKs; only their host and port change.
///
/// Without any configuration it serves a demo app (id 1, key app-key, secret app-secret) to this machine
/// only.
#[derive(Parser)]
#[command(name = "fanwire", version, after_help = "More: fanwire --help", after_long_help = MORE)]
struct Arguments {
    /// The configuration file, in JSON
    #[arg(short, long, value_name = "FILE", env = "FANWIRE_CONFIG", global = true, value_parser = named_file())]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; the same as no command
    Serve,
    /// Print the resolved configuration as JSON, secrets redacted, or say all that is wrong with it
    CheckConfig {
        /// Tell instead what holds for a channel of this name, which rule says so, and where it is written
        #[arg(long, value_name = "NAME")]
        channel: Option<String>,
        /// Of which app, by its id, if there are several
        #[arg(long, value_name = "ID", requires = "channel")]
        app: Option<String>,
        /// Tell it in JSON
        #[arg(long, requires = "channel")]
        json: bool,
    },
    /// Check everything that a node needs here: ports, limits, memory, certificates, the broker; say what to do
    Doctor,
    /// Ask the server that runs with this configuration, on its admin port, whether it lives: the exit code is 0 or 1
    Health {
        /// Ask instead whether it is ready for traffic
        #[arg(long)]
        ready: bool,
        /// Ask there instead; the path says what is asked, /live or /ready
        #[arg(long, value_name = "http://HOST:PORT/PATH")]
        url: Option<Uri>,
    },
    /// Bring the tables of the store (`store.url`) up to date, or make them
    Migrate {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Make, list, show and change the apps of the store
    App {
        /// Answer in JSON
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        command: console::AppCommand,
    },
    /// Print the JSON schema of the configuration file: every setting, its meaning, default and range
    Schema,
}

const MORE: &str = "\
Configuration:
  Defaults are overridden by the file, the file by the environment. A variable is FANWIRE_ and the path of
  the setting in upper case, joined by two underscores; lists count from 0; a whole section or list can be
  replaced by JSON text:

    FANWIRE_SERVER__HOST=0.0.0.0
    FANWIRE_APPS__0__KEY=my-key
    FANWIRE_APPS='[{\"id\": \"1\", \"key\": \"my-key\", \"secret\": \"...\"}]'

  Unknown names, values out of range and settings that contradict each other stop the start, all of them
  told at once. `fanwire check-config` tells the same without starting.

  While the server runs it takes over what changes about `apps` in the file: at once where
  `server.watch_config` is on, and at SIGHUP. A file that is wrong changes nothing, and the log says why.

Examples:
  fanwire                                     the demo app on 127.0.0.1:6001
  fanwire --config fanwire.json               what the file says
  FANWIRE_SERVER__PORT=7000 fanwire           the same on another port
  fanwire --config fanwire.json check-config  is it right, and what does it come to?
  fanwire --config fanwire.json check-config --channel chat-7   which rule holds for a channel?
  fanwire --config fanwire.json migrate       the tables of the store, where apps are kept in SQL
  fanwire --config fanwire.json app create --name shop --set client_events=true
  fanwire --config fanwire.json doctor        does this machine, and the broker, give what it needs?
  fanwire --config fanwire.json health        does the server that runs with it live? With --ready: is it ready?
  fanwire schema > fanwire.schema.json        for editors, and to read";

/// Threads for all that is not a socket: admin, large API bodies, and what may be slow.
const CONTROL_THREADS: usize = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misread(&error),
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanwire: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers `--help`, or tells what is wrong about the arguments. A file where a command is to stand is the configuration.
fn misread(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told.
    let _ = error.print();
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && word.contains(['.', '/'])
    {
        eprintln!("\nA configuration file is named by --config: fanwire --config {word}");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let source = ConfigSource::new(arguments.config, std::env::vars_os());
    let load = || source.load();
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let config = load()?;
            start_log(&config.log)?;
            start(config, source)
        }
        Command::CheckConfig {
            channel: Some(channel),
            app,
            json,
        } => {
            let report = load()?
                .explain(app.as_deref(), &channel)
                .map_err(anyhow::Error::msg)?;
            match json {
                true => answer(&serde_json::to_string_pretty(&report.to_json())?),
                false => answer(&report.to_string()),
            }
        }
        Command::CheckConfig { .. } => {
            let config = load()?;
            certificates(&config)?;
            answer(&serde_json::to_string_pretty(&config)?)?;
            if config.development() {
                eprintln!("no app is configured: development mode, with the demo app");
            }
            Ok(())
        }
        Command::Migrate { json } => tell(on_this_thread(console::migrate(&load()?))?, json),
        Command::App { json, command } => tell(on_this_thread(console::app(&load()?, command))?, json),
        Command::Doctor => doctor(load),
        Command::Health { ready, url } => {
            let url = match url {
                Some(_) if ready => {
                    anyhow::bail!(
                        "--ready means nothing beside --url, whose path says what is asked: end it with /ready"
                    )
                }
                Some(url) => url,
                None => probe::url(&source.admin(), ready)?,
            };
            answer(&on_this_thread(probe::ask(&url))?)
        }
        Command::Schema => answer(&serde_json::to_string_pretty(&Config::schema())?),
    }
}

/// Checks the files of certificates that are named, as far as that can be done without a client.
fn certificates(config: &Config) -> anyhow::Result<()> {
    if let Err(text) = config.webhooks.authorities() {
        anyhow::bail!("webhooks.ca_file: {text}");
    }
    if config.tls.acme.is_on() {
        config.tls.acme.authorities()?;
    }
    let credentials = Credentials::load(&config.tls)?;
    // What the server renews by itself may have expired while it was down.
    if let Some(validity) = credentials.and_then(|credentials| credentials.validity)
        && !config.tls.acme.is_on()
    {
        let judged = validity.judge(SystemTime::now());
        judged.map_err(|fault| {
            anyhow::anyhow!("{fault} (a server serves with it all the same, and says so in its log)")
        })?;
    }
    Ok(())
}

/// Checks what the configuration asks for. A configuration that is wrong is the first finding, and the only one.
fn doctor(load: impl FnOnce() -> Result<Config, ConfigError>) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let mut report = Report::new(&mut out);
    match load() {
        Ok(config) => {
            on_this_thread(async {
                examine(&config, &mut report).await;
                Ok(())
            })?;
        }
        Err(error) => {
            report.section("configuration");
            for problem in &error.problems {
                report.failure(problem.to_string(), "");
            }
        }
    }
    match report.end() {
        Ok(0) => Ok(()),
        Ok(_) => anyhow::bail!("not fit to be started like this"),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error).context("cannot write the report"),
    }
}

fn on_this_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start")?.block_on(work)
}

fn tell(told: console::Told, json: bool) -> anyhow::Result<()> {
    match json {
        true => answer(&told.json.to_string()),
        false => answer(&told.text),
    }
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no failure.
fn answer(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write the answer"),
        _ => Ok(()),
    }
}

/// An empty name is most likely a variable that somebody forgot to set: not the moment to serve the demo app.
fn named_file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|name| match name.is_empty() {
        false => Ok(PathBuf::from(name)),
        true => Err("neither --config nor FANWIRE_CONFIG may be empty"),
    })
}

fn start_log(config: &LogConfig) -> anyhow::Result<()> {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The adapter says itself when NATS is lost and back; its library would say so with each attempt. What strangers do
    // to a handshake is told at the level debug, by the porch.
    let filter = Targets::new()
        .with_default(level)
        .with_target("async_nats", LevelFilter::OFF)
        .with_target("rustls", LevelFilter::OFF);
    let started = match config.format {
        LogFormat::Human => log.with_target(false).finish().with(filter).try_init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(filter).try_init(),
    };
    started.context("cannot start the log")
}

fn start(config: Config, source: ConfigSource) -> anyhow::Result<()> {
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control threads")?;
    let served = control.block_on(serve(config, source));
    // What is under way somewhere and does not end is not waited for.
    control.shutdown_background();
    served
}

/// Serves until a signal asks to leave, then drains. SIGHUP has the configuration read again.
async fn serve(config: Config, source: ConfigSource) -> anyhow::Result<()> {
    let mut signals = Signals::register().context("cannot listen for signals")?;
    let (development, prefix) = (config.development(), config.server.path_prefix.clone());
    let longest = Duration::from_secs(config.drain.longest_s().into());
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let mut server = Server::start(config).await?;
    server.follow(source);
    let (address, admin) = (server.address(), server.admin_address());
    match admin {
        Some(admin) => tracing::info!(%address, %admin, "serving"),
        None => tracing::info!(%address, "serving"),
    }
    if development {
        answer(&welcome::text(address, &prefix))?;
    }
    systemd::serving();

    // Not inside the log line: at a level that is not logged its fields are not evaluated, and nobody would wait.
    let signal = loop {
        tokio::select! {
            signal = signals.next() => break signal,
            _ = hangup.recv() => {
                tracing::info!("asked to read the configuration again");
                server.reread();
            }
        }
    };
    systemd::leaving(longest);
    leave(server, signals, signal, longest).await;
    Ok(())
}
