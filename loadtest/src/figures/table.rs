//! The table as people read it: median (least .. most), the multiple of the floor, and whether the goal is reached. Pure.

use super::Round;
use super::row::{Cell, Goal, Middle, Row, Value};
use crate::report::panels::median;
use crate::report::quantity::{NONE, Scale, ratio, told as quantity};
use crate::report::text::aligned;
use crate::report::words;
use crate::result::Unit;

/// What stands above it.
pub(super) struct Head<'a> {
    pub(super) command: &'a str,
    pub(super) server: &'a str,
    pub(super) version: &'a str,
    pub(super) repetitions: u32,
    pub(super) is_trial: bool,
}

/// What was in the way of a figure in at least one repetition.
const LIMITED: &str =
    "† limited by the generator in at least one repetition, which is not the server's limit.";

/// Whether each of a row's figures was measured at least once.
pub(super) fn is_measured(row: &Row, rounds: &[Round]) -> bool {
    row.cells.iter().all(|cell| !read(cell.value, rounds).is_empty())
}

/// The whole text.
pub(super) fn told(
    head: &Head<'_>,
    rows: &[&Row],
    rounds: &[Round],
    troubles: &[String],
    is_markdown: bool,
) -> String {
    let mut out = head.told(rounds, is_markdown);
    let mut lines = vec![
        ["figure", "median (least .. most)", "× floor", "to reach", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    for row in rows {
        let (name, title) = (row.name, row.title);
        lines.push(match is_markdown {
            true => [&*format!("**{name}**: {title}"), "", "", "", ""]
                .map(str::to_owned)
                .to_vec(),
            false => vec![format!("{name}: {title}")],
        });
        for cell in row.cells {
            let mut line = told_cell(cell, rounds);
            if !is_markdown {
                line[0].insert_str(0, "  ");
            }
            lines.push(line);
        }
    }
    if is_markdown {
        for (place, line) in lines.iter().enumerate() {
            out.push_str(&format!("| {} |\n", line.join(" | ")));
            if place == 0 {
                out.push_str("| --- | --- | --- | --- | --- |\n");
            }
        }
    } else {
        for line in aligned(&lines) {
            out.push_str(&format!("  {line}\n"));
        }
    }
    let is_limited = rows
        .iter()
        .flat_map(|row| row.cells)
        .any(|cell| is_limited(cell, rounds));
    if is_limited || !troubles.is_empty() {
        out.push('\n');
    }
    if is_limited {
        out.push_str(&format!("{}{LIMITED}\n", if is_markdown { "- " } else { "" }));
    }
    for trouble in troubles {
        out.push_str(&format!("{}{trouble}\n", if is_markdown { "- " } else { "" }));
    }
    out
}

impl Head<'_> {
    fn told(&self, rounds: &[Round], is_markdown: bool) -> String {
        let run = rounds.iter().find_map(|round| round.runs.values().next());
        let (machine, day) = run.map_or_else(Default::default, |run| {
            let day = run.started.split('T').next().unwrap_or_default();
            (words::machine(&run.machine), day.to_owned())
        });
        let (version, server, command, times) = (self.version, self.server, self.command, self.repetitions);
        let trial = if self.is_trial {
            "A trial on a few sockets: these figures say nothing.\n"
        } else {
            ""
        };
        if is_markdown {
            format!(
                "{trial}{day}, {version} (`{server}`), {machine}, clients and server sharing the cores, {times} \
                 repetitions, `{command}`:\n\n"
            )
        } else {
            format!("{trial}{day}, {machine}\n{version}: {server}\n{command}, {times} repetitions\n\n")
        }
    }
}

/// A line of the table.
fn told_cell(cell: &Cell, rounds: &[Round]) -> Vec<String> {
    let values = read(cell.value, rounds);
    let multiples: Vec<f64> = cell.floor.map_or_else(Vec::new, |floor| {
        let multiple = |round| Some(cell.value.read(round)? / floor.read(round)?);
        rounds.iter().filter_map(multiple).collect()
    });
    let value = middle(cell.middle, &values);
    let multiple = median(&multiples);
    let reached = match is_reached(cell.goal, value, multiple) {
        Some(true) => "reached",
        Some(false) => "NOT reached",
        None => "",
    };
    let mut measured = spread(cell.unit, value, &values);
    if !values.is_empty() && values.len() < rounds.len() {
        measured.push_str(&format!(", {} of {}", values.len(), rounds.len()));
    }
    if is_limited(cell, rounds) {
        measured.push_str(" †");
    }
    vec![
        cell.title.to_owned(),
        measured,
        multiple.map_or_else(String::new, |multiple| {
            spread(Unit::Ratio, Some(multiple), &multiples)
        }),
        goal(cell.goal, cell.unit),
        reached.to_owned(),
    ]
}

/// Whether this program was the limit of a run that the figure or its floor is read from.
fn is_limited(cell: &Cell, rounds: &[Round]) -> bool {
    rounds.iter().any(|round| {
        let others = round.without_limited();
        let needs = |value: Value| value.read(round).is_some() && value.read(&others).is_none();
        needs(cell.value) || cell.floor.is_some_and(needs)
    })
}

fn read(value: Value, rounds: &[Round]) -> Vec<f64> {
    rounds.iter().filter_map(|round| value.read(round)).collect()
}

fn middle(middle: Middle, values: &[f64]) -> Option<f64> {
    match middle {
        Middle::Median => median(values),
        Middle::Mean => (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64),
    }
}

/// "7.26 µs (6.81 .. 7.45)"; one repetition has no spread.
fn spread(unit: Unit, middle: Option<f64>, values: &[f64]) -> String {
    let Some(middle) = middle else {
        return NONE.to_owned();
    };
    let number = |value: f64| match unit {
        Unit::Ratio => ratio(value),
        unit => Scale::of(unit, middle).told(value),
    };
    if values.len() < 2 {
        return number(middle);
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let bare = |value: f64| {
        let told = number(value);
        let end = told.find([' ', '/']).unwrap_or(told.len());
        told[..end].to_owned()
    };
    format!("{} ({} .. {})", number(middle), bare(least), bare(most))
}

fn goal(goal: Goal, unit: Unit) -> String {
    match goal {
        Goal::AtMost(most) if unit == Unit::Ratio => format!("≤ {}", ratio(most)),
        Goal::AtMost(most) => format!("≤ {}", quantity(most, unit)),
        Goal::AtLeast(least) => format!("≥ {}", quantity(least, unit)),
        Goal::FloorAtMost(most) => format!("≤ {} floor", ratio(most)),
        Goal::AtLeastOrFloor(least, times) => {
            format!("≥ {} or {} floor", quantity(least, unit), ratio(times))
        }
        Goal::None => String::new(),
    }
}

/// Nothing, if there is no goal or nothing was measured.
fn is_reached(goal: Goal, value: Option<f64>, multiple: Option<f64>) -> Option<bool> {
    match goal {
        Goal::AtMost(most) => Some(value? <= most),
        Goal::AtLeast(least) => Some(value? >= least),
        Goal::FloorAtMost(most) => Some(multiple? <= most),
        Goal::AtLeastOrFloor(least, times) => {
            Some(value? >= least || multiple.is_some_and(|multiple| multiple >= times))
        }
        Goal::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::cpu;
    use super::*;
    use crate::result::{Better, Run, Verdict};

    fn round(server_s: f64, floor_s: f64) -> Round {
        let mut round = Round::default();
        for (trial, cpu_s) in [("lone", server_s), ("floor", floor_s)] {
            let mut run = Run::new("fanout", trial, String::new());
            run.measured(
                "server_cpu_per_delivery",
                "CPU",
                cpu_s,
                Unit::Seconds,
                Better::Less,
            );
            round.runs.insert(trial, run);
        }
        round
    }

    #[test]
    fn a_figure_is_told_with_its_spread_its_floor_and_its_goal() {
        let cell = Cell {
            title: "CPU",
            unit: Unit::Seconds,
            value: Value::Of("lone", "server_cpu_per_delivery"),
            floor: Some(Value::Of("floor", "server_cpu_per_delivery")),
            middle: Middle::Median,
            goal: Goal::FloorAtMost(1.1),
        };
        let rounds = [round(6.1e-6, 5e-6), round(5.2e-6, 5e-6), round(9.3e-6, 10e-6)];
        assert_eq!(
            told_cell(&cell, &rounds),
            [
                "CPU",
                "6.10 µs (5.20 .. 9.30)",
                "1.04 × (0.93 .. 1.22)",
                "≤ 1.10 × floor",
                "reached"
            ]
        );
        assert_eq!(told_cell(&cell, &[]), ["CPU", "–", "", "≤ 1.10 × floor", ""]);
    }

    #[test]
    fn a_run_with_faults_does_not_count_and_one_that_the_generator_limited_is_marked() {
        let cell = cpu("lone", Goal::None);
        let mut rounds = [round(6.1e-6, 5e-6), round(8.1e-6, 5e-6), round(99e-6, 5e-6)];
        let lone = rounds[2].runs.get_mut("lone").expect("it was taken");
        lone.faults.lost = 1;
        let told = told_cell(&cell, &rounds);
        assert_eq!(told[1], "7.10 µs (6.10 .. 8.10), 2 of 3");
        assert!(!is_limited(&cell, &rounds));
        for trial in ["lone", "floor"] {
            let mut rounds = [round(6.1e-6, 5e-6)];
            let run = rounds[0].runs.get_mut(trial).expect("it was taken");
            run.generator.verdict = Verdict::Generator;
            assert_eq!(told_cell(&cell, &rounds)[1], "6.10 µs †", "{trial}");
        }
    }

    #[test]
    fn a_goal_may_be_reached_in_one_of_two_ways() {
        let goal = Goal::AtLeastOrFloor(1e9, 0.9);
        for (value, multiple, reached) in [
            (2e9, Some(0.1), true),
            (5e8, Some(0.95), true),
            (5e8, Some(0.5), false),
            (5e8, None, false),
        ] {
            assert_eq!(is_reached(goal, Some(value), multiple), Some(reached));
        }
        assert_eq!(is_reached(goal, None, None), None);
    }
}
