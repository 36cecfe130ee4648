//! Processes of a measurement: the server or the floor, the clients; and a folder for what they write.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::arguments::Common;
use crate::result::Run;

/// A server that does not listen after so long is not going to.
const START_MAX: Duration = Duration::from_secs(10);
/// How often is looked whether it listens.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A folder that is gone with this.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn make() -> Result<Folder> {
        let path = env::temp_dir().join(format!("loadtest-figures-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Folder(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server or a floor that listens. Ended with this.
pub(super) struct Launched {
    process: Child,
    port: u16,
}

impl Launched {
    /// The server, with the settings that a trial needs.
    pub(super) fn server(command: &str, settings: &str, folder: &Folder) -> Result<Launched> {
        let port = free_port()?;
        let config = folder.path().join("config.json");
        let text = serde_json::to_string_pretty(&configuration(port, settings)?)?;
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let words: Vec<String> = command
            .split_whitespace()
            .map(|word| {
                word.replace("{config}", &config.to_string_lossy())
                    .replace("{port}", &port.to_string())
            })
            .collect();
        let (program, arguments) = words.split_first().context("--server is empty")?;
        let mut command = Command::new(program);
        command.args(arguments);
        Launched::start(command, port, folder)
    }

    /// This program again, as a floor.
    pub(super) fn floor(folder: &Folder) -> Result<Launched> {
        let port = free_port()?;
        let mut command = Command::new(env::current_exe()?);
        command.args(["floor", "--port", &port.to_string()]);
        Launched::start(command, port, folder)
    }

    fn start(mut command: Command, port: u16, folder: &Folder) -> Result<Launched> {
        let log = folder.path().join("server.log");
        let output = File::create(&log)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let process = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // An interrupt at the terminal must not end it before the clients have looked at it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let mut launched = Launched { process, port };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let is_over = launched.process.try_wait()?.is_some() || began.elapsed() > START_MAX;
            if is_over {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("{program} does not listen on port {port}: {}", said.trim());
            }
            sleep(LOOK_EVERY);
        }
        Ok(launched)
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // With all clients gone there is nothing to drain.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a scenario in a process of its own, with as many threads and local addresses as this one was told to use.
pub(super) fn measure(
    scenario: &str,
    launched: &Launched,
    label: &str,
    json: &Path,
    common: &Common,
) -> Result<Run> {
    let sources = common.sources.map(|sources| format!("--sources={sources}"));
    let (port, pid) = (launched.port.to_string(), launched.process.id().to_string());
    let output = Command::new(env::current_exe()?)
        .args(scenario.split_whitespace())
        .args([
            "--quiet", "--label", label, "--port", &port, "--pid", &pid, "--json",
        ])
        .arg(json)
        .arg(format!("--threads={}", common.threads))
        .args(sources)
        .env_remove("NUM_CLIENTS")
        .env_remove("NUM_CHANNELS")
        .env_remove("APP_SECRET")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    Run::read(json)
}

/// What the server says of itself, and what is checked out here, where that is known.
pub(super) fn version(command: &str) -> Result<String> {
    let program = command.split_whitespace().next().context("--server is empty")?;
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.lines().next().map(|line| line.trim().to_owned())
    };
    let version = said(program, &["--version"])
        .with_context(|| format!("{program} (--server) does not tell its --version"))?;
    let commit = said("git", &["describe", "--always", "--dirty"]);
    Ok(commit.map_or_else(|| version.clone(), |commit| format!("{version}, at {commit}")))
}

/// A port that nobody listens on, and that nobody gets who asks for any port as long as this process lives: it stays
/// bound, and Linux lets a server that names it listen all the same. So nobody else can be there first.
pub(super) fn free_port() -> Result<u16> {
    static HELD: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket();
    let port = address.context("an address without a port")?.port();
    if cfg!(target_os = "linux") {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    }
    Ok(port)
}

/// A file for the server: its defaults but for what a trial needs, `{"server": {…}, "app": {…}, "second_app": {…}}`.
fn configuration(port: u16, settings: &str) -> Result<Value> {
    let settings: Value = serde_json::from_str(settings).context("settings are JSON")?;
    let with = |mut all: Value, more: &Value| {
        for (key, value) in more.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        all
    };
    let app = json!({ "id": "1", "key": "app-key", "secret": "app-secret" });
    let mut apps = vec![with(app, &settings["app"])];
    if settings["second_app"].is_object() {
        let second = json!({ "id": "2", "key": "app-key-2", "secret": "app-secret" });
        apps.push(with(second, &settings["second_app"]));
    }
    Ok(json!({
        "server": with(json!({ "port": port }), &settings["server"]),
        "admin": { "enabled": false },
        "log": { "level": "warn" },
        "apps": apps,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::rows;

    #[test]
    fn a_trial_changes_only_what_it_needs() {
        let settings = r#"{"server": {"backlog": 9}, "app": {"client_events": true}}"#;
        let config = configuration(7, settings).expect("it is JSON");
        assert_eq!(config["server"], json!({ "port": 7, "backlog": 9 }));
        assert_eq!(config["apps"][0]["client_events"], json!(true));
        assert_eq!(config["apps"][0]["key"], json!("app-key"));
        assert!(config["apps"][1].is_null());
        let config = configuration(7, r#"{"second_app": {}}"#).expect("it is JSON");
        assert_eq!(config["apps"][1]["key"], json!("app-key-2"));
    }

    #[test]
    fn all_settings_are_json() {
        for trial in rows::all().flat_map(|row| row.trials) {
            assert!(configuration(1, trial.settings).is_ok(), "{}", trial.name);
        }
    }
}
