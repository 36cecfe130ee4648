//! Numbers as people read them: three digits, a unit that fits, thousands set apart. Pure.

use crate::result::Unit;

/// What is said where there is no number.
pub(crate) const NONE: &str = "–";

/// A size to tell numbers of one unit in, so that those that stand beside each other can be compared at a glance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    /// How many base units one of these is.
    pub(crate) base: f64,
    /// What follows the number, with the space that belongs before it.
    pub(crate) suffix: &'static str,
}

/// The steps of each unit, largest first; the last one is for all that is smaller.
fn steps(unit: Unit) -> &'static [Scale] {
    const fn step(base: f64, suffix: &'static str) -> Scale {
        Scale { base, suffix }
    }
    const SECONDS: &[Scale] = &[
        step(1.0, " s"),
        step(1e-3, " ms"),
        step(1e-6, " µs"),
        step(1e-9, " ns"),
    ];
    const BYTES: &[Scale] = &[
        step(1_073_741_824.0, " GiB"),
        step(1_048_576.0, " MiB"),
        step(1_024.0, " KiB"),
        step(1.0, " B"),
    ];
    const BYTES_PER_SECOND: &[Scale] = &[
        step(1e9, " GB/s"),
        step(1e6, " MB/s"),
        step(1e3, " kB/s"),
        step(1.0, " B/s"),
    ];
    const PER_SECOND: &[Scale] = &[step(1e6, " million/s"), step(1.0, "/s")];
    const COUNT: &[Scale] = &[step(1e9, " billion"), step(1e6, " million"), step(1.0, "")];
    const SHARE: &[Scale] = &[step(0.01, " %")];
    const RATIO: &[Scale] = &[step(1.0, " ×")];
    match unit {
        Unit::Seconds => SECONDS,
        Unit::Bytes => BYTES,
        Unit::BytesPerSecond => BYTES_PER_SECOND,
        Unit::PerSecond => PER_SECOND,
        Unit::Count => COUNT,
        Unit::Share => SHARE,
        Unit::Ratio => RATIO,
    }
}

impl Scale {
    /// The one in which a number of that size has one to three digits before its point, where there is one.
    pub(crate) fn of(unit: Unit, size: f64) -> Self {
        let steps = steps(unit);
        let size = size.abs();
        // Zero is told in the largest unit but for time and bytes, where "0 s" and "0 B" are what people say.
        if size == 0.0 || !size.is_finite() {
            return if unit == Unit::Seconds {
                steps[0]
            } else {
                steps[steps.len() - 1]
            };
        }
        // What would be rounded up to a thousand belongs to the next step.
        let fits = |step: &&Self| size * 1.000_5 >= step.base;
        steps.iter().find(fits).copied().unwrap_or(steps[steps.len() - 1])
    }

    /// The number alone.
    pub(crate) fn number(self, value: f64) -> String {
        digits(value / self.base)
    }

    /// The number and its unit.
    pub(crate) fn told(self, value: f64) -> String {
        if value.is_finite() {
            format!("{}{}", self.number(value), self.suffix)
        } else {
            NONE.to_owned()
        }
    }
}

/// A number with its unit, in the size that fits it.
pub(crate) fn told(value: f64, unit: Unit) -> String {
    Scale::of(unit, value).told(value)
}

/// A whole number, exactly.
pub(crate) fn counted(count: u64) -> String {
    grouped(&count.to_string())
}

/// "1 message", "3 messages".
pub(crate) fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", counted(count), if count == 1 { one } else { many })
}

/// A ratio with two digits behind the point where they matter: `0.21 ×`, `12.5 ×`.
pub(crate) fn ratio(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    match value.abs() {
        size if size < 0.095 => format!("{} ×", digits(value)),
        size if size < 9.995 => format!("{value:.2} ×"),
        _ => format!("{} ×", digits(value)),
    }
}

/// Three digits, or all those before the point; thousands set apart; no zeros at the end of a fraction's whole number.
fn digits(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // The power of ten after rounding to three digits: 9.996 is 10.0, not 10.00.
    let rounded = format!("{value:.2e}");
    let power: i32 = rounded
        .split('e')
        .nth(1)
        .and_then(|power| power.parse().ok())
        .unwrap_or(0);
    let behind = usize::try_from(2 - power).unwrap_or(0).min(12);
    let is_whole = value.fract() == 0.0;
    let text = format!("{value:.behind$}");
    match text.split_once('.') {
        Some((whole, _)) if is_whole => grouped(whole),
        Some((whole, fraction)) => format!("{}.{fraction}", grouped(whole)),
        None => grouped(&text),
    }
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let mut text = sign.to_owned();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit_that_fits() {
        for (value, unit, expected) in [
            (0.0, Unit::Seconds, "0 s"),
            (0.000_000_38, Unit::Seconds, "380 ns"),
            (0.000_001_1, Unit::Seconds, "1.10 µs"),
            (0.004_21, Unit::Seconds, "4.21 ms"),
            (0.999_96, Unit::Seconds, "1.00 s"),
            (75.0, Unit::Seconds, "75 s"),
            (12.34, Unit::Seconds, "12.3 s"),
            (1_870_000.0, Unit::PerSecond, "1.87 million/s"),
            (32_145.6, Unit::PerSecond, "32,146/s"),
            (0.5, Unit::PerSecond, "0.500/s"),
            (1_024.0, Unit::Bytes, "1 KiB"),
            (1_945.6, Unit::Bytes, "1.90 KiB"),
            (1_020.0, Unit::Bytes, "1,020 B"),
            (1.05e9, Unit::BytesPerSecond, "1.05 GB/s"),
            (18_000.0, Unit::Count, "18,000"),
            (0.123, Unit::Share, "12.3 %"),
            (1.0, Unit::Share, "100 %"),
            (1.085, Unit::Ratio, "1.08 ×"),
            (-3.2e-3, Unit::Seconds, "-3.20 ms"),
            (f64::NAN, Unit::Seconds, "–"),
            (f64::INFINITY, Unit::Bytes, "–"),
        ] {
            assert_eq!(told(value, unit), expected);
        }
    }

    #[test]
    fn numbers_side_by_side_share_a_scale() {
        let scale = Scale::of(Unit::Seconds, 0.003);
        assert_eq!(scale.told(0.000_38), "0.380 ms");
        assert_eq!(scale.told(0.012_04), "12.0 ms");
    }

    #[test]
    fn ratios_have_two_digits_behind_the_point_where_they_matter() {
        for (value, expected) in [
            (1.0, "1.00 ×"),
            (0.2149, "0.21 ×"),
            (0.0312, "0.0312 ×"),
            (12.51, "12.5 ×"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(ratio(value), expected);
        }
    }

    #[test]
    fn counts_are_exact() {
        assert_eq!(counted(1_234_567), "1,234,567");
        assert_eq!(plural(1, "message", "messages"), "1 message");
        assert_eq!(plural(1_000, "message", "messages"), "1,000 messages");
    }
}
