//! One life of one connection: made, asked for echoes, and ended at the first sign that it is of no use. The client
//! would make it anew by itself; but then nobody could say what was lost in between.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::config::{Access, Login};
use crate::adapter::owned::Owned;

/// A connection is ready within so much, or given up.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// An echo takes no longer, or the connection counts as lost, unless other messages come.
const ECHO_MAX: Duration = Duration::from_secs(2);

/// Why a connection is none: for a person.
pub(crate) type Fault = String;

/// A connection. All its clones are one life.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    /// Something was heard: a server that talks lives, even if its echo is late.
    pub(crate) heard: Arc<AtomicBool>,
    /// Where echoes come back: nobody else hears it.
    inbox: String,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>,
    numbers: AtomicU64,
    /// Holds the reason once it is over.
    ended: Arc<watch::Sender<Option<Fault>>>,
    _echoes: Owned,
}

impl Session {
    /// Makes a connection to one of the servers and signs in. Its subjects begin with the prefix.
    pub(crate) async fn open(access: &Access, prefix: &str) -> Result<Session, Fault> {
        let ended = Arc::new(watch::Sender::new(None));
        let connected = timeout(CONNECT_MAX, connect(access, prefix, ended.clone())).await;
        let client = connected.unwrap_or_else(|_| Err("it does not answer".into()))?;
        let inbox = format!(
            "{prefix}.echo.{}",
            client.new_inbox().rsplit('.').next().unwrap_or_default()
        );
        let echoes = client.subscribe(inbox.clone()).await;
        let mut echoes = echoes.map_err(|error| error.to_string())?;
        let waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>> = Arc::default();
        let heard: Arc<AtomicBool> = Arc::default();
        let told = waiting.clone();
        let echoes = Owned::spawn(async move {
            while let Some(echo) = echoes.next().await {
                let number = <[u8; 8]>::try_from(&echo.payload[..]).map(u64::from_le_bytes);
                let mut waiting = told.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(told) = number.ok().and_then(|number| waiting.remove(&number)) {
                    // Whoever asked may have given up.
                    let _ = told.send(());
                }
            }
        });
        let session = Session {
            client,
            heard,
            inbox,
            waiting,
            numbers: AtomicU64::new(0),
            ended,
            _echoes: echoes,
        };
        // A connection that echoes nothing is none: the user may lack the right to publish or to hear.
        timeout(CONNECT_MAX, session.echo())
            .await
            .unwrap_or_else(|_| Err(format!("nothing published on {prefix}.> comes back")))?;
        Ok(session)
    }

    /// Whether interest has to spread to other servers before their clients reach us.
    pub(crate) fn is_clustered(&self) -> bool {
        self.client.server_info().cluster.is_some()
    }

    /// How many servers this one knows of, itself among them, by the addresses that clients may use.
    pub(crate) fn servers_known(&self) -> usize {
        self.client.server_info().connect_urls.len().max(1)
    }

    /// The longest message that the server takes, in bytes.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// Ends when the server has worked off all that was asked through this connection before.
    pub(super) async fn echo(&self) -> Result<(), Fault> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (told, echoed) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, told);
        let probe = Bytes::copy_from_slice(&number.to_le_bytes());
        let sent = async {
            let sent = self.client.publish(self.inbox.clone(), probe).await;
            sent.map_err(|error| error.to_string())?;
            echoed.await.map_err(|_| "the connection was closed".to_owned())
        };
        tokio::select! {
            done = sent => done,
            fault = self.over() => Err(fault),
        }
    }

    /// As `echo`, but ends the life if none comes and nothing else does.
    pub(crate) async fn answers(&self) -> Result<(), Fault> {
        let mut echo = std::pin::pin!(self.echo());
        self.heard.store(false, Ordering::Relaxed);
        let fault = loop {
            match timeout(ECHO_MAX, &mut echo).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(fault)) => break fault,
                Err(_) if self.heard.swap(false, Ordering::Relaxed) => {}
                Err(_) => break "an answer did not come in time".into(),
            }
        };
        end(&self.ended, fault.clone());
        Err(fault)
    }

    /// Ends when the life is over, with the reason.
    pub(crate) async fn over(&self) -> Fault {
        let mut ended = self.ended.subscribe();
        let fault = ended.wait_for(Option::is_some).await;
        fault
            .ok()
            .and_then(|fault| fault.clone())
            .unwrap_or_else(|| "the connection was closed".into())
    }
}

/// The first reason holds.
fn end(ended: &watch::Sender<Option<Fault>>, fault: Fault) {
    ended.send_if_modified(|known| {
        let is_first = known.is_none();
        known.get_or_insert(fault);
        is_first
    });
}

async fn connect(
    access: &Access,
    prefix: &str,
    ended: Arc<watch::Sender<Option<Fault>>>,
) -> Result<Client, Fault> {
    let mut options = match &access.login {
        Login::Nobody => ConnectOptions::new(),
        Login::User(name, password) => {
            ConnectOptions::with_user_and_password(name.clone(), password.expose().to_owned())
        }
        Login::Nkey(seed) => ConnectOptions::with_nkey(seed.expose().to_owned()),
        Login::Credentials(text) => {
            let options = ConnectOptions::with_credentials(text.expose());
            options.map_err(|error| error.to_string())?
        }
    };
    if let Some(tls) = &access.tls {
        options = options.require_tls(true).tls_client_config(tls.clone());
    }
    let options = options
        .connection_timeout(CONNECT_MAX)
        // Each server once: whoever keeps the connection up decides when to try again.
        .max_reconnects(access.servers.len())
        .reconnect_delay_callback(|_| Duration::ZERO)
        .ignore_discovered_servers()
        // Whoever may use the prefix may be answered.
        .custom_inbox_prefix(format!("{prefix}.inbox"))
        // The subjects are our own.
        .skip_subject_validation(true)
        .event_callback(move |event| {
            let ended = ended.clone();
            async move {
                match event {
                    Event::Connected | Event::SlowConsumer(_) | Event::Draining => {}
                    // A refusal may concern any topic: nothing that this connection confirmed is sure any more. A
                    // server that is about to go gives time to find another.
                    event => end(&ended, event.to_string()),
                }
            }
        });
    let client = options.connect(&access.servers[..]).await;
    client.map_err(|error| {
        use std::error::Error;
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    })
}
