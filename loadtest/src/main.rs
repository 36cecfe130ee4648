//! A client of any server that speaks the Pusher protocol. For now there is one of it: it connects, subscribes and
//! prints what arrives, until it is interrupted. It shares no code with the server.
#![allow(clippy::print_stdout, reason = "what arrives is its output")]

#[allow(dead_code, reason = "the scenarios are still to come")]
mod progress;
#[allow(dead_code, reason = "the scenarios are still to come")]
mod report;
#[allow(dead_code, reason = "the scenarios are still to come")]
mod result;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Connects to a Pusher-compatible server, subscribes to a channel and prints what arrives, a line for each message:
/// seconds since the start, then the message as it came.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Name or address of the server.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Its port.
    #[arg(long, default_value_t = 6001)]
    port: u16,
    /// The app's key.
    #[arg(long, default_value = "app-key")]
    key: String,
    /// The channel to subscribe to; one that needs no signature.
    #[arg(long, default_value = "test")]
    channel: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let interrupted = tokio::signal::ctrl_c();
    let ended = tokio::select! {
        ended = listen(&arguments) => ended,
        _ = interrupted => Ok(()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// What failed and why; deeper causes only repeat it, since the library's errors name them themselves.
#[expect(clippy::print_stderr, reason = "the one place where errors are told")]
fn complain(error: &anyhow::Error) {
    let told: Vec<String> = error.chain().take(2).map(ToString::to_string).collect();
    eprintln!("loadtest: {}", told.join(": "));
}

async fn listen(arguments: &Arguments) -> Result<()> {
    let Arguments {
        host,
        port,
        key,
        channel,
    } = arguments;
    let url = format!("ws://{host}:{port}/app/{key}?protocol=7&client=loadtest&version=0.1.0");
    let started = Instant::now();
    let (mut socket, _) = connect_async(&url)
        .await
        .with_context(|| format!("cannot connect to {url}"))?;
    let mut is_subscribed = false;
    while let Some(message) = socket.next().await {
        match message.context("the connection broke")? {
            Message::Text(text) => {
                println!("{:10.6} {text}", started.elapsed().as_secs_f64());
                match event_of(&text) {
                    Some(event) if event == "pusher:connection_established" && !is_subscribed => {
                        is_subscribed = true;
                        let data = json!({ "channel": channel });
                        say(&mut socket, "pusher:subscribe", &data).await?;
                    }
                    Some(event) if event == "pusher:ping" => {
                        say(&mut socket, "pusher:pong", &json!({})).await?;
                    }
                    _ => {}
                }
            }
            Message::Close(Some(close)) => bail!("the server closed: {} {}", close.code, close.reason),
            // Pings are answered by the library, with the next read.
            _ => {}
        }
    }
    bail!("the server ended the connection")
}

fn event_of(text: &str) -> Option<String> {
    let message: Value = serde_json::from_str(text).ok()?;
    Some(message.get("event")?.as_str()?.to_owned())
}

async fn say(
    socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>,
    event: &str,
    data: &Value,
) -> Result<()> {
    let text = json!({ "event": event, "data": data }).to_string();
    socket
        .send(Message::text(text))
        .await
        .context("the connection broke")
}
