//! Is this process alive, is it ready, may more traffic come: the state behind these questions, and
//! the answers to those who probe.
//!
//! A probe never causes work: whoever watches the memory, the number of sockets or the cluster reports here when
//! something changes, and a probe reads one atomic, `/ready` also a finished text. So `/live` answers whatever else
//! hangs, and nothing slow can make the orchestrator kill a process that works.
//!
//! A broker that is away makes no node unready: all of them would leave at once, and each still serves its own
//! sockets. The same holds for the store of apps: those that are known are served on. The body of `/ready` says how
//! both are.
//!
//! One question is about an app, `/up/APP_ID`, and is answered on each port the same way: where the store has to be
//! asked, as for any call that names the app, with the same bounds.
//!
//! Not here: what counts as too much memory or too many sockets (`server/marks.rs` watches them); methods
//! and the rest of HTTP (`server/admin.rs` and `server/answers.rs`).

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::app::{Apps, NotFound};
use crate::metrics::{ClusterSnapshot, StoreSnapshot};

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Why a node is not ready. All bits together, those of [`Trouble`] included, make the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It does not serve yet.
    Starting,
    /// It serves, and waits to be told by the other nodes who is there.
    Syncing,
    /// It has no certificate yet, so that nobody can connect.
    NoCertificate,
    /// It stays out of a cluster whose nodes are configured differently, with another number of topics.
    ClusterMismatch,
    /// It is going down.
    Draining,
}

impl Phase {
    const ALL: [Phase; 5] = [
        Phase::Starting,
        Phase::Syncing,
        Phase::NoCertificate,
        Phase::ClusterMismatch,
        Phase::Draining,
    ];

    fn bit(self) -> u32 {
        1 << self as u32
    }

    fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Syncing => "syncing",
            Phase::NoCertificate => "no_certificate",
            Phase::ClusterMismatch => "cluster_mismatch",
            Phase::Draining => "draining",
        }
    }
}

/// Something for which this node wants no more sockets. It still serves those whom it has, so it stays ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Memory is beyond its mark.
    Memory,
    /// Sockets are beyond their mark.
    Sockets,
}

impl Trouble {
    const ALL: [Trouble; 2] = [Trouble::Memory, Trouble::Sockets];

    fn bit(self) -> u32 {
        1 << (Phase::ALL.len() as u32 + self as u32)
    }

    fn as_str(self) -> &'static str {
        match self {
            Trouble::Memory => "memory",
            Trouble::Sockets => "sockets",
        }
    }
}

/// The state of this process, shared by those who report and those who answer. Begins as starting.
#[derive(Debug)]
pub struct Health {
    state: AtomicU32,
    /// For the body of `/ready`. Replaced about once a second, and locked only to take or put a pointer.
    cluster: RwLock<Option<Arc<Value>>>,
    /// The same of the store of apps.
    store: RwLock<Option<Arc<Value>>>,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            state: AtomicU32::new(Phase::Starting.bit()),
            cluster: RwLock::default(),
            store: RwLock::default(),
        }
    }
}

impl Health {
    /// The node serves from now on.
    pub fn started(&self) {
        self.clear(Phase::Starting.bit());
    }

    /// The node is going down. There is no way back.
    pub fn drain(&self) {
        self.raise(Phase::Draining.bit());
    }

    /// Reports that the node waits for the others to say who is there, or no longer does.
    pub fn syncing(&self, holds: bool) {
        self.change(Phase::Syncing.bit(), holds);
    }

    /// Reports that the node waits for its first certificate, or no longer does.
    pub fn uncertified(&self, holds: bool) {
        self.change(Phase::NoCertificate.bit(), holds);
    }

    /// Reports that the other nodes are configured differently, or no longer are. For a node that starts: one that
    /// was ready before goes on, or a single wrong newcomer would take a whole cluster down.
    pub fn cluster_mismatch(&self, holds: bool) {
        self.change(Phase::ClusterMismatch.bit(), holds);
    }

    /// Shows, from now on, what the node knows of its cluster. `None`: it is alone.
    pub fn show_cluster(&self, cluster: Option<&ClusterSnapshot>) {
        let shown = cluster.map(|cluster| Arc::new(shown(cluster)));
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// Shows, from now on, how the store of apps is. `None`: there is none.
    pub fn show_store(&self, store: Option<&StoreSnapshot>) {
        let shown = store.map(|store| {
            Arc::new(json!({
                "driver": store.driver,
                "state": if store.is_up { "up" } else { "degraded" },
                "apps": store.apps,
            }))
        });
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// Reports that a trouble holds, or no longer does. Repeating it changes nothing.
    pub fn set(&self, trouble: Trouble, holds: bool) {
        self.change(trouble.bit(), holds);
    }

    /// The state at this moment.
    pub fn state(&self) -> HealthState {
        HealthState(self.state.load(Ordering::Acquire))
    }

    /// What is shown beside the answer, by name.
    fn shown(&self) -> [(&'static str, Option<Arc<Value>>); 2] {
        let read =
            |shown: &RwLock<Option<Arc<Value>>>| shown.read().unwrap_or_else(PoisonError::into_inner).clone();
        [("cluster", read(&self.cluster)), ("store", read(&self.store))]
    }

    fn change(&self, bit: u32, holds: bool) {
        match holds {
            true => self.raise(bit),
            false => self.clear(bit),
        }
    }

    fn raise(&self, bit: u32) {
        self.state.fetch_or(bit, Ordering::Release);
    }

    fn clear(&self, bit: u32) {
        self.state.fetch_and(!bit, Ordering::Release);
    }
}

/// How the cluster stands in the body of `/ready`.
fn shown(cluster: &ClusterSnapshot) -> Value {
    let thousandths = |number: f64| (number * 1e3).round() / 1e3;
    json!({
        "driver": cluster.driver,
        "node_id": cluster.node_id,
        "bus": cluster.bus().as_str(),
        "nodes": cluster.nodes,
        "nodes_unknown": cluster.nodes_unknown,
        "gaps": cluster.gaps_total(),
        "last_heard_s": thousandths(cluster.last_heard_s),
        "round_trip_ms": cluster.round_trip_s.map(|time| thousandths(time * 1e3)),
    })
}

/// The state at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthState(u32);

impl HealthState {
    /// Whether the node does its work: started, with a certificate if it needs one, no stranger to its cluster, and not
    /// draining.
    pub fn is_ready(self) -> bool {
        self.phases().next().is_none()
    }

    /// Whether the drain has begun.
    pub fn is_draining(self) -> bool {
        self.is(Phase::Draining)
    }

    /// Whether this trouble holds.
    pub fn has(self, trouble: Trouble) -> bool {
        self.0 & trouble.bit() != 0
    }

    fn is(self, phase: Phase) -> bool {
        self.0 & phase.bit() != 0
    }

    /// The phases in which the node is not ready.
    fn phases(self) -> impl Iterator<Item = &'static str> {
        let phases = Phase::ALL.into_iter();
        phases.filter(move |phase| self.is(*phase)).map(Phase::as_str)
    }

    /// What speaks against more sockets, the phase aside.
    fn troubles(self) -> impl Iterator<Item = &'static str> {
        let troubles = Trouble::ALL.into_iter();
        troubles
            .filter(move |trouble| self.has(*trouble))
            .map(Trouble::as_str)
    }
}

/// What a probe is told. For HEAD, leave the body out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 for yes, 503 for no, 404 for an app that does not exist.
    pub status: StatusCode,
    /// The same for humans, with the causes of a no.
    pub body: Cow<'static, str>,
    /// Of the body.
    pub content_type: &'static str,
}

/// Answers a probe at `path`, or `None` if that is no path of ours. `app` is what [`app_asked_for`] says of it.
pub fn answer(path: &str, health: &Health, app: Result<bool, NotFound>) -> Option<Answer> {
    let state = health.state();
    let ready = || state.phases().collect::<Vec<_>>();
    Some(match path {
        "/" => Answer {
            status: StatusCode::OK,
            body: "OK".into(),
            content_type: PLAIN,
        },
        "/live" => up(StatusCode::OK, Vec::new()),
        "/up" => up(yes_or_no(state.is_ready()), ready()),
        "/ready" => probed("ready", ready(), health.shown()),
        "/accept-traffic" => {
            let causes = state.phases().chain(state.troubles());
            probed("accept_traffic", causes.collect(), [])
        }
        _ => {
            app_id(path)?;
            let mut causes = ready();
            match app {
                Ok(true) => up(yes_or_no(state.is_ready()), causes),
                Ok(false) => {
                    causes.push("app_disabled");
                    up(StatusCode::SERVICE_UNAVAILABLE, causes)
                }
                Err(NotFound::Unknown) => up(StatusCode::NOT_FOUND, vec!["no_such_app"]),
                Err(NotFound::Unavailable) => {
                    causes.push("store_unavailable");
                    up(StatusCode::SERVICE_UNAVAILABLE, causes)
                }
            }
        }
    })
}

/// Whether the app whose health is asked for at `path` is switched on. For other paths nobody looks, and the answer is
/// that there is none.
///
/// # Errors
/// There is no such app, or nobody can say.
pub async fn app_asked_for(path: &str, apps: &Apps) -> Result<bool, NotFound> {
    let id = app_id(path).ok_or(NotFound::Unknown)?;
    let app = apps.find_by_id(&id).await?;
    Ok(app.settings().config.enabled)
}

fn app_id(path: &str) -> Option<Cow<'_, str>> {
    let id = path.strip_prefix("/up/").filter(|id| !id.contains('/'))?;
    percent_decode_str(id).decode_utf8().ok()
}

/// `{"health":"OK"}`, as Reverb says it, to the byte; the causes come along only with a no.
fn up(status: StatusCode, causes: Vec<&str>) -> Answer {
    let body = match status {
        StatusCode::OK => r#"{"health":"OK"}"#.into(),
        _ => json!({ "health": "ERROR", "causes": causes }).to_string().into(),
    };
    Answer {
        status,
        body,
        content_type: JSON,
    }
}

fn probed<const N: usize>(
    question: &str,
    causes: Vec<&str>,
    shown: [(&str, Option<Arc<Value>>); N],
) -> Answer {
    let yes = causes.is_empty();
    let mut body = json!({ question: yes, "causes": causes });
    for (name, shown) in shown {
        if let Some(shown) = shown {
            body[name] = Value::clone(&shown);
        }
    }
    Answer {
        status: yes_or_no(yes),
        body: body.to_string().into(),
        content_type: JSON,
    }
}

fn yes_or_no(yes: bool) -> StatusCode {
    if yes {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, health: &Health) -> Option<Answer> {
        let app = match app_id(path).as_deref() {
            Some("on" | "with space") => Ok(true),
            Some("off") => Ok(false),
            Some("unsure") => Err(NotFound::Unavailable),
            _ => Err(NotFound::Unknown),
        };
        answer(path, health, app)
    }

    fn ready() -> Health {
        let health = Health::default();
        health.started();
        health
    }

    fn status(path: &str, health: &Health) -> u16 {
        asked(path, health).expect(path).status.as_u16()
    }

    fn causes(path: &str, health: &Health) -> Vec<String> {
        let body = asked(path, health).expect(path).body;
        let body: Value = serde_json::from_str(&body).unwrap();
        serde_json::from_value(body["causes"].clone()).unwrap()
    }

    #[test]
    fn each_state_has_its_answers() {
        type Change = fn(&Health);
        let table: [(&str, Change, [u16; 6]); 10] = [
            // what happened            /    /live /up  /up/on /ready /accept-traffic
            (
                "nothing yet",
                |h| h.raise(Phase::Starting.bit()),
                [200, 200, 503, 503, 503, 503],
            ),
            ("started", |_| (), [200, 200, 200, 200, 200, 200]),
            (
                "memory",
                |h| h.set(Trouble::Memory, true),
                [200, 200, 200, 200, 200, 503],
            ),
            (
                "sockets",
                |h| h.set(Trouble::Sockets, true),
                [200, 200, 200, 200, 200, 503],
            ),
            ("drain", Health::drain, [200, 200, 503, 503, 503, 503]),
            (
                "waiting for the other nodes",
                |h| h.syncing(true),
                [200, 200, 503, 503, 503, 503],
            ),
            (
                "waiting for the first certificate",
                |h| h.uncertified(true),
                [200, 200, 503, 503, 503, 503],
            ),
            (
                "a stranger to its cluster",
                |h| h.cluster_mismatch(true),
                [200, 200, 503, 503, 503, 503],
            ),
            (
                "a broker that is away",
                |h| h.show_cluster(Some(&ClusterSnapshot::default())),
                [200; 6],
            ),
            (
                "a trouble that passed",
                |h| {
                    h.set(Trouble::Memory, true);
                    h.set(Trouble::Memory, true);
                    h.set(Trouble::Memory, false);
                },
                [200; 6],
            ),
        ];
        for (name, change, expected) in table {
            let health = ready();
            change(&health);
            let paths = ["/", "/live", "/up", "/up/on", "/ready", "/accept-traffic"];
            assert_eq!(paths.map(|path| status(path, &health)), expected, "{name}");
            assert_eq!(health.state().is_ready(), expected[4] == 200, "{name}");
        }
    }

    #[test]
    fn a_drain_is_for_good() {
        let health = ready();
        health.drain();
        health.started();
        Trouble::ALL
            .iter()
            .for_each(|trouble| health.set(*trouble, false));
        assert!(health.state().is_draining());
        assert_eq!(status("/ready", &health), 503);
    }

    #[test]
    fn a_no_lists_all_of_its_causes() {
        let health = ready();
        assert!(causes("/ready", &health).is_empty());
        Trouble::ALL.iter().for_each(|trouble| health.set(*trouble, true));
        health.drain();
        assert_eq!(causes("/ready", &health), ["draining"]);
        assert_eq!(causes("/up", &health), ["draining"]);
        let all = ["draining", "memory", "sockets"];
        assert_eq!(causes("/accept-traffic", &health), all);
    }

    #[test]
    fn a_node_that_joins_says_what_it_waits_for() {
        let health = Health::default();
        health.syncing(true);
        health.cluster_mismatch(true);
        health.started();
        assert_eq!(causes("/ready", &health), ["syncing", "cluster_mismatch"]);
        health.syncing(false);
        health.cluster_mismatch(false);
        assert_eq!(status("/ready", &health), 200);
    }

    #[test]
    fn ready_tells_of_the_cluster_and_stays_a_yes_without_the_broker() {
        let health = ready();
        let body = |path, health: &Health| -> Value {
            let answer = asked(path, health).expect(path);
            assert_eq!(answer.status, 200, "{path}");
            serde_json::from_str(&answer.body).expect("JSON")
        };
        assert_eq!(body("/ready", &health), json!({ "ready": true, "causes": [] }));

        let mut cluster = ClusterSnapshot {
            driver: "redis",
            node_id: "00ff".into(),
            connected: 4,
            connections: 4,
            round_trip_s: Some(0.000_412_3),
            last_heard_s: 5.942_338_4,
            nodes: 3,
            nodes_unknown: 1,
            unsent_gaps: 1,
            gaps: 2,
            dropped_busy: 3,
            ..ClusterSnapshot::default()
        };
        health.show_cluster(Some(&cluster));
        let shown = json!({
            "driver": "redis", "node_id": "00ff", "bus": "up", "nodes": 3, "nodes_unknown": 1, "gaps": 6,
            "last_heard_s": 5.942, "round_trip_ms": 0.412,
        });
        assert_eq!(body("/ready", &health)["cluster"], shown);

        cluster.connected = 0;
        cluster.round_trip_s = None;
        health.show_cluster(Some(&cluster));
        let down = body("/ready", &health);
        assert_eq!(
            (&down["cluster"]["bus"], &down["cluster"]["round_trip_ms"]),
            (&json!("down"), &Value::Null)
        );
        assert_eq!(body("/accept-traffic", &health)["cluster"], Value::Null);
        health.show_cluster(None);
        assert_eq!(body("/ready", &health)["cluster"], Value::Null);
    }

    #[test]
    fn an_app_is_up_if_it_exists_and_is_switched_on() {
        let health = ready();
        for (path, expected) in [
            ("/up/on", 200),
            ("/up/with%20space", 200),
            ("/up/off", 503),
            ("/up/none", 404),
            ("/up/unsure", 503),
            ("/up/", 404),
        ] {
            assert_eq!(status(path, &health), expected, "{path}");
        }
        assert_eq!(causes("/up/off", &health), ["app_disabled"]);
        assert_eq!(causes("/up/none", &health), ["no_such_app"]);
        assert_eq!(causes("/up/unsure", &health), ["store_unavailable"]);
    }

    #[test]
    fn a_yes_is_what_the_peers_say() {
        let body = |path| asked(path, &ready()).unwrap();
        assert_eq!((body("/").body.as_ref(), body("/").content_type), ("OK", PLAIN));
        assert_eq!(body("/up").body, r#"{"health":"OK"}"#);
        assert_eq!(body("/ready").content_type, JSON);
    }

    #[test]
    fn other_paths_are_not_ours() {
        for path in ["", "/readyz", "/up/a/b", "/app/key", "/LIVE", "/live/"] {
            assert_eq!(asked(path, &ready()), None, "{path}");
        }
    }
}
