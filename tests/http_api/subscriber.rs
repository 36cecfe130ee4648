//! A subscriber of public channels, to see what arrives.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

pub(crate) struct Subscriber {
    socket: WebSocket<TcpStream>,
    pub(crate) socket_id: String,
}

impl Subscriber {
    /// Connects and subscribes.
    pub(crate) fn to(channels: &[&str], server: SocketAddr, key: &str) -> Subscriber {
        let stream = TcpStream::connect(server).expect("the server listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a socket takes a timeout");
        let url = format!("ws://localhost/app/{key}?protocol=7");
        let (socket, _) = tungstenite::client(url, stream).expect("the server upgrades");
        let mut subscriber = Subscriber {
            socket,
            socket_id: String::new(),
        };
        let greeting: Value =
            serde_json::from_str(&subscriber.hear()[2]).expect("the greeting's data is JSON");
        subscriber.socket_id = greeting["socket_id"].as_str().expect("it has an id").to_owned();
        for channel in channels {
            let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": channel}});
            subscriber
                .socket
                .send(Message::text(subscribe.to_string()))
                .expect("the server reads");
            assert_eq!(subscriber.hear()[0], "pusher_internal:subscription_succeeded");
        }
        subscriber
    }

    /// Event, channel and data of the next message.
    pub(crate) fn hear(&mut self) -> [String; 3] {
        loop {
            if let Message::Text(text) = self.socket.read().expect("a message comes in time") {
                let message: Value = serde_json::from_str(&text).expect("a message is JSON");
                return ["event", "channel", "data"]
                    .map(|key| message[key].as_str().unwrap_or_default().to_owned());
            }
        }
    }
}
