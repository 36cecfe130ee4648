//! What comes before anything is said in TLS: handshakes that stop half way, and those that there are too many of.

use std::io::{Read, Write};

use futures_util::FutureExt;
use futures_util::future::join_all;
use rustls::ClientConnection;

use super::*;
use crate::arrival::over_unix_socket;
use crate::support::eventually;

/// A client that has been answered, and leaves it at that until it is told to go on.
struct Halfway {
    stream: TcpStream,
    session: ClientConnection,
}

impl Halfway {
    async fn come(secured: &Secured) -> Halfway {
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TcpStream::connect(secured.server.address).await;
        let mut halfway = Halfway {
            stream: stream.expect("it listens"),
            session: ClientConnection::new(secured.trust(), name).expect("a client"),
        };
        halfway.write().await;
        while halfway.session.is_handshaking() {
            assert!(halfway.read().await > 0, "it is answered");
        }
        halfway
    }

    async fn write(&mut self) {
        let mut records = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut records).expect("a vector");
        }
        let _ = self.stream.write_all(&records).await;
    }

    /// What the server says next, in bytes. 0: it has hung up.
    async fn read(&mut self) -> usize {
        let mut records = [0; 4096];
        let read = soon("an answer", self.stream.read(&mut records))
            .await
            .unwrap_or(0);
        let mut rest = &records[..read];
        while !rest.is_empty() {
            self.session.read_tls(&mut rest).expect("room");
            self.session.process_new_packets().expect("sound TLS");
        }
        read
    }

    /// Ends its part of the handshake and asks for a socket, all at once.
    async fn go_on(&mut self) {
        let request = Raw::upgrade(TARGET, "");
        self.session.writer().write_all(request.as_bytes()).expect("room");
        self.write().await;
    }

    /// Reads until this was said.
    async fn hears(&mut self, part: &str) {
        let mut heard = Vec::new();
        loop {
            let _ = self.session.reader().read_to_end(&mut heard);
            let text = String::from_utf8_lossy(&heard);
            if text.contains(part) {
                return;
            }
            assert!(self.read().await > 0, "{text}");
        }
    }
}

async fn with_places(places: usize, change: impl FnOnce(&mut Config)) -> Secured {
    let mut config = config([app()]);
    config.server.porch_connections_max = places;
    change(&mut config);
    Secured::with_config(config, |_, _, _| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_is_not_thrown_away_for_newcomers_who_have_their_turn_in_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fanwire.sock");
    let secured = with_places(16, |config| {
        config.server.unix_socket = path.to_str().expect("a path in UTF-8").to_owned();
    })
    .await;
    let mut begun = Vec::new();
    for _ in 0..16 {
        begun.push(Halfway::come(&secured).await);
    }
    secured.server.metric_becomes("porch_full_total", &[], 1).await;
    let mut late = Vec::new();
    for _ in 0..4 {
        late.push(Raw::connect(secured.server.address).await);
    }
    // Who comes by another door is not concerned.
    let mut plain = secured.backend_over(over_unix_socket(&path).expect("it listens"));
    plain.publish("a", "n", "1").await;
    // Nobody went for them; the first half of those who came has all of its time.
    let pending = "error_type=\"pending\"";
    let gone = secured.server.metric("connection_errors_total", &[pending]).await;
    assert_eq!(gone, 0);
    begun[0].go_on().await;
    begun[0].hears("pusher:connection_established").await;
    secured.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_say_nothing_make_room_for_newcomers() {
    let secured = with_places(16, |config| config.server.header_timeout_s = 3_600).await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        let mut raw = Raw::connect(secured.server.address).await;
        raw.send([22, 3, 1, 2, 0, 1, 0]).await;
        silent.push(raw);
        // Whoever was told to go and stays is worth no more.
        let mut stranger = Raw::connect(secured.server.address).await;
        stranger.send(b"GET / HTTP/1.1\r\n\r\n").await;
        silent.push(stranger);
    }
    secured.serves().await;
    let pending = "error_type=\"pending\"";
    eventually("some to have made room", async || {
        let gone = secured.server.metric("connection_errors_total", &[pending]).await;
        (gone > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_may_begin_so_many_handshakes_each_second() {
    let secured = with_places(4_096, |config| config.server.address_handshakes_per_s = 3).await;
    let server = &secured.server;
    // As many as may at once: none counts a second time for the socket that it asks for.
    let mut there = Vec::new();
    for _ in 0..3 {
        there.push(secured.connect().await);
    }
    let come = async || {
        let stream = TcpStream::connect(server.address).await?;
        secure(stream, secured.trust()).await
    };
    let crowd = join_all((0..60).map(|_| come())).await;
    let let_in = crowd.iter().filter(|stream| stream.is_ok()).count();
    assert!(let_in < 60, "all of them shook hands");
    let errors = "error_type=\"address_limit\"";
    server
        .metric_becomes("connection_errors_total", &[errors], 60 - let_in as u64)
        .await;
    server
        .metric_becomes("tls_handshakes_total", &[], 3 + let_in as u64)
        .await;
    assert_eq!(
        server.metric("closed_total", &["reason=\"address_limit\""]).await,
        0
    );
    drop(crowd);
    eventually("it may again", async || {
        let stream = come().await.ok()?;
        let client = Client::over(stream, TARGET).await;
        client.greeted().await.close().await;
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_the_porch_when_the_server_leaves_is_told_or_dropped() {
    let secured = with_places(16, |_| {}).await;
    let address = secured.server.address;
    let mut begun = Vec::new();
    for _ in 0..3 {
        begun.push(Halfway::come(&secured).await);
    }
    let mut silent = Raw::connect(address).await;
    let mut drained = Box::pin(secured.server.drain());
    assert!((&mut drained).now_or_never().is_none(), "it has begun");
    for halfway in &mut begun {
        halfway.go_on().await;
    }
    let drained = tokio::spawn(drained);
    for halfway in &mut begun {
        halfway.hears("4100").await;
    }
    drop(begun);
    assert_eq!(silent.bytes(1).await, None, "it is not left hanging");
    soon("the drain to end", drained).await.expect("nobody panicked");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_left_hanging_when_the_server_is_dropped() {
    let secured = with_places(16, |_| {}).await;
    let mut begun = Halfway::come(&secured).await;
    let mut silent = Raw::connect(secured.server.address).await;
    drop(secured.server);
    assert_eq!(begun.read().await, 0);
    assert_eq!(silent.bytes(1).await, None);
}
