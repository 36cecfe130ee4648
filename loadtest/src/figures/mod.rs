//! `loadtest figures`: the table that Fanwire is held against. Every row says what is run and what is to be reached; each
//! repetition takes all of them in turn, every time on a server that was just started, so that a machine that gets busier
//! spoils all of them alike. The floors are taken in the same repetition.
//!
//! Clients run in processes of their own: what this one does beside them is wait.

mod launch;
mod rows;
mod table;

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use self::launch::{Folder, Launched, measure};
use self::rows::{On, ROWS, Row, Trial};
use crate::arguments::Common;
use crate::process::raise_descriptor_limit;
use crate::report::words;
use crate::result::Run;

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
    /// A figure of a trial, if it was measured.
    fn figure(&self, trial: &str, key: &str) -> Option<f64> {
        let figure = self.runs.get(trial)?.figure(key)?;
        Some(figure.value).filter(|value| value.is_finite())
    }
}

impl FigureArguments {
    /// Measures, and returns the table.
    ///
    /// # Errors
    /// The server does not start, there is no such row, or nothing of one could be measured.
    pub(crate) fn run(&self, common: &Common) -> Result<String> {
        let rows = self.wanted()?;
        // Inherited by all that is started.
        raise_descriptor_limit(0)?;
        let folder = Folder::make()?;
        let kept = self.json_dir.as_deref().unwrap_or(folder.path());
        fs::create_dir_all(kept).with_context(|| format!("cannot make {}", kept.display()))?;
        let version = launch::version(&self.server)?;
        let trials = trials(&rows);
        let (mut rounds, mut troubles) = (Vec::new(), Vec::new());
        for repetition in 1..=self.repeat {
            let mut round = Round::default();
            for trial in trials.iter().filter(|_| !common.is_stopped()) {
                tell(&format!("{repetition} of {}: {}", self.repeat, trial.name))?;
                let json = kept.join(format!("{}.{repetition}.json", trial.name));
                match self.take(trial, common, &folder, &json, &version) {
                    Ok(run) if run.interrupted => {}
                    Ok(run) => {
                        if run.faults.total() > 0 {
                            let faults = words::faults_line(&run.faults);
                            troubles.push(format!("{}, {repetition}: {faults}", trial.name));
                        }
                        round.runs.insert(trial.name, run);
                    }
                    Err(error) => {
                        let trouble = format!("!! NOT MEASURED: {}, {repetition}: {error:#}", trial.name);
                        tell(&trouble)?;
                        troubles.push(trouble);
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
        let told = table::told(&head, &rows, &rounds, &troubles, self.markdown);
        if self.quick && !troubles.is_empty() {
            bail!("{told}\nthe trial did not go well");
        }
        Ok(told)
    }

    fn wanted(&self) -> Result<Vec<&'static Row>> {
        for name in &self.rows {
            let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            ensure!(
                known.contains(&&**name),
                "there is no row {name}; known are: {}",
                known.join(", ")
            );
        }
        let is_wanted = |row: &&Row| self.rows.is_empty() || self.rows.iter().any(|name| name == row.name);
        Ok(ROWS.iter().filter(is_wanted).collect())
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
        let (launched, label) = match trial.on {
            On::Server => (
                Launched::server(&self.server, trial.settings, folder)?,
                &*common.label,
            ),
            On::Floor => (Launched::floor(folder)?, "floor"),
        };
        let scenario = if self.quick { trial.quick } else { trial.full };
        let mut run = measure(scenario, &launched, label, json)?;
        if trial.on == On::Server {
            run.server = Some(version.to_owned());
            run.write(json)?;
        }
        Ok(run)
    }
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
