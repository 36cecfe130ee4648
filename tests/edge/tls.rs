//! Encrypted connections: what is promised over plain ones holds, certificates are replaced under those who are
//! connected, and nobody who does not keep to TLS does harm.

mod beside;
mod certificates;
mod porch;
mod pressure;
mod strangers;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fanwire::app::AppConfig;
use fanwire::config::Config;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Authority, Certified, Files};
use crate::support::client::{Client, Heard};
use crate::support::http::{Backend, Http};
use crate::support::raw::{CLOSE, FIN, Raw, TEXT, frame};
use crate::support::server::{KEY, SECRET, TestServer, app, config};
use crate::support::soon;

const TARGET: &str = "/app/key?protocol=7&client=js&version=8.6.0&flash=false";

/// Boxed, since it is carried about.
pub(crate) type Tls = Box<TlsStream<TcpStream>>;

/// A server whose main port speaks TLS, and who vouches for it.
struct Secured {
    server: TestServer,
    authority: Authority,
    files: Files,
}

impl Secured {
    async fn start() -> Secured {
        Secured::with_app(app()).await
    }

    async fn with_app(app: AppConfig) -> Secured {
        Secured::with_config(config([app]), |_, _, _| {}).await
    }

    async fn with_config(
        mut config: Config,
        change: impl FnOnce(&mut Config, &Authority, &Files),
    ) -> Secured {
        let authority = Authority::new();
        let files = Files::of(&authority.vouch());
        config.tls.cert_file = Some(files.certificate());
        config.tls.key_file = Some(files.key());
        change(&mut config, &authority, &files);
        Secured {
            server: TestServer::with_config(config).await,
            authority,
            files,
        }
    }

    /// What a client connects with, as most do.
    fn trust(&self) -> Arc<ClientConfig> {
        Arc::new(self.authority.client(&[&TLS13, &TLS12], None))
    }

    async fn stream(&self) -> Tls {
        self.stream_with(self.trust()).await
    }

    async fn stream_with(&self, trust: Arc<ClientConfig>) -> Tls {
        let stream = TcpStream::connect(self.server.address).await.expect("it listens");
        secure(stream, trust).await.expect("a handshake")
    }

    /// With a receive buffer so small that a stalled reader is felt soon. Bytes.
    async fn stream_with_buffer(&self, bytes: u32) -> Tls {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(bytes)
            .expect("a socket takes options");
        let stream = socket.connect(self.server.address).await.expect("it listens");
        secure(stream, self.trust()).await.expect("a handshake")
    }

    async fn connect(&self) -> Client<Tls> {
        Client::over(self.stream().await, TARGET).await.greeted().await
    }

    async fn backend(&self) -> Backend<Tls> {
        self.backend_over(self.stream().await)
    }

    fn backend_over<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Backend<S> {
        Backend {
            http: Http::over(stream),
            app_id: "1".into(),
            key: KEY.into(),
            secret: SECRET.into(),
        }
    }

    /// A normal client is served. What every hostile test ends with.
    async fn serves(&self) {
        let mut client = self.connect().await;
        client.subscribe("still-alive").await;
        self.backend().await.publish("still-alive", "tick", "tock").await;
        assert_eq!(client.expect("tick").await["data"], "tock");
        client.close().await;
    }
}

fn with_big_events() -> AppConfig {
    AppConfig {
        event_data_bytes_max: 100_000,
        ..app()
    }
}

/// Encrypts a connection.
pub(crate) async fn secure<S>(stream: S, trust: Arc<ClientConfig>) -> std::io::Result<Box<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from("localhost").expect("a name");
    let connecting = Box::pin(TlsConnector::from(trust).connect(name, stream));
    soon("a handshake", connecting).await.map(Box::new)
}

/// A stream that writes one byte at a time, each on its own.
struct Dripping(TcpStream);

impl AsyncRead for Dripping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Dripping {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_calls_are_served_over_both_versions() {
    let secured = Secured::with_app(with_big_events()).await;
    for (version, spoken) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let mut trust = secured.authority.client(&[version], None);
        trust.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let trust = Arc::new(trust);
        let stream = secured.stream_with(trust.clone()).await;
        assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut client = Client::over(stream, TARGET).await.greeted().await;
        client.subscribe("private-a").await;
        client.expect_silence().await;

        let mut backend = secured.backend_over(secured.stream_with(trust).await);
        for number in 0..3 {
            backend
                .publish("private-a", "n", &number.to_string().repeat(40_000))
                .await;
            assert_eq!(
                client.expect("n").await["data"],
                number.to_string().repeat(40_000)
            );
        }
        let channels = backend.channels().await;
        assert_eq!(channels, json!({ "private-a": { "subscription_count": 1 } }));
        client.close().await;
        backend.wait_for_subscribers("private-a", 0).await;
    }
    let handshakes = async |kind| secured.server.metric("tls_handshakes_total", &[kind]).await;
    assert_eq!((handshakes("full").await, handshakes("resumed").await), (2, 2));
    let reason = "reason=\"client\"";
    secured.server.metric_becomes("closed_total", &[reason], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_version_can_be_raised() {
    let secured = Secured::with_config(config([app()]), |config, _, _| {
        config.tls.min_version = fanwire::tls::TlsVersion::V13;
    })
    .await;
    let old = Arc::new(secured.authority.client(&[&TLS12], None));
    let stream = TcpStream::connect(secured.server.address)
        .await
        .expect("it listens");
    let refused = secure(stream, old).await.expect_err("too old");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    secured.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_byte_by_byte_is_heard() {
    let secured = Secured::start().await;
    let stream = TcpStream::connect(secured.server.address)
        .await
        .expect("it listens");
    stream.set_nodelay(true).expect("a socket takes options");
    let stream = secure(Dripping(stream), secured.trust())
        .await
        .expect("a handshake");
    let mut client = Client::over(stream, TARGET).await.greeted().await;
    client.subscribe("private-a").await;
    let mut other = secured.connect().await;
    other.subscribe("private-a").await;
    client.whisper("private-a", "client-a", "b".repeat(3_000)).await;
    assert_eq!(other.expect("client-a").await["data"], "b".repeat(3_000));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_with_the_handshake_is_heard() {
    let secured = Secured::start().await;
    let mut raw = Raw::over(secured.stream().await);
    // The request, a subscription and a ping in one record.
    let mut all = Raw::upgrade("/app/key?protocol=7", "").into_bytes();
    let subscription = json!({ "event": "pusher:subscribe", "data": { "channel": "a" } });
    all.extend(frame(FIN | TEXT, subscription.to_string().as_bytes()));
    all.extend(frame(FIN | TEXT, br#"{"event":"pusher:ping"}"#));
    raw.send(all).await;
    assert!(
        raw.http_head()
            .await
            .expect("an answer")
            .starts_with("HTTP/1.1 101 ")
    );
    raw.greeting().await;
    let mut heard = [raw.next().await, raw.next().await].map(|message| message["event"].to_string());
    heard.sort();
    assert_eq!(
        heard,
        [r#""pusher:pong""#, r#""pusher_internal:subscription_succeeded""#]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_from_call_to_call_to_socket() {
    let secured = Secured::with_app(with_big_events()).await;
    let mut backend = secured.backend().await;
    for number in 0..5 {
        backend.publish("a", "n", &"x".repeat(number * 10_000)).await;
    }
    assert_eq!(backend.get("/channels").await.status, 200);
    // What is asked before the answer has come counts too.
    let calls = backend.call("GET", "/channels", "").repeat(3);
    let upgrade = Raw::upgrade("/app/key?protocol=7", "");
    backend.http.write(calls + &upgrade).await;
    for _ in 0..3 {
        assert_eq!(backend.http.answer().await.expect("an answer").status, 200);
    }
    assert_eq!(backend.http.answer().await.expect("an answer").status, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_on_the_way_go_unnoticed() {
    let secured = Secured::start().await;
    let mut client = secured.connect().await;
    client.subscribe("private-a").await;
    let mut backend = secured.backend().await;
    for number in 0..20 {
        let (_, session) = client.stream.get_mut().get_mut();
        session.refresh_traffic_keys().expect("TLS 1.3");
        client.expect_silence().await;
        backend.publish("private-a", "n", &number.to_string()).await;
        assert_eq!(client.expect("n").await["data"], number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_said_in_tls_as_well() {
    let secured = Secured::start().await;
    let mut raw = Raw::over(secured.stream().await)
        .upgraded("/app/key?protocol=7", "")
        .await;
    raw.greeting().await;
    raw.send(frame(FIN | CLOSE, &1000_u16.to_be_bytes())).await;
    assert_eq!(raw.frame().await.expect("an answer").close().0, 1000);
    // Without a goodbye of TLS this would be an error: somebody may have cut the connection.
    assert_eq!(raw.stream.read(&mut [0; 1]).await.expect("an orderly end"), 0);

    // A refusal, and an answer to a call, end as well.
    let mut raw = Raw::over(secured.stream().await)
        .upgraded("/app/nobody?protocol=7", "")
        .await;
    assert_eq!(raw.next().await["event"], "pusher:error");
    assert_eq!(raw.frame().await.expect("a close").close().0, 4001);
    assert_eq!(raw.stream.read(&mut [0; 1]).await.expect("an orderly end"), 0);
    let mut stream = secured.stream().await;
    let request = b"GET /up HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it listens");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    assert!(read.is_ok() && answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_without_a_close_frame_is_lost_whether_tls_was_told_or_not() {
    let secured = Secured::start().await;
    for lost in 1..=4 {
        let mut client = secured.connect().await;
        client.subscribe("a").await;
        match lost % 2 {
            0 => client.stream.get_mut().shutdown().await.expect("a goodbye"),
            _ => drop(client),
        }
        let reason = "reason=\"lost\"";
        secured
            .server
            .metric_becomes("closed_total", &[reason], lost)
            .await;
        secured.server.connected_becomes(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_closes_encrypted_sockets_in_good_order() {
    let secured = Secured::start().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(secured.connect().await);
    }
    let drained = tokio::spawn(secured.server.drain());
    for mut client in clients {
        assert_eq!(client.expect_close().await.0, 4200);
        // Tungstenite answers; then TLS ends.
        assert_eq!(client.hear().await, Heard::Lost);
        let end = client.stream.get_mut().read(&mut [0; 1]).await;
        assert_eq!(end.expect("an orderly end"), 0);
    }
    soon("the end", drained).await.expect("nobody panicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_can_insist_on_tls() {
    let secured = Secured::with_app(AppConfig {
        tls_only: true,
        ..app()
    })
    .await;
    secured.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_over_another_connection() {
    let secured = Secured::start().await;
    for version in [&TLS12, &TLS13] {
        let trust = Arc::new(secured.authority.client(&[version], None));
        for expected in [
            HandshakeKind::Full,
            HandshakeKind::Resumed,
            HandshakeKind::Resumed,
        ] {
            let stream = secured.stream_with(trust.clone()).await;
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected));
            let mut client = Client::over(stream, TARGET).await.greeted().await;
            client.subscribe("a").await;
            client.close().await;
        }
    }
    let count = async |kind| secured.server.metric("tls_handshakes_total", &[kind]).await;
    assert_eq!((count("full").await, count("resumed").await), (2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_nobody_is_served() {
    let secured = Secured::start().await;
    let mut trust = secured.authority.client(&[&TLS13, &TLS12], None);
    trust.enable_sni = false;
    let stream = secured.stream_with(Arc::new(trust)).await;
    Client::over(stream, TARGET).await.greeted().await;
}
