//! What each thing may cost, and what is said of one that costs more.

use std::fmt;

use crate::server::{Counts, Meter};
use crate::work::{Figures, Share};

/// What a budget is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    Allocations,
    Bytes,
    KeptBytes,
    Sends,
    OtherCalls,
    Instructions,
}

use Quantity::{Allocations, Bytes, Instructions, KeptBytes, OtherCalls, Sends};

/// At most so much of it, and why so much.
struct Budget {
    share: Share,
    quantity: Quantity,
    at_most: f64,
    because: &'static str,
}

const fn budget(share: Share, quantity: Quantity, at_most: f64, because: &'static str) -> Budget {
    Budget {
        share,
        quantity,
        at_most,
        because,
    }
}

/// What is left to chance: a table that grows, a tick more or less. It is shared out over thousands of messages.
const NONE: f64 = 0.01;
const NO_BYTES: f64 = 1.0;
const TENTH_ABOVE: &str = "a tenth above what it was when the budget was set";

/// Instructions are those of x86-64 in the profile `cost`.
const BUDGETS: &[Budget] = &[
    budget(
        Share::Delivery,
        Allocations,
        NONE,
        "nothing is allocated per subscriber",
    ),
    budget(
        Share::Delivery,
        Bytes,
        NO_BYTES,
        "nothing is allocated per subscriber",
    ),
    budget(
        Share::Delivery,
        Sends,
        1.0 + NONE,
        "a lone message is one send for each subscriber",
    ),
    budget(
        Share::Delivery,
        OtherCalls,
        0.05,
        "an event is for the shard, not for the subscriber",
    ),
    budget(Share::Delivery, Instructions, 52.0, TENTH_ABOVE),
    budget(
        Share::WhisperDelivery,
        Allocations,
        NONE,
        "nothing is allocated per subscriber",
    ),
    budget(
        Share::WhisperDelivery,
        Bytes,
        NO_BYTES,
        "nothing is allocated per subscriber",
    ),
    budget(
        Share::WhisperDelivery,
        Sends,
        1.0 + NONE,
        "a lone message is one send for each subscriber",
    ),
    budget(
        Share::WhisperDelivery,
        OtherCalls,
        0.05,
        "an event is for the shard, not for the subscriber",
    ),
    budget(Share::WhisperDelivery, Instructions, 52.0, TENTH_ABOVE),
    budget(
        Share::BatchDelivery,
        Allocations,
        0.05,
        "ten events are allocated for 1,000 subscribers",
    ),
    budget(
        Share::BatchDelivery,
        Sends,
        0.12,
        "ten events at once are one send",
    ),
    budget(Share::BatchDelivery, Instructions, 59.0, TENTH_ABOVE),
    budget(
        Share::Broadcast,
        Allocations,
        16.0,
        "the request, the publication, its frame, two runs",
    ),
    budget(Share::Broadcast, Bytes, 5_000.0, TENTH_ABOVE),
    budget(
        Share::Broadcast,
        OtherCalls,
        8.0,
        "read, answer, wake the other shard, and wait for the next",
    ),
    budget(Share::Broadcast, Instructions, 77_000.0, TENTH_ABOVE),
    budget(
        Share::Whisper,
        Allocations,
        7.0,
        "the frame, two inbox entries, two runs",
    ),
    budget(Share::Whisper, Bytes, 700.0, "its frame has some 170 bytes"),
    budget(
        Share::Whisper,
        OtherCalls,
        6.0,
        "read, wake the other shard, and wait for the next",
    ),
    budget(Share::Whisper, Instructions, 20_000.0, TENTH_ABOVE),
    budget(
        Share::Trigger,
        Allocations,
        13.0,
        "hyper's head and answer, the publication's parts",
    ),
    budget(Share::Trigger, Bytes, 4_900.0, TENTH_ABOVE),
    budget(Share::Trigger, OtherCalls, 4.0, "read, answer, wait for the next"),
    budget(Share::Trigger, Instructions, 67_500.0, TENTH_ABOVE),
    budget(
        Share::Connection,
        Allocations,
        20.0,
        "a tenth above; the reading of the handshake, the socket's parts",
    ),
    budget(
        Share::Connection,
        Bytes,
        8_100.0,
        "a tenth above; what the handshake is read into, given back",
    ),
    budget(
        Share::Connection,
        KeptBytes,
        1_150.0,
        "a socket with one subscription, with its share of the tables",
    ),
    budget(
        Share::Connection,
        Sends,
        2.0 + NONE,
        "greeting and acknowledgement",
    ),
    budget(
        Share::Connection,
        OtherCalls,
        13.0,
        "accept, register, wait and read twice",
    ),
    budget(Share::Connection, Instructions, 61_000.0, TENTH_ABOVE),
    budget(Share::IdleSecond, Allocations, NONE, "nothing happens"),
    budget(
        Share::IdleSecond,
        OtherCalls,
        26.0,
        "shards and node look around once a second",
    ),
    budget(
        Share::IdleSecond,
        Instructions,
        45_000.0,
        "shards and node look around once a second",
    ),
];

/// Prints what was counted beside the budgets. The answer is what is to be said of those that do not hold.
pub(crate) fn compare(meter: Meter, figures: &Figures) -> Vec<String> {
    let mut faults = Vec::new();
    for budget in BUDGETS.iter().filter(|budget| budget.quantity.meter() == meter) {
        let Budget {
            share,
            quantity,
            at_most,
            because,
        } = budget;
        let Some(counts) = figures.get(share) else {
            continue;
        };
        let count = quantity.of(counts);
        let holds = count <= *at_most;
        let mark = if holds { ' ' } else { '!' };
        println!(
            "{mark} {:<38} {:<14} {count:>11.2} {at_most:>11.2}",
            share.to_string(),
            quantity.to_string()
        );
        if !holds {
            let calls = match quantity {
                Sends | OtherCalls => format!("\n      calls: {}", list(counts)),
                _ => String::new(),
            };
            faults.push(format!(
                "{quantity} per {share}: {count:.2}, and the budget is {at_most:.2} ({because}).{calls}\n      Find where: \
                 make cost COST=\"{} --watch {}\"",
                clap::ValueEnum::to_possible_value(&meter).map_or_else(String::new, |value| value.get_name().to_owned()),
                share.deed_name(),
            ));
        }
    }
    faults
}

fn list(counts: &Counts) -> String {
    let calls = counts.calls.iter().filter(|(_, count)| count.abs() > 0.005);
    calls
        .map(|(name, count)| format!("{name} {count:.2}"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl Quantity {
    fn meter(self) -> Meter {
        match self {
            Allocations | Bytes | KeptBytes => Meter::Allocations,
            Sends | OtherCalls => Meter::Calls,
            Instructions => Meter::Instructions,
        }
    }

    fn of(self, counts: &Counts) -> f64 {
        let sends = ["sendto", "sendmsg", "sendmmsg", "writev"]
            .iter()
            .filter_map(|call| counts.calls.get(*call))
            .sum::<f64>();
        match self {
            Allocations => counts.allocations,
            Bytes => counts.bytes,
            KeptBytes => counts.kept_bytes,
            Sends => sends,
            OtherCalls => counts.calls.values().sum::<f64>() - sends,
            Instructions => counts.instructions,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Allocations => "allocations",
            Bytes => "bytes allocated",
            KeptBytes => "bytes kept",
            Sends => "sends",
            OtherCalls => "other calls",
            Instructions => "instructions",
        })
    }
}
