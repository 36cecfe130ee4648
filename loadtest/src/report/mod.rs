//! What becomes of runs: a text for the terminal, a page, plots, tables of several side by side.
//!
//! The modules below are pure; files are read and written here, and nothing is printed: what is to be read is returned.

mod axis;
mod compare;
mod html;
pub(crate) mod panels;
mod plot;
pub(crate) mod quantity;
#[cfg(test)]
mod sample;
pub(crate) mod text;
pub(crate) mod words;

use std::env;
use std::fs;
use std::io::{IsTerminal as _, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::compare::Form;
use self::text::Ink;
use crate::result::Run;

/// Keeps a run where it was asked to be kept: as JSON, as a page.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn deliver(run: &Run, json: Option<&Path>, page: Option<&Path>) -> Result<()> {
    if let Some(path) = json {
        run.write(path)?;
    }
    if let Some(path) = page {
        write(path, &html::page(std::slice::from_ref(run)))?;
    }
    Ok(())
}

/// What an operator reads after a run; coloured if stdout is a terminal that wants colours.
pub(crate) fn told(run: &Run) -> String {
    text::report(run, ink())
}

/// `loadtest report`: runs that were kept, as a page, a plot or a text.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArguments {
    /// Files that `--json` made; several are shown side by side, in the same axes.
    #[arg(required = true, value_name = "RUN.json")]
    runs: Vec<PathBuf>,
    /// Writes a page that needs nothing but itself.
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// Prints the runs side by side.
    #[arg(long)]
    table: bool,
    /// Writes one plot, for documentation.
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Which plot: the key of a distribution or of a series in the files; the first distribution if it is not said.
    /// With --across, the key of a figure, or of a distribution with its quantile: latency.p99.
    #[arg(long, value_name = "KEY", requires = "svg")]
    plot: Option<String>,
    /// Plots over this parameter of the runs, a line for each label.
    #[arg(long, value_name = "PARAMETER", requires = "plot")]
    across: Option<String>,
    /// The plot's title, in place of its own.
    #[arg(long, requires = "svg")]
    title: Option<String>,
}

/// `loadtest table`: medians of repetitions, and ratios between labels.
#[derive(Debug, clap::Args)]
pub(crate) struct TableArguments {
    /// Files that `--json` made; those of one label are repetitions.
    #[arg(required = true, value_name = "RUN.json")]
    runs: Vec<PathBuf>,
    /// As Markdown, for documentation.
    #[arg(long)]
    markdown: bool,
    /// Which rows: keys of figures, or of distributions with their quantile (latency.p99); all figures if it is not
    /// said, and p50 and p99 of each distribution.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    rows: Vec<String>,
    /// Ratios are to this label; to that of the first file if it is not said.
    #[arg(long, value_name = "LABEL")]
    against: Option<String>,
}

impl ReportArguments {
    /// Writes what was asked for, and returns what is to be printed.
    ///
    /// # Errors
    /// A file cannot be read or written, or there is no such plot.
    pub(crate) fn run(&self) -> Result<String> {
        let runs = read(&self.runs)?;
        if let Some(path) = &self.out {
            write(path, &html::page(&runs))?;
        }
        if let Some(path) = &self.svg {
            write(path, &self.plot(&runs)?)?;
        }
        let is_nothing_asked = self.out.is_none() && self.svg.is_none();
        Ok(match &runs[..] {
            [run] if is_nothing_asked && !self.table => told(run),
            runs if is_nothing_asked || self.table => compare::tables(runs, &[], None, Form::Text),
            _ => String::new(),
        })
    }

    fn plot(&self, runs: &[Run]) -> Result<String> {
        let runs: Vec<&Run> = runs.iter().collect();
        let plot = match (&self.plot, &self.across) {
            (Some(key), Some(parameter)) => panels::across(&runs, key, parameter),
            (Some(key), None) => panels::one(&runs, key),
            (None, _) => panels::all(&runs).into_iter().next(),
        };
        let Some(mut plot) = plot else {
            let curves = runs
                .iter()
                .map(|run| run.curves.iter().map(|curve| &*curve.key).collect());
            let series = runs
                .iter()
                .map(|run| run.series.iter().map(|series| &*series.key).collect());
            let figures = runs
                .iter()
                .map(|run| run.figures.iter().map(|figure| &*figure.key).collect());
            bail!(
                "there is no such plot; distributions: {}; series: {}; figures, for --across: {}",
                panels::keys(curves).join(", "),
                panels::keys(series).join(", "),
                panels::keys(figures).join(", ")
            );
        };
        if let Some(title) = &self.title {
            plot.title.clone_from(title);
        }
        Ok(plot.file())
    }
}

impl TableArguments {
    /// What is to be printed.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn run(&self) -> Result<String> {
        let runs = read(&self.runs)?;
        let form = if self.markdown { Form::Markdown } else { Form::Text };
        Ok(compare::tables(&runs, &self.rows, self.against.as_deref(), form))
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<Run>> {
    paths.iter().map(|path| Run::read(path)).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn ink() -> Ink {
    let is_wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if is_wanted && stdout().is_terminal() {
        Ink::Colour
    } else {
        Ink::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        report: ReportArguments,
    }

    fn run(line: &str) -> Result<String> {
        let line: Line = clap::Parser::try_parse_from(line.split(' '))?;
        line.report.run()
    }

    #[test]
    fn kept_runs_become_a_page_and_a_plot() {
        let folder = env::temp_dir().join(format!("loadtest-report-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the temporary folder can be written to");
        let path = |name: &str| folder.join(name).display().to_string();
        for (label, slowness) in [("a", 1.0), ("b", 2.0)] {
            let json = folder.join(format!("{label}.json"));
            deliver(&sample::run(label, slowness), Some(&json), None).expect("it can be written");
        }
        let (a, b, page, svg) = (
            path("a.json"),
            path("b.json"),
            path("page.html"),
            path("plot.svg"),
        );
        let text = run(&format!(
            "report {a} {b} --out {page} --svg {svg} --plot delivered --title Given"
        ))
        .expect("all is there");
        assert_eq!(text, "");
        assert!(
            fs::read_to_string(&page)
                .expect("it was written")
                .contains("<h1>sustain: a, b</h1>")
        );
        assert!(
            fs::read_to_string(&svg)
                .expect("it was written")
                .contains(">Given, million/s</text>")
        );
        assert!(
            run(&format!("report {a}"))
                .expect("it is there")
                .contains("sustain, a: delivered")
        );
        assert!(
            run(&format!("report {a} {b}"))
                .expect("both are there")
                .contains("/ a")
        );
        let refusal = run(&format!("report {a} --svg {svg} --plot none"))
            .expect_err("no such key")
            .to_string();
        assert!(
            refusal.contains("series: delivered, server_cpu, server_memory"),
            "{refusal}"
        );
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
