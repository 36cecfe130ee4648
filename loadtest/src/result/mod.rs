//! What a run gave: the one thing that scenarios make and reports read, and the form in which it is kept as JSON.
//!
//! Every quantity is in its base unit (seconds, bytes, shares of one); only reports scale. It is NOT a report: nothing
//! here knows how a figure is shown.

mod curve;
mod machine;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

pub(crate) use self::curve::Curve;
pub(crate) use self::machine::Machine;
use self::machine::rfc3339;

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
    /// Of the thread that worked most: share of the time in which there was load, 0 to 1.
    pub(crate) busiest_thread: f64,
    /// Share of all cores' time in which the machine did nothing while there was load, 0 to 1.
    pub(crate) machine_idle: f64,
    /// What the server used, while there was load, of what it could: of one thread or of all cores, whichever was fuller.
    /// Nothing, if its process is not known.
    #[serde(default)]
    pub(crate) server_busy: Option<f64>,
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
    /// The server was the limit: it was full, or did not keep up with a load that did not wait for it.
    Server,
    /// A closed loop: its own pace was the limit, neither program was full.
    Paced,
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
                server_busy: None,
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
    use hdrhistogram::Histogram;

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
}
