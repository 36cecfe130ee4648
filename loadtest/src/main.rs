//! Loads any server that speaks the Pusher protocol, and tells what it did: arguments, a run, a report. It shares no code
//! with the server.

mod arguments;
mod figures;
mod floor;
mod process;
mod progress;
mod publisher;
mod receiver;
mod report;
mod result;
mod scenario;
mod siege;
mod swarm;
mod target;
mod tls;
mod turnover;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::{CommandFactory, Parser};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use self::arguments::{Arguments, Command, Common};
use self::result::Run;
use self::scenario::{
    churn, client_events, connect, fanout, idle, mixed, occupancy, overload, presence, sustain,
};

fn main() -> ExitCode {
    match obey(&given()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn given() -> Arguments {
    let arguments = Arguments::parse();
    let is_test = std::env::var("BROADCAST_TEST").is_ok_and(|value| value == "true");
    if arguments.command.is_none() && is_test {
        return Arguments::parse_from(std::env::args().chain(["fanout".to_owned()]));
    }
    arguments
}

fn obey(arguments: &Arguments) -> Result<()> {
    let common = &arguments.common;
    match &arguments.command {
        Some(Command::Fanout(options)) => measure(common, |common| fanout::run(common, options)),
        Some(Command::Sustain(options)) => measure(common, |common| sustain::run(common, options)),
        Some(Command::Connect(options)) => measure(common, |common| connect::run(common, options)),
        Some(Command::Presence(options)) => measure(common, |common| presence::run(common, options)),
        Some(Command::Churn(options)) => measure(common, |common| churn::run(common, options)),
        Some(Command::Mixed(options)) => measure(common, |common| mixed::run(common, options)),
        Some(Command::Occupancy(options)) => measure(common, |common| occupancy::run(common, options)),
        Some(Command::Overload(options)) => measure(common, |common| overload::run(common, options)),
        Some(Command::Idle(options)) => measure(common, |common| idle::run(common, options)),
        Some(Command::ClientEvents(options)) => measure(common, |common| client_events::run(common, options)),
        Some(Command::Figures(arguments)) => {
            heed_signals(common)?;
            let table = arguments.run(common)?;
            say(&table.text)?;
            ensure!(table.is_complete, "not all that was asked for was measured");
            Ok(())
        }
        Some(Command::Floor(arguments)) => arguments.run(common.port),
        Some(Command::Report(arguments)) => say(&arguments.run()?),
        Some(Command::Table(arguments)) => say(&arguments.run()?),
        None => Ok(Arguments::command().print_help()?),
    }
}

fn measure(common: &Common, scenario: impl FnOnce(&Common) -> Result<Run>) -> Result<()> {
    heed_signals(common)?;
    let run = scenario(common)?;
    say(&report::told(&run))?;
    report::deliver(&run, common.json.as_deref(), common.report.as_deref())
}

/// The first interruption ends the measurement, the second one the program.
fn heed_signals(common: &Common) -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&common.stop))?;
        flag::register(signal, Arc::clone(&common.stop))?;
    }
    Ok(())
}

fn say(text: &str) -> Result<()> {
    write!(std::io::stdout(), "{text}").context("cannot print the report")
}

#[expect(clippy::print_stderr, reason = "the one place where errors are told")]
fn complain(error: &anyhow::Error) {
    eprintln!("loadtest: {error:#}");
}
