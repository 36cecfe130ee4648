//! One connection to one server: made, watched, and made anew for ever.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, RedisConnectionInfo, Value};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::config::Login;
use super::status::{ServerId, Status};
use super::url::Address;
use crate::adapter::wishes::Life;

/// A connection is ready within so much, or given up.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// An answer takes no longer, or the connection counts as lost.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How often the other side is asked whether it is still there.
const PULSE: Duration = Duration::from_secs(1);
/// Bytes that were sent are acknowledged within so much, or the kernel gives the connection up.
const ACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
/// The pauses between attempts grow up to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Why a connection is none: for a person.
pub(super) type Fault = String;

/// What hears the messages that nobody asked for.
pub(super) type Pushes = Box<dyn Fn(PushInfo) + Send + Sync>;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// How to get in.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) login: Login,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// What the users of a connection tell the one who watches it.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// Something was heard: a server that talks lives, even if its answer is late.
    pub(super) heard: AtomicBool,
    /// The connection is of no use any more.
    broken: Notify,
}

impl Signs {
    /// Ends the connection, so that a new one is made.
    pub(super) fn give_up(&self) {
        self.broken.notify_one();
    }
}

/// One life of a connection, for those who ask something of it.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) life: Life,
    redis: MultiplexedConnection,
    signs: Arc<Signs>,
}

impl Handle {
    /// Sends all of it at once and gives the replies, those of refusal among them. An error ends the connection.
    pub(super) async fn ask_all(&mut self, pipeline: &redis::Pipeline) -> Result<Vec<Value>, Fault> {
        let count = pipeline.len();
        let replies = self.redis.send_packed_commands(pipeline, 0, count).await;
        replies.map_err(|error| {
            self.signs.give_up();
            error.to_string()
        })
    }
}

/// A connection, for the one who watches it. Ends it when dropped.
pub(super) struct Link {
    redis: MultiplexedConnection,
    driver: JoinHandle<()>,
    signs: Arc<Signs>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connector {
    /// Makes a connection and signs in.
    pub(super) async fn connect(
        &self,
        address: &Address,
        signs: Arc<Signs>,
        pushes: Pushes,
    ) -> Result<Link, Fault> {
        let connected = timeout(CONNECT_MAX, self.open(address, signs, pushes)).await;
        connected.unwrap_or_else(|_| Err(format!("no connection within {} s", CONNECT_MAX.as_secs())))
    }

    async fn open(&self, address: &Address, signs: Arc<Signs>, pushes: Pushes) -> Result<Link, Fault> {
        let stream = self.stream(address).await.map_err(|error| error.to_string())?;
        let mut info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        if let Some(username) = &self.login.username {
            info = info.set_username(username);
        }
        if !self.login.password.is_empty() {
            info = info.set_password(self.login.password.expose());
        }
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(ANSWER_MAX))
            .set_push_sender(move |push| {
                pushes(push);
                Ok::<_, ()>(())
            });
        let (redis, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Link {
            redis,
            driver: tokio::spawn(driver),
            signs,
        })
    }

    async fn stream(&self, address: &Address) -> io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(&tcp);
        let keepalive = TcpKeepalive::new()
            .with_time(ACKNOWLEDGED_MAX)
            .with_interval(PULSE);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(ACKNOWLEDGED_MAX))?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls.clone()).connect(name, tcp).await?;
        Ok(Box::new(stream))
    }
}

impl Link {
    /// Asks one thing.
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, Fault> {
        let answer = self.redis.send_packed_command(command).await;
        answer
            .and_then(Value::extract_error)
            .map_err(|error| error.to_string())
    }

    /// Ends when the connection is lost.
    async fn watch(mut self) -> Fault {
        let Link { redis, driver, signs } = &mut self;
        let hello = redis::cmd("HELLO");
        loop {
            let pulse = async {
                sleep(PULSE).await;
                signs.heard.store(false, Ordering::Relaxed);
                redis.send_packed_command(&hello).await
            };
            let answer = tokio::select! {
                answer = pulse => answer,
                _ = &mut *driver => return "the connection was closed".into(),
                () = signs.broken.notified() => return "an answer did not come in time".into(),
            };
            let judged = match answer {
                Ok(answer) => judge(&answer),
                // Behind much traffic an answer may be late.
                Err(error) if error.is_timeout() && signs.heard.load(Ordering::Relaxed) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(fault) = judged {
                return fault;
            }
        }
    }
}

/// Whether the answer to `HELLO` is that of a server which passes on to every node what is published.
fn judge(answer: &Value) -> Result<(), Fault> {
    let Value::Map(pairs) = answer else {
        return Err("what is there does not answer as redis does".into());
    };
    let is = |name: &str, text: &str| {
        let mut named = pairs.iter().filter(|(key, _)| is_text(key, name));
        named.any(|(_, value)| is_text(value, text))
    };
    if is("mode", "sentinel") {
        return Err("a sentinel is there: `redis.url` must begin with redis-sentinel".into());
    }
    if is("role", "replica") || is("role", "slave") {
        return Err("a replica is there, where only the master reaches every node".into());
    }
    Ok(())
}

/// Whether a reply is this text, in whichever form.
fn is_text(value: &Value, expected: &str) -> bool {
    match value {
        Value::BulkString(text) => text == expected.as_bytes(),
        Value::SimpleString(text) => text == expected,
        _ => false,
    }
}

/// All that keeping a connection up takes.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    pub(super) connector: Arc<Connector>,
    pub(super) status: Arc<Status>,
    /// Told at every loss: the servers may have changed.
    pub(super) doubt: Arc<Notify>,
}

/// Numbers the lives of all connections.
static LIVES: AtomicU64 = AtomicU64::new(1);

impl Keeper {
    /// Keeps one connection to a server up, for ever. `pushes` makes what hears its messages, `tell` is told when it
    /// is up, with what can be asked through it, and when it is not.
    pub(super) async fn keep<F: Future<Output = ()>>(
        self,
        server: ServerId,
        address: Address,
        pushes: impl Fn(Life, Arc<Signs>) -> Pushes,
        tell: impl Fn(Life, Option<Handle>) -> F,
    ) {
        let (mut pause, mut again) = (PAUSE_MIN, false);
        loop {
            let begun = Instant::now();
            let life = LIVES.fetch_add(1, Ordering::Relaxed);
            match self.connect(&address, life, &pushes).await {
                Ok(link) => {
                    let handle = Handle {
                        life,
                        redis: link.redis.clone(),
                        signs: link.signs.clone(),
                    };
                    self.status.up(server, again);
                    again = true;
                    tell(life, Some(handle)).await;
                    let fault = link.watch().await;
                    self.status.down(server, &fault);
                    self.doubt.notify_one();
                    tell(life, None).await;
                }
                Err(fault) => {
                    self.status.failed(server, &fault);
                    self.doubt.notify_one();
                }
            }
            // One that lived a while is no reason to be slow.
            if begun.elapsed() > 2 * PAUSE_MAX + CONNECT_MAX {
                pause = PAUSE_MIN;
            }
            sleep(pause.mul_f32(rand::random_range(0.5..1.0))).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    async fn connect(
        &self,
        address: &Address,
        life: Life,
        pushes: impl Fn(Life, Arc<Signs>) -> Pushes,
    ) -> Result<Link, Fault> {
        let signs = Arc::new(Signs::default());
        let pushes = pushes(life, signs.clone());
        let mut link = self.connector.connect(address, signs, pushes).await?;
        judge(&link.ask(&redis::cmd("HELLO")).await?)?;
        Ok(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_master_passes_on_what_is_published() {
        let said = |pairs: &[(&str, &str)]| {
            let text = |text: &str| Value::BulkString(text.into());
            let pairs = pairs.iter().map(|(key, value)| (text(key), text(value)));
            judge(&Value::Map(pairs.collect()))
        };
        assert_eq!(said(&[("mode", "standalone"), ("role", "master")]), Ok(()));
        assert_eq!(said(&[("mode", "cluster"), ("role", "master")]), Ok(()));
        assert_eq!(said(&[("server", "of another make")]), Ok(()));
        assert!(said(&[("mode", "sentinel")]).is_err());
        assert!(said(&[("mode", "standalone"), ("role", "replica")]).is_err());
        assert!(judge(&Value::Okay).is_err());
    }
}
