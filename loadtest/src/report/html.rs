//! One page of one or several runs that needs nothing but itself: style, drawings and the little script are inside.
//!
//! Whatever comes from outside, a label or what a server said of itself, is text and nothing else; and the page's own
//! policy forbids it to fetch anything.

use super::panels::{self, Appearance};
use super::plot::{self, Plot, escaped};
use super::quantity::{ratio, told};
use super::text::QUANTILES;
use super::words;
use crate::result::{Better, Run, Unit, Verdict};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Nothing from elsewhere, whatever a label may try.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'";
/// Less of a difference than this is none.
const NOTABLE: f64 = 0.03;

/// The page; runs of different scenarios stand below one another.
pub(crate) fn page(runs: &[Run]) -> String {
    let scenarios = panels::keys(runs.iter().map(|run| vec![&*run.scenario]));
    let labels = panels::keys(runs.iter().map(|run| vec![panels::label(run)]));
    let title = escaped(&format!("{}: {}", scenarios.join(", "), labels.join(", ")));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n",
        plot::STROKES
    );
    let machines = panels::keys(runs.iter().map(|run| vec![&*run.machine.name]));
    let days = panels::keys(
        runs.iter()
            .map(|run| vec![run.started.split('T').next().unwrap_or_default()]),
    );
    if let (Some(run), [_]) = (runs.first(), &machines[..]) {
        push(
            &mut out,
            &format!("<p class=\"sub\">{}", escaped(&words::machine(&run.machine))),
        );
    } else {
        push(&mut out, &format!("<p class=\"sub\">{} machines", machines.len()));
    }
    push(&mut out, &format!(" · {}</p>\n", escaped(&days.join(", "))));
    for scenario in &scenarios {
        let of_it: Vec<&Run> = runs.iter().filter(|run| run.scenario == *scenario).collect();
        if scenarios.len() > 1 {
            push(&mut out, &format!("<h2>{}</h2>\n", escaped(scenario)));
        }
        section(&mut out, &of_it);
    }
    push(&mut out, "</main>\n<script>\n");
    push(&mut out, SCRIPT);
    push(&mut out, "</script>\n</body>\n</html>\n");
    out
}

/// The runs of one scenario: what they found, how they compare, and what they were.
fn section(out: &mut String, runs: &[&Run]) {
    let seen = panels::appearances(runs);
    let is_common = |parameter: &&(String, String)| runs.iter().all(|run| run.parameters.contains(parameter));
    let common: Vec<_> = runs
        .iter()
        .take(1)
        .flat_map(|run| &run.parameters)
        .filter(is_common)
        .collect();
    if !common.is_empty() {
        push(
            out,
            &format!(
                "<p class=\"sub\">{}</p>\n",
                escaped(&words::pairs(common.iter().copied()))
            ),
        );
    }
    push(out, "<ul class=\"runs\">\n");
    for (run, seen) in runs.iter().zip(&seen) {
        card(out, run, seen, runs, &common);
    }
    push(out, "</ul>\n");
    for (run, seen) in runs.iter().zip(&seen) {
        notices(out, run, seen);
    }
    table(out, runs, &seen);
    push(out, "<div class=\"plots\">\n");
    for plot in panels::all(runs) {
        figure(out, &plot);
    }
    push(out, "</div>\n");
    for (run, seen) in runs.iter().zip(&seen) {
        circumstances(out, run, seen);
    }
}

fn card(out: &mut String, run: &Run, seen: &Appearance, runs: &[&Run], common: &[&(String, String)]) {
    let is_suspect = run.interrupted || run.generator.verdict == Verdict::Generator || run.faults.total() > 0;
    let class = if is_suspect { " class=\"suspect\"" } else { "" };
    let name = escaped(&seen.name);
    push(
        out,
        &format!(
            "<li{class}><div class=\"name\">{}<span>{name}</span></div>",
            plot::swatch(seen.look)
        ),
    );
    if let Some(answer) = run.figures.first() {
        let value = escaped(&told(answer.value, answer.unit));
        push(
            out,
            &format!(
                "<div class=\"answer\">{value}</div><div class=\"small\">{}",
                escaped(&answer.title)
            ),
        );
        if let Some(first) = runs.first().filter(|first| !std::ptr::eq(**first, run)) {
            let first = first.figure(&answer.key).map_or(f64::NAN, |figure| figure.value);
            push(out, &format!(" {}", compared(answer.value, first, answer.better)));
        }
        push(out, "</div>");
    }
    let own = run
        .parameters
        .iter()
        .filter(|parameter| !common.contains(parameter));
    let own = words::pairs(own);
    if !own.is_empty() {
        push(out, &format!("<div class=\"small\">{}</div>", escaped(&own)));
    }
    let mut badge = |class: &str, text: &str| {
        push(
            out,
            &format!("<span class=\"badge {class}\">{}</span>", escaped(text)),
        )
    };
    if run.interrupted {
        badge("warn", "interrupted");
    }
    for fault in words::faults(&run.faults) {
        badge("bad", &fault);
    }
    let class = if run.generator.verdict == Verdict::Generator {
        "warn"
    } else {
        ""
    };
    badge(class, words::verdict_briefly(run.generator.verdict));
    push(out, "</li>\n");
}

/// What has to be known before any figure is believed.
fn notices(out: &mut String, run: &Run, seen: &Appearance) {
    let name = escaped(&seen.name);
    let mut notice = |class: &str, text: &str| {
        push(
            out,
            &format!(
                "<p class=\"notice {class}\"><strong>{name}</strong>: {}</p>\n",
                escaped(text)
            ),
        );
    };
    if let Some(text) = words::interruption(run) {
        notice("", &text);
    }
    if run.faults.total() > 0 {
        notice("bad", &words::faults_line(&run.faults));
    }
    if run.generator.verdict == Verdict::Generator {
        notice("", &words::verdict(run));
    }
}

/// Everything with its ratio to the first run.
fn table(out: &mut String, runs: &[&Run], seen: &[Appearance]) {
    // Beside many runs there is no room for ratios beside their numbers; one alone would be far from its title.
    let class = match runs.len() {
        1 => "alone",
        2..=3 => "",
        _ => "many",
    };
    push(
        out,
        &format!("<div class=\"panel scroll {class}\"><table>\n<thead><tr><th scope=\"col\">"),
    );
    push(
        out,
        if runs.len() > 1 {
            "ratios are to the first"
        } else {
            ""
        },
    );
    push(out, "</th>");
    for seen in seen {
        push(out, &format!("<th scope=\"col\">{}</th>", escaped(&seen.name)));
    }
    push(out, "</tr></thead>\n<tbody>\n");
    for key in panels::figure_keys(runs) {
        let Some(figure) = runs.iter().find_map(|run| run.figure(key)) else {
            continue;
        };
        let values: Vec<f64> = runs
            .iter()
            .map(|run| run.figure(key).map_or(f64::NAN, |figure| figure.value))
            .collect();
        // A part of the figure above it begins with a space.
        let class = if figure.title.starts_with(' ') {
            "within"
        } else {
            ""
        };
        row(out, class, &figure.title, &values, figure.unit, figure.better);
    }
    for key in panels::keys(
        runs.iter()
            .map(|run| run.curves.iter().map(|curve| &*curve.key).collect()),
    ) {
        let Some(curve) = runs.iter().find_map(|run| run.curve(key)) else {
            continue;
        };
        let title = escaped(&curve.title);
        let columns = runs.len() + 1;
        push(
            out,
            &format!("<tr class=\"group\"><th scope=\"rowgroup\" colspan=\"{columns}\">{title}</th></tr>\n"),
        );
        for (quantile, name) in QUANTILES {
            let value = |run: &&Run| {
                run.curve(key)
                    .and_then(|curve| curve.at(quantile))
                    .unwrap_or(f64::NAN)
            };
            let values: Vec<f64> = runs.iter().map(value).collect();
            row(out, "within", name, &values, curve.unit, Better::Less);
        }
    }
    push(out, "</tbody></table></div>\n");
}

fn row(out: &mut String, class: &str, title: &str, values: &[f64], unit: Unit, better: Better) {
    push(
        out,
        &format!("<tr class=\"{class}\"><th scope=\"row\">{}</th>", escaped(title)),
    );
    for (place, value) in values.iter().enumerate() {
        push(out, &format!("<td>{}", escaped(&told(*value, unit))));
        // The first column has no ratio, but its numbers stand where those of the others do.
        if values.len() > 1 {
            let told = if place > 0 {
                compared(*value, values[0], better)
            } else {
                String::new()
            };
            push(
                out,
                &format!(
                    " {}",
                    if told.is_empty() && place > 0 {
                        blank()
                    } else {
                        told
                    }
                ),
            );
        }
        push(out, "</td>");
    }
    push(out, "</tr>\n");
}

fn blank() -> String {
    "<span class=\"ratio\"></span>".to_owned()
}

/// A ratio, and in words and colour whether that is better; empty where there is none.
fn compared(value: f64, first: f64, better: Better) -> String {
    let times = value / first;
    if !times.is_finite() {
        return String::new();
    }
    let is_less = times < 1.0;
    let (class, word) = match better {
        Better::Neither => ("", ""),
        _ if (times - 1.0).abs() < NOTABLE => ("", ""),
        Better::Less if is_less => ("better", " better"),
        Better::More if !is_less => ("better", " better"),
        _ => ("worse", " worse"),
    };
    format!("<span class=\"ratio {class}\">{}{word}</span>", ratio(times))
}

/// A plot, and what its script needs to name what lies under the pointer.
fn figure(out: &mut String, plot: &Plot) {
    let unit = if plot.y.is_log() {
        "logarithmic"
    } else {
        &plot.y.unit
    };
    push(
        out,
        &format!(
            "<figure class=\"panel\"><figcaption><h3>{}</h3><span>{}</span></figcaption>{}\n",
            escaped(&plot.title),
            escaped(unit),
            plot.svg()
        ),
    );
    let lines: Vec<serde_json::Value> = plot
        .lines
        .iter()
        .map(|line| {
            let points = plot.spots(line).into_iter().map(|spot| {
                let (at, value) = spot.value;
                let x = (spot.x * 10.0).round() / 10.0;
                serde_json::json!([x, panels::place(plot, at), told(value, plot.unit)])
            });
            serde_json::json!({ "name": line.name, "points": points.collect::<Vec<_>>() })
        })
        .collect();
    // Inside a script nothing is unescaped, and only "<" could end it.
    let lines = serde_json::Value::from(lines).to_string().replace('<', "\\u003c");
    push(
        out,
        &format!("<script type=\"application/json\">{lines}</script></figure>\n"),
    );
}

/// What was run, with what, where and when.
fn circumstances(out: &mut String, run: &Run, seen: &Appearance) {
    push(
        out,
        &format!(
            "<details class=\"panel\"><summary>{}</summary><dl>",
            escaped(&seen.name)
        ),
    );
    let mut say = |term: &str, text: &str| {
        if !text.is_empty() {
            push(out, &format!("<dt>{term}</dt><dd>{text}</dd>"));
        }
    };
    say("verdict", &escaped(&words::verdict(run)));
    say("faults", &escaped(&words::faults_line(&run.faults)));
    say("command", &format!("<code>{}</code>", escaped(&run.command)));
    say("server", &escaped(run.server.as_deref().unwrap_or_default()));
    say("parameters", &escaped(&words::parameters(run)));
    say("machine", &escaped(&words::machine(&run.machine)));
    say(
        "started",
        &escaped(&format!(
            "{}, took {}",
            run.started,
            told(run.took_s, Unit::Seconds)
        )),
    );
    say("generator", &escaped(&words::generator(run)));
    say("version", &escaped(&format!("loadtest {}", run.version)));
    for note in &run.notes {
        say("note", &escaped(note));
    }
    push(out, "</dl></details>\n");
}

fn push(out: &mut String, text: &str) {
    out.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let page = page(&[sample::run("fanwire", 1.0), sample::run("other", 3.0)]);
        for word in [
            "http://", "https://", "src=", "href=", "url(", "@import", "fetch(", "//cdn",
        ] {
            let namespace = "http://www.w3.org/2000/svg";
            assert!(!page.replace(namespace, "").contains(word), "{word}");
        }
        assert_eq!(page.matches("<figure").count(), 5);
    }

    #[test]
    fn hostile_words_are_only_text() {
        let hostile = "</script><script>alert(1)</script><img onerror='x' src=\"y\">&\u{0}";
        let mut run = sample::run(hostile, 1.0);
        run.scenario = hostile.to_owned();
        run.command = hostile.to_owned();
        run.server = Some(hostile.to_owned());
        run.started = hostile.to_owned();
        run.machine.cpu = hostile.to_owned();
        run.parameters.push((hostile.to_owned(), hostile.to_owned()));
        run.figures[0].title = hostile.to_owned();
        run.curves[0].title = hostile.to_owned();
        run.series[0].title = hostile.to_owned();
        run.faults.lost = 1;
        run.faults.examples.push(hostile.to_owned());
        run.notes.push(hostile.to_owned());
        let page = page(&[run.clone(), sample::run("other", 1.0), run]);
        assert!(!page.contains("<img") && !page.contains("alert(1)</script>") && !page.contains('\u{0}'));
        // The page's own, and one for each plot's numbers: two scenarios of five.
        assert_eq!(page.matches("<script").count(), 1 + 10);
        assert_eq!(page.matches("</script>").count(), 1 + 10);
    }

    #[test]
    fn what_is_not_to_be_believed_is_marked() {
        let mut runs = [sample::run("fanwire", 1.0), sample::run("other", 3.0)];
        assert!(!page(&runs).contains("class=\"notice") && !page(&runs).contains("class=\"suspect"));
        runs[1].interrupted = true;
        runs[0].generator.verdict = Verdict::Generator;
        let page = page(&runs);
        assert!(page.contains("<strong>other</strong>: Interrupted after"));
        assert!(page.contains("<strong>fanwire</strong>: The generator was the bottleneck"));
        assert_eq!(page.matches("<li class=\"suspect\">").count(), 2);
    }

    #[test]
    fn ratios_say_which_way_is_better() {
        for (value, first, better, expected) in [
            (3.0, 1.0, Better::Less, "worse\">3.00 × worse"),
            (0.5, 1.0, Better::Less, "better\">0.50 × better"),
            (3.0, 1.0, Better::More, "better\">3.00 × better"),
            (0.5, 1.0, Better::More, "worse\">0.50 × worse"),
            (1.01, 1.0, Better::More, "\">1.01 ×<"),
            (5.0, 1.0, Better::Neither, "\">5.00 ×<"),
        ] {
            let text = compared(value, first, better);
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(compared(1.0, 0.0, Better::Less), "");
        assert_eq!(compared(f64::NAN, 1.0, Better::Less), "");
    }

    #[test]
    fn a_page_of_nothing_is_a_page() {
        assert!(page(&[]).ends_with("</html>\n"));
        let page = page(&[Run::new("idle", "", String::new())]);
        assert!(page.contains("<h1>idle: run</h1>"), "{page}");
    }
}
