//! What the operators' port shows of this node, and has it do: the wires between the two.
//!
//! Not here: HTTP, and who may ask for what (`server/admin.rs`).

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::admin::{Action, AdminState};
use super::drain::{Drain, NoShed};
use super::health;
use super::http::Gate;
use super::marks;
use crate::config::AdminConfig;
use crate::metrics::{AppSnapshot, Snapshot};
use crate::shard::LiveBytes;
use crate::tls::Acceptor;

/// What the port is served with.
pub(super) fn state(
    config: &AdminConfig,
    gate: &Arc<Gate>,
    drain: &Arc<Drain>,
    live: &LiveBytes,
    tls: &Option<Arc<Acceptor>>,
) -> AdminState {
    let node = &gate.node;
    let (apps, truth, live, drain) = (node.clone(), gate.clone(), live.clone(), drain.clone());
    let tls = tls.clone();
    AdminState {
        metrics: node.metrics().clone(),
        health: drain.health().clone(),
        app: Box::new(move |path: String| {
            let node = apps.clone();
            async move { health::app_asked_for(&path, node.apps()).await }.boxed()
        }),
        act: Box::new(move |action| act(&drain, action)),
        may_act: Box::new(config.may_act()),
        snapshot: Box::new(move || snapshot(&truth, &live, tls.as_deref())),
    }
}

/// Has it done. The answer says what will happen, or why nothing does.
fn act(drain: &Drain, action: Action) -> Result<Value, String> {
    let config = drain.config();
    match action {
        Action::Drain => Ok(json!({
            "draining": true,
            "sockets": drain.begin(),
            "delay_s": config.delay_s,
            "drain_s": config.drain_s,
            "close_code": config.close_code,
            "then": "the node stays, not ready and refusing sockets, until it is told to end (SIGTERM)",
        })),
        Action::Shed { percent, over_s } => {
            let shed = drain.shed(percent, over_s.unwrap_or(config.drain_s));
            let shed = shed.map_err(|why| match why {
                NoShed::AtWork(other) => format!(
                    "{} of {} sockets are being shed over {} s: ask again when that is done",
                    other.sockets, other.of, other.over_s
                ),
                NoShed::Draining => "the node drains: all of its sockets are being closed".to_owned(),
            })?;
            Ok(json!({
                "sockets": shed.sockets,
                "of": shed.of,
                "over_s": shed.over_s,
                "close_code": config.close_code,
            }))
        }
    }
}

/// The gauges, read from the truth.
fn snapshot(gate: &Gate, live: &LiveBytes, tls: Option<&Acceptor>) -> Snapshot {
    let node = &gate.node;
    let apps = node.apps_with_figures().into_iter().map(|app| {
        let today = node.usage_today(&app, Timestamp::now());
        AppSnapshot {
            app_id: app.id().into(),
            connected: app.connections() as u64,
            active_channels: node.occupied_channels(&app) as u64,
            messages: app.messages(),
            messages_today: today.messages,
            peak_connections: today.connections_peak,
        }
    });
    Snapshot {
        apps: apps.collect(),
        outbox_bytes: live.get() as u64,
        inbox_bytes: node
            .inboxes()
            .all()
            .iter()
            .map(|inbox| inbox.charged_bytes() as u64)
            .collect(),
        room: marks::snapshot(gate),
        webhook_untold: node.untold() as u64,
        webhooks: node.webhooks().snapshot(),
        webhook_broker: node.webhooks().broker_snapshot(),
        cluster: node.cluster_snapshot(),
        store: node.apps().store_snapshot(),
        certificate_expiry_s: tls.map(|tls| {
            let validity = tls.validity();
            validity.map_or(0, |validity| validity.seconds_left(SystemTime::now()))
        }),
    }
}
