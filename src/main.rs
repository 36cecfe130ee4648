//! Serves the default configuration, until the command line takes its place.
#![allow(clippy::print_stdout, reason = "it says where it listens")]

fn main() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let server = fanwire::server::Server::start(fanwire::config::Config::default()).await?;
        println!("listening on {}", server.address());
        tokio::signal::ctrl_c().await?;
        server.drain().await;
        Ok(())
    })
}
