//! The table, as data: what is run, which figures are read, what they should be. A family of rows has a file.

mod broadcasts;
mod calls;
mod sockets;
mod webhooks;

use super::row::{On, Row, Trial, trial};

/// All of it.
pub(super) fn all() -> impl Iterator<Item = &'static Row> {
    [broadcasts::ROWS, calls::ROWS, sockets::ROWS, webhooks::ROWS]
        .into_iter()
        .flatten()
}

const FLOOR: Trial = Trial {
    on: On::Floor,
    ..trial(
        "floor",
        "fanout --clients 10000 --broadcasts 30",
        "fanout --clients 50 --broadcasts 3",
    )
};
const ONE: Trial = trial(
    "one",
    "fanout --clients 18000 --broadcasts 15",
    "fanout --clients 100 --broadcasts 3",
);
