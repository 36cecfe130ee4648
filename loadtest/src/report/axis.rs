//! Where a value lies on an axis, and which values are named there. Pure; knows no pixels.

use super::quantity::Scale;
use crate::result::Unit;

/// Values whose largest is more than this many times the smallest are told apart only on a logarithmic axis.
const LINEAR_SPAN_MAX: f64 = 30.0;
/// A single value this many times what nearly all others stay under would flatten them: the axis ends below it.
const OUTLIER: f64 = 6.0;
/// How many steps a linear axis is to have, more or less.
const STEPS: f64 = 4.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear,
    Log,
    /// For quantiles: 90 %, 99 % and 99.9 % are equally far from one another.
    Nines,
}

/// From the least to the greatest value that is shown.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    kind: Kind,
    from: f64,
    to: f64,
    /// Values with a line and a name.
    pub(crate) ticks: Vec<(f64, String)>,
    /// What the ticks' names leave out: "ms", "million/s"; empty when they say it themselves.
    pub(crate) unit: String,
}

impl Axis {
    /// From zero, or logarithmic where the values lie too far apart for that: for distributions.
    pub(crate) fn wide(values: impl Iterator<Item = f64>, unit: Unit) -> Self {
        let positive: Vec<f64> = values.filter(|value| value.is_finite() && *value > 0.0).collect();
        let (least, most) = extent(&positive);
        if most > least * LINEAR_SPAN_MAX {
            Self::log(least, most, unit)
        } else {
            Self::linear(most, unit)
        }
    }

    /// From zero to what nearly all values stay under: for what is sampled over time, where a stray value is not to
    /// flatten all others.
    pub(crate) fn sampled(values: impl Iterator<Item = f64>, unit: Unit) -> Self {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let most = values.last().copied().unwrap_or(0.0);
        let usual = values
            .get(values.len().saturating_sub(1) * 49 / 50)
            .copied()
            .unwrap_or(0.0);
        // With few samples each one counts.
        let is_stray = values.len() >= 20 && usual > 0.0 && most > usual * OUTLIER;
        Self::linear(if is_stray { usual * 1.2 } else { most }, unit)
    }

    /// From zero to `most` and a little further: to the next tick.
    pub(crate) fn linear(most: f64, unit: Unit) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let scale = Scale::of(unit, most);
        let step = nice_step(most / scale.base / STEPS);
        let steps = (most / scale.base / step - 1e-9).ceil().max(1.0) as u32;
        let decimals = usize::try_from(-(step.log10() + 1e-9).floor() as i64).unwrap_or(0);
        let tick = |place: u32| {
            let value = f64::from(place) * step;
            let name = if place == 0 {
                "0".to_owned()
            } else {
                thousands(&format!("{value:.decimals$}"))
            };
            (value * scale.base, name)
        };
        let suffix = scale.suffix.trim();
        Self {
            kind: Kind::Linear,
            from: 0.0,
            to: f64::from(steps) * step * scale.base,
            ticks: (0..=steps).map(tick).collect(),
            unit: if suffix == "/s" {
                "per second".to_owned()
            } else {
                suffix.to_owned()
            },
        }
    }

    /// Decades, and their halves and fifths where there are few. `least` and `most` are positive.
    pub(crate) fn log(least: f64, most: f64, unit: Unit) -> Self {
        let (least, most) = if least > 0.0 && most > least && most.is_finite() {
            (least, most)
        } else {
            (0.5, 2.0)
        };
        let decades = (most / least).log10();
        let between: &[f64] = match decades {
            wide if wide > 3.0 => &[1.0],
            medium if medium > 1.5 => &[1.0, 3.0],
            _ => &[1.0, 2.0, 5.0],
        };
        let exponents = least.log10().floor() as i32..=most.log10().ceil() as i32;
        let candidates = exponents
            .flat_map(|exponent| between.iter().map(move |factor| factor * 10_f64.powi(exponent)))
            .collect::<Vec<_>>();
        // It begins and ends at the ticks around the values, so that no line leaves the last one behind.
        let first = candidates
            .iter()
            .rposition(|tick| *tick <= least * 1.000_001)
            .unwrap_or(0);
        let last = candidates
            .iter()
            .position(|tick| *tick >= most * 0.999_999)
            .unwrap_or(candidates.len().saturating_sub(1));
        let shown = candidates.get(first..=last).unwrap_or_default();
        let every = shown.len().div_ceil(8).max(1);
        Self {
            kind: Kind::Log,
            from: shown.first().copied().unwrap_or(least),
            to: shown.last().copied().unwrap_or(most),
            ticks: shown
                .iter()
                .step_by(every)
                .map(|value| (*value, brief(*value, unit)))
                .collect(),
            unit: String::new(),
        }
    }

    /// For the quantiles of distributions of up to `count` values, from the lower half to the greatest of them.
    pub(crate) fn nines(count: u64) -> Self {
        let to = (count.max(100) as f64).log10().min(7.0);
        let decades = to.floor() as usize;
        let mut ticks = vec![(0.5, "50 %".to_owned())];
        ticks.extend((1..=decades).map(|nines| {
            let quantile = 1.0 - 10_f64.powi(-(nines as i32));
            let decimals = nines.saturating_sub(2);
            // Beyond four nines names would run into one another; the lines say enough.
            let name = if nines < 5 {
                format!("{:.decimals$} %", quantile * 100.0)
            } else {
                String::new()
            };
            (quantile, name)
        }));
        Self {
            kind: Kind::Nines,
            from: nines(0.25),
            to,
            ticks,
            unit: String::new(),
        }
    }

    /// Where on the axis, 0 to 1; what lies outside is at its end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let (from, to, value) = match self.kind {
            Kind::Linear => (self.from, self.to, value),
            Kind::Log => (
                self.from.log10(),
                self.to.log10(),
                value.max(f64::MIN_POSITIVE).log10(),
            ),
            Kind::Nines => (self.from, self.to, nines(value)),
        };
        let part = (value - from) / (to - from);
        if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) }
    }

    /// Whether it lies above the axis' end, and is shown there for want of room.
    pub(crate) fn is_beyond(&self, value: f64) -> bool {
        self.kind != Kind::Nines && value > self.to * 1.000_001
    }

    /// Whether it is one of quantiles.
    pub(crate) fn is_nines(&self) -> bool {
        self.kind == Kind::Nines
    }

    /// Whether the axis is logarithmic.
    pub(crate) fn is_log(&self) -> bool {
        self.kind == Kind::Log
    }
}

/// 0.9 is 1, 0.99 is 2, 0.999 is 3.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-12).log10()
}

fn extent(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    if values.is_empty() {
        (1.0, 1.0)
    } else {
        (least, most)
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn nice_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= step * 0.999_999);
    // 2.5 needs another digit behind the point than its neighbours; below ten that reads badly.
    match factor {
        Some(2.5) if power < 10.0 => 5.0 * power,
        Some(factor) => factor * power,
        None => 10.0 * power,
    }
}

/// `1 ms`, `300 µs`, `2,000/s`: ticks of a logarithmic axis have one digit.
fn brief(value: f64, unit: Unit) -> String {
    let scale = Scale::of(unit, value * 1.000_001);
    let number = value / scale.base;
    let text = if number >= 1.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.3}")
    };
    let text = if number < 1.0 {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{}{}", thousands(text), scale.suffix)
}

fn thousands(number: &str) -> String {
    let (whole, fraction) = number
        .split_once('.')
        .map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let whole = whole
        .parse()
        .map_or_else(|_| whole.to_owned(), super::quantity::counted);
    fraction.map_or_else(|| whole.clone(), |fraction| format!("{whole}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn a_linear_axis_goes_from_zero_by_round_steps() {
        for (most, unit, expected, suffix) in [
            (0.0042, Unit::Seconds, vec!["0", "2", "4", "6"], "ms"),
            (
                1.9e6,
                Unit::PerSecond,
                vec!["0", "0.5", "1.0", "1.5", "2.0"],
                "million/s",
            ),
            (
                900.0,
                Unit::PerSecond,
                vec!["0", "250", "500", "750", "1,000"],
                "per second",
            ),
            (0.94, Unit::Share, vec!["0", "25", "50", "75", "100"], "%"),
            (
                8_000.0,
                Unit::Count,
                vec!["0", "2,000", "4,000", "6,000", "8,000"],
                "",
            ),
        ] {
            let axis = Axis::linear(most, unit);
            assert_eq!(names(&axis), expected, "{most}");
            assert_eq!(axis.unit, suffix);
            assert!(axis.place(most) > 0.6 && !axis.is_beyond(most));
        }
    }

    #[test]
    fn values_far_apart_get_a_logarithmic_axis() {
        let axis = Axis::wide([0.000_4, 0.02, 8.0].into_iter(), Unit::Seconds);
        assert!(axis.is_log());
        assert_eq!(names(&axis), ["100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        assert!((axis.place(0.001) - 0.2).abs() < 1e-9);
        let axis = Axis::wide([0.002, 0.02].into_iter(), Unit::Seconds);
        assert!(!axis.is_log());
        let axis = Axis::log(10.0, 5_000.0, Unit::PerSecond);
        assert_eq!(
            names(&axis),
            ["10/s", "30/s", "100/s", "300/s", "1,000/s", "3,000/s", "10,000/s"]
        );
    }

    #[test]
    fn nines_are_equally_far_apart() {
        let axis = Axis::nines(100_000);
        assert_eq!(names(&axis), ["50 %", "90 %", "99 %", "99.9 %", "99.99 %", ""]);
        let gaps = |low: f64, high: f64| axis.place(high) - axis.place(low);
        assert!((gaps(0.9, 0.99) - gaps(0.99, 0.999)).abs() < 1e-9);
        assert_eq!(axis.place(1.0), 1.0);
    }

    #[test]
    fn a_stray_sample_does_not_flatten_the_others() {
        let usual = (0..100).map(|sample| 1e6 + f64::from(sample));
        let axis = Axis::sampled(usual.clone().chain([90e6]), Unit::PerSecond);
        assert!(axis.is_beyond(90e6) && !axis.is_beyond(1e6));
        assert_eq!(axis.place(90e6), 1.0);
        assert!(!Axis::sampled(usual.chain([2e6]), Unit::PerSecond).is_beyond(2e6));
        assert!(!Axis::sampled([1.0, 1.0, 90.0].into_iter(), Unit::Count).is_beyond(90.0));
    }

    #[test]
    fn nothing_one_value_and_what_is_no_number_have_an_axis() {
        let odd: [&[f64]; 5] = [
            &[],
            &[0.0],
            &[3.0],
            &[f64::NAN, f64::INFINITY],
            &[-1.0, 1e-300, 1e300],
        ];
        for values in odd {
            for unit in [Unit::Seconds, Unit::Bytes, Unit::Count, Unit::Ratio] {
                let both = [
                    Axis::wide(values.iter().copied(), unit),
                    Axis::sampled(values.iter().copied(), unit),
                    Axis::linear(values.first().copied().unwrap_or(f64::NAN), unit),
                ];
                for axis in both {
                    assert!(
                        axis.ticks.len() >= 2 && axis.ticks.len() <= 12,
                        "{values:?}: {axis:?}"
                    );
                    for value in values {
                        assert!((0.0..=1.0).contains(&axis.place(*value)), "{value} on {axis:?}");
                    }
                }
            }
        }
        assert_eq!(Axis::nines(0).ticks.len(), 3);
    }
}
