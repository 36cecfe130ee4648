//! Is this process alive, is it ready, may more traffic come: the state behind these questions, and
//! the answers to those who probe.
//!
//! A probe never causes work: whoever watches the memory or the number of sockets reports here when
//! something changes, and a probe reads one atomic. So `/live` answers whatever else hangs, and nothing
//! slow can make the orchestrator kill a process that works.
//!
//! Not here: what counts as too much memory or too many sockets (`server/mod.rs` watches them); methods and
//! the rest of HTTP (`server/admin.rs` and the public router).

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};

use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::json;

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

const STARTING: u32 = 1;
const DRAINING: u32 = 1 << 1;

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
        1 << (2 + self as u32)
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
pub struct Health(AtomicU32);

impl Default for Health {
    fn default() -> Health {
        Health(AtomicU32::new(STARTING))
    }
}

impl Health {
    /// The node serves from now on.
    pub fn started(&self) {
        self.0.fetch_and(!STARTING, Ordering::Release);
    }

    /// The node is going down. There is no way back.
    pub fn drain(&self) {
        self.0.fetch_or(DRAINING, Ordering::Release);
    }

    /// Reports that a trouble holds, or no longer does. Repeating it changes nothing.
    pub fn set(&self, trouble: Trouble, holds: bool) {
        if holds {
            self.0.fetch_or(trouble.bit(), Ordering::Release);
        } else {
            self.0.fetch_and(!trouble.bit(), Ordering::Release);
        }
    }

    /// The state at this moment.
    pub fn state(&self) -> HealthState {
        HealthState(self.0.load(Ordering::Acquire))
    }
}

/// The state at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthState(u32);

impl HealthState {
    /// Whether the node does its work: started, and not draining.
    pub fn is_ready(self) -> bool {
        self.phases().next().is_none()
    }

    /// Whether the drain has begun.
    pub fn is_draining(self) -> bool {
        self.0 & DRAINING != 0
    }

    /// Whether this trouble holds.
    pub fn has(self, trouble: Trouble) -> bool {
        self.0 & trouble.bit() != 0
    }

    /// The phases in which the node is not ready.
    fn phases(self) -> impl Iterator<Item = &'static str> {
        let phases = [(STARTING, "starting"), (DRAINING, "draining")].into_iter();
        phases
            .filter(move |(bit, _)| self.0 & bit != 0)
            .map(|(_, name)| name)
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

/// Answers a probe at `path`, or `None` if that is no path of ours. `app_enabled` looks an app up by id,
/// without any I/O: `None` if there is none, else whether it is switched on.
pub fn answer(path: &str, state: HealthState, app_enabled: impl Fn(&str) -> Option<bool>) -> Option<Answer> {
    let ready = || state.phases().collect::<Vec<_>>();
    Some(match path {
        "/" => Answer {
            status: StatusCode::OK,
            body: "OK".into(),
            content_type: PLAIN,
        },
        "/live" => up(StatusCode::OK, Vec::new()),
        "/up" => up(yes_or_no(state.is_ready()), ready()),
        "/ready" => probed("ready", ready()),
        "/accept-traffic" => probed("accept_traffic", state.phases().chain(state.troubles()).collect()),
        _ => {
            let app_id = path.strip_prefix("/up/").filter(|id| !id.contains('/'))?;
            let app_id = percent_decode_str(app_id).decode_utf8().ok()?;
            let mut causes = ready();
            match app_enabled(&app_id) {
                None => up(StatusCode::NOT_FOUND, vec!["no_such_app"]),
                Some(true) => up(yes_or_no(state.is_ready()), causes),
                Some(false) => {
                    causes.push("app_disabled");
                    up(StatusCode::SERVICE_UNAVAILABLE, causes)
                }
            }
        }
    })
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

fn probed(question: &str, causes: Vec<&str>) -> Answer {
    let yes = causes.is_empty();
    Answer {
        status: yes_or_no(yes),
        body: json!({ question: yes, "causes": causes }).to_string().into(),
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
    use serde_json::Value;

    use super::*;

    fn app_enabled(id: &str) -> Option<bool> {
        match id {
            "on" | "with space" => Some(true),
            "off" => Some(false),
            _ => None,
        }
    }

    fn ready() -> Health {
        let health = Health::default();
        health.started();
        health
    }

    fn status(path: &str, health: &Health) -> u16 {
        answer(path, health.state(), app_enabled)
            .expect(path)
            .status
            .as_u16()
    }

    fn causes(path: &str, health: &Health) -> Vec<String> {
        let body = answer(path, health.state(), app_enabled).expect(path).body;
        let body: Value = serde_json::from_str(&body).unwrap();
        serde_json::from_value(body["causes"].clone()).unwrap()
    }

    #[test]
    fn each_state_has_its_answers() {
        type Change = fn(&Health);
        let table: [(&str, Change, [u16; 6]); 6] = [
            // what happened            /    /live /up  /up/on /ready /accept-traffic
            (
                "nothing yet",
                |h| h.0.store(STARTING, Ordering::Relaxed),
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
    fn an_app_is_up_if_it_exists_and_is_switched_on() {
        let health = ready();
        for (path, expected) in [
            ("/up/on", 200),
            ("/up/with%20space", 200),
            ("/up/off", 503),
            ("/up/none", 404),
            ("/up/", 404),
        ] {
            assert_eq!(status(path, &health), expected, "{path}");
        }
        assert_eq!(causes("/up/off", &health), ["app_disabled"]);
        assert_eq!(causes("/up/none", &health), ["no_such_app"]);
    }

    #[test]
    fn a_yes_is_what_the_peers_say() {
        let body = |path| answer(path, ready().state(), app_enabled).unwrap();
        assert_eq!((body("/").body.as_ref(), body("/").content_type), ("OK", PLAIN));
        assert_eq!(body("/up").body, r#"{"health":"OK"}"#);
        assert_eq!(body("/ready").content_type, JSON);
    }

    #[test]
    fn other_paths_are_not_ours() {
        for path in ["", "/readyz", "/up/a/b", "/app/key", "/LIVE", "/live/"] {
            assert_eq!(answer(path, ready().state(), app_enabled), None, "{path}");
        }
    }
}
