//! What a run gave: the one thing that scenarios make and reports read, and the form in which it is kept as JSON.
//!
//! Every quantity is in its base unit (seconds, bytes, shares of one); only reports scale. It is NOT a report: nothing
//! here knows how a figure is shown.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The form of the JSON that this program writes; it reads no newer one.
pub(crate) const FORMAT: u32 = 1;

/// One run of one scenario against one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// See [`FORMAT`].
    pub(crate) format: u32,
    /// Which workload: `fanout`, `sustain`, …
    pub(crate) scenario: String,
    /// Whom or what was measured, as the operator calls it; runs of one label are repetitions.
    pub(crate) label: String,
    /// The command line that gave it, without secrets.
    pub(crate) command: String,
    /// Of this program.
    pub(crate) version: String,
    /// What the server said of itself, if it did.
    #[serde(default)]
    pub(crate) server: Option<String>,
    /// Where the clients ran.
    pub(crate) machine: Machine,
    /// RFC 3339, UTC.
    pub(crate) started: String,
    /// Seconds from start to end, connecting included.
    pub(crate) took_s: f64,
    /// Someone stopped it: the figures are of what was measured until then.
    pub(crate) interrupted: bool,
    /// What was asked for, by name, in the order to be shown in.
    pub(crate) parameters: Vec<(String, String)>,
    /// The single numbers; the first is the answer to the scenario's question.
    pub(crate) figures: Vec<Figure>,
    /// Distributions.
    pub(crate) curves: Vec<Curve>,
    /// What was sampled over time.
    pub(crate) series: Vec<Series>,
    /// What went wrong with messages and sockets.
    pub(crate) faults: Faults,
    /// What this program itself used, and whose limit the result is.
    pub(crate) generator: Generator,
    /// Whatever a reader has to know besides; sentences.
    pub(crate) notes: Vec<String>,
}

/// A machine, as far as it matters for the figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) cpu: String,
    /// Those this process may use.
    pub(crate) cores: u32,
    /// All of the memory there is, or 0.
    pub(crate) memory_bytes: u64,
    /// Its release, as `uname -r` says it.
    pub(crate) kernel: String,
    /// A word fit for the name of a folder; made of processor and cores, since a host's own name says nothing to others.
    pub(crate) name: String,
}

/// What a number counts; all are base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Also of CPU time.
    Seconds,
    /// Of memory or of the network.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Of whatever the title names.
    PerSecond,
    /// A number of things.
    Count,
    /// A part of a whole, 0 to 1; several cores in use may make it more.
    Share,
    /// One thing over another.
    Ratio,
}

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    /// The smaller the better: times, costs.
    Less,
    /// The larger the better: rates.
    More,
    /// It only describes.
    Neither,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Its name in JSON and for comparisons, `delivered_per_second`.
    pub(crate) key: String,
    /// Its name for people.
    pub(crate) title: String,
    /// In `unit`; not a number when nothing was measured (`null` in JSON).
    #[serde(deserialize_with = "number")]
    pub(crate) value: f64,
    /// What `value` counts.
    pub(crate) unit: Unit,
    /// Which way it should go.
    pub(crate) better: Better,
}

/// A distribution, by its quantiles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Curve {
    /// Its name in JSON and for comparisons.
    pub(crate) key: String,
    /// Its name for people.
    pub(crate) title: String,
    /// How many values it is made of; with none there are no points.
    pub(crate) count: u64,
    /// What the values count.
    pub(crate) unit: Unit,
    /// (quantile 0 to 1, value), both growing; the last is (1, `max`).
    pub(crate) points: Vec<(f64, f64)>,
    /// The least value.
    #[serde(deserialize_with = "number")]
    pub(crate) min: f64,
    /// Their arithmetic mean.
    #[serde(deserialize_with = "number")]
    pub(crate) mean: f64,
    /// The greatest value.
    #[serde(deserialize_with = "number")]
    pub(crate) max: f64,
}

/// Something sampled while the run went on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Its name in JSON and for comparisons.
    pub(crate) key: String,
    /// Its name for people.
    pub(crate) title: String,
    /// What the values count.
    pub(crate) unit: Unit,
    /// (seconds since the run's start, value).
    #[serde(deserialize_with = "numbers")]
    pub(crate) points: Vec<(f64, f64)>,
}

/// What went wrong; all zero in a good run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    /// Messages that were accepted, and never came to someone who was there.
    pub(crate) lost: u64,
    /// Messages that came again.
    pub(crate) repeated: u64,
    /// Messages that came after a later one.
    pub(crate) out_of_order: u64,
    /// Messages that came to someone who was not subscribed, or that nobody sent.
    pub(crate) foreign: u64,
    /// HTTP requests that were not answered with success.
    pub(crate) refused: u64,
    /// Sockets that the server ended.
    pub(crate) closed: u64,
    /// A few of them in words, the first ones seen.
    pub(crate) examples: Vec<String>,
}

/// What the program itself used while it measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// CPU seconds, all threads.
    pub(crate) cpu_s: f64,
    /// Of the thread that worked most: share of the wall time, 0 to 1.
    pub(crate) busiest_thread: f64,
    /// Share of all cores' time in which the machine did nothing, 0 to 1.
    pub(crate) machine_idle: f64,
    /// Whose limit the result is.
    pub(crate) verdict: Verdict,
}

/// Whose limit a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// All that was offered was delivered: no limit was reached.
    Kept,
    /// This program was the bottleneck: NOT the server's limit.
    Generator,
    /// Clients and server together filled one machine: a figure of both.
    Shared,
    /// The server was the limit.
    Server,
}

impl Run {
    /// A run that starts now, with nothing measured yet.
    pub(crate) fn new(scenario: &str, label: &str, command: String) -> Self {
        Self {
            format: FORMAT,
            scenario: scenario.to_owned(),
            label: label.to_owned(),
            command,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server: None,
            machine: Machine::read(),
            started: rfc3339(SystemTime::now()),
            took_s: 0.0,
            interrupted: false,
            parameters: Vec::new(),
            figures: Vec::new(),
            curves: Vec::new(),
            series: Vec::new(),
            faults: Faults::default(),
            generator: Generator {
                cpu_s: 0.0,
                busiest_thread: 0.0,
                machine_idle: 1.0,
                verdict: Verdict::Kept,
            },
            notes: Vec::new(),
        }
    }

    /// Says what was asked for.
    pub(crate) fn parameter(&mut self, name: &str, value: impl ToString) {
        self.parameters.push((name.to_owned(), value.to_string()));
    }

    /// Adds a figure after those there are.
    pub(crate) fn measured(&mut self, key: &str, title: &str, value: f64, unit: Unit, better: Better) {
        self.figures.push(Figure {
            key: key.to_owned(),
            title: title.to_owned(),
            value,
            unit,
            better,
        });
    }

    /// The figure of that key.
    pub(crate) fn figure(&self, key: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.key == key)
    }

    /// The distribution of that key.
    pub(crate) fn curve(&self, key: &str) -> Option<&Curve> {
        self.curves.iter().find(|curve| curve.key == key)
    }

    /// What was sampled under that key.
    pub(crate) fn sampled(&self, key: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.key == key)
    }

    /// Reads a file that [`Run::write`] made. An error names the file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let run: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not a run's JSON", path.display()))?;
        ensure!(
            run.format <= FORMAT,
            "{} has format {}; this program reads up to {FORMAT}",
            path.display(),
            run.format
        );
        Ok(run)
    }

    /// Keeps it as JSON. An error names the file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("cannot write a run as JSON")?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Faults {
    /// All of them together, whatever they are.
    pub(crate) fn total(&self) -> u64 {
        self.lost + self.repeated + self.out_of_order + self.foreign + self.refused + self.closed
    }
}

impl Machine {
    /// This machine. What it does not tell is left empty.
    pub(crate) fn read() -> Self {
        let line_of = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.map(|value| value.trim_start_matches([' ', '\t', ':']).trim().to_owned())
        };
        let cpu = line_of("/proc/cpuinfo", "model name").unwrap_or_default();
        let cores = available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        let memory_kib = line_of("/proc/meminfo", "MemTotal")
            .and_then(|value| value.split(' ').next()?.parse::<u64>().ok())
            .unwrap_or(0);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            name: format!("{}-{cores}-cores", slug(&cpu)),
            cpu,
            cores,
            memory_bytes: memory_kib * 1024,
            kernel: kernel.trim().to_owned(),
        }
    }
}

/// Quantiles that reports name; a curve has them whatever its count is.
const NAMED_QUANTILES: [f64; 9] = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0];

/// Points per halving of what is left above a quantile: enough for a smooth line on an axis of nines.
const POINTS_PER_HALVING: u32 = 2;

impl Curve {
    /// Of a histogram whose values are `scale` units each: 1e-9 for nanoseconds to be told in seconds.
    ///
    /// Points lie where few values are left above them, at 1 - 1/2^k and between; none where less than one value is
    /// left, so there are at most some fifty.
    pub(crate) fn of(key: &str, title: &str, histogram: &Histogram<u64>, unit: Unit, scale: f64) -> Self {
        let count = histogram.len();
        let scaled = |value: u64| rounded(value as f64 * scale);
        let mut quantiles: Vec<f64> = Vec::new();
        if count > 0 {
            quantiles.extend(NAMED_QUANTILES);
            let steps = 1..40 * POINTS_PER_HALVING;
            quantiles.extend(
                steps
                    .map(|step| (-f64::from(step) / f64::from(POINTS_PER_HALVING)).exp2())
                    .take_while(|left| left * count as f64 >= 1.0 && *left > 1e-7)
                    .map(|left| rounded(1.0 - left)),
            );
            quantiles.sort_by(f64::total_cmp);
            quantiles.dedup();
        }
        let max = if count > 0 {
            scaled(histogram.max())
        } else {
            f64::NAN
        };
        let value_at = |quantile: f64| {
            // The histogram answers with the upper edge of its bucket, which may lie above the greatest value.
            scaled(histogram.value_at_quantile(quantile).min(histogram.max()))
        };
        let mut points: Vec<(f64, f64)> = quantiles.into_iter().map(|q| (q, value_at(q))).collect();
        if let Some(first) = points.first_mut() {
            first.1 = scaled(histogram.min());
        }
        Self {
            key: key.to_owned(),
            title: title.to_owned(),
            count,
            unit,
            points,
            min: if count > 0 {
                scaled(histogram.min())
            } else {
                f64::NAN
            },
            mean: if count > 0 {
                rounded(histogram.mean() * scale)
            } else {
                f64::NAN
            },
            max,
        }
    }

    /// The value at a quantile, between the points on a straight line; none of an empty curve.
    pub(crate) fn at(&self, quantile: f64) -> Option<f64> {
        let after = self.points.iter().position(|(q, _)| *q >= quantile)?;
        let (q1, v1) = self.points[after];
        let Some(&(q0, v0)) = after.checked_sub(1).and_then(|before| self.points.get(before)) else {
            return Some(v1);
        };
        let part = if q1 > q0 { (quantile - q0) / (q1 - q0) } else { 1.0 };
        Some(v0 + (v1 - v0) * part)
    }
}

/// To ten digits: more than any histogram knows, and few enough to be the same number after JSON.
fn rounded(value: f64) -> f64 {
    format!("{value:.9e}").parse().unwrap_or(value)
}

/// A moment as RFC 3339 in UTC, to the second: `2026-03-01T09:30:00Z`.
pub(crate) fn rfc3339(moment: SystemTime) -> String {
    let seconds = moment
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's `civil_from_days`: years are counted from March, so that the leap day is a year's last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Lower-case words joined by hyphens, without the marks and frequencies that processors' names carry.
fn slug(name: &str) -> String {
    let name = name.split('@').next().unwrap_or_default().to_lowercase();
    let name = name.replace("(r)", " ").replace("(tm)", " ");
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty() && !["cpu", "processor"].contains(word));
    let words: Vec<&str> = words.collect();
    if words.is_empty() {
        "unknown".to_owned()
    } else {
        words.join("-")
    }
}

/// JSON has no "not a number": serde_json writes `null`, and this reads it back.
fn number<'de, D: serde::Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or(f64::NAN))
}

/// Points; those that are not numbers are left out.
fn numbers<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<(f64, f64)>, D::Error> {
    let points: Vec<(Option<f64>, Option<f64>)> = Vec::deserialize(input)?;
    Ok(points
        .into_iter()
        .filter_map(|(at, value)| Some((at?, value?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits are allowed");
        for value in values {
            histogram.record(value).expect("it resizes itself");
        }
        histogram
    }

    #[test]
    fn a_run_is_the_same_after_a_file() {
        let mut run = Run::new("sustain", "fanwire \"quoted\" 🦀", "loadtest sustain".to_owned());
        run.parameter("clients", 1_000);
        run.measured("delivered", "delivered", 1.8e6, Unit::PerSecond, Better::More);
        run.curves.push(Curve::of(
            "latency",
            "latency",
            &histogram(1..=1_000),
            Unit::Seconds,
            1e-9,
        ));
        run.series.push(Series {
            key: "rate".to_owned(),
            title: "delivered".to_owned(),
            unit: Unit::PerSecond,
            points: vec![(0.0, 0.0), (0.5, 1e6)],
        });
        run.faults.lost = 3;
        run.faults
            .examples
            .push("client 7 never had message 12".to_owned());
        run.server = Some("fanwire 0.1.0".to_owned());

        let path = std::env::temp_dir().join(format!("loadtest-round-trip-{}.json", std::process::id()));
        run.write(&path).expect("the temporary folder can be written to");
        let again = Run::read(&path).expect("what was written is read");
        fs::remove_file(&path).expect("it is there");
        assert_eq!(run, again);
        assert_eq!(again.figure("delivered").map(|figure| figure.value), Some(1.8e6));
        assert_eq!(again.figure("none"), None);
    }

    #[test]
    fn what_was_not_measured_stays_not_a_number() {
        let mut run = Run::new("fanout", "a", String::new());
        run.measured("answer", "answer", f64::NAN, Unit::Seconds, Better::Less);
        run.curves
            .push(Curve::of("empty", "empty", &histogram([]), Unit::Seconds, 1e-9));
        run.series.push(Series {
            key: "rate".to_owned(),
            title: "rate".to_owned(),
            unit: Unit::PerSecond,
            points: vec![(1.0, f64::NAN), (2.0, 5.0)],
        });
        let text = serde_json::to_string(&run).expect("a run is JSON");
        let again: Run = serde_json::from_str(&text).expect("null is read");
        assert!(again.figures[0].value.is_nan());
        assert!(again.curves[0].max.is_nan() && again.curves[0].points.is_empty());
        assert_eq!(again.curves[0].at(0.5), None);
        assert_eq!(again.series[0].points, [(2.0, 5.0)]);
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut run = Run::new("fanout", "a", String::new());
        run.format = FORMAT + 1;
        let path = std::env::temp_dir().join(format!("loadtest-newer-{}.json", std::process::id()));
        run.write(&path).expect("the temporary folder can be written to");
        let refusal = Run::read(&path).expect_err("it is newer").to_string();
        fs::remove_file(&path).expect("it is there");
        assert!(refusal.contains("format 2"), "{refusal}");
    }

    #[test]
    fn a_curve_has_the_quantiles_that_reports_name() {
        let curve = Curve::of("l", "l", &histogram(1..=100_000), Unit::Seconds, 1e-9);
        assert_eq!(curve.count, 100_000);
        assert!(curve.points.len() <= 60, "{} points", curve.points.len());
        assert!(curve.points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        assert_eq!(curve.points.first().map(|point| point.0), Some(0.0));
        assert_eq!(curve.points.last(), Some(&(1.0, curve.max)));
        for (quantile, nanoseconds) in [
            (0.5, 50_000.0),
            (0.99, 99_000.0),
            (0.999, 99_900.0),
            (1.0, 100_000.0),
        ] {
            let value = curve.at(quantile).expect("it is not empty") * 1e9;
            assert!((value / nanoseconds - 1.0).abs() < 0.002, "{quantile}: {value}");
        }
    }

    #[test]
    fn a_curve_of_very_many_values_stays_small() {
        let mut histogram = histogram([1]);
        histogram
            .record_n(1_000, 10_000_000_000)
            .expect("it resizes itself");
        let curve = Curve::of("l", "l", &histogram, Unit::Seconds, 1e-9);
        assert!(curve.points.len() <= 60, "{} points", curve.points.len());
    }

    #[test]
    fn moments_are_told_in_utc() {
        for (seconds, told) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_772_357_400, "2026-03-01T09:30:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), told);
        }
    }

    #[test]
    fn a_machine_has_a_name_fit_for_a_folder() {
        assert_eq!(slug("Intel(R) Xeon(R) CPU @ 2.20GHz"), "intel-xeon");
        assert_eq!(slug("AMD EPYC 7B13"), "amd-epyc-7b13");
        assert_eq!(slug(""), "unknown");
        let machine = Machine::read();
        assert!(machine.cores > 0 && !machine.kernel.is_empty());
    }
}
