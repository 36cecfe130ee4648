//! Is NATS there, and does it give what the nodes of a cluster need? Asked once, by a person, with the settings, the TLS
//! and the sign-in of a node.
//!
//! What must work is tried: an echo through every server that is named, and between them. It goes out under the prefix
//! on subjects that no node hears; nothing is stored. JetStream is not needed to carry events.

use std::time::{Duration, Instant, SystemTime};

use async_nats::ServerAddr;
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::{NatsConfig, NatsUrl};
use super::session::{Fault, Session};
use crate::adapter::certificate;
use crate::adapter::config::AdapterConfig;
use crate::checkup::Report;

/// A step takes no longer, or it counts as failed.
const STEP_MAX: Duration = Duration::from_secs(3);
/// The oldest that is tested.
const VERSION_MIN: (u32, u32) = (2, 9);
/// What goes around the data of an event: names, the frame, the envelope. Bytes.
const AROUND_DATA: usize = 4 * 1024;
/// Room for what nodes send beside events: who is there, and what was missed, both in pieces of some 64 KiB. Bytes.
const PIECE_BYTES: usize = 128 * 1024;
/// Echoes; their median is told.
const PROBES: usize = 9;
/// A broker farther away than this makes everything that crosses nodes late.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(20);

/// Looks at everything that the section `nats` names. `data_bytes_max` is how long the data of an event may be.
pub async fn checkup(
    config: &NatsConfig,
    adapter: &AdapterConfig,
    data_bytes_max: usize,
    report: &mut Report<'_>,
) {
    let files = [("ca_file", &config.ca_file), ("cert_file", &config.cert_file)];
    certificate::examine_files("nats", files, SystemTime::now(), report);
    let mut sessions = Vec::new();
    for url in &config.urls {
        if let Some(session) = visit(config, url, &adapter.prefix, report).await {
            properties(url, &session, data_bytes_max, report);
            round_trip(url, &session, &adapter.prefix, report).await;
            sessions.push((url, session));
        }
    }
    for pair in sessions.windows(2) {
        let [(from, publisher), (to, listener)] = pair else {
            continue;
        };
        match crossing(publisher, listener, &adapter.prefix).await {
            Ok(()) => report.good(format!("what {from:?} takes is heard at {to:?}")),
            Err(fault) => report.failure(
                format!("what {from:?} takes is not heard at {to:?}: {fault}"),
                "they do not belong to one NATS cluster (`routes`), or their users to different accounts: nodes would \
                 not hear each other",
            ),
        }
    }
    if config.urls.len() == 1 && sessions.iter().any(|(_, session)| session.is_clustered()) {
        report.warning(
            "one server of a NATS cluster is named in nats.urls",
            "name the others, too: a node must find one that lives",
        );
    }
    report.note("NATS does not tell its time, so the clocks are not compared: keep them right with NTP");
    report.note(
        "nothing is stored in NATS to carry events, JetStream is not needed for that; clusters of nodes are kept apart \
         by adapter.prefix",
    );
}

/// A connection to this very server, or none, and why is told.
async fn visit(config: &NatsConfig, url: &NatsUrl, prefix: &str, report: &mut Report<'_>) -> Option<Session> {
    let one = NatsConfig {
        urls: vec![url.clone()],
        ..config.clone()
    };
    let access = match one.access() {
        Ok(access) => access,
        Err((key, text)) => {
            report.failure(format!("nats.{key}: {text}"), "");
            return None;
        }
    };
    for server in &access.servers {
        if let Err(fault) = reach(server).await {
            report.failure(
                format!("{url:?} cannot be reached: {fault}"),
                "does it run, and is this its name and port? A firewall, or a server bound to loopback only, looks the same",
            );
            return None;
        }
    }
    match Session::open(&access, prefix).await {
        Ok(session) => {
            let tls = if access.tls.is_some() { ", with TLS" } else { "" };
            report.good(format!(
                "{url:?} lets us in{tls}, and echoes what is published under `{prefix}.`"
            ));
            Some(session)
        }
        Err(fault) => {
            report.failure(format!("{url:?}: {fault}"), advice(&fault, prefix));
            None
        }
    }
}

async fn reach(server: &ServerAddr) -> Result<(), Fault> {
    match timeout(STEP_MAX, TcpStream::connect((server.host(), server.port()))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", STEP_MAX.as_secs())),
    }
}

/// What a fault suggests.
fn advice(fault: &str, prefix: &str) -> String {
    let fault = fault.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| fault.contains(word));
    if says(&["permissions violation", "comes back"]) {
        return format!("the user needs `publish` and `subscribe` for `{prefix}.>` among its permissions");
    }
    if says(&["authorization", "authentication", "nonce", "expired"]) {
        return "see nats.username with nats.password (or nats.password_file), nats.nkey_file or \
                nats.credentials_file: one of them is what this server wants"
            .into();
    }
    if says(&["tls", "certificate", "handshake"]) {
        return "is TLS wanted (tls://), is its certificate for this name, and signed by what nats.ca_file (or the \
                system) trusts? Does it ask for a certificate (nats.cert_file, nats.key_file)?"
            .into();
    }
    "is it a NATS server? Its log may say more".into()
}

/// Version and limits, as the server told them in its greeting.
fn properties(url: &NatsUrl, session: &Session, data_bytes_max: usize, report: &mut Report<'_>) {
    let info = session.client.server_info();
    let mut numbers = info
        .version
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let cluster = match &info.cluster {
        Some(name) => format!(
            ", of the cluster `{name}`, and knows of {} addresses",
            info.connect_urls.len()
        ),
        None => ", alone".to_owned(),
    };
    let told = format!("{url:?} is nats-server {}{cluster}", info.version);
    match version >= VERSION_MIN {
        true => report.good(told),
        false => report.warning(told, "upgrade it: 2.9 is the oldest that is tested"),
    }
    let needed = PIECE_BYTES.max(data_bytes_max + AROUND_DATA);
    let told = format!(
        "{url:?} takes messages of {} bytes (max_payload)",
        info.max_payload
    );
    match info.max_payload >= needed {
        true => report.good(told),
        false => report.failure(
            format!("{told}, but nodes send up to {needed}"),
            format!(
                "set `max_payload: {}` there, 1 MiB being the default",
                needed.next_power_of_two()
            ),
        ),
    }
}

async fn round_trip(url: &NatsUrl, session: &Session, prefix: &str, report: &mut Report<'_>) {
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let begun = Instant::now();
        match timeout(STEP_MAX, session.echo()).await {
            Ok(Ok(())) => times.push(begun.elapsed()),
            Ok(Err(fault)) => return report.failure(format!("{url:?}: {fault}"), advice(&fault, prefix)),
            Err(_) => {
                let text = format!(
                    "{url:?}: an echo did not come back within {} s",
                    STEP_MAX.as_secs()
                );
                return report.failure(
                    text,
                    "is something between here and NATS that holds messages back?",
                );
            }
        }
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    let told = format!(
        "{url:?}: there and back in {:.2} ms",
        median.as_secs_f64() * 1000.0
    );
    match median > ROUND_TRIP_MAX {
        true => report.warning(told, "every event between nodes takes this long: put NATS nearer"),
        false => report.good(told),
    }
}

/// Whether a message gets from one connection to the other. Interest spreads between servers a moment after it was
/// taken, so that it is sent more than once.
async fn crossing(from: &Session, to: &Session, prefix: &str) -> Result<(), Fault> {
    let subject = format!("{prefix}.doctor.{:08x}", rand::random::<u32>());
    let heard = to.client.subscribe(subject.clone()).await;
    let mut heard = heard.map_err(|error| error.to_string())?;
    to.echo().await?;
    let deadline = Instant::now() + STEP_MAX;
    while Instant::now() < deadline {
        let sent = from.client.publish(subject.clone(), "".into()).await;
        sent.map_err(|error| error.to_string())?;
        if let Ok(Some(_)) = timeout(Duration::from_millis(200), heard.next()).await {
            return Ok(());
        }
    }
    Err(format!("not within {} s", STEP_MAX.as_secs()))
}
