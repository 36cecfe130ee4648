//! Asks every node all the time whether it is ready, as an orchestrator does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::node::Node;

const PAUSE: Duration = Duration::from_millis(200);
/// A probe that takes longer has failed, as with most orchestrators.
const PROBE_MAX: Duration = Duration::from_secs(2);

/// One answer; a probe that was not answered in time has no status.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) at: Instant,
    pub(crate) status: Option<u16>,
    pub(crate) body: String,
}

/// The answers of the nodes, by their names.
#[derive(Default)]
pub(crate) struct Readiness {
    watched: BTreeMap<String, Watched>,
}

struct Watched {
    probes: Arc<Mutex<Vec<Probe>>>,
    task: JoinHandle<()>,
}

impl Watched {
    fn probes(&self) -> MutexGuard<'_, Vec<Probe>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Readiness {
    /// Watches a node from now on, in place of an earlier life of it.
    pub(crate) fn watch(&mut self, node: &Node) {
        let probes = Arc::new(Mutex::new(Vec::new()));
        let (into, address) = (probes.clone(), node.admin_address);
        let task = tokio::spawn(async move {
            loop {
                let at = Instant::now();
                let answer = timeout(PROBE_MAX, probe(address)).await.ok().and_then(Result::ok);
                let (head, body) = answer
                    .as_deref()
                    .and_then(|answer| answer.split_once("\r\n\r\n"))
                    .unwrap_or_default();
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                let body = body.to_owned();
                into.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Probe { at, status, body });
                sleep(PAUSE).await;
            }
        });
        self.watched.insert(node.name.clone(), Watched { probes, task });
    }

    /// Watches a node no more: it is about to be killed, or stopped.
    pub(crate) fn forget(&mut self, name: &str) {
        self.watched.remove(name);
    }

    /// What a node answered between two moments.
    pub(crate) fn between(&self, name: &str, from: Instant, to: Instant) -> Vec<Probe> {
        let probes = self.watched.get(name).expect("the node is watched").probes();
        let within = probes.iter().filter(|probe| probe.at >= from && probe.at < to);
        within.cloned().collect()
    }

    /// Every node that is watched answered every probe with a yes.
    pub(crate) fn never_failed(&self) {
        for (name, watched) in &self.watched {
            let probes = watched.probes();
            assert!(!probes.is_empty(), "node {name} was probed");
            let no = probes.iter().find(|probe| probe.status != Some(200));
            assert!(no.is_none(), "node {name} stays ready: {no:?}");
        }
    }
}

async fn probe(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
