//! The binary: arguments, the log, and nothing else. What it does is in the library.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's answer belongs on standard output, and why it failed on standard error"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};
use fanwire::config::{Config, LogConfig, LogFormat, LogLevel};
use tracing_subscriber::filter::LevelFilter;

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

#[derive(Clone, Copy, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; the same as no command
    Serve,
    /// Print the resolved configuration as JSON, secrets redacted, or say all that is wrong with it
    CheckConfig,
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

Examples:
  fanwire                                     the demo app on 127.0.0.1:6001
  fanwire --config fanwire.json               what the file says
  FANWIRE_SERVER__PORT=7000 fanwire           the same on another port
  fanwire --config fanwire.json check-config  is it right, and what does it come to?
  fanwire schema > fanwire.schema.json        for editors, and to read";

const DEVELOPMENT: &str =
    "development mode: no app is configured, so the demo app is served to this machine only";

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanwire: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let load = || Config::load(arguments.config.as_deref(), std::env::vars_os());
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let config = load()?;
            start_log(&config.log)?;
            start(config)
        }
        Command::CheckConfig => {
            let config = load()?;
            println!("{}", serde_json::to_string_pretty(&config)?);
            if config.development() {
                eprintln!("{DEVELOPMENT}");
            }
            Ok(())
        }
        Command::Schema => {
            println!("{}", serde_json::to_string_pretty(&Config::schema())?);
            Ok(())
        }
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
        .with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Human => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started
        .map_err(anyhow::Error::from_boxed)
        .context("cannot start the log")
}

/// Says where the server will listen. Serving itself is not there yet.
fn start(config: Config) -> anyhow::Result<()> {
    let apps = config.resolve_apps()?;
    if config.development() {
        println!("{DEVELOPMENT}");
    }
    println!(
        "sockets and API: {}:{}{}",
        config.server.host, config.server.port, config.server.path_prefix
    );
    if config.admin.enabled {
        println!("admin: {}:{}", config.admin.host, config.admin.port);
    }
    println!(
        "apps: {}",
        apps.iter().map(|app| app.id()).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}
