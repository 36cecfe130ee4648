//! HTTP calls: how soon they are answered, and what that costs.

use super::super::Round;
use super::super::row::{Goal, Row, Value, cell, trial};
use super::ONE;
use crate::result::Unit;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "answer",
        title: "HTTP answer to a trigger",
        trials: &[
            trial(
                "answer_10",
                "fanout --clients 10 --broadcasts 2000",
                "fanout --clients 10 --broadcasts 3",
            ),
            trial(
                "answer_1000",
                "fanout --clients 1000 --broadcasts 200",
                "fanout --clients 20 --broadcasts 3",
            ),
            ONE,
        ],
        cells: &[
            cell(
                "at 10 subscribers, p50",
                Unit::Seconds,
                Value::Of("answer_10", "answer_p50"),
                Goal::AtMost(0.5e-3),
            ),
            cell(
                "at 1,000, p50",
                Unit::Seconds,
                Value::Of("answer_1000", "answer_p50"),
                Goal::AtMost(0.5e-3),
            ),
            cell(
                "at 18,000, p50",
                Unit::Seconds,
                Value::Of("one", "answer_p50"),
                Goal::AtMost(0.5e-3),
            ),
            cell(
                "the slowest against the fastest",
                Unit::Ratio,
                Value::From(slowest_answer),
                Goal::AtMost(2.0),
            ),
        ],
    },
    Row {
        name: "triggers",
        title: "HTTP triggers, keep-alive, one subscriber",
        trials: &[trial(
            "triggers",
            "sustain --clients 1 --in-flight 16 --duration 5",
            "sustain --clients 1 --in-flight 4 --duration 0.1 --warm-up 0",
        )],
        cells: &[
            cell(
                "triggers per second of server CPU",
                Unit::PerSecond,
                Value::From(|round| Some(1.0 / round.figure("triggers", "server_cpu_per_delivery")?)),
                Goal::AtLeast(30_000.0),
            ),
            cell(
                "published, clients on the same cores",
                Unit::PerSecond,
                Value::Of("triggers", "published_per_second"),
                Goal::None,
            ),
        ],
    },
];

fn slowest_answer(round: &Round) -> Option<f64> {
    let answers: Option<Vec<f64>> = ["answer_10", "answer_1000", "one"]
        .iter()
        .map(|trial| round.figure(trial, "answer_p50"))
        .collect();
    let answers = answers?;
    let least = answers.iter().copied().fold(f64::INFINITY, f64::min);
    let most = answers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(most / least)
}
