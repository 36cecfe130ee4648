//! What is seen while a run goes on: one line that lives on a terminal, a plain line now and then elsewhere.
//!
//! It costs nothing between its moments: [`Progress::tell`] asks for the state only when it is going to be shown.
//! Everything goes to stderr, since stdout is the report's. It is NOT the report.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::quantity::{Scale, counted, told};
use crate::result::Unit;

/// On a terminal: five times a second is all that an eye follows.
const LIVE_EVERY: Duration = Duration::from_millis(200);
/// Elsewhere, in a log: enough to see that it goes on.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// How far something of known size is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Extent {
    /// So many of a number of things: sockets that connect, broadcasts that are made.
    Things(u64),
    /// A time.
    Lasting(Duration),
    /// Until something else ends it.
    Open,
}

/// What is shown of the state; all but `done` count since the run's start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Of the phase's things; of no meaning when it lasts a time.
    pub(crate) done: u64,
    /// Messages that came to clients.
    pub(crate) delivered: u64,
    /// Messages known to be lost.
    pub(crate) lost: u64,
    /// Latency's 99th percentile, seconds; not shown when there is none yet.
    pub(crate) p99_s: Option<f64>,
}

/// The view of one run.
pub(crate) struct Progress {
    view: View,
    started: Instant,
    phase: Phase,
    last: Option<(Instant, Seen)>,
    next: Instant,
}

enum View {
    Live(ProgressBar),
    Plain,
    Quiet,
}

#[derive(Debug)]
struct Phase {
    name: String,
    extent: Extent,
    began: Instant,
}

impl Progress {
    /// Live where stderr is a terminal, plain lines elsewhere, nothing when `quiet`.
    pub(crate) fn new(quiet: bool, now: Instant) -> Self {
        let view = if quiet {
            View::Quiet
        } else if stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr());
            View::Live(bar.with_style(style(false)))
        } else {
            View::Plain
        };
        Self {
            view,
            started: now,
            phase: Phase {
                name: String::new(),
                extent: Extent::Open,
                began: now,
            },
            last: None,
            next: now,
        }
    }

    /// Another part of the run begins: "connecting", "warming", "measuring". It shows at once, and the one before it
    /// leaves no trace on a terminal.
    pub(crate) fn phase(&mut self, name: &str, extent: Extent, now: Instant) {
        self.phase = Phase {
            name: name.to_owned(),
            extent,
            began: now,
        };
        self.last = None;
        match &self.view {
            View::Live(bar) => {
                bar.set_style(style(extent != Extent::Open));
                bar.set_message(name.to_owned());
                bar.set_position(0);
                bar.tick();
            }
            View::Plain => print(&format!(
                "{:>6}  {}",
                elapsed(now - self.started),
                beginning(name, extent)
            )),
            View::Quiet => {}
        }
        self.next = now + self.every();
    }

    /// Shows the state, if it is time to: only then is it asked for.
    pub(crate) fn tell(&mut self, now: Instant, see: impl FnOnce() -> Seen) {
        if now < self.next || matches!(self.view, View::Quiet) {
            return;
        }
        self.next = now + self.every();
        let seen = see();
        let text = line(&self.phase, self.last, now, seen);
        match &self.view {
            View::Live(bar) => {
                bar.set_position((1_000.0 * part(&self.phase, now, seen)) as u64);
                bar.set_message(text);
            }
            View::Plain => print(&format!("{:>6}  {text}", elapsed(now - self.started))),
            View::Quiet => {}
        }
        self.last = Some((now, seen));
    }

    /// Takes the view away, so that the report has the screen.
    pub(crate) fn end(self) {
        if let View::Live(bar) = self.view {
            bar.finish_and_clear();
        }
    }

    fn every(&self) -> Duration {
        if matches!(self.view, View::Live(_)) {
            LIVE_EVERY
        } else {
            PLAIN_EVERY
        }
    }
}

fn style(has_bar: bool) -> ProgressStyle {
    let template = if has_bar {
        "{bar:24.cyan/dim} {wide_msg}"
    } else {
        "{spinner:.cyan} {wide_msg}"
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━─")
}

/// A line on stderr; one that nobody can read any more is nobody's concern.
fn print(text: &str) {
    let _unread = writeln!(stderr(), "{text}");
}

fn beginning(name: &str, extent: Extent) -> String {
    match extent {
        Extent::Things(all) => format!("{name}, {} of them", counted(all)),
        Extent::Lasting(time) => format!("{name} for {}", elapsed(time)),
        Extent::Open => name.to_owned(),
    }
}

/// How much of the phase is over, 0 to 1.
fn part(phase: &Phase, now: Instant, seen: Seen) -> f64 {
    let part = match phase.extent {
        Extent::Things(all) => seen.done as f64 / all.max(1) as f64,
        Extent::Lasting(time) => (now - phase.began).as_secs_f64() / time.as_secs_f64().max(1e-9),
        Extent::Open => 0.0,
    };
    part.clamp(0.0, 1.0)
}

/// The state in a line; rates are of the time since the `last` one, or since the phase began.
fn line(phase: &Phase, last: Option<(Instant, Seen)>, now: Instant, seen: Seen) -> String {
    let since = last.map_or(phase.began, |(then, _)| then);
    let over_s = now.saturating_duration_since(since).as_secs_f64().max(1e-9);
    let before = last.map(|(_, seen)| seen);
    let mut text = phase.name.clone();
    match phase.extent {
        Extent::Things(all) => {
            let more = seen.done.saturating_sub(before.map_or(0, |before| before.done));
            let rate = Scale::of(Unit::PerSecond, 1.0).told((more as f64 / over_s).round());
            let _infallible = write!(text, " {}/{}, {rate}", counted(seen.done), counted(all));
        }
        Extent::Lasting(time) => {
            let _infallible = write!(text, " {}/{}", elapsed(now - phase.began), elapsed(time));
        }
        Extent::Open => {
            let _infallible = write!(text, " {}", elapsed(now - phase.began));
        }
    }
    // Without a line before there is nothing to count the phase's own messages from.
    if let Some(before) = before
        && seen.delivered > 0
    {
        let rate = (seen.delivered.saturating_sub(before.delivered)) as f64 / over_s;
        let _infallible = write!(text, " · {} delivered", told(rate.round(), Unit::PerSecond));
    }
    if let Some(p99) = seen.p99_s {
        let _infallible = write!(text, " · p99 {}", told(p99, Unit::Seconds));
    }
    if seen.lost > 0 {
        let _infallible = write!(text, " · {} LOST", counted(seen.lost));
    }
    text
}

/// `7 s`, `1:05`.
fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &str, extent: Extent, began: Instant) -> Phase {
        Phase {
            name: name.to_owned(),
            extent,
            began,
        }
    }

    #[test]
    fn connecting_tells_how_many_and_how_fast() {
        let began = Instant::now();
        let phase = phase("connecting", Extent::Things(10_000), began);
        let at = |seconds| began + Duration::from_secs(seconds);
        let first = Seen {
            done: 4_000,
            ..Seen::default()
        };
        assert_eq!(
            line(&phase, None, at(2), first),
            "connecting 4,000/10,000, 2,000/s"
        );
        let second = Seen {
            done: 9_000,
            ..Seen::default()
        };
        let text = line(&phase, Some((at(2), first)), at(3), second);
        assert_eq!(text, "connecting 9,000/10,000, 5,000/s");
        assert!((part(&phase, at(3), second) - 0.9).abs() < 1e-9);
    }

    #[test]
    fn measuring_tells_rate_latency_and_loss() {
        let began = Instant::now();
        let phase = phase("measuring", Extent::Lasting(Duration::from_secs(90)), began);
        let at = |seconds| began + Duration::from_secs(seconds);
        let before = Seen {
            delivered: 1_000_000,
            ..Seen::default()
        };
        let seen = Seen {
            delivered: 2_900_000,
            p99_s: Some(0.0123),
            lost: 3,
            done: 0,
        };
        assert_eq!(
            line(&phase, Some((at(64), before)), at(65), seen),
            "measuring 1:05/1:30 · 1.90 million/s delivered · p99 12.3 ms · 3 LOST"
        );
        assert_eq!(line(&phase, None, at(1), Seen::default()), "measuring 1 s/1:30");
    }

    #[test]
    fn the_state_is_asked_for_only_when_it_is_shown() {
        let start = Instant::now();
        let mut progress = Progress {
            view: View::Plain,
            ..Progress::new(true, start)
        };
        progress.phase("measuring", Extent::Open, start);
        let mut asked = 0;
        for tenth in 0..205 {
            progress.tell(start + Duration::from_millis(100 * tenth), || {
                asked += 1;
                Seen::default()
            });
        }
        assert_eq!(asked, 2, "after 10 and 20 seconds");
        let mut progress = Progress {
            view: View::Quiet,
            ..progress
        };
        progress.tell(start + Duration::from_secs(600), || {
            unreachable!("quiet shows nothing")
        });
    }
}
