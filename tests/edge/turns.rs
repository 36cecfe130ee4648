//! One shard by itself, held up where a test says so: what is to wait then waits, in an order that is known, and what
//! becomes of it does not hang on luck. There is no HTTP here: whoever is connected is a socket at once.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fanwire::address::Client;
use fanwire::app::{App, AppConfig, Apps};
use fanwire::hub::inbox::{Arrival, Entry, Inbox, Inboxes, SocketKey};
use fanwire::metrics::{CloseReason, Metrics};
use fanwire::node::{Joiner, Node, Publication};
use fanwire::protocol::ChannelName;
use fanwire::protocol::code::CloseCode;
use fanwire::shard::{self, Doors, LiveBytes, Newcomer};
use fanwire::tls::{Acceptor, TlsConfig, handshake};
use rustls::version::TLS13;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::authority::{Authority, Files};
use crate::support::raw::{Raw, frame};
use crate::support::server::{KEY, SECRET, app};
use crate::support::{DEADLINE, eventually, raw, sign};
use crate::tls::{Tls, secure};

const CHANNEL: &str = "private-a";

/// A connection's two ends: the client's, and the one to be served.
async fn connection() -> (Raw, Arrival) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).await;
    let (served, _) = listener.accept().await.expect("who has just connected");
    served.set_nodelay(true).expect("a socket takes options");
    let served = Arrival {
        stream: served.into_std().expect("nobody waits for it"),
        client: Client::default(),
        place: None,
        sealed: None,
    };
    (Raw::of(client), served)
}

/// Tells that the shard is held up, and waits until it is let go.
struct Hold {
    is_held: mpsc::Sender<()>,
    goes_on: mpsc::Receiver<()>,
}

/// Shard 0. The other inboxes have no shard behind them: who publishes to them waits for what the test does.
struct LoneShard {
    app: Arc<App>,
    node: Arc<Node>,
    /// What the next connection that comes in is for.
    hold: Arc<Mutex<Option<Hold>>>,
    thread: Option<JoinHandle<()>>,
}

impl LoneShard {
    /// With so many inboxes, each with this mark in bytes.
    fn start(inboxes: usize, mark: usize) -> LoneShard {
        let config = AppConfig {
            client_events_per_s: 100_000,
            ..app()
        };
        let apps = Apps::new([config]).expect("a sound configuration");
        let app = apps.by_id("1").expect("the app above");
        let metrics = Arc::new(Metrics::new("test", 0).expect("a legal prefix"));
        let node = Arc::new(Node::new(apps, Inboxes::new(inboxes, mark), metrics));
        let hold: Arc<Mutex<Option<Hold>>> = Arc::default();
        let (next_hold, newcomers_app) = (hold.clone(), app.clone());
        let door = move |shard: Rc<shard::Shard>, arrival: Arrival<TcpStream>| {
            if let Some(hold) = next_hold.lock().expect("nobody panicked").take() {
                hold.is_held.send(()).expect("the test waits for it");
                // Nothing is ever sent: this ends when the test lets go of the other side.
                let _ = hold.goes_on.recv();
                return shard.connection_gone();
            }
            let newcomer = Newcomer {
                admission: newcomers_app.admit().expect("no quota is set"),
                protocol: 7,
                strict: false,
                answer: Vec::new(),
                client: Client::default(),
                place: None,
            };
            shard.adopt(arrival.stream, arrival.sealed, b"", newcomer);
        };
        let doors: Doors = Arc::new(move |_| Box::new(door.clone()));
        let thread = shard::start(0, node.clone(), LiveBytes::default(), usize::MAX, doors);
        LoneShard {
            app,
            node,
            hold,
            thread: Some(thread.expect("a thread")),
        }
    }

    /// Puts entries into the shard's inbox, all at once.
    fn push(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut delivery = self.node.inboxes().deliver();
        for entry in entries {
            if matches!(entry, Entry::Accept(_)) {
                self.node.inboxes().of(0).add_connection();
            }
            delivery.push(0, entry);
        }
    }

    /// Holds the shard up in the middle of a turn, until the answer is dropped. Behind what holds it up wait this
    /// many entries that ask for nothing.
    async fn hold(&self, entries: usize) -> mpsc::Sender<()> {
        let (is_held, held) = mpsc::channel();
        let (lets_go, goes_on) = mpsc::channel();
        *self.hold.lock().expect("nobody panicked") = Some(Hold { is_held, goes_on });
        let (_client, served) = connection().await;
        let nothing = || Entry::Shed {
            count: 0,
            code: CloseCode::Reconnect,
            reason: CloseReason::Shed,
        };
        self.push(
            std::iter::once(Entry::Accept(served)).chain(std::iter::repeat_with(nothing).take(entries)),
        );
        held.recv_timeout(DEADLINE).expect("the shard has a turn");
        lets_go
    }

    /// A client that the shard is asked to take in, and that has not been greeted yet.
    async fn newcomer(&self) -> Raw {
        let (client, served) = connection().await;
        self.push([Entry::Accept(served)]);
        client
    }

    /// A client that has subscribed to [`CHANNEL`], signed in as `user` if there is one.
    async fn subscriber(&self, user: Option<&str>) -> Raw {
        let client = self.newcomer().await;
        subscribed(client, user).await
    }

    /// The same, encrypted.
    async fn encrypted_subscriber(&self) -> Raw<Tls> {
        let authority = Authority::new();
        let files = Files::of(&authority.vouch());
        let config = TlsConfig {
            cert_file: Some(files.certificate()),
            key_file: Some(files.key()),
            ..TlsConfig::default()
        };
        let acceptor = Acceptor::new(&config).expect("sound files").expect("TLS is on");
        let trust = Arc::new(authority.client(&[&TLS13], None));
        let (client, mut served) = connection().await;
        let mut stream = TcpStream::from_std(served.stream).expect("nobody else waits for it");
        let (client, sealed) = tokio::join!(secure(client.stream, trust), handshake(&mut stream, &acceptor));
        served.sealed = Some(sealed.expect("a handshake"));
        served.stream = stream.into_std().expect("a socket");
        self.push([Entry::Accept(served)]);
        subscribed(Raw::over(client.expect("a handshake")), None).await
    }

    /// Messages that the shard's sockets have read.
    fn messages(&self) -> u64 {
        let namespace = self.node.namespace(&self.app);
        namespace.metrics.ws_messages_received_total.get()
    }

    /// Waits until the shard's sockets have read so many messages.
    async fn reads(&self, messages: u64) {
        eventually("the messages to be read", async || {
            (self.messages() >= messages).then_some(())
        })
        .await;
    }

    async fn connections_become(&self, expected: usize) {
        eventually("the places to be given back", async || {
            (self.app.connections() == expected).then_some(())
        })
        .await;
    }
}

impl Drop for LoneShard {
    fn drop(&mut self) {
        self.push([Entry::Stop]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Greeted, signed in as `user` if there is one, and subscribed to [`CHANNEL`].
async fn subscribed<S>(mut client: Raw<S>, user: Option<&str>) -> Raw<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let id = client.greeting().await;
    if let Some(user) = user {
        let user_data = json!({ "id": user }).to_string();
        let auth = sign::auth(KEY, SECRET, &format!("{id}::user::{user_data}"));
        let data = json!({ "auth": auth, "user_data": user_data });
        client
            .say(&json!({ "event": "pusher:signin", "data": data }))
            .await;
        assert_eq!(client.next().await["event"], "pusher:signin_success");
    }
    let auth = sign::auth(KEY, SECRET, &format!("{id}:{CHANNEL}"));
    client
        .say(&json!({ "event": "pusher:subscribe", "data": { "channel": CHANNEL, "auth": auth } }))
        .await;
    assert_eq!(
        client.next().await["event"],
        "pusher_internal:subscription_succeeded"
    );
    client
}

fn client_event(number: u64) -> Vec<u8> {
    let event = json!({ "event": "client-n", "channel": CHANNEL, "data": number });
    frame(raw::FIN | raw::TEXT, event.to_string().as_bytes())
}

fn ping() -> Vec<u8> {
    frame(raw::FIN | raw::TEXT, br#"{"event":"pusher:ping"}"#)
}

/// Nothing was on its way to this client: what it hears next is the answer to its ping.
async fn expect_silence(client: &mut Raw) {
    client.send(ping()).await;
    assert_eq!(client.next().await["event"], "pusher:pong");
}

async fn expect_number(client: &mut Raw, number: u64) {
    let event = client.next().await;
    assert_eq!(
        (&event["event"], &event["data"]),
        (&Value::from("client-n"), &Value::from(number.to_string()))
    );
}

/// A turn works 512 entries at most. What comes in while there are more must not lie until the next tick.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_in_the_middle_of_a_long_turn_is_worked_without_a_tick() {
    const ROUNDS: u32 = 8;
    let shard = LoneShard::start(1, 1 << 20);
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let held = shard.hold(600).await;
        let mut client = shard.newcomer().await;
        drop(held);
        client.greeting().await;
    }
    // There is a tick each second: to wait for it every time would take at least seven.
    let elapsed = begun.elapsed();
    assert!(
        elapsed < Duration::from_secs(4),
        "{ROUNDS} rounds took {elapsed:?}"
    );
}

/// Eight clients have sent as many pings as are read at once, and then another one says a word to all: it is heard
/// before most of the pings are answered.
#[tokio::test(flavor = "multi_thread")]
async fn who_says_little_is_heard_between_those_who_say_much() {
    const FLOODERS: usize = 8;
    let shard = LoneShard::start(1, 1 << 20);
    let mut flooders = Vec::new();
    for _ in 0..FLOODERS {
        flooders.push(shard.subscriber(None).await);
    }
    let mut client = shard.subscriber(None).await;
    let pings_each = 64 * 1024 / ping().len();
    let flood = ping().repeat(pings_each);

    let held = shard.hold(0).await;
    for flooder in &mut flooders {
        flooder.send(&flood).await;
    }
    client.send(client_event(1)).await;
    drop(held);

    let mut answered_before = 0;
    for flooder in &mut flooders {
        let mut answers = 0;
        loop {
            match flooder.next().await["event"].as_str().expect("an event") {
                "client-n" => break,
                "pusher:pong" => answers += 1,
                other => panic!("nobody asked for {other}"),
            }
        }
        answered_before += answers;
        for _ in answers..pings_each {
            assert_eq!(flooder.next().await["event"], "pusher:pong");
        }
    }
    // One helping of each flooder, and then what a turn or two let through until the word is sent on.
    assert!(
        answered_before <= FLOODERS * pings_each / 4,
        "{answered_before} of {} pings were answered before",
        FLOODERS * pings_each
    );
}

/// Six encrypted clients say little, in very many records: before each byte they ask for new keys, as often as is borne.
/// Then another one says a word to all: it is heard before most of what they say is answered.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_say_next_to_nothing_count_as_much_as_messages() {
    const FLOODERS: usize = 6;
    // Some 50 KiB of records, which are at the shard before it hears any of them.
    const PINGS_EACH: usize = 2;
    let shard = LoneShard::start(1, 1 << 20);
    let mut flooders = Vec::new();
    for _ in 0..FLOODERS {
        flooders.push(shard.encrypted_subscriber().await);
    }
    let mut client = shard.subscriber(None).await;

    let held = shard.hold(0).await;
    for flooder in &mut flooders {
        for byte in ping().repeat(PINGS_EACH) {
            let (_, session) = flooder.stream.get_mut();
            for _ in 0..32 {
                session.refresh_traffic_keys().expect("TLS 1.3");
            }
            flooder.send([byte]).await;
        }
        flooder.stream.flush().await.expect("it listens");
    }
    client.send(client_event(1)).await;
    drop(held);

    let mut answered_before = 0;
    for flooder in &mut flooders {
        let mut answers = 0;
        loop {
            match flooder.next().await["event"].as_str().expect("an event") {
                "client-n" => break,
                "pusher:pong" => answers += 1,
                other => panic!("nobody asked for {other}"),
            }
        }
        answered_before += answers;
        for _ in answers..PINGS_EACH {
            assert_eq!(flooder.next().await["event"], "pusher:pong");
        }
    }
    assert!(
        answered_before <= FLOODERS * PINGS_EACH / 2,
        "{answered_before} of {} pings were answered before",
        FLOODERS * PINGS_EACH
    );
}

/// Another shard with a subscriber of [`CHANNEL`], as slow as the test.
struct SlowShard {
    node: Arc<Node>,
    queue: VecDeque<Entry>,
}

impl SlowShard {
    fn of(shard: &LoneShard) -> SlowShard {
        let namespace = shard.node.namespace(&shard.app);
        let joiner = Joiner {
            shard: 1,
            socket: SocketKey {
                slot: 0,
                generation: 0,
            },
            place: 0,
            token: 0,
        };
        let joined = shard.node.subscribe(&namespace, &channel(), joiner, None);
        joined.expect("no presence channel, so it is never full");
        SlowShard {
            node: shard.node.clone(),
            queue: VecDeque::new(),
        }
    }

    /// An event is published to the channel, so that this shard is above its mark.
    fn fill(&self, shard: &LoneShard) {
        let publication = Publication {
            channels: vec![channel()],
            event: "filler".to_owned(),
            data: String::new(),
            except: None,
        };
        self.node.publish(&shard.app, [&publication]);
    }

    fn waiting(&mut self) -> usize {
        let mut taken = Vec::new();
        self.node.inboxes().of(1).take(Waker::noop(), &mut taken);
        self.queue.extend(taken);
        self.queue.retain(|entry| matches!(entry, Entry::Broadcast(_)));
        self.queue.len()
    }

    /// Delivers the one event that it has in hand.
    fn serve(&mut self) {
        assert_eq!(self.waiting(), 1, "there is room for one publication at a time");
        if let Some(Entry::Broadcast(broadcast)) = self.queue.pop_front() {
            self.node.inboxes().of(1).release(Inbox::charge(&broadcast.frame));
        }
    }
}

fn channel() -> ChannelName {
    ChannelName::parse(CHANNEL, 200).expect("a legal name")
}

/// Two clients on one shard, and another shard that is full: each inbox has room for one publication.
async fn ada_bob_and_a_full_shard(ada: Option<&str>) -> (LoneShard, Raw, Raw, SlowShard) {
    let shard = LoneShard::start(2, 1);
    let (mut ada, mut bob) = (shard.subscriber(ada).await, shard.subscriber(None).await);
    let slow = SlowShard::of(&shard);
    slow.fill(&shard);
    for client in [&mut ada, &mut bob] {
        assert_eq!(client.next().await["event"], "filler");
    }
    (shard, ada, bob, slow)
}

#[tokio::test(flavor = "multi_thread")]
async fn client_events_go_out_one_by_one_as_there_is_room_and_none_is_lost_or_doubled() {
    let (shard, mut ada, mut bob, mut slow) = ada_bob_and_a_full_shard(None).await;
    let messages = shard.messages();
    // In one write, then in another; and behind them something that is answered.
    let numbers = |numbers: std::ops::Range<u64>| numbers.flat_map(client_event).collect::<Vec<u8>>();
    ada.send(numbers(0..20)).await;
    shard.reads(messages + 1).await;
    expect_silence(&mut bob).await;
    ada.send(numbers(20..30)).await;
    ada.send(ping()).await;
    for number in 0..30 {
        slow.serve();
        expect_number(&mut bob, number).await;
        expect_silence(&mut bob).await;
    }
    slow.serve();
    assert_eq!(ada.next().await["event"], "pusher:pong");
    expect_silence(&mut bob).await;
    assert_eq!(slow.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_closed_while_it_waits_for_room_gives_its_place_back_and_says_no_more() {
    let (shard, mut ada, mut bob, mut slow) = ada_bob_and_a_full_shard(Some("ada")).await;
    let messages = shard.messages();
    ada.send((0..10).flat_map(client_event).collect::<Vec<u8>>())
        .await;
    shard.reads(messages + 1).await;
    shard.node.terminate_user(&shard.app, "ada");
    assert_eq!(ada.next().await["data"]["code"], 4009);
    assert_eq!(ada.frame().await.expect("a close frame").close().0, 4009);
    // It is not read, so its answer would not be heard: it is dropped when the time for closing is over, although the
    // other shard is as full as before.
    shard.connections_become(1).await;
    slow.serve();
    expect_silence(&mut bob).await;
    assert_eq!(slow.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_vanishes_while_it_waits_for_room_has_said_what_it_said() {
    let (shard, mut ada, mut bob, mut slow) = ada_bob_and_a_full_shard(None).await;
    let messages = shard.messages();
    ada.send((0..10).flat_map(client_event).collect::<Vec<u8>>())
        .await;
    shard.reads(messages + 1).await;
    drop(ada);
    for number in 0..10 {
        slow.serve();
        expect_number(&mut bob, number).await;
        expect_silence(&mut bob).await;
    }
    slow.serve();
    shard.connections_become(1).await;
    assert_eq!(slow.waiting(), 0);
}
