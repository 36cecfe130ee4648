//! The program tells of a server exactly what the server did.

#![expect(unreachable_pub, reason = "a test is read in one piece")]

mod server;

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rcgen::generate_simple_self_signed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use self::server::{Manner, Server, Trick};

const CLIENTS: usize = 3;
const SUSTAIN: &str = "sustain --clients 3 --rate 200 --duration 1 --warm-up 0";
const FANOUT: &str = "fanout --clients 3 --broadcasts 20";

/// The program at work.
struct Work {
    child: Child,
    folder: TempDir,
}

/// What it told.
struct Told {
    output: Output,
    run: Option<Value>,
}

fn begin(port: u16, words: &str) -> Work {
    let folder = TempDir::new().expect("a folder is to be had");
    let child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(words.split(' '))
        .args(["--quiet", "--port", &port.to_string(), "--json"])
        .arg(json(&folder))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is built");
    Work { child, folder }
}

fn json(folder: &TempDir) -> PathBuf {
    folder.path().join("run.json")
}

fn load(server: &Server, words: &str) -> Told {
    begin(server.port, words).end()
}

impl Work {
    fn interrupt(&self) {
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::INT).expect("it is there");
    }

    fn end(self) -> Told {
        let output = self.child.wait_with_output().expect("it ends");
        let run = std::fs::read(json(&self.folder)).ok();
        let run = run.map(|run| serde_json::from_slice(&run).expect("it keeps JSON"));
        Told { output, run }
    }
}

impl Told {
    fn run(&self) -> &Value {
        self.run
            .as_ref()
            .unwrap_or_else(|| panic!("nothing kept: {}", self.error()))
    }

    fn error(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Those that are not zero, by name.
    fn faults(&self) -> Vec<(String, u64)> {
        let faults = self.run()["faults"].as_object().expect("there are faults");
        let count = |(name, count): (&String, &Value)| Some((name.clone(), count.as_u64()?));
        let mut faults: Vec<_> = faults
            .iter()
            .filter_map(count)
            .filter(|(_, count)| *count > 0)
            .collect();
        faults.sort();
        faults
    }

    fn curve(&self, key: &str) -> &Value {
        let curves = self.run()["curves"].as_array().expect("there are curves");
        curves
            .iter()
            .find(|curve| curve["key"] == key)
            .expect("there is this one")
    }

    fn delivered(&self) -> usize {
        self.curve("delivery")["count"].as_u64().expect("it counts") as usize
    }

    fn is_interrupted(&self) -> bool {
        self.run()["interrupted"] == true
    }
}

#[test]
fn a_report_says_what_the_server_did() {
    let drop = Trick::Drop { at: 10, to: 1 };
    let repeat = Trick::Repeat { at: 12, to: 0 };
    let hold = Trick::Hold { at: 14, to: 2 };
    let counterfeit = Trick::Counterfeit { at: 16, to: 1 };
    let close = Trick::Close { at: 30, to: 2 };
    let refuse = |at, status, is_delivered| Trick::Answer {
        at,
        status,
        is_delivered,
    };
    let (refused, deceived) = (refuse(18, 500, false), refuse(20, 429, true));
    for (tricks, faults, undelivered) in [
        (vec![], vec![], Some(0)),
        (vec![drop], vec![("lost", 1)], Some(1)),
        (vec![repeat], vec![("repeated", 1)], Some(0)),
        (vec![hold], vec![("out_of_order", 1)], Some(0)),
        (vec![counterfeit], vec![("foreign", 1)], Some(0)),
        (vec![refused], vec![("refused", 1)], Some(CLIENTS)),
        (vec![deceived], vec![("refused", 1)], Some(0)),
        (vec![Trick::Hang { at: 22 }], vec![("refused", 1)], Some(CLIENTS)),
        (vec![close], vec![("closed", 1)], None),
        (
            vec![drop, repeat, hold, counterfeit, refused, deceived, close],
            vec![
                ("closed", 1),
                ("foreign", 1),
                ("lost", 1),
                ("out_of_order", 1),
                ("refused", 2),
                ("repeated", 1),
            ],
            None,
        ),
    ] {
        let server = Server::with(&tricks);
        let told = load(&server, SUSTAIN);
        let seen = server.seen();
        let expected: Vec<(String, u64)> = faults
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        assert_eq!(told.faults(), expected, "{tricks:?}: {}", told.run()["faults"]);
        let repeats = tricks.iter().filter(|trick| **trick == repeat).count();
        assert_eq!(told.delivered(), seen.sent - repeats, "{tricks:?}");
        if let Some(undelivered) = undelivered {
            assert_eq!(
                told.delivered(),
                CLIENTS * seen.publications - undelivered,
                "{tricks:?}"
            );
        }
        assert!(!told.is_interrupted());
    }
}

#[test]
fn a_delay_is_seen_in_full() {
    let server = Server::with(&[Trick::Delay {
        at: 9,
        to: 1,
        ms: 120,
    }]);
    let told = load(&server, FANOUT);
    assert_eq!(told.faults(), []);
    for curve in ["last", "delivery"] {
        assert!(
            told.curve(curve)["max"].as_f64().expect("a number") >= 0.12,
            "{curve}"
        );
    }
}

#[test]
fn whatever_the_order_of_keys_and_however_cut_messages_are_understood() {
    for (is_spaced, is_torn) in [(true, false), (false, true), (true, true)] {
        let server = Server::start(Manner {
            is_spaced,
            is_torn,
            ..Manner::default()
        });
        let told = load(&server, FANOUT);
        assert_eq!(told.faults(), []);
        assert_eq!(told.delivered(), CLIENTS * 20);
    }
}

#[test]
fn pings_are_answered() {
    let server = Server::start(Manner {
        pings: true,
        ..Manner::default()
    });
    assert_eq!(load(&server, FANOUT).faults(), []);
    server.until(|seen| (seen.pongs, seen.pusher_pongs) == (CLIENTS, CLIENTS));
}

#[test]
fn an_interrupted_run_is_told_as_far_as_it_came() {
    let server = Server::with(&[]);
    let work = begin(
        server.port,
        "sustain --clients 3 --rate 200 --duration 600 --warm-up 0",
    );
    server.until(|seen| seen.publications >= 20);
    work.interrupt();
    let told = work.end();
    assert!(told.is_interrupted());
    assert_eq!(told.faults(), []);
    assert_eq!(told.delivered(), CLIENTS * server.seen().publications);
}

#[test]
fn a_run_whose_server_goes_away_is_told_as_far_as_it_came() {
    let server = Server::with(&[]);
    let work = begin(
        server.port,
        "sustain --clients 3 --rate 200 --duration 600 --warm-up 0",
    );
    server.until(|seen| seen.publications >= 20);
    drop(server);
    let told = work.end();
    assert!(told.is_interrupted());
    assert!(told.delivered() > 0);
    assert!(told.faults().contains(&("closed".to_owned(), CLIENTS as u64)));
    assert!(
        told.run()["notes"].to_string().contains("Ended early"),
        "{}",
        told.run()["notes"]
    );
}

#[test]
fn interrupted_while_it_connects_it_ends_in_order() {
    let server = Server::start(Manner {
        is_mute: true,
        ..Manner::default()
    });
    let work = begin(server.port, FANOUT);
    server.until(|seen| seen.sockets == CLIENTS);
    work.interrupt();
    let told = work.end();
    assert!(told.is_interrupted());
    assert_eq!(told.delivered(), 0);
}

#[test]
fn errors_say_what_to_do() {
    let port = Server::with(&[]).port;
    for (server, words) in [
        (None, "is the server running, and are --host and --port right?"),
        (
            Some(Manner {
                refuses: Some(4001),
                ..Manner::default()
            }),
            "is --key right?",
        ),
        (
            Some(Manner {
                is_unauthorized: true,
                ..Manner::default()
            }),
            "are --key and --secret right?",
        ),
    ] {
        let server = server.map(Server::start);
        let told = begin(server.as_ref().map_or(port, |server| server.port), FANOUT).end();
        assert!(!told.output.status.success());
        assert!(told.error().contains(words), "{}", told.error());
    }
}

#[test]
fn servers_with_tls_are_loaded_too_if_they_are_trusted() {
    let certified =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate is to be had");
    let folder = TempDir::new().expect("a folder is to be had");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, certified.cert.pem()).expect("it is written");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("they belong together");
    let server = Server::start(Manner {
        tls: Some(Arc::new(config)),
        ..Manner::default()
    });

    let trusting = format!("{FANOUT} --host localhost --tls --ca {}", file.display());
    for words in [trusting, format!("{FANOUT} --host localhost --tls --insecure")] {
        let told = load(&server, &words);
        assert_eq!(told.faults(), [], "{words}");
        assert_eq!(told.delivered(), CLIENTS * 20);
    }
    let seen = server.seen();
    assert_eq!(seen.name.as_deref(), Some("localhost"));
    assert_eq!(seen.host, Some(format!("localhost:{}", server.port)));

    let told = load(&server, &format!("{FANOUT} --host localhost --tls"));
    assert!(told.error().contains("not trusted"), "{}", told.error());
    let plain = Server::with(&[]);
    let told = load(&plain, &format!("{FANOUT} --host localhost --tls --insecure"));
    assert!(told.error().contains("--tls"), "{}", told.error());
}
