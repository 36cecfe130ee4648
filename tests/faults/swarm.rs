//! Many small clients that do what stock ones do when they are closed: at 4200 they come back at once, at 4100 after a
//! second; and the load balancer that says where to. Each writes down when it was where, and what it heard there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::node::Node;
use crate::support::http::Backend;
use crate::support::raw::{CLOSE, FIN, Raw, TEXT, frame};

/// What all of them listen to.
pub(crate) const NEWS: &str = "news";
/// Handshakes at a time while they gather.
const AT_A_TIME: usize = 64;
/// What a stock client waits after 4100.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Files kept open beside the clients: logs, pipes, and what other cases have.
const OTHER_FILES: usize = 1_000;

/// Sees to it that this process may have so many connections; its children inherit that.
pub(crate) fn may_open(connections: usize) {
    let (needed, limit) = ((connections + OTHER_FILES) as u64, getrlimit(Resource::Nofile));
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let is_enough =
        limit.maximum.is_none_or(|most| most >= needed) && setrlimit(Resource::Nofile, raised).is_ok();
    assert!(
        is_enough,
        "this case opens {needed} files, and the system allows {:?}: raise the hard limit (ulimit -Hn {needed} as root, \
         or LimitNOFILE of the unit)",
        limit.maximum
    );
}

/// How a balancer chooses among the nodes that are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// One after the other, whatever they have.
    InTurn,
    /// Whichever has the fewest connections.
    Fewest,
}

/// A load balancer that obeys a probe.
pub(crate) struct Balancer {
    choice: Choice,
    nodes: Mutex<Vec<Place>>,
}

/// A node behind it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    address: SocketAddr,
    is_ready: bool,
    pub(crate) connections: usize,
    chosen: usize,
}

impl Balancer {
    pub(crate) fn new(choice: Choice) -> Arc<Balancer> {
        Arc::new(Balancer {
            choice,
            nodes: Mutex::default(),
        })
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Place>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends clients to this node too, as if its probe had said yes.
    pub(crate) fn add(&self, node: &Node) {
        let mut nodes = self.nodes();
        // Not to be sent all that the others had until now.
        let chosen = nodes.iter().map(|place| place.chosen).max().unwrap_or_default();
        nodes.push(Place {
            name: node.name.clone(),
            address: node.address,
            is_ready: true,
            connections: 0,
            chosen,
        });
    }

    /// Asks a node once a second from now on, as an orchestrator does, and sends nobody there after a no.
    pub(crate) fn probe(self: &Arc<Self>, node: &Node) -> JoinHandle<()> {
        let (balancer, name, address) = (self.clone(), node.name.clone(), node.admin_address);
        tokio::spawn(async move {
            loop {
                let asked = tokio::time::timeout(Duration::from_secs(1), is_ready(address)).await;
                if let Some(place) = balancer.nodes().iter_mut().find(|place| place.name == name) {
                    place.is_ready = asked.unwrap_or(false);
                }
                sleep(Duration::from_secs(1)).await;
            }
        })
    }

    /// How many each has.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.nodes().clone()
    }

    /// Where the next one goes.
    fn choose(&self) -> (usize, SocketAddr) {
        let mut nodes = self.nodes();
        let by = |place: &Place| match self.choice {
            Choice::InTurn => place.chosen,
            Choice::Fewest => place.connections,
        };
        let ready = nodes.iter_mut().enumerate().filter(|(_, place)| place.is_ready);
        let (index, place) = ready.min_by_key(|(_, place)| by(place)).expect("a node is ready");
        place.chosen += 1;
        place.connections += 1;
        (index, place.address)
    }

    fn has_gone(&self, index: usize) {
        self.nodes()[index].connections -= 1;
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    let Ok(stream) = tokio::net::TcpStream::connect(address).await else {
        return false;
    };
    let mut raw = Raw::of(Ok(stream));
    raw.send("GET /ready HTTP/1.1\r\nHost: probe\r\n\r\n").await;
    raw.http_head()
        .await
        .is_some_and(|head| head.starts_with("HTTP/1.1 200 "))
}

/// The time that a client had one connection.
#[derive(Debug)]
pub(crate) struct Stay {
    /// The node's index at the balancer.
    pub(crate) node: usize,
    pub(crate) greeted: Instant,
    /// When its subscription was acknowledged: what is published from then on is heard.
    pub(crate) subscribed: Instant,
    /// The numbers of the events, and when each was heard.
    pub(crate) heard: Vec<(u32, Instant)>,
    /// With which code it ended, and when. None: it is over because the case is.
    pub(crate) closed: Option<(u16, Instant)>,
}

/// All of one client.
#[derive(Debug, Default)]
pub(crate) struct Life {
    pub(crate) stays: Vec<Stay>,
    /// How often it was told that there is no room.
    pub(crate) refused: usize,
}

impl Life {
    /// Between one connection and the next.
    pub(crate) fn without_connection(&self) -> impl Iterator<Item = Duration> {
        let pairs = self.stays.windows(2);
        pairs.filter_map(|pair| Some(pair[1].greeted - pair[0].closed?.1))
    }
}

/// Clients that live until the event `over` is published.
pub(crate) struct Swarm {
    clients: JoinSet<Life>,
}

impl Swarm {
    /// So many, all of them subscribed.
    pub(crate) async fn gather(count: usize, balancer: &Arc<Balancer>) -> Swarm {
        may_open(count);
        let mut clients = JoinSet::new();
        let mut coming = stream::iter(0..count)
            .map(|_| Client::come(balancer.clone()))
            .buffer_unordered(AT_A_TIME);
        while let Some(client) = coming.next().await {
            clients.spawn(client.live());
        }
        drop(coming);
        Swarm { clients }
    }

    /// What became of each. To be called when it is over.
    pub(crate) async fn lives(self) -> Vec<Life> {
        self.clients.join_all().await
    }
}

struct Client {
    balancer: Arc<Balancer>,
    raw: Raw,
    life: Life,
}

impl Client {
    async fn come(balancer: Arc<Balancer>) -> Client {
        let mut life = Life::default();
        let raw = connect(&balancer, &mut life).await;
        Client { balancer, raw, life }
    }

    async fn live(mut self) -> Life {
        loop {
            self.raw.listen().await;
            let heard = self.raw.frame().await.expect("a close frame before the end");
            let stay = self.life.stays.last_mut().expect("it has a connection");
            if heard.first == FIN | CLOSE {
                let code = heard.close().0;
                stay.closed = Some((code, Instant::now()));
                assert_eq!(code, 4200, "nobody is closed for another reason");
                // As a browser does: the old connection is answered and let go while the new one is being made.
                self.raw.send(frame(FIN | CLOSE, &code.to_be_bytes())).await;
                self.balancer.has_gone(stay.node);
                self.raw = connect(&self.balancer, &mut self.life).await;
            } else if heard.first == FIN | TEXT {
                let message = heard.json();
                match message["event"].as_str() {
                    Some("tick") => stay.heard.push((number(&message), Instant::now())),
                    Some("over") => return self.life,
                    _ => {}
                }
            }
        }
    }
}

fn number(message: &Value) -> u32 {
    let number = message["data"].as_str().and_then(|data| data.parse().ok());
    number.unwrap_or_else(|| panic!("a number is expected: {message}"))
}

/// Connects and subscribes wherever there is room.
async fn connect(balancer: &Balancer, life: &mut Life) -> Raw {
    loop {
        let (node, address) = balancer.choose();
        let mut raw = Raw::connect(address)
            .await
            .upgraded("/app/key?protocol=7", "")
            .await;
        let first = raw.frame().await.expect("a first message").json();
        if first["event"] == "pusher:error" {
            assert_eq!(first["data"]["code"], 4100, "{first}");
            life.refused += 1;
            balancer.has_gone(node);
            sleep(BACK_OFF).await;
            continue;
        }
        assert_eq!(first["event"], "pusher:connection_established", "{first}");
        let greeted = Instant::now();
        raw.say(&json!({ "event": "pusher:subscribe", "data": { "channel": NEWS } }))
            .await;
        let answer = raw.next().await;
        assert_eq!(
            answer["event"], "pusher_internal:subscription_succeeded",
            "{answer}"
        );
        life.stays.push(Stay {
            node,
            greeted,
            subscribed: Instant::now(),
            heard: Vec::new(),
            closed: None,
        });
        return raw;
    }
}

/// Numbered events, one after the other.
pub(crate) struct Ticker {
    /// When each was sent, and when its answer was there.
    sent: Arc<Mutex<Vec<(Instant, Instant)>>>,
    task: JoinHandle<Backend>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Ticker {
    pub(crate) async fn begin(node: &Node, pause: Duration) -> Ticker {
        let mut backend = node.backend().await;
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (into, (stop, mut stopped)) = (sent.clone(), tokio::sync::oneshot::channel());
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(pause);
            for number in 0_u32.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => break,
                }
                let at = Instant::now();
                backend.publish(NEWS, "tick", &number.to_string()).await;
                let mut sent = into.lock().unwrap_or_else(PoisonError::into_inner);
                sent.push((at, Instant::now()));
            }
            backend
        });
        Ticker { sent, task, stop }
    }

    /// Ends when so many clients are there, and tells them that it is over. The answer is when each event was sent and
    /// answered.
    pub(crate) async fn end(self, clients: usize) -> Vec<(Instant, Instant)> {
        let _ = self.stop.send(());
        let mut backend = self.task.await.expect("every event is taken");
        backend.wait_for_subscribers(NEWS, clients as u64).await;
        backend.publish(NEWS, "over", "").await;
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut sent)
    }
}
