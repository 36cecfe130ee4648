//! Lines between two axes, as SVG: a part of a page, or a file for documentation. Pure.
//!
//! Lines differ by colour, by the shape of their marks and, when they repeat one another, by their dashes; so they are
//! told apart without colours too.

use std::fmt::Write as _;

use super::axis::Axis;
use super::quantity::told;
use crate::result::Unit;

/// How many colours and shapes there are; more lines share them.
const HUES: usize = 7;
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];
/// More points than this are not seen; of those that fall together the extremes are kept.
const POINTS_MAX: usize = 300;

/// What a file needs of its own, since it has no page around it; the page has the same colours (`page.css`).
const COLOURS: &str = "
svg{--ink:#1d2430;--faint:#5b6573;--grid:#e3e7ec;--ground:#fff;
--h0:#0b62b8;--h1:#cc4a00;--h2:#007a5a;--h3:#a83a7a;--h4:#a87400;--h5:#2f93d1;--h6:#6b7280}
@media(prefers-color-scheme:dark){svg{--ink:#e6e9ee;--faint:#9aa4b2;--grid:#2b313a;--ground:#15181d;
--h0:#6db3ff;--h1:#ff9a5c;--h2:#3ecfa3;--h3:#f09ac8;--h4:#eec04a;--h5:#9ad9ff;--h6:#a8b0bd}}
text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:var(--faint)}
.title{font-size:15px;font-weight:600;fill:var(--ink)}.name{fill:var(--ink)}
";

/// How lines and marks look, wherever they are.
pub(crate) const STROKES: &str = "
.grid{stroke:var(--grid);stroke-width:1}.base{stroke:var(--faint);stroke-width:1}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.h0{stroke:var(--h0)}.h1{stroke:var(--h1)}.h2{stroke:var(--h2)}.h3{stroke:var(--h3)}.h4{stroke:var(--h4)}
.h5{stroke:var(--h5)}.h6{stroke:var(--h6)}
.mark{fill:var(--ground);stroke-width:1.8;stroke-linejoin:round}
";

/// A plot of any number of lines.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// What it shows.
    pub(crate) title: String,
    /// To the right.
    pub(crate) x: Axis,
    /// What is to the right.
    pub(crate) x_title: String,
    /// Upwards.
    pub(crate) y: Axis,
    /// Of what is upwards.
    pub(crate) unit: Unit,
    /// Later ones lie above earlier ones.
    pub(crate) lines: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// What it shows, for the legend.
    pub(crate) name: String,
    /// How it looks.
    pub(crate) look: Look,
    /// From left to right; what is no number is left out.
    pub(crate) points: Vec<(f64, f64)>,
    /// Where it has a mark.
    pub(crate) marks: Marks,
}

/// Of what is repeated, all repetitions have one hue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// The colour and the shape of the marks.
    pub(crate) hue: usize,
    /// Which repetition; the first has no dashes.
    pub(crate) repetition: usize,
}

/// Which points of a line have a mark.
#[derive(Clone, Debug)]
pub(crate) enum Marks {
    /// Those at these places on the x axis.
    At(Vec<f64>),
    /// Some, to know the line by.
    Some,
    /// Each: they were measured apart from one another.
    All,
}

/// Where a point is drawn.
pub(crate) struct Spot {
    /// From the left.
    pub(crate) x: f64,
    /// From the top.
    pub(crate) y: f64,
    /// What is there.
    pub(crate) value: (f64, f64),
}

/// Room around the axes, in the drawing's own units.
struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// Narrow enough for its letters to be read on a phone.
const IN_PAGE: Frame = Frame {
    width: 480.0,
    height: 270.0,
    left: 56.0,
    right: 16.0,
    top: 12.0,
    bottom: 40.0,
};

impl Frame {
    fn spot(&self, plot: &Plot, value: (f64, f64)) -> Spot {
        Spot {
            x: self.left + plot.x.place(value.0) * (self.width - self.left - self.right),
            y: self.height - self.bottom - plot.y.place(value.1) * (self.height - self.top - self.bottom),
            value,
        }
    }
}

impl Plot {
    /// As a part of a page, whose style has [`STROKES`] and the colours.
    pub(crate) fn svg(&self) -> String {
        let mut out = String::new();
        let frame = IN_PAGE;
        let _infallible = write!(
            out,
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" tabindex=\"0\">",
            frame.width,
            frame.height,
            escaped(&self.title)
        );
        self.draw(&frame, &mut out);
        out.push_str("</svg>");
        out
    }

    /// As a file of its own, with title and legend; light or dark like the page that shows it.
    pub(crate) fn file(&self) -> String {
        const WIDTH: f64 = 720.0;
        let (legend, rows) = self.legend(WIDTH);
        let top = 52.0 + 20.0 * rows as f64;
        let frame = Frame {
            width: WIDTH,
            height: top + 300.0,
            left: 64.0,
            right: 20.0,
            top,
            bottom: 44.0,
        };
        let mut out = String::new();
        let _infallible = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" \
             role=\"img\" aria-label=\"{2}\">\n<style>{COLOURS}{STROKES}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"var(--ground)\"/>\n\
             <text class=\"title\" x=\"16\" y=\"26\">{2}</text>\n{legend}",
            frame.width,
            frame.height,
            escaped(&titled(&self.title, &self.y.unit))
        );
        self.draw(&frame, &mut out);
        out.push_str("</svg>\n");
        out
    }

    /// Each line's points as they are drawn in a page.
    pub(crate) fn spots(&self, line: &Line) -> Vec<Spot> {
        shown(&line.points)
            .into_iter()
            .map(|point| IN_PAGE.spot(self, point))
            .collect()
    }

    fn draw(&self, frame: &Frame, out: &mut String) {
        let (left, right) = (frame.left, frame.width - frame.right);
        let (top, base) = (frame.top, frame.height - frame.bottom);
        for (place, (value, name)) in self.y.ticks.iter().enumerate() {
            let y = frame.spot(self, (0.0, *value)).y;
            let class = if place == 0 { "base" } else { "grid" };
            let _infallible = writeln!(
                out,
                "<path class=\"{class}\" d=\"M{left} {y:.1}H{right}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 4.0,
                escaped(name)
            );
        }
        let last = self.x.ticks.len().saturating_sub(1);
        for (place, (value, name)) in self.x.ticks.iter().enumerate() {
            let x = frame.spot(self, (*value, 0.0)).x;
            // The outermost names stay inside the drawing.
            let anchor = if place == last && x > right - 12.0 {
                "end"
            } else {
                "middle"
            };
            let _infallible = writeln!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} {top}V{base}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                base + 16.0,
                escaped(name)
            );
        }
        let _infallible = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (left + right) / 2.0,
            base + 34.0,
            escaped(&titled(&self.x_title, &self.x.unit))
        );
        for line in &self.lines {
            self.draw_line(frame, line, out);
        }
        if self.lines.iter().all(|line| shown(&line.points).is_empty()) {
            let _infallible = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">nothing was measured</text>",
                (left + right) / 2.0,
                (top + base) / 2.0 - 8.0
            );
        }
    }

    fn draw_line(&self, frame: &Frame, line: &Line, out: &mut String) {
        let spots: Vec<Spot> = shown(&line.points)
            .into_iter()
            .map(|point| frame.spot(self, point))
            .collect();
        if spots.is_empty() {
            return;
        }
        let hue = line.look.hue % HUES;
        let mut path = String::new();
        for (place, spot) in spots.iter().enumerate() {
            let letter = if place == 0 { 'M' } else { 'L' };
            let _infallible = write!(path, "{letter}{:.1} {:.1}", spot.x, spot.y);
        }
        let _infallible = write!(
            out,
            "<g><title>{}</title><path class=\"line h{hue}\"{} d=\"{path}\"/>",
            escaped(&line.name),
            dashes(line.look)
        );
        let most = spots.iter().map(|spot| spot.value.1).fold(0.0, f64::max);
        for (place, spot) in spots.iter().enumerate() {
            if self.y.is_beyond(spot.value.1) {
                // It is higher than there is room for; of several the highest says how high.
                let (x, y) = (spot.x, spot.y);
                let _infallible = write!(
                    out,
                    "<path class=\"line h{hue}\" d=\"M{:.1} {:.1}l4.5 -7l4.5 7z\"/>",
                    x - 4.5,
                    y + 3.0
                );
                if spot.value.1 == most {
                    let is_right = x > frame.width - 100.0;
                    let (anchor, beside) = if is_right { ("end", -8.0) } else { ("start", 8.0) };
                    let _infallible = write!(
                        out,
                        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                        x + beside,
                        y + 11.0,
                        escaped(&told(most, self.unit))
                    );
                }
            } else if line.has_mark(place, spots.len(), spot) {
                out.push_str(&mark(hue, spot.x, spot.y));
            }
        }
        out.push_str("</g>\n");
    }

    /// The names of the lines, and how many rows they take.
    fn legend(&self, width: f64) -> (String, usize) {
        let mut out = String::new();
        let (mut x, mut row) = (16.0, 0);
        for line in &self.lines {
            // Letters of this size are at most some seven units wide.
            let room = 44.0 + 7.0 * line.name.chars().count() as f64;
            if x + room > width && x > 16.0 {
                (x, row) = (16.0, row + 1);
            }
            let y = 46.0 + 20.0 * row as f64;
            let _infallible = writeln!(
                out,
                "<path class=\"line h{}\"{} d=\"M{x} {y}h24\"/>{}<text class=\"name\" x=\"{}\" y=\"{}\">{}</text>",
                line.look.hue % HUES,
                dashes(line.look),
                mark(line.look.hue % HUES, x + 12.0, y),
                x + 31.0,
                y + 4.0,
                escaped(&line.name)
            );
            x += room;
        }
        (out, row + 1)
    }
}

impl Line {
    fn has_mark(&self, place: usize, of: usize, spot: &Spot) -> bool {
        match &self.marks {
            Marks::At(places) => places.iter().any(|at| (at - spot.value.0).abs() < 1e-12),
            Marks::All => true,
            Marks::Some => {
                // Not at the same places for all, since they would hide one another.
                let every = (of / 4).max(1);
                place % every == (every / 2 + self.look.hue * every / HUES) % every
            }
        }
    }
}

/// How a line looks, for legends in pages.
pub(crate) fn swatch(look: Look) -> String {
    let hue = look.hue % HUES;
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 30 14\" aria-hidden=\"true\"><path class=\"line h{hue}\"{} d=\"M2 7H28\"/>{}</svg>",
        dashes(look),
        mark(hue, 15.0, 7.0)
    )
}

fn dashes(look: Look) -> String {
    match DASHES[look.repetition % DASHES.len()] {
        "" => String::new(),
        dashes => format!(" stroke-dasharray=\"{dashes}\""),
    }
}

/// The shape that belongs to a hue.
fn mark(hue: usize, x: f64, y: f64) -> String {
    let shape = match hue {
        0 => "m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z",
        1 => "m-3.2 -3.2h6.4v6.4h-6.4z",
        2 => "m0 -4.2l4 7h-8z",
        3 => "m0 -4.4l4.4 4.4l-4.4 4.4l-4.4 -4.4z",
        4 => "m0 4.2l4 -7h-8z",
        5 => "m-3.4 -3.4l6.8 6.8m0 -6.8l-6.8 6.8",
        _ => "m-4 0h8m-4 -4v8",
    };
    format!("<path class=\"mark h{hue}\" d=\"M{x:.1} {y:.1}{shape}\"/>")
}

/// "latency, ms".
pub(crate) fn titled(title: &str, unit: &str) -> String {
    if unit.is_empty() {
        title.to_owned()
    } else {
        format!("{title}, {unit}")
    }
}

/// The points that can be drawn, no more of them than can be seen; of those that fall together the extremes.
fn shown(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let drawable = points
        .iter()
        .copied()
        .filter(|(x, y)| x.is_finite() && y.is_finite());
    let points: Vec<(f64, f64)> = drawable.collect();
    if points.len() <= POINTS_MAX {
        return points;
    }
    let together = points.len().div_ceil(POINTS_MAX / 2);
    let mut shown = Vec::with_capacity(POINTS_MAX);
    for few in points.chunks(together) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (least, most) = (few.iter().min_by(by_value), few.iter().max_by(by_value));
        if let (Some(least), Some(most)) = (least, most) {
            let (first, second) = if least.0 <= most.0 {
                (least, most)
            } else {
                (most, least)
            };
            shown.push(*first);
            if first != second {
                shown.push(*second);
            }
        }
    }
    shown
}

/// Fit for HTML and XML, between tags and in quoted attributes; control characters are in neither.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() && letter != '\n' => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(lines: Vec<Vec<(f64, f64)>>) -> Plot {
        let values = lines.concat();
        let line = |(hue, points)| Line {
            name: format!("line {hue}"),
            look: Look { hue, repetition: 0 },
            points,
            marks: Marks::Some,
        };
        Plot {
            title: "delivered".to_owned(),
            x: Axis::linear(10.0, Unit::Seconds),
            x_title: "time".to_owned(),
            y: Axis::sampled(values.iter().map(|(_, value)| *value), Unit::PerSecond),
            unit: Unit::PerSecond,
            lines: lines.into_iter().enumerate().map(line).collect(),
        }
    }

    #[test]
    fn odd_lines_have_a_drawing_without_odd_numbers() {
        for points in [
            vec![],
            vec![(1.0, 5.0)],
            vec![(f64::NAN, 1.0), (1.0, f64::NAN), (2.0, f64::INFINITY)],
            vec![(0.0, 0.0), (1.0, 0.0)],
            (0..100_000)
                .map(|at| (f64::from(at) / 10_000.0, f64::from(at % 97)))
                .collect(),
        ] {
            let plot = plot(vec![points]);
            for svg in [plot.svg(), plot.file()] {
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(svg.len() < 40_000, "{}", svg.len());
            }
        }
        assert!(plot(vec![vec![]]).svg().contains("nothing was measured"));
    }

    #[test]
    fn of_many_points_the_extremes_are_kept() {
        let mut points: Vec<(f64, f64)> = (0..5_000).map(|at| (f64::from(at), 10.0)).collect();
        points[2_345].1 = 99.0;
        points[4_000].1 = 1.0;
        let shown = shown(&points);
        assert!(shown.len() <= POINTS_MAX && shown.is_sorted_by(|a, b| a.0 <= b.0));
        assert!(shown.contains(&(2_345.0, 99.0)) && shown.contains(&(4_000.0, 1.0)));
    }

    #[test]
    fn names_cannot_break_out() {
        let mut plot = plot(vec![vec![(0.0, 1.0), (1.0, 2.0)]]);
        plot.lines[0].name = "\"><script>alert('1')</script>&\u{0}".to_owned();
        plot.title.clone_from(&plot.lines[0].name);
        for svg in [plot.svg(), plot.file()] {
            assert!(!svg.contains("<script") && !svg.contains('\u{0}'), "{svg}");
        }
    }
}
