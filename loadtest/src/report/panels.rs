//! Which plots are made of runs: one for each distribution, one for each thing that was sampled, all runs in the same
//! axes; and figures across a parameter. Pure.

use super::axis::Axis;
use super::plot::{Line, Look, Marks, Plot};
use super::quantity::told;
use super::text::QUANTILES;
use crate::result::{Figure, Run, Unit};

/// A curve's lower quarter is of no interest, and would take the room of what is.
const QUANTILE_MIN: f64 = 0.25;

/// How a run is called and looks among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Appearance {
    /// The label; those after the first of one label are numbered.
    pub(crate) name: String,
    /// One hue for a label.
    pub(crate) look: Look,
}

/// What a run is called, when it stands alone.
pub(crate) fn label(run: &Run) -> &str {
    match (&*run.label, &run.server) {
        ("", Some(server)) => server,
        ("", None) => "run",
        (label, _) => label,
    }
}

/// The appearance of each run, in their order.
pub(crate) fn appearances(runs: &[&Run]) -> Vec<Appearance> {
    let mut labels: Vec<(&str, usize)> = Vec::new();
    let mut appearances = Vec::new();
    for run in runs {
        let label = label(run);
        let hue = labels
            .iter()
            .position(|(known, _)| *known == label)
            .unwrap_or_else(|| {
                labels.push((label, 0));
                labels.len() - 1
            });
        let repetition = labels[hue].1;
        labels[hue].1 += 1;
        let name = if repetition == 0 {
            label.to_owned()
        } else {
            format!("{label} ({})", repetition + 1)
        };
        appearances.push(Appearance {
            name,
            look: Look { hue, repetition },
        });
    }
    appearances
}

/// The keys that any run has, in the order of their first appearance.
pub(crate) fn keys<'a>(of_runs: impl Iterator<Item = Vec<&'a str>>) -> Vec<&'a str> {
    let mut keys = Vec::new();
    for key in of_runs.flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// All plots of these runs: distributions first.
pub(crate) fn all(runs: &[&Run]) -> Vec<Plot> {
    let curves = keys(
        runs.iter()
            .map(|run| run.curves.iter().map(|curve| &*curve.key).collect()),
    );
    let series = keys(
        runs.iter()
            .map(|run| run.series.iter().map(|series| &*series.key).collect()),
    );
    let curves = curves.iter().filter_map(|key| distribution(runs, key));
    curves
        .chain(series.iter().filter_map(|key| over_time(runs, key)))
        .collect()
}

/// The plot of that key, whether a distribution or something sampled.
pub(crate) fn one(runs: &[&Run], key: &str) -> Option<Plot> {
    distribution(runs, key).or_else(|| over_time(runs, key))
}

fn distribution(runs: &[&Run], key: &str) -> Option<Plot> {
    let first = runs.iter().find_map(|run| run.curve(key))?;
    let count = runs
        .iter()
        .filter_map(|run| run.curve(key))
        .map(|curve| curve.count)
        .max()
        .unwrap_or(0);
    let lines: Vec<Line> = appearances(runs)
        .into_iter()
        .zip(runs)
        .filter_map(|(appearance, run)| {
            let points = run.curve(key)?.points.iter().copied();
            Some(Line {
                name: appearance.name,
                look: appearance.look,
                points: points.filter(|(quantile, _)| *quantile >= QUANTILE_MIN).collect(),
                marks: Marks::At(QUANTILES.iter().map(|(quantile, _)| *quantile).collect()),
            })
        })
        .collect();
    Some(Plot {
        title: first.title.clone(),
        x: Axis::nines(count),
        x_title: "share that took at most this long".to_owned(),
        y: Axis::wide(values(&lines), first.unit),
        unit: first.unit,
        lines,
    })
}

fn over_time(runs: &[&Run], key: &str) -> Option<Plot> {
    let first = runs.iter().find_map(|run| run.sampled(key))?;
    let lines: Vec<Line> = appearances(runs)
        .into_iter()
        .zip(runs)
        .filter_map(|(appearance, run)| {
            let points = run.sampled(key)?.points.clone();
            Some(Line {
                name: appearance.name,
                look: appearance.look,
                points,
                marks: Marks::Some,
            })
        })
        .collect();
    let last = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|(at, _)| *at)
        .fold(0.0, f64::max);
    Some(Plot {
        title: first.title.clone(),
        x: Axis::linear(last, Unit::Seconds),
        x_title: "time".to_owned(),
        y: Axis::sampled(values(&lines), first.unit),
        unit: first.unit,
        lines,
    })
}

/// A place, and what the repetitions found there.
type Repeated = (f64, Vec<f64>);

/// A figure, or a curve's quantile (`latency.p99`), over a parameter that differs between the runs; a line for each
/// label, through the medians of its repetitions. None when no run has both.
pub(crate) fn across(runs: &[&Run], key: &str, parameter: &str) -> Option<Plot> {
    let mut lines: Vec<(&str, Vec<Repeated>)> = Vec::new();
    let mut title_and_unit = None;
    for run in runs {
        let asked = run.parameters.iter().find(|(name, _)| is_named(name, parameter));
        let at: Option<f64> = asked.and_then(|(_, value)| value.replace(['_', ','], "").parse().ok());
        let (Some(at), Some((title, unit, value))) = (at, valued(run, key)) else {
            continue;
        };
        title_and_unit.get_or_insert((title, unit));
        let label = label(run);
        if !lines.iter().any(|(known, _)| *known == label) {
            lines.push((label, Vec::new()));
        }
        let points = lines
            .iter_mut()
            .find(|(known, _)| *known == label)
            .map(|(_, points)| points)?;
        match points.iter_mut().find(|(known, _)| *known == at) {
            Some((_, repeated)) => repeated.push(value),
            None => points.push((at, vec![value])),
        }
    }
    let (title, unit) = title_and_unit?;
    let lines: Vec<Line> = lines
        .into_iter()
        .enumerate()
        .map(|(hue, (label, points))| {
            let mut points: Vec<(f64, f64)> = points
                .into_iter()
                .filter_map(|(at, values)| Some((at, median(&values)?)))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Line {
                name: label.to_owned(),
                look: Look { hue, repetition: 0 },
                points,
                marks: Marks::All,
            }
        })
        .collect();
    let places = || lines.iter().flat_map(|line| &line.points).map(|(at, _)| *at);
    Some(Plot {
        title,
        x: Axis::wide(places(), Unit::Count),
        x_title: parameter.to_owned(),
        y: Axis::wide(values(&lines), unit),
        unit,
        lines,
    })
}

/// Whether a parameter is meant: its unit, "rate (per second)", need not be said.
fn is_named(name: &str, meant: &str) -> bool {
    name == meant || name.split_once(" (").is_some_and(|(name, _)| name == meant)
}

/// Whether a figure only repeats a quantile of one of its run's curves, under the same name: where curves are told too,
/// once is enough.
pub(crate) fn is_of_a_curve(run: &Run, figure: &Figure) -> bool {
    let Some((curve, quantile)) = figure.title.rsplit_once(", ") else {
        return false;
    };
    QUANTILES.iter().any(|(_, name)| *name == quantile) && run.curves.iter().any(|known| known.title == curve)
}

/// The keys of the figures that are told beside curves.
pub(crate) fn figure_keys<'a>(runs: &[&'a Run]) -> Vec<&'a str> {
    let of_one = |run: &&'a Run| {
        // The first one is the answer, whatever it repeats.
        let figures = run.figures.iter().enumerate();
        let told = figures.filter(|(place, figure)| *place == 0 || !is_of_a_curve(run, figure));
        told.map(|(_, figure)| &*figure.key).collect()
    };
    keys(runs.iter().map(of_one))
}

/// What a run says under a key: a figure's, or a curve's with `.p99` behind it.
pub(crate) fn valued(run: &Run, key: &str) -> Option<(String, Unit, f64)> {
    if let Some(figure) = run.figure(key) {
        return Some((figure.title.clone(), figure.unit, figure.value));
    }
    let (key, name) = key.split_once('.')?;
    let curve = run.curve(key)?;
    let (quantile, _) = QUANTILES.iter().find(|(_, known)| *known == name)?;
    Some((
        format!("{}, {name}", curve.title),
        curve.unit,
        curve.at(*quantile)?,
    ))
}

/// The one in the middle, or the mean of the two that are; none of none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(lower.midpoint(upper))
}

/// A quantile as it is spoken of: `99.2 %`, the last one "max".
pub(crate) fn quantile(quantile: f64) -> String {
    if quantile >= 1.0 {
        return "max".to_owned();
    }
    // As many digits as tell it from its neighbours.
    let decimals = (-(1.0 - quantile).log10() - 2.0 - 1e-9).ceil().max(0.0);
    format!("{:.*} %", decimals as usize, quantile * 100.0)
}

/// What is at a place on a plot's x axis: a quantile, or a time.
pub(crate) fn place(plot: &Plot, at: f64) -> String {
    if plot.x.is_nines() {
        quantile(at)
    } else {
        told(at, Unit::Seconds)
    }
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::result::Better;

    #[test]
    fn repetitions_of_a_label_look_alike_and_are_numbered() {
        let runs = ["a", "b", "a", ""].map(|label| {
            let mut run = sample::run(label, 1.0);
            run.server = None;
            run
        });
        let seen = appearances(&runs.iter().collect::<Vec<_>>());
        let seen: Vec<_> = seen
            .iter()
            .map(|seen| (&*seen.name, seen.look.hue, seen.look.repetition))
            .collect();
        assert_eq!(seen, [("a", 0, 0), ("b", 1, 0), ("a (2)", 0, 1), ("run", 2, 0)]);
    }

    #[test]
    fn runs_share_axes_even_if_one_lacks_what_others_have() {
        let mut runs = [
            sample::run("a", 1.0),
            sample::run("b", 40.0),
            sample::run("c", 1.0),
        ];
        runs[2].curves.clear();
        let plots = all(&runs.iter().collect::<Vec<_>>());
        let seen: Vec<_> = plots
            .iter()
            .map(|plot| (&*plot.title, plot.lines.len()))
            .collect();
        assert_eq!(
            seen,
            [
                ("publish to client", 2),
                ("HTTP answer", 2),
                ("delivered", 3),
                ("server CPU, cores", 3),
                ("server memory", 3)
            ]
        );
        assert!(plots[0].y.is_log(), "forty times as slow");
    }

    #[test]
    fn a_figure_across_a_parameter_goes_through_medians() {
        let run = |label: &str, rate: u32, slowness: f64| {
            let mut run = sample::run(label, slowness);
            run.parameter("rate (per second)", rate);
            run
        };
        let runs = [
            run("off", 1_000, 1.0),
            run("off", 10, 3.0),
            run("off", 10, 1.0),
            run("off", 10, 2.0),
            run("on", 10, 4.0),
        ];
        let runs: Vec<&Run> = runs.iter().collect();
        let plot = across(&runs, "server_cpu_per_message", "rate").expect("all have both");
        assert_eq!(plot.lines.len(), 2);
        assert_eq!(plot.lines[0].points.len(), 2);
        assert!((plot.lines[0].points[0].1 - 0.76e-6).abs() < 1e-12);
        assert!(across(&runs, "latency.p99", "rate").is_some());
        assert!(across(&runs, "latency.p98", "rate").is_none());
        assert!(across(&runs, "delivered_per_second", "colour").is_none());
    }

    #[test]
    fn a_figure_that_repeats_a_curve_is_told_once() {
        let mut run = sample::run("a", 1.0);
        let before = figure_keys(&[&run]).len();
        run.measured(
            "latency_p99",
            "publish to client, p99",
            0.02,
            Unit::Seconds,
            Better::Less,
        );
        run.measured(
            "late_p99",
            "sent later than due, p99",
            0.02,
            Unit::Seconds,
            Better::Less,
        );
        assert_eq!(figure_keys(&[&run]).len(), before + 1);
        run.figures.swap(0, before);
        assert!(figure_keys(&[&run]).contains(&"latency_p99"), "it is the answer");
    }

    #[test]
    fn quantiles_have_the_digits_that_tell_them_apart() {
        for (value, expected) in [
            (0.5, "50 %"),
            (0.9, "90 %"),
            (0.992_187_5, "99.2 %"),
            (0.999, "99.9 %"),
            (1.0, "max"),
        ] {
            assert_eq!(quantile(value), expected);
        }
        assert_eq!(median(&[3.0, f64::NAN, 1.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
