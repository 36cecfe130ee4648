//! The connections of webhooks: resolves a name, refuses addresses that are not to be connected to, connects.
//!
//! Each connection goes to an address that was judged itself, and not to a name that could mean another one by then.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::address::Guard;

/// Names that are looked up at once: each look-up holds a thread, and a name server may hang.
const LOOKUPS_MAX: usize = 32;
/// Time for one address, if there is another one to try. A request's own time bounds all of it.
const CONNECT_MAX: Duration = Duration::from_secs(4);

/// Connects to where the rules allow.
#[derive(Clone, Debug)]
pub(in crate::webhook) struct Dialer {
    guard: Arc<Guard>,
    lookups: Arc<Semaphore>,
}

impl Dialer {
    pub(in crate::webhook) fn new(guard: Guard) -> Dialer {
        Dialer {
            guard: Arc::new(guard),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    async fn dial(self, url: Uri) -> io::Result<TokioIo<TcpStream>> {
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_u16().unwrap_or(match url.scheme_str() {
            Some("https") => 443,
            _ => 80,
        });
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.look_up(host, port).await?,
        };
        let none = found.is_empty();
        let mut allowed = found
            .into_iter()
            .filter(|address| self.guard.allows(address.ip()))
            .peekable();
        let mut failure = match none {
            true => io::Error::other("its name has no address"),
            false => io::Error::other("its address is one that webhooks are not sent to"),
        };
        while let Some(address) = allowed.next() {
            let connecting = TcpStream::connect(address);
            let connected = match allowed.peek() {
                None => connecting.await,
                Some(_) => {
                    let connected = tokio::time::timeout(CONNECT_MAX, connecting).await;
                    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                }
            };
            match connected {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let turn = self
            .lookups
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let host = host.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            // Held until the thread is free again, also if nobody waits for the answer any more.
            let _turn = turn;
            std::net::ToSocketAddrs::to_socket_addrs(&(&*host, port)).map(Iterator::collect)
        });
        let found: io::Result<Vec<SocketAddr>> = found.await.map_err(io::Error::other)?;
        found.map_err(|error| io::Error::new(error.kind(), format!("its name cannot be resolved: {error}")))
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        Box::pin(self.clone().dial(url))
    }
}
