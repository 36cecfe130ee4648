//! A comfortable client, on tokio-tungstenite: says and hears whole messages, signs for itself. Over any stream.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::server::SECRET;
use super::{sign, soon};

/// What the server did next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    /// It said a message.
    Message(Value),
    /// It closed with this code and reason.
    Closed(u16, String),
    /// The connection ended without a close frame.
    Lost,
}

/// A client that has been greeted.
pub(crate) struct Client<S = TcpStream> {
    /// The connection itself, for who wants to hear as it comes and without a deadline.
    pub(crate) stream: WebSocketStream<S>,
    pub(crate) socket_id: String,
    /// The key of its app.
    key: String,
}

impl Client {
    /// Connects to a path and waits to be greeted.
    pub(crate) async fn connect(address: SocketAddr, target: &str) -> Client {
        Client::open(address, target).await.greeted().await
    }

    /// Connects to a path, and leaves it to the test what is heard first.
    pub(crate) async fn open(address: SocketAddr, target: &str) -> Client {
        let stream = soon("a connection", TcpStream::connect(address))
            .await
            .expect("the server listens");
        stream.set_nodelay(true).expect("a socket takes options");
        Client::over(stream, target).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Waits to be greeted.
    pub(crate) async fn greeted(self) -> Client<S> {
        let mut client = self;
        let greeting = client.next().await;
        assert_eq!(greeting["event"], "pusher:connection_established", "{greeting}");
        client.socket_id = data(&greeting)["socket_id"]
            .as_str()
            .expect("a socket id")
            .to_owned();
        client
    }

    /// Asks for a socket on this connection.
    pub(crate) async fn over(stream: S, target: &str) -> Client<S> {
        let handshake = tokio_tungstenite::client_async(format!("ws://test{target}"), stream);
        let (stream, _) = soon("the upgrade", handshake).await.expect("a completed upgrade");
        let key = target.split(['/', '?']).nth(2).unwrap_or_default().to_owned();
        Client {
            stream,
            socket_id: String::new(),
            key,
        }
    }

    /// What happens next, pings and pongs left out.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            match soon("something to hear", self.stream.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return Heard::Message(serde_json::from_str(&text).expect("the server speaks JSON"));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    return frame.map_or(Heard::Closed(1005, String::new()), |frame| {
                        Heard::Closed(frame.code.into(), frame.reason.to_string())
                    });
                }
                Some(Ok(other)) => panic!("the server never sends {other:?}"),
                None | Some(Err(_)) => return Heard::Lost,
            }
        }
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        match self.hear().await {
            Heard::Message(message) => message,
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    /// The next message, which must be this event.
    pub(crate) async fn expect(&mut self, event: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["event"], event, "{message}");
        message
    }

    /// The next message, which must be `pusher:error` with this code (`null` for none).
    pub(crate) async fn expect_error(&mut self, code: impl Into<Value>) -> Value {
        let message = self.expect("pusher:error").await;
        assert_eq!(message["data"]["code"], code.into(), "{message}");
        message
    }

    /// Both halves of a refused subscription, whose status and code these are; the answer is the error's text.
    pub(crate) async fn expect_refusal(&mut self, channel: &str, kind: &str, status: u16) -> String {
        let refusal = self.expect("pusher:subscription_error").await;
        assert_eq!(refusal["channel"], channel, "{refusal}");
        assert_eq!(data(&refusal)["type"], kind, "{refusal}");
        assert_eq!(data(&refusal)["status"], status, "{refusal}");
        assert!(data(&refusal)["error"].is_string(), "{refusal}");
        let code = match status {
            401 => json!(4009),
            status if status < 4000 => Value::Null,
            status => json!(status),
        };
        let error = self.expect_error(code).await;
        assert_eq!(error["channel"], channel, "{error}");
        error["data"]["message"].as_str().expect("a text").to_owned()
    }

    /// Nothing was on its way to this client: the next it hears is the answer to its ping.
    pub(crate) async fn expect_silence(&mut self) {
        self.say(&json!({ "event": "pusher:ping", "data": {} })).await;
        self.expect("pusher:pong").await;
    }

    /// All that was on its way to this client: what it hears before the answer to its ping.
    pub(crate) async fn hear_out(&mut self) -> Vec<Value> {
        self.say(&json!({ "event": "pusher:ping" })).await;
        let mut heard = Vec::new();
        loop {
            let message = self.next().await;
            if message["event"] == "pusher:pong" {
                return heard;
            }
            heard.push(message);
        }
    }

    /// All that was on its way to this client: who came and went of the users it watches, each of which must be news to
    /// who knows these to be online.
    pub(crate) async fn hear_of_users(&mut self, online: &mut BTreeSet<String>) {
        for message in self.hear_out().await {
            for event in data(&message)["events"].as_array().expect("a list") {
                for user in event["user_ids"].as_array().expect("a list") {
                    let user = user.as_str().expect("an id").to_owned();
                    let is_news = match event["name"].as_str() {
                        Some("online") => online.insert(user),
                        Some("offline") => online.remove(&user),
                        _ => panic!("{message}"),
                    };
                    assert!(is_news, "{message}, but online were {online:?}");
                }
            }
        }
    }

    /// The server closes; the answer is the code.
    pub(crate) async fn expect_close(&mut self) -> (u16, String) {
        match self.hear().await {
            Heard::Closed(code, reason) => (code, reason),
            other => panic!("a close was expected, not {other:?}"),
        }
    }

    /// Sends one message.
    pub(crate) async fn say(&mut self, message: &Value) {
        self.say_together(std::slice::from_ref(message)).await;
    }

    /// Sends messages in one packet.
    pub(crate) async fn say_together(&mut self, messages: &[Value]) {
        let said = async {
            for message in messages {
                self.stream.feed(Message::text(message.to_string())).await?;
            }
            self.stream.flush().await
        };
        soon("the server to read", said)
            .await
            .expect("the connection holds");
    }

    /// Sends a text, JSON or not.
    pub(crate) async fn say_text(&mut self, text: &str) {
        soon("the server to read", self.stream.send(Message::text(text)))
            .await
            .expect("the connection holds");
    }

    /// Sends a WebSocket ping, whose answer tungstenite keeps to itself.
    pub(crate) async fn send_frame(&mut self, message: Message) {
        soon("the server to read", self.stream.send(message))
            .await
            .expect("the connection holds");
    }

    /// What signs this socket's subscription to a channel.
    pub(crate) fn auth(&self, channel: &str, channel_data: &str) -> String {
        let (id, key) = (&self.socket_id, &self.key);
        match channel_data {
            "" => sign::auth(key, SECRET, &format!("{id}:{channel}")),
            data => sign::auth(key, SECRET, &format!("{id}:{channel}:{data}")),
        }
    }

    /// Asks for a channel, signed where it needs to be, and does not wait.
    pub(crate) async fn ask_for(&mut self, channel: &str, channel_data: &str) {
        let message = self.subscription(channel, channel_data);
        self.say(&message).await;
    }

    /// What asks for a channel, signed where it needs to be.
    pub(crate) fn subscription(&self, channel: &str, channel_data: &str) -> Value {
        let mut data = json!({ "channel": channel, "auth": "" });
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            data["auth"] = self.auth(channel, channel_data).into();
        }
        if !channel_data.is_empty() {
            data["channel_data"] = channel_data.into();
        }
        json!({ "event": "pusher:subscribe", "data": data })
    }

    /// Subscribes, and waits for the acknowledgement, which must come next.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Value {
        self.ask_for(channel, "").await;
        self.expect_subscribed(channel).await
    }

    /// Joins a presence channel as this user; the answer is the list of members.
    pub(crate) async fn join(&mut self, channel: &str, user_id: &str) -> Value {
        let channel_data = json!({ "user_id": user_id, "user_info": { "name": format!("user {user_id}") } });
        self.ask_for(channel, &channel_data.to_string()).await;
        data(&self.expect_subscribed(channel).await)["presence"].take()
    }

    /// The next message, which must acknowledge the subscription to this channel.
    pub(crate) async fn expect_subscribed(&mut self, channel: &str) -> Value {
        let message = self.expect("pusher_internal:subscription_succeeded").await;
        assert_eq!(message["channel"], channel, "{message}");
        message
    }

    pub(crate) async fn unsubscribe(&mut self, channel: &str) {
        self.say(&json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }))
            .await;
    }

    /// Asks to be signed in with this text, and does not wait.
    pub(crate) async fn ask_sign_in(&mut self, user_data: &str) {
        let message = self.signing_in(user_data);
        self.say(&message).await;
    }

    /// What asks to be signed in with this text.
    pub(crate) fn signing_in(&self, user_data: &str) -> Value {
        let auth = sign::auth(
            &self.key,
            SECRET,
            &format!("{}::user::{user_data}", self.socket_id),
        );
        json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } })
    }

    /// Signs in, and waits for the answer, which must come next.
    pub(crate) async fn sign_in(&mut self, user_data: &Value) {
        let user_data = user_data.to_string();
        self.ask_sign_in(&user_data).await;
        let answer = self.expect("pusher:signin_success").await;
        assert_eq!(
            data(&answer),
            json!({ "user_data": user_data }),
            "echoed byte for byte"
        );
    }

    /// Sends a client event.
    pub(crate) async fn whisper(&mut self, channel: &str, event: &str, data: impl Into<Value>) {
        self.say(&json!({ "event": event, "channel": channel, "data": data.into() }))
            .await;
    }

    /// Says goodbye and waits for the end.
    pub(crate) async fn close(mut self) {
        let _ = self.stream.close(None).await;
        while !matches!(soon("the end", self.stream.next()).await, None | Some(Err(_))) {}
    }
}

/// The JSON inside a message's `data`, which must be a string.
pub(crate) fn data(message: &Value) -> Value {
    let text = message["data"]
        .as_str()
        .unwrap_or_else(|| panic!("data is a string: {message}"));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("data holds JSON ({error}): {message}"))
}
