//! Figures, curves and series of the forms that several scenarios tell.

use hdrhistogram::Histogram;

use crate::result::{Better, Curve, Run, Series, Unit};

use super::Seen;

/// Adds a distribution of nanoseconds to a run, and its median and 99th percentile to the figures.
pub(crate) fn tell_curve(run: &mut Run, key: &str, title: &str, histogram: &Histogram<u64>) {
    let curve = Curve::of(key, title, histogram, Unit::Seconds, 1e-9);
    for (quantile, name) in [(0.5, "p50"), (0.99, "p99")] {
        let value = curve.at(quantile).unwrap_or(f64::NAN);
        run.measured(
            &format!("{key}_{name}"),
            &format!("{title}, {name}"),
            value,
            Unit::Seconds,
            Better::Less,
        );
    }
    run.curves.push(curve);
}

/// The value of a histogram of nanoseconds, in seconds; not a number when it is empty.
pub(crate) fn quantile_s(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    if histogram.is_empty() {
        return f64::NAN;
    }
    histogram.value_at_quantile(quantile) as f64 / 1e9
}

/// What the server has used for each of so many things; nothing if it is not known.
pub(crate) fn tell_cpu_per(run: &mut Run, seen: &Seen, count: u64, key: &str, title: &str) {
    if let Some(server) = seen.server
        && count > 0
    {
        let cpu_s = server.exact.as_secs_f64() / count as f64;
        run.measured(key, title, cpu_s, Unit::Seconds, Better::Less);
    }
}

/// Adds something sampled over time.
pub(crate) fn tell_series(run: &mut Run, key: &str, title: &str, unit: Unit, points: Vec<(f64, f64)>) {
    run.series.push(Series {
        key: key.to_owned(),
        title: title.to_owned(),
        unit,
        points,
    });
}
