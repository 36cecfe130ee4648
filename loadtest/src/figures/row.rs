//! What a row of the table is made of, and short ways to write one. It is NOT the rows.

use super::Round;
use crate::result::Unit;

/// One line of what is wanted, with all figures that it asks for.
pub(super) struct Row {
    /// How it is chosen.
    pub(super) name: &'static str,
    /// What is done, for people.
    pub(super) title: &'static str,
    pub(super) trials: &'static [Trial],
    pub(super) cells: &'static [Cell],
}

/// One run. Rows may share it: it is taken once in each repetition.
pub(super) struct Trial {
    pub(super) name: &'static str,
    pub(super) on: On,
    /// What the server needs beyond its defaults: `{"server": {…}, "app": {…}, "second_app": {…}}`. `{receiver}` stands
    /// for a port where webhooks may be received, as in the scenario.
    pub(super) settings: &'static str,
    /// The scenario and its arguments.
    pub(super) full: &'static str,
    /// The same with a few sockets.
    pub(super) quick: &'static str,
}

/// What is run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Server,
    Floor,
}

/// One figure.
pub(super) struct Cell {
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    pub(super) value: Value,
    /// The floor's, in the same repetition.
    pub(super) floor: Option<Value>,
    pub(super) middle: Middle,
    pub(super) goal: Goal,
}

/// How a figure is read from a repetition.
#[derive(Clone, Copy)]
pub(super) enum Value {
    /// A trial's figure of that key.
    Of(&'static str, &'static str),
    /// Made of several.
    From(fn(&Round) -> Option<f64>),
}

/// What stands for all repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Middle {
    Median,
    /// For what is sampled too seldom for one repetition to tell.
    Mean,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// So many times the floor at most.
    FloorAtMost(f64),
    /// So much, or so many times the floor.
    AtLeastOrFloor(f64, f64),
    /// It only describes.
    None,
}

impl Value {
    pub(super) fn read(self, round: &Round) -> Option<f64> {
        match self {
            Value::Of(trial, key) => round.figure(trial, key),
            Value::From(made) => made(round).filter(|value| value.is_finite()),
        }
    }
}

/// A server with nothing but its defaults.
const DEFAULTS: &str = "{}";

/// A run on the server.
pub(super) const fn trial(name: &'static str, full: &'static str, quick: &'static str) -> Trial {
    Trial {
        name,
        on: On::Server,
        settings: DEFAULTS,
        full,
        quick,
    }
}

/// A figure without a floor.
pub(super) const fn cell(title: &'static str, unit: Unit, value: Value, goal: Goal) -> Cell {
    Cell {
        title,
        unit,
        value,
        floor: None,
        middle: Middle::Median,
        goal,
    }
}

/// What every µs of CPU is held against: a `send` to one of 10,000.
pub(super) const SEND: Value = Value::Of("floor", "server_cpu_per_delivery");

/// What the server spends on a delivery, against a bare `send`.
pub(super) const fn cpu(trial: &'static str, goal: Goal) -> Cell {
    Cell {
        floor: Some(SEND),
        ..cell(
            "server CPU per delivered message",
            Unit::Seconds,
            Value::Of(trial, "server_cpu_per_delivery"),
            goal,
        )
    }
}

/// Deliveries per second.
pub(super) const fn delivered(trial: &'static str, goal: Goal) -> Cell {
    cell(
        "delivered",
        Unit::PerSecond,
        Value::Of(trial, "delivered_per_second"),
        goal,
    )
}
