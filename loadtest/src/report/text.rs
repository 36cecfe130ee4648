//! What an operator reads after a run: the answer first, then all figures, then what is to be made of them. Pure.

use std::fmt::Write as _;

use super::panels;
use super::quantity::{NONE, Scale, counted, told};
use super::words;
use crate::result::{Curve, Run, Verdict};

/// The quantiles that a terminal shows, and their names.
pub(crate) const QUANTILES: [(f64, &str); 5] = [
    (0.5, "p50"),
    (0.9, "p90"),
    (0.99, "p99"),
    (0.999, "p99.9"),
    (1.0, "max"),
];

/// Whether to mark things by colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Text alone: files, pipes, whoever set `NO_COLOR`.
    Plain,
    /// A terminal's own colours.
    Colour,
}

impl Ink {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
    fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }
    fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }
    fn doubtful(self, text: &str) -> String {
        self.paint("33", text)
    }
    fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// The whole report of a run, with a line's end at its end.
pub(crate) fn report(run: &Run, ink: Ink) -> String {
    let mut out = String::new();
    let mut say = |line: &str| {
        out.push_str(line);
        out.push('\n');
    };
    say("");
    say(&ink.strong(&clean(&answer(run))));
    if let Some(text) = words::interruption(run) {
        say(&ink.bad(&text));
    }
    if !run.figures.is_empty() {
        say("");
        for line in figures(run) {
            say(&clean(&line));
        }
    }
    if !run.curves.is_empty() {
        say("");
        for (place, line) in aligned(&curves(&run.curves)).iter().enumerate() {
            let line = clean(&format!("  {line}"));
            say(&if place == 0 { ink.faint(&line) } else { line });
        }
    }
    say("");
    let faults = clean(&words::faults_line(&run.faults));
    say(&if run.faults.total() > 0 {
        ink.bad(&faults)
    } else {
        faults
    });
    for example in run.faults.examples.iter().skip(1) {
        say(&clean(&format!("  {example}")));
    }
    let verdict = words::verdict(run);
    say(&if run.generator.verdict == Verdict::Generator {
        ink.doubtful(&verdict)
    } else {
        verdict
    });
    for note in &run.notes {
        say(&clean(&format!("Note: {note}")));
    }
    say("");
    for line in circumstances(run) {
        say(&ink.faint(&clean(&line)));
    }
    out
}

/// The first figure, which is the one that the scenario asks for.
fn answer(run: &Run) -> String {
    let whom = if run.label.is_empty() {
        run.server.as_deref().unwrap_or("the server")
    } else {
        &run.label
    };
    let answer = run.figures.first();
    let answer = answer.map_or_else(
        || "nothing was measured".to_owned(),
        |figure| {
            format!(
                "{} {}",
                uncapitalized(&figure.title),
                told(figure.value, figure.unit)
            )
        },
    );
    format!("{}, {whom}: {answer}", run.scenario)
}

/// As it stands behind other words; abbreviations stay as they are.
fn uncapitalized(title: &str) -> String {
    let mut letters = title.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            format!("{}{}", first.to_lowercase(), letters.as_str())
        }
        _ => title.to_owned(),
    }
}

/// Titles to the left, numbers right-aligned, units behind them.
fn figures(run: &Run) -> Vec<String> {
    let rows: Vec<(String, String, &str)> = panels::figure_keys(&[run])
        .into_iter()
        .filter_map(|key| run.figure(key))
        .map(|figure| {
            let scale = Scale::of(figure.unit, figure.value);
            let suffix = if figure.value.is_finite() {
                scale.suffix
            } else {
                ""
            };
            (figure.title.clone(), scale.number(figure.value), suffix)
        })
        .collect();
    let titles = rows.iter().map(|row| width(&row.0)).max().unwrap_or(0);
    let numbers = rows.iter().map(|row| width(&row.1)).max().unwrap_or(0);
    let line = |(title, number, suffix): &(String, String, &str)| {
        format!(
            "  {title}{}  {}{number}{suffix}",
            pad(title, titles),
            pad(number, numbers)
        )
    };
    rows.iter().map(line).collect()
}

fn curves(curves: &[Curve]) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(QUANTILES.iter().map(|(_, name)| (*name).to_owned()));
    rows[0].push("of".to_owned());
    for curve in curves {
        let mut row = vec![curve.title.clone()];
        row.extend(QUANTILES.iter().map(|(quantile, _)| {
            curve
                .at(*quantile)
                .map_or_else(|| NONE.to_owned(), |value| told(value, curve.unit))
        }));
        row.push(counted(curve.count));
        rows.push(row);
    }
    rows
}

/// What the figures hold for: what was asked for, with what, where and when.
fn circumstances(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    if !run.parameters.is_empty() {
        lines.push(words::parameters(run));
    }
    if let Some(server) = &run.server {
        lines.push(format!("server: {server}"));
    }
    lines.push(format!("generator: {}", words::generator(run)));
    lines.push(format!(
        "{}, loadtest {}, {}",
        words::machine(&run.machine),
        run.version,
        run.started
    ));
    lines
}

/// Rows as lines: the first column to the left, the others right-aligned.
pub(crate) fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let room = pad(cell, widths[column]);
                let _infallible = match column {
                    0 => write!(line, "{cell}{room}"),
                    _ => write!(line, "  {room}{cell}"),
                };
            }
            line.trim_end().to_owned()
        })
        .collect()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn pad(text: &str, to: usize) -> String {
    " ".repeat(to.saturating_sub(width(text)))
}

/// Without control characters: what a server said of itself must not command the terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '\u{fffd}' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::result::{Better, Unit};

    #[test]
    fn a_report_begins_with_the_answer() {
        let mut run = sample::run("fanwire", 1.0);
        run.notes
            .push("The server's memory was sampled four times a second.".to_owned());
        let expected = "
sustain, fanwire: delivered 1.87 million/s

  delivered                1.87 million/s
  published               1,870/s
  server CPU per message    380 ns
  server memory            18.7 MiB

                         p50      p90      p99    p99.9      max      of
";
        let text = report(&run, Ink::Plain);
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("\n  publish to client  "), "{text}");
        let end = "
Nothing was lost, repeated, out of order or refused.
Clients and server filled this machine together (2 % of it idle): a figure of both. \
For the server's own limit, put the clients on another machine.
Note: The server's memory was sampled four times a second.

clients 1000, channels 1, payload 200 B, threads 2
server: fanwire 1.2.3
generator: 17.2 s CPU, busiest thread 71 %, machine 2 % idle
2 cores, Example 9000, 8 GiB, Linux 6.12.0, loadtest 0.1.0, 2026-03-01T09:30:00Z
";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_title_behind_other_words_begins_small() {
        let titles = [
            ("Delivered", "delivered"),
            ("HTTP answer", "HTTP answer"),
            ("p99", "p99"),
            ("", ""),
        ];
        for (title, expected) in titles {
            assert_eq!(uncapitalized(title), expected);
        }
    }

    #[test]
    fn faults_and_an_interruption_are_not_to_be_overlooked() {
        let mut run = sample::run("fanwire", 1.0);
        run.interrupted = true;
        run.faults.lost = 3;
        run.faults.examples = vec![
            "client 7 never had message 12".to_owned(),
            "client 9 neither".to_owned(),
        ];
        let text = report(&run, Ink::Plain);
        assert!(
            text.contains("\nInterrupted after 21.5 s: the figures are of what was"),
            "{text}"
        );
        assert!(
            text.contains("\n3 messages lost: e.g. client 7 never had message 12.\n  client 9 neither\n")
        );
        assert!(report(&run, Ink::Colour).contains("\u{1b}[1;31m3 messages lost"));
    }

    #[test]
    fn a_run_without_anything_still_has_a_report() {
        let mut run = Run::new("idle", "", String::new());
        assert!(report(&run, Ink::Plain).contains("idle, the server: nothing was measured"));
        run.measured("memory", "memory per socket", f64::NAN, Unit::Bytes, Better::Less);
        assert!(report(&run, Ink::Plain).contains("\n  memory per socket  –\n"));
    }

    #[test]
    fn what_others_say_does_not_command_the_terminal() {
        let mut run = sample::run("fanwire", 1.0);
        run.server = Some("evil \u{1b}[2J\u{7}\nserver".to_owned());
        let text = report(&run, Ink::Plain);
        assert!(!text.contains('\u{1b}') && !text.contains("\nserver\n"), "{text}");
    }
}
