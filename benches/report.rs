//! The figures of all repetitions, and the table they end in.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Bytes, shown in KiB.
    Bytes,
    /// A plain number.
    Count,
    /// A multiple of something else.
    Ratio,
}

#[derive(Debug)]
enum Line {
    Samples(Unit, Vec<f64>),
    Note,
}

/// Figures by scenario and name, in the order in which they were first added.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(&'static str, String, Line)>);

impl Figures {
    /// One sample more.
    pub(crate) fn add(&mut self, scenario: &'static str, name: &str, unit: Unit, value: f64) {
        let known = self
            .0
            .iter_mut()
            .find(|(of, called, _)| *of == scenario && called == name);
        match known {
            Some((_, _, Line::Samples(_, samples))) => samples.push(value),
            _ => self
                .0
                .push((scenario, name.to_owned(), Line::Samples(unit, vec![value]))),
        }
    }

    /// A sentence behind the other lines of its scenario.
    pub(crate) fn note(&mut self, scenario: &'static str, sentence: String) {
        self.0.push((scenario, sentence, Line::Note));
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<55}{:>12}   min .. max", "", "median")?;
        let mut scenarios: Vec<&str> = Vec::new();
        for (scenario, ..) in &self.0 {
            if !scenarios.contains(scenario) {
                scenarios.push(scenario);
            }
        }
        for scenario in scenarios {
            writeln!(f, "{scenario}")?;
            for (_, name, line) in self.0.iter().filter(|(of, ..)| *of == scenario) {
                let Line::Samples(unit, samples) = line else {
                    writeln!(f, "  {name}")?;
                    continue;
                };
                let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
                let most = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let middle = unit.show(median(samples.iter().copied()));
                let (least, most) = (unit.show(least), unit.show(most));
                writeln!(f, "  {name:<53}{middle:>12}   {least} .. {most}")?;
            }
        }
        Ok(())
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Micros => format!("{value:.3} µs"),
            Unit::Millis => format!("{value:.2} ms"),
            Unit::Bytes => format!("{:.2} KiB", value / 1024.0),
            Unit::Count => format!("{value:.0}"),
            Unit::Ratio => format!("{value:.3}"),
        }
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Where and when and what: without it no figure means anything.
pub(crate) fn headline() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |line| line.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(format!(
        "{date}, commit {commit}{changes}\n{model}, {cores} cores, Linux {kernel}, load before {load}\n",
        date = said_by("date", &["-u", "+%F %R UTC"])?,
        commit = said_by("git", &["rev-parse", "--short", "HEAD"])?,
        changes = match said_by("git", &["status", "--porcelain"])?.as_str() {
            "" => "",
            _ => " with changes",
        },
        cores = std::thread::available_parallelism()?,
        kernel = kernel.trim_end(),
        load = load.split(' ').next().unwrap_or_default(),
    ))
}

fn said_by(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
