//! The child: the library's own server on a free port, and a main thread that says at its parent's order what has
//! been counted. Nothing else runs in this process, so what is counted in it is the server's.

use std::io::{Write, stdin, stdout};
use std::process::ExitCode;

use anyhow::{Result, bail};
use fanwire::app::{AppConfig, Secret};
use fanwire::config::Config;
use fanwire::server::Server;

use crate::allocations;

/// The app.
pub(crate) const APP_ID: &str = "1";
/// Its key.
pub(crate) const KEY: &str = "cost-key";
/// Its secret.
pub(crate) const SECRET: &str = "cost-secret";
/// Whatever the machine has: counts are compared between machines.
const SHARDS: usize = 2;
/// What is shown of a call stack.
const STACK_LINES_MAX: usize = 30;
const LINE_LENGTH_MAX: usize = 150;

/// Serves until the parent goes away.
pub(crate) fn serve() -> Result<ExitCode> {
    let mut config = Config {
        apps: vec![AppConfig {
            id: APP_ID.into(),
            key: KEY.into(),
            secret: Secret::new(SECRET),
            client_events: true,
            client_events_per_s: 1_000_000,
            ..AppConfig::default()
        }],
        ..Config::default()
    };
    config.server.port = 0;
    config.server.shards = SHARDS;
    config.admin.enabled = false;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let server = control.block_on(Server::start(config))?;
    println!("{}", server.address().port());
    let mut order = String::with_capacity(64);
    loop {
        order.clear();
        if stdin().read_line(&mut order)? == 0 {
            // With a thousand sockets still open, a drain would take its time.
            std::process::exit(0);
        }
        match order.trim_end() {
            "count" => quiet_point()?,
            "watch" => allocations::watch(),
            "watched" => {
                for (stack, times) in allocations::watched() {
                    eprintln!("\n{times} times from\n{}", shortened(&stack));
                }
                quiet_point()?;
            }
            other => bail!("no such order: {other}"),
        }
    }
}

/// A call stack from what allocates outwards, without the allocator and where the standard library has what.
fn shortened(stack: &str) -> String {
    let is_allocator = |line: &str| {
        let name = line.split_once(": ").map_or("", |(_, name)| name);
        line.contains("tests/cost/") || name.contains("alloc") || name == "count"
    };
    let lines = stack.lines().filter(|line| !line.contains("at /rustc/"));
    let lines = lines.skip_while(|line| is_allocator(line)).take(STACK_LINES_MAX);
    let short = lines.map(|line| line.chars().take(LINE_LENGTH_MAX).collect::<String>());
    short.collect::<Vec<_>>().join("\n")
}

/// Says what has been allocated. Callgrind writes its counters whenever this function is entered (`server.rs`).
#[inline(never)]
fn quiet_point() -> Result<()> {
    let asked = allocations::so_far();
    println!("{} {} {}", asked.allocations, asked.bytes, asked.kept_bytes);
    Ok(stdout().flush()?)
}
