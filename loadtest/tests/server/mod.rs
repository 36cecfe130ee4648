//! A small server that speaks the Pusher protocol and does with events what it is told to: it loses some, repeats some,
//! refuses some. What it did is known exactly, so that a report of it can be checked.
//!
//! It shares no code with the program under test.

mod publications;
mod sockets;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::Sender;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// What is done with one publication, by its number, and mostly to one subscriber, by its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trick {
    Drop {
        at: usize,
        to: usize,
    },
    Repeat {
        at: usize,
        to: usize,
    },
    /// Until one has been sent to the subscriber that says of itself that it must come after it.
    Hold {
        at: usize,
        to: usize,
    },
    /// Milliseconds.
    Delay {
        at: usize,
        to: usize,
        ms: u64,
    },
    /// Sends it once more, as an event of another run.
    Counterfeit {
        at: usize,
        to: usize,
    },
    /// Sends it, and then closes the socket.
    Close {
        at: usize,
        to: usize,
    },
    Answer {
        at: usize,
        status: u16,
        is_delivered: bool,
    },
    /// Neither delivers nor answers.
    Hang {
        at: usize,
    },
}

/// How it behaves otherwise.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    pub tricks: Vec<Trick>,
    /// Refuses every socket with this code.
    pub refuses: Option<u16>,
    /// Accepts sockets and never greets them.
    pub is_mute: bool,
    /// Knows another secret.
    pub is_unauthorized: bool,
    /// Other keys first, and spaces between.
    pub is_spaced: bool,
    /// Sends each byte by itself.
    pub is_torn: bool,
    /// Sends pings of both kinds before it acknowledges a subscription.
    pub pings: bool,
    /// Speaks TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What it has seen and done.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub sockets: usize,
    pub publications: usize,
    /// Events handed to sockets, counterfeits not counted.
    pub sent: usize,
    pub pongs: usize,
    pub pusher_pongs: usize,
    /// Of the last connection over TLS.
    pub name: Option<String>,
    /// Of the last handshake.
    pub host: Option<String>,
}

pub struct Server {
    pub port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    manner: Manner,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seen: Seen,
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    channel: String,
    out: Sender<Out>,
    /// Events that are held back, with their sequences.
    held: Vec<(u32, String)>,
}

/// What a socket is to do.
enum Out {
    Text(String),
    Wait(Duration),
    Close,
}

impl Server {
    pub fn start(manner: Manner) -> Server {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads are to be had");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("ports are to be had");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            manner,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Server {
            port,
            shared,
            runtime: Some(runtime),
        }
    }

    pub fn with(tricks: &[Trick]) -> Server {
        Server::start(Manner {
            tricks: tricks.to_vec(),
            ..Manner::default()
        })
    }

    pub fn seen(&self) -> Seen {
        self.shared.state().seen.clone()
    }

    /// Waits until it has seen that.
    pub fn until(&self, is_seen: impl Fn(&Seen) -> bool) -> Seen {
        let state = self.shared.state();
        let (state, waited) = self
            .shared
            .changed
            .wait_timeout_while(state, Duration::from_secs(60), |state| !is_seen(&state.seen))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "never seen: {:?}", state.seen);
        state.seen.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut State)) {
        note(&mut self.state());
        self.changed.notify_all();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Whoever goes away in the middle is not this server's concern.
            let _ = welcome(tcp, &shared).await;
        });
    }
}

async fn welcome(tcp: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let is_torn = shared.manner.is_torn;
    let Some(config) = &shared.manner.tls else {
        return talk(Torn { inner: tcp, is_torn }, shared).await;
    };
    let inner = TlsAcceptor::from(Arc::clone(config)).accept(tcp).await?;
    let name = inner.get_ref().1.server_name().map(ToOwned::to_owned);
    shared.note(|state| state.seen.name = name);
    talk(Torn { inner, is_torn }, shared).await
}

/// One connection: a handshake, or requests.
async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send, shared: &Arc<Shared>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        if head[0].starts_with("GET ") {
            return sockets::serve(stream.into_inner(), &head, shared).await;
        }
        publications::answer(&mut stream, &head, shared).await?;
    }
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let mut pairs = head.iter().filter_map(|line| line.split_once(": "));
    pairs
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// A stream that may take one byte at a time only.
struct Torn<S> {
    inner: S,
    is_torn: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Torn<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Torn<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let length = if self.is_torn {
            bytes.len().min(1)
        } else {
            bytes.len()
        };
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..length])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
