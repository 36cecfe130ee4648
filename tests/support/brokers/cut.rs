//! A link that can be cut: a small TCP proxy before a broker.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Whole,
    /// Nothing goes through, and nobody is told.
    Frozen,
    /// Connections end at once.
    Cut,
}

/// Listens on `port`, and passes on to another port of the loopback.
pub(crate) struct Cut {
    pub(crate) port: u16,
    state: Arc<watch::Sender<State>>,
    _tasks: JoinSet<()>,
}

impl Cut {
    pub(crate) async fn before(broker_port: u16) -> Cut {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(watch::Sender::new(State::Whole));
        let told = state.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let told = told.subscribe();
                links.spawn(async move {
                    if let Ok(broker) = TcpStream::connect(("127.0.0.1", broker_port)).await {
                        link(client, broker, told).await;
                    }
                });
            }
        });
        Cut {
            port,
            state,
            _tasks: tasks,
        }
    }

    /// Ends all connections, and every new one, until it is healed.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets nothing through until it is healed; connections stay.
    pub(crate) fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    pub(crate) fn heal(&self) {
        self.state.send_replace(State::Whole);
    }
}

async fn link(client: TcpStream, broker: TcpStream, mut told: watch::Receiver<State>) {
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        () = pass(from_client, to_broker, told.clone()) => {}
        () = pass(from_broker, to_client, told.clone()) => {}
        _ = told.wait_for(|state| *state == State::Cut) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut told: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if told.wait_for(|state| *state == State::Whole).await.is_err() {
            return;
        }
        if copy(&mut &buffer[..read], &mut to).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
