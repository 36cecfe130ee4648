//! Sockets: what one costs, how many come at once, what becomes of those who do not read, and the way from one to another.

use super::super::Round;
use super::super::row::{Cell, Goal, On, Row, Trial, Value, cell, trial};
use crate::result::Unit;

const CLIENT_EVENTS: &str = r#"{"app": {"client_events": true, "client_events_per_s": 1000000}}"#;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "client_events",
        title: "client event of 100 B from socket to socket and back",
        trials: &[
            Trial {
                on: On::Floor,
                ..trial("floor_client_events", EVENTS_FULL, EVENTS_QUICK)
            },
            Trial {
                settings: CLIENT_EVENTS,
                ..trial("client_events", EVENTS_FULL, EVENTS_QUICK)
            },
        ],
        cells: &[Cell {
            floor: Some(Value::Of("floor_client_events", "round_trip_p50")),
            ..cell(
                "round trip, p50",
                Unit::Seconds,
                Value::Of("client_events", "round_trip_p50"),
                Goal::FloorAtMost(1.5),
            )
        }],
    },
    Row {
        name: "memory",
        title: "10,000 idle sockets on one channel, a burst of 2 MiB to each, a rest",
        trials: &[trial(
            "memory",
            "idle --clients 10000 --burst 2097152 --rest 10",
            "idle --clients 50 --burst 50000 --rest 0.2",
        )],
        cells: &[
            cell(
                "per idle subscribed socket",
                Unit::Bytes,
                Value::Of("memory", "idle_memory_per_socket"),
                Goal::AtMost(2_048.0),
            ),
            cell(
                "at most in the burst",
                Unit::Bytes,
                Value::Of("memory", "memory_peak"),
                Goal::None,
            ),
            cell(
                "after burst and rest, to before",
                Unit::Ratio,
                Value::Of("memory", "memory_after_burst_ratio"),
                Goal::AtMost(1.1),
            ),
        ],
    },
    Row {
        name: "connect",
        title: "connect and subscribe, all on one channel",
        trials: &[
            trial("connect", "connect --clients 10000", "connect --clients 50"),
            trial(
                "herd",
                // Both crowds together, and some descriptors more, for a process that may have 20,000.
                "connect --clients 9800 --drop-at-once 9800",
                "connect --clients 30 --drop-at-once 30",
            ),
        ],
        cells: &[
            cell(
                "10,000, per second",
                Unit::PerSecond,
                Value::Of("connect", "connected_per_second"),
                Goal::AtLeast(20_000.0),
            ),
            cell(
                "server CPU per socket",
                Unit::Seconds,
                Value::Of("connect", "server_cpu_per_socket"),
                Goal::None,
            ),
            cell(
                "while 9,800 others drop at once, p99",
                Unit::Seconds,
                Value::Of("herd", "handshake_p99"),
                Goal::AtMost(0.25),
            ),
        ],
    },
    Row {
        name: "stalled",
        title: "100 of 1,000 readers stall, 2 KiB messages",
        trials: &[trial(
            "stalled",
            "sustain --clients 1000 --stalled 100 --payload 2048 --rate 400 --duration 20",
            "sustain --clients 20 --stalled 2 --payload 2048 --rate 100 --duration 0.2 --warm-up 0",
        )],
        cells: &[
            cell(
                "closed by the server",
                Unit::Share,
                Value::Of("stalled", "stalled_closed"),
                Goal::AtLeast(1.0),
            ),
            cell(
                "memory at most, above that before, for each",
                Unit::Bytes,
                Value::From(stalled_memory),
                // An app's `outbox_bytes_max`, as it is by default.
                Goal::AtMost(1_048_576.0),
            ),
            cell(
                "the others' p99, to before",
                Unit::Ratio,
                Value::Of("stalled", "delivery_p99_ratio"),
                Goal::AtMost(1.1),
            ),
        ],
    },
    Row {
        name: "overload",
        title: "full with 1,000 sockets, 100 broadcasts/s, while 5,000 others come back every second and are refused",
        trials: &[Trial {
            settings: r#"{"server": {"sockets_max": 1000}}"#,
            ..trial(
                "overload",
                "overload --clients 1000 --refused 5000 --rate 100",
                QUICK_OVERLOAD,
            )
        }],
        cells: &[
            cell(
                "server CPU of refusals, share of a core",
                Unit::Share,
                Value::Of("overload", "server_cpu_of_refusals"),
                Goal::AtMost(0.2),
            ),
            cell(
                "for each",
                Unit::Seconds,
                Value::Of("overload", "server_cpu_per_refusal"),
                Goal::None,
            ),
            cell(
                "refused",
                Unit::PerSecond,
                Value::Of("overload", "refused_per_second"),
                Goal::None,
            ),
            cell(
                "delivery to those who are there, p99 alone",
                Unit::Seconds,
                Value::Of("overload", "delivery_alone_p99"),
                Goal::None,
            ),
            cell(
                "p99 meanwhile, to alone",
                Unit::Ratio,
                Value::Of("overload", "p99_ratio"),
                Goal::AtMost(1.1),
            ),
            cell(
                "told so late that pusher-js would have hung up",
                Unit::Share,
                Value::Of("overload", "told_late"),
                Goal::AtMost(0.001),
            ),
        ],
    },
];

/// There is room for a thousand, and nobody is refused before they are there.
const QUICK_OVERLOAD: &str = "overload --clients 1000 --refused 50 --rate 20 --pairs 1 --turn 1";
const EVENTS_FULL: &str = "client-events --duration 5";
const EVENTS_QUICK: &str = "client-events --duration 0.2 --warm-up 0";
/// What each of the hundred that stall took at most.
fn stalled_memory(round: &Round) -> Option<f64> {
    let grown = round.figure("stalled", "memory_peak")? - round.figure("stalled", "memory_peak_before")?;
    Some(grown.max(0.0) / 100.0)
}
