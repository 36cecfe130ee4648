//! Encrypted connections against a client by the same library in its other, buffered form; and files that are replaced.

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, HandshakeKind, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::certificates::{Authority, Certified, Files};
use super::*;

fn settings(files: &Files) -> TlsConfig {
    TlsConfig {
        cert_file: Some(files.certificate()),
        key_file: Some(files.key()),
        ..TlsConfig::default()
    }
}

fn acceptor(files: &Files) -> Acceptor {
    let acceptor = Acceptor::new(&settings(files)).expect("sound files");
    acceptor.expect("TLS is on")
}

/// A client and a server with a wire between them that delivers as much at a time as it is told to.
struct Pair {
    client: ClientConnection,
    server: Sealed,
    records: Records,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    heard_by_client: Vec<u8>,
    heard_by_server: Vec<u8>,
}

impl Pair {
    fn new(acceptor: &Acceptor, client: rustls::ClientConfig) -> Pair {
        let name = "localhost".try_into().expect("a name");
        Pair {
            client: ClientConnection::new(Arc::new(client), name).expect("a client"),
            server: Sealed::new(acceptor.server()).expect("a server"),
            records: Records::default(),
            to_client: Vec::new(),
            to_server: Vec::new(),
            heard_by_client: Vec::new(),
            heard_by_server: Vec::new(),
        }
    }

    /// Goes on, so many bytes at a time, until nothing is on its way any more.
    fn settle(&mut self, step: usize) -> Result<(), BrokenSeal> {
        loop {
            self.client_writes();
            if self.to_server.is_empty() && self.to_client.is_empty() {
                return Ok(());
            }
            self.deliver_to_server(step)?;
            self.deliver_to_client(step);
        }
    }

    fn client_writes(&mut self) {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.to_server).expect("a vector");
        }
    }

    fn deliver_to_server(&mut self, bytes: usize) -> Result<(), BrokenSeal> {
        let bytes = bytes.min(self.to_server.len());
        let mut incoming = self.server.partial().to_vec();
        incoming.extend(self.to_server.drain(..bytes));
        let done = self
            .server
            .open(&mut incoming, &mut self.heard_by_server, &mut self.records);
        self.flush();
        done
    }

    fn deliver_to_client(&mut self, bytes: usize) {
        let bytes = bytes.min(self.to_client.len());
        let delivered: Vec<u8> = self.to_client.drain(..bytes).collect();
        let mut rest = &delivered[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("room");
            self.client.process_new_packets().expect("sound TLS");
            let read = self.client.reader().read_to_end(&mut self.heard_by_client);
            assert!(read.is_ok() || read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        }
    }

    fn flush(&mut self) {
        self.to_client.extend_from_slice(self.records.as_bytes());
        self.records.clear();
    }

    fn server_says(&mut self, bytes: &[u8]) {
        for record in bytes.chunks(RECORD_BYTES_MAX) {
            self.server
                .seal(record, &mut self.records)
                .expect("an open connection");
        }
        self.flush();
    }

    fn client_says(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).expect("room");
        self.client_writes();
    }
}

/// What happens to a connection next.
#[derive(Clone, Debug)]
enum Step {
    ServerSays(usize),
    ClientSays(usize),
    ServerGets(usize),
    ClientGets(usize),
    /// In TLS 1.3 it asks the server for new keys too.
    ClientChangesKeys,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = || prop_oneof![0..200_usize, 16_000..17_000_usize, 30_000..50_000_usize];
    let delivered = || prop_oneof![1..30_usize, 1_000..40_000_usize];
    let step = prop_oneof![
        4 => length().prop_map(Step::ServerSays),
        3 => length().prop_map(Step::ClientSays),
        4 => delivered().prop_map(Step::ServerGets),
        4 => delivered().prop_map(Step::ClientGets),
        1 => Just(Step::ClientChangesKeys),
    ];
    vec(step, 0..40)
}

fn text(number: &mut u8, length: usize) -> Vec<u8> {
    *number = number.wrapping_add(1);
    (0..length).map(|at| number.wrapping_add(at as u8)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the wire cuts it, and whatever happens meanwhile: both hear what the other said, to the byte.
    #[test]
    fn what_is_said_is_heard_in_order_and_once(
        is_new in any::<bool>(),
        client_records in prop_oneof![Just(None), Just(Some(64)), Just(Some(1000))],
        handshake_step in prop_oneof![1..20_usize, 200..5_000_usize],
        steps in steps(),
    ) {
        let authority = Authority::new();
        let acceptor = acceptor(&Files::of(&authority.vouch()));
        let versions: &[&SupportedProtocolVersion] = if is_new { &[&TLS13] } else { &[&TLS12] };
        let mut client = authority.client(versions, None);
        client.max_fragment_size = client_records;
        let mut pair = Pair::new(&acceptor, client);
        pair.settle(handshake_step).expect("a handshake");
        prop_assert!(!pair.server.is_handshaking() && !pair.client.is_handshaking());
        prop_assert_eq!(pair.server.partial().len(), 0, "nothing is kept of a handshake");

        let (mut by_server, mut by_client, mut number) = (Vec::new(), Vec::new(), 0);
        for step in steps {
            match step {
                Step::ServerSays(length) => {
                    let said = text(&mut number, length);
                    pair.server_says(&said);
                    by_server.extend(said);
                }
                Step::ClientSays(length) => {
                    let said = text(&mut number, length);
                    pair.client_says(&said);
                    by_client.extend(said);
                }
                Step::ServerGets(bytes) => pair.deliver_to_server(bytes).expect("sound TLS"),
                Step::ClientGets(bytes) => pair.deliver_to_client(bytes),
                Step::ClientChangesKeys if is_new => {
                    pair.client.refresh_traffic_keys().expect("TLS 1.3");
                    pair.client_writes();
                }
                Step::ClientChangesKeys => {}
            }
        }
        pair.settle(10_000).expect("sound TLS");
        prop_assert!(pair.heard_by_client == by_server);
        prop_assert!(pair.heard_by_server == by_client);
        prop_assert_eq!(pair.server.partial().len(), 0);

        pair.server.say_goodbye(&mut pair.records).expect("an open connection");
        pair.flush();
        pair.client.send_close_notify();
        pair.settle(7).expect("a goodbye");
        prop_assert!(pair.server.is_over());
        prop_assert_eq!(pair.client.reader().read(&mut [0; 1]).expect("an orderly end"), 0);
    }

    /// Whatever somebody sends who does not speak TLS: it ends, or more is waited for.
    #[test]
    fn nonsense_is_refused(bytes in vec(any::<u8>(), 0..2_000), starts_like_tls in any::<bool>()) {
        let authority = Authority::new();
        let acceptor = acceptor(&Files::of(&authority.vouch()));
        let mut server = Sealed::new(acceptor.server()).expect("a server");
        let mut bytes = bytes;
        if starts_like_tls {
            bytes.splice(0..0, [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
        }
        let (mut opened, mut answers) = (Vec::new(), Records::default());
        let _ = server.open(&mut bytes, &mut opened, &mut answers);
        prop_assert!(server.is_handshaking() && opened.is_empty());
        prop_assert!(server.seal(b"a", &mut answers).is_err(), "nothing is said to a stranger");
    }
}

#[test]
fn a_changed_byte_ends_the_connection_and_the_peer_is_told() {
    let authority = Authority::new();
    let acceptor = acceptor(&Files::of(&authority.vouch()));
    let mut pair = Pair::new(&acceptor, authority.client(&[&TLS13], None));
    pair.settle(usize::MAX).expect("a handshake");
    pair.client_says(b"whole");
    pair.client_says(b"changed");
    *pair.to_server.last_mut().expect("records") ^= 1;
    let broken = pair.deliver_to_server(usize::MAX);
    assert!(
        matches!(broken, Err(BrokenSeal::Tls(rustls::Error::DecryptError))),
        "{broken:?}"
    );
    assert_eq!(pair.heard_by_server, b"whole", "what came before counts");
    assert!(!pair.to_client.is_empty(), "an alert");
    assert!(pair.server.seal(b"a", &mut pair.records).is_err());
    assert!(pair.server.say_goodbye(&mut pair.records).is_err());
}

#[test]
fn a_record_without_end_is_not_waited_for() {
    let authority = Authority::new();
    let acceptor = acceptor(&Files::of(&authority.vouch()));
    let mut pair = Pair::new(&acceptor, authority.client(&[&TLS13], None));
    pair.settle(usize::MAX).expect("a handshake");
    pair.to_server = vec![23, 3, 3, 255, 255];
    pair.to_server.resize(70_000, 0);
    assert!(pair.deliver_to_server(usize::MAX).is_err());
    assert_eq!(pair.server.partial().len(), 0);
}

/// What a stranger says first is kept until it is whole; where no certificate can be meant, not more of it than one record.
#[tokio::test]
async fn a_greeting_is_kept_only_so_far() {
    let authority = Authority::new();
    let files = Files::of(&authority.vouch());
    let without = acceptor(&files);
    let with_clients = TlsConfig {
        client_ca_file: Some(files.write("ca.pem", &authority.pem)),
        ..settings(&files)
    };
    let with = Acceptor::new(&with_clients)
        .expect("sound files")
        .expect("TLS is on");
    // So many bytes of a ClientHello, which is to have 60,000, in records of 8,000.
    let hello = |bytes: usize| {
        let mut hello = vec![1, 0, 0xea, 0x60];
        hello.resize(bytes, 0);
        let record = |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
        hello.chunks(8_000).flat_map(record).collect::<Vec<u8>>()
    };
    for (acceptor, bytes, is_too_long) in [
        (&without, 16_000, false),
        (&without, 24_000, true),
        (&with, 24_000, false),
        (&with, 50_000, false),
    ] {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let speak = async {
            client.write_all(&hello(bytes)).await.expect("room");
            client.shutdown().await.expect("an open pipe");
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let shake_hands = async move { handshake(&mut server, acceptor).await };
        let (fault, ()) = tokio::join!(shake_hands, speak);
        let fault = fault.expect_err("it does not go on");
        let is_told = matches!(fault, HandshakeFault::Seal(BrokenSeal::TooLong));
        assert_eq!(is_told, is_too_long, "{bytes}: {fault}");
        assert!(
            is_too_long || matches!(fault, HandshakeFault::Lost(_)),
            "{bytes}: {fault}"
        );
    }
}

#[test]
fn a_session_is_resumed_with_a_ticket_also_after_a_renewal() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let files = Files::of(&authority.vouch());
        let acceptor = acceptor(&files);
        let client = authority.client(&[version], None);
        let meet = |expected| {
            let mut pair = Pair::new(&acceptor, client.clone());
            pair.settle(usize::MAX).expect("a handshake");
            assert_eq!(pair.client.handshake_kind(), Some(expected));
            assert_eq!(pair.server.is_resumed(), expected == HandshakeKind::Resumed);
            assert_eq!(pair.client.alpn_protocol(), None, "this client names none");
        };
        meet(HandshakeKind::Full);
        meet(HandshakeKind::Resumed);
        files.replace(&authority.vouch());
        assert_eq!(acceptor.reload(SystemTime::now()), Ok(Reloaded::Replaced));
        meet(HandshakeKind::Resumed);
    }
}

/// A ticket would outlive the certificate that was shown for it, and the authorities that were believed.
#[test]
fn where_clients_show_certificates_each_connection_asks_for_one() {
    let authority = Authority::new();
    let files = Files::of(&authority.vouch());
    let first = files.write("ca.pem", &authority.pem);
    let config = TlsConfig {
        client_ca_file: Some(first),
        ..settings(&files)
    };
    let acceptor = Acceptor::new(&config).expect("sound files").expect("TLS is on");
    let shown = authority.vouch();
    let meet = |client: &rustls::ClientConfig| {
        let mut pair = Pair::new(&acceptor, client.clone());
        let met = pair.settle(usize::MAX);
        met.map(|()| (pair.server.is_resumed(), pair.server.has_client_certificate()))
    };
    let clients = [&TLS12, &TLS13].map(|version| authority.client(&[version], Some(&shown)));
    for client in &clients {
        for _ in 0..3 {
            assert_eq!(meet(client), Ok((false, true)));
        }
    }
    let stranger = authority.client(&[&TLS13], None);
    assert_eq!(meet(&stranger), Ok((false, false)));
    assert_eq!(meet(&stranger), Ok((false, false)), "nobody is told apart before");
    files.write("ca.pem", &Authority::new().pem);
    assert_eq!(acceptor.reload(SystemTime::now()), Ok(Reloaded::Replaced));
    for client in &clients {
        assert!(
            matches!(meet(client), Err(BrokenSeal::Tls(_))),
            "it is not believed any more"
        );
    }
}

#[test]
fn wrong_files_change_nothing_and_say_what_is_wrong() {
    let authority = Authority::new();
    let files = Files::of(&authority.vouch_from_to(2020, 2040));
    let acceptor = acceptor(&files);
    let before = acceptor.validity();
    let year = |year: i64| UNIX_EPOCH + Duration::from_secs(((year - 1970) * 31_557_600) as u64);
    let now = year(2030);
    assert_eq!(acceptor.reload(now), Ok(Reloaded::Unchanged));

    let other = authority.vouch();
    let certified = |certificate: &str, key: &str| Certified {
        certificate: certificate.into(),
        key: key.into(),
    };
    let expired = authority.vouch_from_to(2020, 2029);
    let early = authority.vouch_from_to(2050, 2060);
    let encrypted = other.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for (wrong, key, part) in [
        (certified("", &other.key), "cert_file", "holds no certificate"),
        (
            certified("-----BEGIN CERTIFICATE-----\nb\n", &other.key),
            "cert_file",
            "as PEM",
        ),
        (
            certified(&other.certificate[..300], &other.key),
            "cert_file",
            "as PEM",
        ),
        (
            certified(&other.certificate, ""),
            "key_file",
            "holds no private key",
        ),
        (
            certified(&other.certificate, &encrypted),
            "key_file",
            "is encrypted",
        ),
        (
            certified(&other.certificate, &expired.key),
            "key_file",
            "not that of the certificate",
        ),
        (
            certified(&format!("{}{}", authority.pem, other.certificate), &other.key),
            "key_file",
            "has to be the first one there",
        ),
        (
            certified(VERSION_1, &other.key),
            "cert_file",
            "of X.509 version 1",
        ),
        (expired, "cert_file", "expired on 2029-01-01"),
        (early, "cert_file", "only from 2050-01-01"),
    ] {
        files.replace(&wrong);
        let fault = acceptor.reload(now).expect_err(part);
        assert_eq!(fault.key, key, "{fault}");
        assert!(fault.text.contains(part), "{fault}");
        assert!(!fault.to_string().contains("BEGIN"), "no file is told: {fault}");
        assert_eq!(acceptor.validity(), before);
    }
    std::fs::remove_file(files.certificate()).expect("it was there");
    assert!(
        acceptor
            .reload(now)
            .expect_err("no file")
            .text
            .contains("cannot read")
    );

    files.replace(&other);
    assert_eq!(acceptor.reload(now), Ok(Reloaded::Replaced));
    assert_eq!(acceptor.reload(now), Ok(Reloaded::Unchanged));
    let left = |validity: Option<Validity>, now| validity.map(|validity| validity.seconds_left(now));
    assert!(left(acceptor.validity(), now) > left(before, now));
    assert!(left(acceptor.validity(), year(2095)) < Some(0));
}

/// From `openssl x509 -req` without `-extfile`.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBADCBpgIBATAKBggqhkjOPQQDAjAMMQowCAYDVQQDDAF0MB4XDTI2MDEwMTAw\n\
MDAwMFoXDTI3MDEwMTAwMDAwMFowDDEKMAgGA1UEAwwBdDBZMBMGByqGSM49AgEG\n\
CCqGSM49AwEHA0IABCrQRQjUTggBYKODerCqEpJPhtLT/0bEYHRnxp94NoXKNiuv\n\
BDihd0Q/fnMwsmGMEctRZOlZuvrAeWku9IH2xtswCgYIKoZIzj0EAwIDSQAwRgIh\n\
AKtirTHKsiaXJneN0TeEe3Z3JSWlVsPBPC+kT+gg/5r0AiEAzQCAjuXylIkhDOA4\n\
dRNsMdVzMz/WTKH2iOhWTSToiX0=\n\
-----END CERTIFICATE-----\n\
";

#[test]
fn an_encrypted_connection_is_sent_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Sealed>();
}

/// While HTTP is spoken a connection is a task, and what it may do before others have their turn is bounded: records count.
#[tokio::test]
async fn records_that_say_next_to_nothing_use_up_the_turn_of_a_task() {
    const WORDS: usize = 40;
    let authority = Authority::new();
    let acceptor = acceptor(&Files::of(&authority.vouch()));
    let mut pair = Pair::new(&acceptor, authority.client(&[&TLS13], None));
    pair.settle(usize::MAX).expect("a handshake");
    for _ in 0..WORDS {
        for _ in 0..32 {
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
        }
        pair.client_says(b"a");
    }
    let Pair {
        server, to_server, ..
    } = pair;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut client = TcpStream::connect(address).await.expect("it listens");
    let (served, _) = listener.accept().await.expect("who has just connected");
    client.write_all(&to_server).await.expect("room in the kernel");
    let mut there = vec![0; to_server.len()];
    while served.peek(&mut there).await.expect("it is open") < to_server.len() {
        tokio::task::yield_now().await;
    }

    let mut stream = SealedStream::new(served, Box::new(server));
    let (mut heard, mut turns) = (0, Vec::new());
    while heard < WORDS {
        let turn = poll_fn(|cx| {
            let before = heard;
            while heard < WORDS
                && let Poll::Ready(read) = stream.poll_next(cx)
            {
                heard += read.expect("sound TLS").len();
            }
            Poll::Ready(heard - before)
        });
        turns.push(turn.await);
        tokio::task::yield_now().await;
    }
    assert!(turns[0] < WORDS * 3 / 4, "all was there at once: {turns:?}");
}

#[test]
fn what_acme_brings_is_shown_from_then_on_and_stays_when_it_is_lost() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder");
    let config = TlsConfig {
        acme: acme::AcmeConfig {
            domains: vec!["localhost.example".into()],
            folder: folder.path().into(),
            ..acme::AcmeConfig::default()
        },
        ..TlsConfig::default()
    };
    let acceptor = Acceptor::new(&config)
        .expect("nothing is wrong")
        .expect("TLS is on");
    let now = UNIX_EPOCH + Duration::from_secs(60 * 31_557_600);
    let client = || authority.client(&[&TLS13, &TLS12], None);
    let asks_challenge = || {
        let mut client = client();
        client.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        client
    };
    assert_eq!(acceptor.reload(now), Ok(Reloaded::Unchanged));
    assert_eq!(acceptor.validity(), None);
    assert!(
        Pair::new(&acceptor, client()).settle(9999).is_err(),
        "nothing to show"
    );

    let issued = authority.vouch_from_to(2020, 2050);
    let file = acme::file(&config.acme);
    std::fs::write(&file, format!("{}{}", issued.key, issued.certificate)).expect("it is written");
    assert_eq!(acceptor.reload(now), Ok(Reloaded::Replaced));
    assert!(acceptor.validity().is_some());
    assert!(Pair::new(&acceptor, client()).settle(9999).is_ok());
    let mut asks_both = asks_challenge();
    asks_both.alpn_protocols.push(b"http/1.1".to_vec());
    for client in [asks_challenge(), asks_both] {
        let asked = Pair::new(&acceptor, client).settle(9999);
        assert!(asked.is_err(), "nobody is shown the certificate for a challenge");
    }

    std::fs::remove_file(&file).expect("it was there");
    let fault = acceptor.reload(now).expect_err("it is missed");
    assert_eq!(fault.key, "tls.acme");
    assert!(Pair::new(&acceptor, client()).settle(9999).is_ok());
    std::fs::write(&file, "nonsense").expect("it is written");
    let fault = acceptor.reload(now).expect_err("nonsense");
    assert_eq!(fault.key, "acme.folder");
    assert!(
        fault
            .text
            .contains("if that file is removed and the server started again"),
        "{fault}"
    );
}
