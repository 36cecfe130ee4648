//! HTTP on a shard: every connection begins here. It is served here for as long as it stays HTTP; an upgrade hands
//! the raw stream to the shard and nothing of HTTP is left behind. What requests are answered with is in
//! `server/answers.rs`.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::answers::{Answer, Stay, answer};
use super::callers::{Caller, Callers};
use super::health::Health;
use super::marks::Marks;
use super::refusals::Refusals;
use super::reread::Reread;
use super::stream::Stream;
use super::upgrade::{self, Asked, Upgraded, upgrade};
use super::waiting::{CalledOff, Seated, WaitingRoom};
use crate::address::{AddressLimits, Client, Forwarding};
use crate::api::Api;
use crate::config::ServerConfig;
use crate::hub::inbox::{Arrival, ShardIndex};
use crate::metrics::ConnectionError;
use crate::node::Node;
use crate::shard::{Doors, Shard};
use crate::tls::Sealed;

/// What is left of the patience with idle connections while there are too many.
const CROWDED_PATIENCE: Duration = Duration::from_secs(1);

/// What every connection is served with.
pub(super) struct Gate {
    pub(super) node: Arc<Node>,
    pub(super) api: Api,
    pub(super) health: Arc<Health>,
    pub(super) config: ServerConfig,
    /// Whether the demo page stands at `/`.
    pub(super) development: bool,
    /// Whether calls of the API need a client certificate.
    pub(super) knows_callers: bool,
    /// How much is taken in.
    pub(super) marks: Arc<Marks>,
    /// The connections that speak HTTP.
    pub(super) callers: Arc<Callers>,
    /// Clients of each shard that wait to be told that they may have no socket.
    pub(super) refused: Box<[AtomicUsize]>,
    /// For whom trusted proxies speak.
    pub(super) forwarding: Forwarding,
    /// How much one address may have.
    pub(super) limits: AddressLimits,
    /// Connections of one shard that may be there without having asked for anything.
    pub(super) pending_max: usize,
    /// Set when connections are to end after the request in hand.
    pub(super) closing: watch::Receiver<bool>,
}

/// Stands for the answer to an upgrade, which is not hyper's to send: it lets go of the connection instead. What it
/// answered before has left by then, since it reads no request sooner.
#[derive(Debug, thiserror::Error)]
#[error("the connection has been upgraded")]
struct LetGo;

/// Who is at the other end of a connection, and how it stands.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) client: Client,
    /// Its address has too many connections, and this one is to be told so.
    pub(super) is_beyond: bool,
    /// Its handshake was counted to its address before it began to speak HTTP.
    pub(super) has_shaken_hands: bool,
    /// It may call the HTTP API.
    pub(super) may_call: bool,
}

/// The doors of the shards.
pub(super) fn doors(gate: Arc<Gate>) -> Doors {
    Arc::new(move |shard| {
        let room = WaitingRoom::new(gate.pending_max);
        let refusals = Refusals::new(gate.clone(), shard.into());
        let (gate, keeper) = (gate.clone(), gate.clone());
        let patience = move || keeper.patience(keeper.config.header_timeout_s);
        tokio::task::spawn_local(room.clone().keep(patience, gate.closing.clone()));
        Box::new(move |shard, arrival| serve(gate.clone(), &room, refusals.clone(), shard, arrival))
    })
}

/// Serves one connection, on the shard's thread.
fn serve(
    gate: Arc<Gate>,
    room: &Rc<WaitingRoom>,
    refusals: Rc<Refusals>,
    shard: Rc<Shard>,
    arrival: Arrival<TcpStream>,
) {
    let seated = room.sit(Instant::now());
    tokio::task::spawn_local(async move {
        let index = shard.index();
        let place = Place { shard: Some(shard) };
        // Boxed, so that what HTTP needs is given back before a socket begins its life.
        let Some((stream, early, upgraded)) = Box::pin(open(gate, index, seated, arrival)).await else {
            return;
        };
        let (stream, sealed, unread) = stream.into_parts();
        match upgraded {
            Upgraded::Socket(newcomer) => {
                let early = match unread.is_empty() {
                    true => early,
                    false => [early, unread].concat().into(),
                };
                place.keep().adopt(stream, sealed, &early, newcomer);
            }
            Upgraded::Refused(refusal) => refusals.refuse(stream, sealed, refusal, place),
        }
    });
}

/// The connection's place in the shard's count, given back unless a socket takes it over.
pub(super) struct Place {
    shard: Option<Rc<Shard>>,
}

impl Place {
    fn keep(mut self) -> Rc<Shard> {
        self.shard.take().expect("a place is kept or given back once")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shard) = &self.shard {
            shard.connection_gone();
        }
    }
}

/// All that comes before a socket. `None`: the connection is over.
async fn open(
    gate: Arc<Gate>,
    shard: ShardIndex,
    seated: Seated,
    arrival: Arrival<TcpStream>,
) -> Option<(Stream, Bytes, Upgraded)> {
    let Arrival {
        stream,
        client,
        place,
        sealed,
    } = arrival;
    let mut stream = Stream::new(stream, sealed);
    let peer = Peer {
        client,
        is_beyond: place.as_ref().is_some_and(|place| place.is_beyond()),
        // On the porch, before that of TLS. A proxy speaks for others, whom nobody knew then.
        has_shaken_hands: stream.sealed().is_some() && !client.is_proxy,
        may_call: gate.may_call(&stream),
    };
    let first = match first_bytes(&mut stream, &seated).await {
        Ok(first) => first,
        Err(why) => {
            gate.called_off(why, &client);
            return None;
        }
    };
    let asked = Asked::first(&first, client, &gate.forwarding);
    let at_once = match asked {
        Some((asked, length)) => {
            // Almost always there is nothing to wait for, and nothing is allocated for it.
            let by_address = upgrade::by_address(&gate, &asked, &peer);
            let is_unanswered = match by_address.is_ok() && upgrade::is_stranger(&gate, &asked) {
                true => Box::pin(upgrade::introduce(&gate, &asked)).await,
                false => false,
            };
            upgrade(&gate, &asked, by_address, is_unanswered).map(|upgraded| (upgraded, length))
        }
        None => None,
    };
    let (stream, early, mut upgraded) = match at_once {
        Some((upgraded, length)) => {
            drop(seated);
            (stream, first.slice(length..), upgraded)
        }
        None => Box::pin(speak_http(gate, shard, Reread { first, stream }, peer, seated)).await?,
    };
    // One has it from its connection or, behind a proxy, from what was asked.
    let has = match &mut upgraded {
        Upgraded::Socket(newcomer) => &mut newcomer.place,
        Upgraded::Refused(refusal) => &mut refusal.place,
    };
    *has = has.take().or(place);
    Some((stream, early, upgraded))
}

/// What a connection says first, as far as one read brings it. Nothing: hyper waits on, or meets what is wrong.
async fn first_bytes(stream: &mut Stream, seated: &Seated) -> Result<Bytes, CalledOff> {
    poll_fn(|cx| match stream.poll_first(cx) {
        Poll::Ready(first) => Poll::Ready(Ok(first)),
        Poll::Pending => seated.poll_called_off(cx).map(Err),
    })
    .await
}

/// How an HTTP connection ends.
enum End {
    /// By itself, with an upgrade or with an error.
    Itself(hyper::Result<()>),
    /// Nothing was asked for.
    CalledOff(CalledOff),
    /// Nothing more was asked for.
    Idle,
}

/// Speaks HTTP until the connection ends (`None`) or is upgraded.
async fn speak_http(
    gate: Arc<Gate>,
    shard: ShardIndex,
    stream: Reread,
    peer: Peer,
    seated: Seated,
) -> Option<(Stream, Bytes, Upgraded)> {
    let upgraded = Rc::new(RefCell::new(None));
    let patience = Rc::new(Patience::new(seated));
    // From its first request on, unless that asks for a socket.
    let caller = Rc::new(OnceCell::new());
    let service = service_fn({
        let (gate, upgraded, patience) = (gate.clone(), upgraded.clone(), patience.clone());
        let caller = caller.clone();
        move |request: Request<Incoming>| {
            let (gate, upgraded, patience) = (gate.clone(), upgraded.clone(), patience.clone());
            let caller = caller.clone();
            Box::pin(async move {
                patience.asked();
                let stay = || Stay::of(&caller, &gate, shard);
                let answer = match answer(&gate, &peer, request, stay).await {
                    Answer::Http(answer) => answer,
                    Answer::Upgrade(answer) => {
                        *upgraded.borrow_mut() = Some(answer);
                        return Err(LetGo);
                    }
                };
                if let Some(caller) = caller.get() {
                    caller.rest();
                }
                patience.has_answered.set(true);
                patience
                    .deadline
                    .set(Some(Instant::now() + gate.patience(gate.config.keep_alive_s)));
                Ok(answer)
            })
        }
    });
    let mut connection = http1::Builder::new()
        .half_close(true)
        .max_buf_size(gate.config.header_bytes_max)
        .serve_connection(TokioIo::new(stream), service);

    let mut closing = gate.closing.clone();
    let sleep = tokio::time::sleep_until(patience.until());
    tokio::pin!(sleep);
    let asked_to_close = closing.wait_for(|closing| *closing);
    tokio::pin!(asked_to_close);
    let (mut is_closing, mut is_last) = (false, false);
    let ended = poll_fn(|cx| {
        if !is_closing && asked_to_close.as_mut().poll(cx).is_ready() {
            is_closing = true;
        }
        // Who has just come is answered once: a client that is not told to come again later comes at once.
        let is_to_go = |waker: &Waker| {
            let is_sent_away = |caller: &Caller| caller.is_sent_away(waker);
            (is_closing && patience.has_answered.get()) || caller.get().is_some_and(is_sent_away)
        };
        loop {
            if !is_last && is_to_go(cx.waker()) {
                is_last = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(End::Itself(ended));
            }
            if is_last || !is_to_go(cx.waker()) {
                break;
            }
        }
        if let Poll::Ready(why) = patience.poll_called_off(cx) {
            return Poll::Ready(End::CalledOff(why));
        }
        // An answer may have brought the deadline nearer than it was.
        if let Some(at) = patience.deadline.get().filter(|at| *at < sleep.deadline()) {
            sleep.as_mut().reset(at);
        }
        // While a request is answered its own limits hold; they end within this time too.
        while sleep.as_mut().poll(cx).is_ready() {
            match patience.deadline.get() {
                Some(at) if at <= Instant::now() => return Poll::Ready(End::Idle),
                Some(at) => sleep.as_mut().reset(at),
                None => sleep
                    .as_mut()
                    .reset(Instant::now() + seconds(gate.config.request_timeout_s)),
            }
        }
        Poll::Pending
    })
    .await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().stream;
    match (ended, upgraded.take()) {
        (End::Itself(Err(_)), Some(upgraded)) => return Some((stream, parts.read_buf, upgraded)),
        (End::Itself(Ok(())) | End::Idle, _) => {}
        (End::Itself(Err(error)), None) => {
            tracing::debug!(client = %peer.client, %error, "an HTTP connection failed");
            gate.node.metrics().connection_errors(ConnectionError::Http).inc();
        }
        (End::CalledOff(why), _) => gate.called_off(why, &peer.client),
    }
    stream.end();
    None
}

impl Gate {
    /// Counts a connection that is not waited for any longer.
    fn called_off(&self, why: CalledOff, client: &Client) {
        tracing::debug!(%client, ?why, "a connection has asked for nothing");
        let error = match why {
            CalledOff::TooLong => ConnectionError::Timeout,
            CalledOff::TooMany => ConnectionError::Pending,
        };
        self.node.metrics().connection_errors(error).inc();
    }

    /// Whether the HTTP API may be called over this connection: where there are authorities for that, one of them has to
    /// know who does. Who comes by the Unix socket is known by its mode.
    fn may_call(&self, stream: &Stream) -> bool {
        !self.knows_callers || stream.sealed().is_none_or(Sealed::has_client_certificate)
    }

    /// How long a connection may be idle. Less while connections eat up the descriptors kept in reserve.
    fn patience(&self, usual_s: u32) -> Duration {
        let inboxes = self.node.inboxes();
        let room = self.marks.room;
        if room.is_crowded(inboxes.connections(), inboxes.sockets()) {
            seconds(usual_s).min(CROWDED_PATIENCE)
        } else {
            seconds(usual_s)
        }
    }
}

/// How long one connection is waited for.
struct Patience {
    /// Until the first request has come, what is waited for is that.
    seated: RefCell<Option<Seated>>,
    /// Until when the next request must have come; none before the first one, and while one is answered.
    deadline: Cell<Option<Instant>>,
    has_answered: Cell<bool>,
}

impl Patience {
    fn new(seated: Seated) -> Patience {
        Patience {
            seated: RefCell::new(Some(seated)),
            deadline: Cell::new(None),
            has_answered: Cell::new(false),
        }
    }

    /// A request has come.
    fn asked(&self) {
        self.deadline.set(None);
        drop(self.seated.take());
    }

    fn poll_called_off(&self, cx: &mut Context<'_>) -> Poll<CalledOff> {
        match &*self.seated.borrow() {
            Some(seated) => seated.poll_called_off(cx),
            None => Poll::Pending,
        }
    }

    /// The deadline, or what is as good as one where there is none: now.
    fn until(&self) -> Instant {
        self.deadline.get().unwrap_or_else(Instant::now)
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
