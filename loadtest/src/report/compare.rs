//! Runs of several labels as one table for each workload: medians, least and most of repetitions, and ratios to the
//! first label. For terminals and, as Markdown, for documentation. Pure.

use super::panels::{self, median};
use super::quantity::{NONE, Scale, ratio};
use super::text::{QUANTILES, aligned};
use super::words;
use crate::result::{Run, Unit, Verdict};

/// Quantiles that a table has, where it is not said which rows are wanted.
const ROWS_OF_CURVES: [&str; 2] = ["p50", "p99"];

/// Parameters that say whom the work was for, and not what it was: runs that differ in them alone are compared.
const NOT_OF_THE_WORK: [&str; 9] = [
    "host", "port", "path", "server", "pid", "app_id", "app-id", "key", "tls",
];

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Columns of letters.
    Text,
    /// For documentation.
    Markdown,
}

/// The runs that did the same work.
struct Workload<'a> {
    scenario: &'a str,
    parameters: Vec<&'a (String, String)>,
    groups: Vec<Group<'a>>,
}

/// The repetitions of one label.
struct Group<'a> {
    label: &'a str,
    runs: Vec<&'a Run>,
}

/// One table for each workload. `rows` are keys of figures, or of curves with their quantile (`latency.p99`); with
/// none all figures are told, and two quantiles of each curve. Ratios are to the label `against`, or to the first.
pub(crate) fn tables(runs: &[Run], rows: &[String], against: Option<&str>, form: Form) -> String {
    let mut out = String::new();
    for workload in workloads(runs, against) {
        let title = workload.scenario.to_owned();
        let parameters = words::pairs(workload.parameters.iter().copied());
        out.push_str(&match (form, parameters.is_empty()) {
            (Form::Text, true) => format!("\n{title}\n\n"),
            (Form::Text, false) => format!("\n{title}: {parameters}\n\n"),
            (Form::Markdown, true) => format!("\n**{}**\n\n", cell(&title)),
            (Form::Markdown, false) => format!("\n**{}**: {}\n\n", cell(&title), cell(&parameters)),
        });
        let table = table(&workload, rows);
        match form {
            Form::Text => {
                for line in aligned(&table) {
                    out.push_str(&format!("  {line}\n"));
                }
            }
            Form::Markdown => out.push_str(&markdown(&table)),
        }
        let remarks = remarks(&workload);
        if !remarks.is_empty() {
            out.push('\n');
        }
        for remark in remarks {
            out.push_str(&match form {
                Form::Text => format!("  {remark}\n"),
                Form::Markdown => format!("- {}\n", cell(&remark)),
            });
        }
    }
    let machines = panels::keys(runs.iter().map(|run| vec![&*run.machine.name]));
    let mut machines: Vec<String> = machines
        .iter()
        .filter_map(|name| runs.iter().find(|run| run.machine.name == **name))
        .map(|run| words::machine(&run.machine))
        .collect();
    let days = panels::keys(
        runs.iter()
            .map(|run| vec![run.started.split('T').next().unwrap_or_default()]),
    );
    machines.push(days.join(", "));
    out.push_str(&format!("\n{}\n", machines.join("; ")));
    out
}

fn workloads<'a>(runs: &'a [Run], against: Option<&str>) -> Vec<Workload<'a>> {
    let mut workloads: Vec<Workload<'a>> = Vec::new();
    for run in runs {
        let parameters: Vec<_> = run
            .parameters
            .iter()
            .filter(|(name, _)| !NOT_OF_THE_WORK.contains(&&**name))
            .collect();
        let is_it = |known: &Workload<'_>| known.scenario == run.scenario && known.parameters == parameters;
        let at = workloads.iter().position(is_it).unwrap_or_else(|| {
            workloads.push(Workload {
                scenario: &run.scenario,
                parameters,
                groups: Vec::new(),
            });
            workloads.len() - 1
        });
        let groups = &mut workloads[at].groups;
        let label = panels::label(run);
        match groups.iter_mut().find(|group| group.label == label) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group {
                label,
                runs: vec![run],
            }),
        }
    }
    for workload in &mut workloads {
        // The sort is stable: the others keep their order.
        workload.groups.sort_by_key(|group| Some(group.label) != against);
    }
    workloads
}

fn table(workload: &Workload<'_>, rows: &[String]) -> Vec<Vec<String>> {
    let groups = &workload.groups;
    let mut head = vec![String::new()];
    for (place, group) in groups.iter().enumerate() {
        let times = if group.runs.len() > 1 {
            format!(", {} runs", group.runs.len())
        } else {
            String::new()
        };
        head.push(format!("{}{}{times}", group.label, mark(group)));
        if place > 0 {
            head.push(format!("/ {}", groups[0].label));
        }
    }
    let mut table = vec![head];
    let all_rows = all_rows(groups);
    for key in if rows.is_empty() { &all_rows } else { rows } {
        let known = groups
            .iter()
            .flat_map(|group| &group.runs)
            .find_map(|run| panels::valued(run, key));
        let (title, unit) =
            known.map_or_else(|| (key.clone(), Unit::Count), |(title, unit, _)| (title, unit));
        table.push(row(groups, key, title, unit));
    }
    table
}

fn row(groups: &[Group<'_>], key: &str, title: String, unit: Unit) -> Vec<String> {
    let values: Vec<Vec<f64>> = groups
        .iter()
        .map(|group| {
            let values = group.runs.iter().filter_map(|run| panels::valued(run, key));
            values
                .map(|(_, _, value)| value)
                .filter(|value| value.is_finite())
                .collect()
        })
        .collect();
    let medians: Vec<Option<f64>> = values.iter().map(|values| median(values)).collect();
    let size = medians.iter().flatten().next().copied().unwrap_or(0.0);
    let scale = Scale::of(unit, size);
    let mut row = vec![title];
    for (place, (values, middle)) in values.iter().zip(&medians).enumerate() {
        row.push(middle.map_or_else(|| NONE.to_owned(), |middle| spread(scale, middle, values)));
        if place > 0 {
            let times = middle
                .zip(medians[0])
                .map(|(middle, first)| ratio(middle / first));
            row.push(times.unwrap_or_else(|| NONE.to_owned()));
        }
    }
    row
}

/// "1.87 million/s (1.81..1.92)"; without repetitions there is no spread.
fn spread(scale: Scale, middle: f64, values: &[f64]) -> String {
    let told = scale.told(middle);
    if values.len() < 2 {
        return told;
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{told} ({}..{})", scale.number(least), scale.number(most))
}

fn all_rows(groups: &[Group<'_>]) -> Vec<String> {
    let runs = || groups.iter().flat_map(|group| group.runs.iter().copied());
    let figures = panels::figure_keys(&runs().collect::<Vec<_>>());
    let curves = panels::keys(runs().map(|run| run.curves.iter().map(|curve| &*curve.key).collect()));
    let quantiles = || {
        QUANTILES
            .iter()
            .map(|(_, name)| name)
            .filter(|name| ROWS_OF_CURVES.contains(name))
    };
    let of_curves = curves
        .iter()
        .flat_map(|curve| quantiles().map(move |name| format!("{curve}.{name}")));
    figures
        .iter()
        .map(|key| (*key).to_owned())
        .chain(of_curves)
        .collect()
}

/// Behind the label of runs that are not what they seem.
fn mark(group: &Group<'_>) -> &'static str {
    if remarks_of(group).is_empty() { "" } else { " †" }
}

/// What has to be known about labels that are marked.
fn remarks(workload: &Workload<'_>) -> Vec<String> {
    workload.groups.iter().flat_map(remarks_of).collect()
}

fn remarks_of(group: &Group<'_>) -> Vec<String> {
    let of = group.runs.len();
    let mut remarks = Vec::new();
    let mut remark = |is_so: &dyn Fn(&Run) -> bool, text: &str| {
        let times = group.runs.iter().filter(|run| is_so(run)).count();
        if times > 0 {
            let times = if of > 1 {
                format!(" in {times} of {of} runs")
            } else {
                String::new()
            };
            remarks.push(format!("† {}: {text}{times}", group.label));
        }
    };
    let limited = "limited by the generator, which is not the server's limit,";
    let limited = if of > 1 {
        limited
    } else {
        limited.trim_end_matches(',')
    };
    remark(&|run| run.generator.verdict == Verdict::Generator, limited);
    remark(&|run| run.interrupted, "interrupted");
    let mut kinds: Vec<String> = Vec::new();
    for run in &group.runs {
        kinds.extend(words::faults(&run.faults));
    }
    kinds.truncate(4);
    remark(&|run| run.faults.total() > 0, &kinds.join(", "));
    remarks
}

fn markdown(table: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (place, row) in table.iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
        if place == 0 {
            out.push_str(&format!("| ---{} |\n", " | ---:".repeat(row.len() - 1)));
        }
    }
    out
}

/// Text that stays in its cell and is no markup.
fn cell(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '|' | '<' | '`' | '*' | '[' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn runs() -> Vec<Run> {
        let run = |label: &str, slowness: f64| {
            let mut run = sample::run(label, slowness);
            run.parameter("port", if label == "fanwire" { 6001 } else { 6002 });
            run.curves.truncate(1);
            run
        };
        vec![
            run("fanwire", 1.0),
            run("other", 3.0),
            run("fanwire", 1.1),
            run("other", 3.4),
            run("fanwire", 0.9),
        ]
    }

    #[test]
    fn labels_are_compared_by_the_medians_of_their_repetitions() {
        let expected = "
sustain: clients 1000, channels 1, payload 200 B, threads 2

                                            fanwire, 3 runs                  other, 2 runs  / fanwire
  delivered                      1.87 million/s (1.70..2.08)  0.587 million/s (0.550..0.623)     0.31 ×
  published                           1,870/s (1,700..2,078)                587/s (550..623)     0.31 ×
  server CPU per message                   380 ns (342..418)          1,216 ns (1,140..1,292)     3.20 ×
";
        let text = tables(&runs(), &[], None, Form::Text);
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&text).starts_with(&squeezed(expected)), "{text}");
        assert!(text.contains("publish to client, p99"), "{text}");
        assert!(
            text.ends_with("\n2 cores, Example 9000, 8 GiB, Linux 6.12.0; 2026-03-01\n"),
            "{text}"
        );
    }

    #[test]
    fn rows_and_the_first_label_can_be_chosen() {
        let rows = [
            "delivered_per_second".to_owned(),
            "latency.max".to_owned(),
            "unknown".to_owned(),
        ];
        let text = tables(&runs(), &rows, Some("other"), Form::Markdown);
        assert!(
            text.contains("|  | other, 2 runs | fanwire, 3 runs | / other |\n| --- | ---: | ---: | ---: |\n")
        );
        assert!(text.contains("| 3.19 × |\n"), "{text}");
        assert!(text.contains("| publish to client, max | "));
        assert!(text.contains("| unknown | – | – | – |"));
    }

    #[test]
    fn work_that_differs_is_not_compared() {
        let mut runs = runs();
        runs[1].parameters[0].1 = "2000".to_owned();
        let text = tables(&runs, &[], None, Form::Text);
        assert_eq!(text.matches("\nsustain: clients").count(), 2, "{text}");
    }

    #[test]
    fn what_is_not_to_be_believed_is_marked() {
        let mut runs = runs();
        runs[1].generator.verdict = Verdict::Generator;
        runs[3].faults.lost = 2;
        runs[3].label = "other".to_owned();
        let text = tables(&runs, &[], None, Form::Text);
        assert!(text.contains("other †, 2 runs"), "{text}");
        assert!(text.contains(
            "† other: limited by the generator, which is not the server's limit, in 1 of 2 runs\n"
        ));
        assert!(text.contains("† other: 2 messages lost in 1 of 2 runs\n"));
    }

    #[test]
    fn labels_stay_in_their_cells() {
        let mut run = sample::run("a|b\n<script>", 1.0);
        run.parameters.clear();
        let text = tables(&[run], &[], None, Form::Markdown);
        assert!(text.contains("|  | a\\|b \\<script> |\n"), "{text}");
        assert_eq!(tables(&[], &[], None, Form::Text), "\n\n");
    }
}
