//! Sockets: greets them, acknowledges their subscriptions, and sends what it is given.

use std::io;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{self, Sender};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Out, Shared, Subscriber, header};

/// More than any test publishes.
const OUTBOX: usize = 1 << 16;

pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    head: &[String],
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let key = derive_accept_key(header(head, "sec-websocket-key").unwrap_or_default().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {key}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    let host = header(head, "host").map(ToOwned::to_owned);
    shared.note(|state| {
        state.seen.sockets += 1;
        state.seen.host = host;
    });
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    converse(socket, shared).await.map_err(io::Error::other)
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    shared: &Arc<Shared>,
) -> Result<(), Error> {
    if let Some(code) = shared.manner.refuses {
        let refusal = json!({"event": "pusher:error", "data": {"code": code, "message": "No such app"}});
        socket.send(Message::text(refusal.to_string())).await?;
        let farewell = CloseFrame {
            code: code.into(),
            reason: "No such app".into(),
        };
        return socket.close(Some(farewell)).await;
    }
    if !shared.manner.is_mute {
        let greeting = if shared.manner.is_spaced {
            r#"{ "data" : "{ \"activity_timeout\" : 120, \"socket_id\" : \"7.11\" }", "event" : "pusher:connection_established" }"#
        } else {
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"7.11\",\"activity_timeout\":120}"}"#
        };
        socket.send(Message::text(greeting)).await?;
    }
    let (out, mut outs) = mpsc::channel(OUTBOX);
    loop {
        tokio::select! {
            given = outs.recv() => match given {
                Some(Out::Text(text)) => socket.send(Message::text(text)).await?,
                Some(Out::Wait(time)) => tokio::time::sleep(time).await,
                Some(Out::Close) | None => {
                    let farewell = CloseFrame { code: 4200.into(), reason: "come back".into() };
                    return socket.close(Some(farewell)).await;
                }
            },
            heard = socket.next() => match heard {
                Some(Ok(Message::Text(text))) => hear(&mut socket, &text, &out, shared).await?,
                Some(Ok(Message::Pong(_))) => shared.note(|state| state.seen.pongs += 1),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}

async fn hear<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    text: &str,
    out: &Sender<Out>,
    shared: &Arc<Shared>,
) -> Result<(), Error> {
    let message: Value = serde_json::from_str(text).expect("clients speak JSON");
    match message["event"].as_str() {
        Some("pusher:subscribe") => {
            let channel = message["data"]["channel"]
                .as_str()
                .expect("it names its channel")
                .to_owned();
            if shared.manner.pings {
                socket.send(Message::Ping("are you there?".into())).await?;
                socket
                    .send(Message::text(r#"{"event":"pusher:ping","data":{}}"#))
                    .await?;
            }
            let ack = if shared.manner.is_spaced {
                format!(
                    r#"{{ "data": "{{}}", "channel" : "{channel}", "event" : "pusher_internal:subscription_succeeded" }}"#
                )
            } else {
                format!(
                    r#"{{"event":"pusher_internal:subscription_succeeded","channel":"{channel}","data":"{{}}"}}"#
                )
            };
            // As soon as it is acknowledged it may be published to.
            let (out, held) = (out.clone(), Vec::new());
            shared.note(|state| state.subscribers.push(Subscriber { channel, out, held }));
            socket.send(Message::text(ack)).await
        }
        Some("pusher:ping") => {
            socket
                .send(Message::text(r#"{"event":"pusher:pong","data":{}}"#))
                .await
        }
        Some("pusher:pong") => {
            shared.note(|state| state.seen.pusher_pongs += 1);
            Ok(())
        }
        _ => Ok(()),
    }
}
