//! Webhooks: what broadcasts suffer from them, and what they cost.

use super::super::row::{Cell, Goal, Row, Trial, Value, cell, trial};
use crate::result::Unit;

/// 50,000 channels a minute become occupied, and as many are vacated. The grace is short, so that what happens in a turn is
/// told in it.
const FULL: &str = "occupancy --clients 1000 --rate 20 --turnover 833 --receiver {receiver}";
const HANGS: &str = "occupancy --clients 1000 --rate 20 --turnover 833 --receiver {receiver} --hangs";
const QUICK: &str =
    "occupancy --clients 20 --rate 100 --turnover 100 --pairs 2 --turn 0.2 --receiver {receiver}";

/// The back end is told of everything: the counts of subscribers, too.
const ALL: &str = r#"{"second_app": {}, "app": {"webhook_grace_ms": 100,
    "webhooks": [{"url": "http://127.0.0.1:{receiver}/"}]}}"#;
/// Of what was asked for and no more, an event in each request.
const OCCUPANCY: &str = r#"{"second_app": {}, "app": {"webhook_grace_ms": 100,
    "webhooks": [{"url": "http://127.0.0.1:{receiver}/", "event_types": ["channel_occupied", "channel_vacated"]}]}}"#;
/// The same, gathered into fewer requests.
const BATCHED: &str = r#"{"second_app": {}, "app": {"webhook_grace_ms": 100,
    "webhooks": [{"url": "http://127.0.0.1:{receiver}/", "event_types": ["channel_occupied", "channel_vacated"],
        "batch": {"max_events": 100, "max_delay_ms": 100}}]}}"#;

const fn told(name: &'static str, settings: &'static str, full: &'static str) -> Trial {
    Trial {
        settings,
        ..trial(name, full, QUICK)
    }
}

pub(super) const ROWS: &[Row] = &[Row {
    name: "webhooks",
    title: "20 broadcasts/s × 1,000 while 833 channels/s become occupied and 833 vacated",
    trials: &[
        told("webhooks", OCCUPANCY, FULL),
        told("webhooks_batched", BATCHED, FULL),
        told("webhooks_all", ALL, FULL),
        told("webhooks_hang", OCCUPANCY, HANGS),
    ],
    cells: &[
        cell(
            "without webhooks: delivery, p50",
            Unit::Seconds,
            Value::Of("webhooks", "delivery_without_p50"),
            Goal::None,
        ),
        cell(
            "without webhooks: delivery, p99",
            Unit::Seconds,
            Value::Of("webhooks", "delivery_without_p99"),
            Goal::None,
        ),
        cell(
            "p99 of one half without them to the other",
            Unit::Ratio,
            Value::Of("webhooks", "p99_ratio_of_nothing"),
            Goal::None,
        ),
        cell(
            "p50 with them to without",
            Unit::Ratio,
            Value::Of("webhooks", "p50_ratio"),
            Goal::None,
        ),
        p99("p99 with them to without", "webhooks"),
        cell(
            "the same, in the median of all pairs of turns",
            Unit::Ratio,
            Value::Of("webhooks", "p99_ratio_of_pairs"),
            Goal::None,
        ),
        p99("p99, 100 events in a request", "webhooks_batched"),
        p99("p99, webhooks of all kinds", "webhooks_all"),
        p99("p99, the receiver hangs", "webhooks_hang"),
        cell(
            "changes of which the receiver was told",
            Unit::Share,
            Value::Of("webhooks", "told_share"),
            Goal::AtLeast(0.99),
        ),
        cpu("server CPU per webhook", "webhooks"),
        cpu("the same, 100 in a request", "webhooks_batched"),
    ],
}];

const fn p99(title: &'static str, trial: &'static str) -> Cell {
    cell(
        title,
        Unit::Ratio,
        Value::Of(trial, "p99_ratio"),
        Goal::AtMost(1.1),
    )
}

const fn cpu(title: &'static str, trial: &'static str) -> Cell {
    cell(
        title,
        Unit::Seconds,
        Value::Of(trial, "server_cpu_per_change"),
        Goal::None,
    )
}
