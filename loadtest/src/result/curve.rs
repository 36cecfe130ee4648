//! A distribution, kept as some fifty of its quantiles: what reports draw and tell, without the histogram it came from.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Unit, number};

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

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits are allowed");
        for value in values {
            histogram.record(value).expect("it resizes itself");
        }
        histogram
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
}
