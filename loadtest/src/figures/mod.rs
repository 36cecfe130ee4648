//! `loadtest figures`: the table that Fanwire is held against. Every row says what is run and what is to be reached; each
//! repetition takes all of them in turn, every time on a server that was just started, so that a machine that gets busier
//! spoils all of them alike. The floors are taken in the same repetition.
//!
//! Clients run in processes of their own: what this one does beside them is wait.

mod launch;
mod row;
mod rows;
mod table;

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::launch::{Folder, Launched, measure};
use self::row::{On, Row, Trial};
use crate::arguments::Common;
use crate::process::raise_descriptor_limit;
use crate::report::words;
use crate::result::{Run, Verdict};

/// Measures a server against the figures it should reach.
#[derive(Args, Clone, Debug)]
pub(crate) struct FigureArguments {
    /// Which rows; all of them if it is not said.
    rows: Vec<String>,
    /// How the server is started: words, in which {config} stands for a file made for it, and {port} for a port.
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "target/release/fanwire --config {config}"
    )]
    server: String,
    /// How often each figure is taken, in turn with the others.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Keeps what was measured, as JSON, for `report` and `table`.
    #[arg(long, value_name = "DIR")]
    json_dir: Option<PathBuf>,
    /// As Markdown, for documentation.
    #[arg(long)]
    markdown: bool,
    /// A trial on a few sockets: to see that all of it works.
    #[arg(long)]
    quick: bool,
}

/// What one repetition gave, by the name of the trial.
#[derive(Debug, Default)]
struct Round {
    runs: HashMap<&'static str, Run>,
}

impl Round {
    /// A figure of a trial, if it was measured: a run with faults is no measurement.
    fn figure(&self, trial: &str, key: &str) -> Option<f64> {
        let figure = self
            .run(trial)
            .filter(|run| run.faults.total() == 0)?
            .figure(key)?;
        Some(figure.value).filter(|value| value.is_finite())
    }

    /// A trial's run, faults or not.
    fn run(&self, trial: &str) -> Option<&Run> {
        self.runs.get(trial)
    }

    /// The same without the runs whose limit was this program's.
    fn without_limited(&self) -> Round {
        let is_limited = |run: &Run| run.generator.verdict == Verdict::Generator;
        let runs = self.runs.iter().filter(|(_, run)| !is_limited(run));
        Round {
            runs: runs.map(|(name, run)| (*name, run.clone())).collect(),
        }
    }
}

/// The table, and whether all that was asked for is in it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) text: String,
    pub(crate) is_complete: bool,
}

impl FigureArguments {
    /// Measures, and returns the table.
    ///
    /// # Errors
    /// The server does not start, there is no such row, an option was given that means nothing here, or nothing could be
    /// measured.
    pub(crate) fn run(&self, common: &Common) -> Result<Table> {
        refuse_ignored(common)?;
        let rows = self.wanted()?;
        // Inherited by all that is started.
        raise_descriptor_limit(0)?;
        let folder = Folder::make()?;
        let kept = self.json_dir.as_deref().unwrap_or(folder.path());
        fs::create_dir_all(kept).with_context(|| format!("cannot make {}", kept.display()))?;
        let version = launch::version(&self.server)?;
        let trials = trials(&rows);
        let (mut rounds, mut troubles, mut is_complete) = (Vec::new(), Vec::new(), true);
        for repetition in 1..=self.repeat {
            let mut round = Round::default();
            for trial in trials.iter().filter(|_| !common.is_stopped()) {
                if !common.quiet {
                    tell(&format!("{repetition} of {}: {}", self.repeat, trial.name))?;
                }
                let json = kept.join(format!("{}.{repetition}.json", trial.name));
                match self.take(trial, common, &folder, &json, &version) {
                    Ok(run) if run.interrupted => is_complete = false,
                    Ok(run) => {
                        if run.faults.total() > 0 {
                            let faults = words::faults_line(&run.faults);
                            troubles.push(format!(
                                "{}, {repetition}, left out of its figures: {faults}",
                                trial.name
                            ));
                        }
                        round.runs.insert(trial.name, run);
                    }
                    Err(error) => {
                        let trouble = format!("!! NOT MEASURED: {}, {repetition}: {error:#}", trial.name);
                        tell(&trouble)?;
                        troubles.push(trouble);
                        is_complete = false;
                    }
                }
            }
            rounds.push(round);
        }
        ensure!(
            rounds.iter().any(|round| !round.runs.is_empty()),
            "nothing could be measured"
        );
        let head = table::Head {
            command: &crate::arguments::command_line(),
            server: &self.server,
            version: &version,
            repetitions: self.repeat,
            is_trial: self.quick,
        };
        // A trial may be over before what is sampled has a sample, and must go well in everything else.
        is_complete &= !common.is_stopped()
            && match self.quick {
                true => troubles.is_empty(),
                false => rows.iter().all(|row| table::is_measured(row, &rounds)),
            };
        Ok(Table {
            text: table::told(&head, &rows, &rounds, &troubles, self.markdown),
            is_complete,
        })
    }

    fn wanted(&self) -> Result<Vec<&'static Row>> {
        for name in &self.rows {
            let known: Vec<&str> = rows::all().map(|row| row.name).collect();
            ensure!(
                known.contains(&&**name),
                "there is no row {name}; known are: {}",
                known.join(", ")
            );
        }
        let is_wanted = |row: &&Row| self.rows.is_empty() || self.rows.iter().any(|name| name == row.name);
        Ok(rows::all().filter(is_wanted).collect())
    }

    /// Takes one run, on a fresh server.
    fn take(
        &self,
        trial: &Trial,
        common: &Common,
        folder: &Folder,
        json: &Path,
        version: &str,
    ) -> Result<Run> {
        // Settings and scenario name the same port for webhooks, if they name one.
        let receiver = launch::free_port()?.to_string();
        let with_receiver = |text: &str| text.replace("{receiver}", &receiver);
        let (launched, label) = match trial.on {
            On::Server => (
                Launched::server(&self.server, &with_receiver(trial.settings), folder)?,
                &*common.label,
            ),
            On::Floor => (Launched::floor(folder)?, "floor"),
        };
        let scenario = if self.quick { trial.quick } else { trial.full };
        let mut run = measure(&with_receiver(scenario), &launched, label, json, common)?;
        if trial.on == On::Server {
            run.server = Some(version.to_owned());
            run.write(json)?;
        }
        Ok(run)
    }
}

/// Rows say themselves what is run, and against what: an option that would change nothing is refused.
///
/// # Errors
/// Names the first of them.
fn refuse_ignored(common: &Common) -> Result<()> {
    let is_secret_of_rows = common.secret == "app-secret"
        || std::env::var("APP_SECRET").is_ok_and(|secret| secret == common.secret);
    for (option, is_given, instead) in [
        ("--host", common.host != "127.0.0.1", "say --server 'COMMAND'"),
        ("--port", common.port != 6001, "say {port} in --server 'COMMAND'"),
        ("--path", !common.path.is_empty(), "leave it out"),
        ("--app-id", common.app_id != "1", "leave it out"),
        ("--key", common.key != "app-key", "leave it out"),
        ("--secret", !is_secret_of_rows, "leave it out"),
        ("--tls", common.tls, "leave it out"),
        ("--pid", common.pid.is_some(), "the server is started here"),
        ("--payload", common.payload.is_some(), "each row has its own"),
        ("--json", common.json.is_some(), "say --json-dir DIR"),
        (
            "--report",
            common.report.is_some(),
            "say --json-dir DIR, then loadtest report",
        ),
    ] {
        ensure!(!is_given, "figures does not heed {option}: {instead}");
    }
    Ok(())
}

/// What the rows need, each once.
fn trials(rows: &[&Row]) -> Vec<&'static Trial> {
    let mut trials: Vec<&'static Trial> = Vec::new();
    for trial in rows.iter().flat_map(|row| row.trials) {
        if !trials.iter().any(|known| known.name == trial.name) {
            trials.push(trial);
        }
    }
    trials
}

fn tell(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{text}").context("cannot tell how far it is")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::Arguments;

    #[test]
    fn an_option_that_means_nothing_here_is_refused_by_name() {
        let refusal = |words: &str| {
            let arguments =
                Arguments::parse_from(["loadtest", "figures"].into_iter().chain(words.split(' ')));
            refuse_ignored(&arguments.common).map_err(|error| error.to_string())
        };
        assert_eq!(refusal("--threads 2 --sources 3 --quiet"), Ok(()));
        for words in ["--payload 9", "--port 7001", "--json a.json", "--tls", "--pid 1"] {
            let option = words.split(' ').next().unwrap_or_default();
            let refused = refusal(words).expect_err("it would change nothing");
            assert!(refused.contains(option), "{refused}");
        }
    }
}
