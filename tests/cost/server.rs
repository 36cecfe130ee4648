//! The parent's end of a server in a process of its own, and the three ways to count what it does: it is run bare, or
//! under `strace`, or under `callgrind`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::profile;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Meter {
    /// Heap allocations, their bytes, and the bytes that are kept.
    Allocations,
    /// System calls, as strace sees them.
    Calls,
    /// Instructions in user space, as callgrind counts them.
    Instructions,
}

impl Meter {
    /// What it takes and is not to be had here.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let tool = match self {
            Meter::Allocations => return None,
            Meter::Calls => "strace",
            Meter::Instructions if cfg!(not(target_arch = "x86_64")) => {
                return Some("an x86-64, whose budgets these are");
            }
            Meter::Instructions => "valgrind",
        };
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
        (!found.is_ok_and(|status| status.success())).then_some(tool)
    }

    /// How long it takes, after the last client has what it waits for, until the server has nothing left to do.
    fn settle(self) -> Duration {
        Duration::from_millis(match self {
            Meter::Allocations => 50,
            Meter::Calls => 150,
            Meter::Instructions => 400,
        })
    }
}

/// What has been counted between two quiet points. Of the meters that are not in use, zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
    pub(crate) kept_bytes: f64,
    pub(crate) instructions: f64,
    /// System calls by name, of all threads but the one that speaks with the parent.
    pub(crate) calls: BTreeMap<String, f64>,
}

/// A server, ended with its handle.
pub(crate) struct Server {
    pub(crate) meter: Meter,
    process: Child,
    /// None only while it is dropped.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    port: u16,
    /// Where the tool writes.
    folder: PathBuf,
    /// Of strace, what has been read; of callgrind, the files.
    log: Option<BufReader<File>>,
    main_thread: String,
    dumps: u32,
    asked: [f64; 3],
}

impl Server {
    pub(crate) fn start(meter: Meter) -> Result<Server> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cost");
        fs::create_dir_all(&folder)?;
        let this = std::env::current_exe()?;
        let mut command = match meter {
            Meter::Allocations => Command::new(this),
            Meter::Calls => {
                let mut command = Command::new("strace");
                command.args(["-f", "-qq", "-s0", "-o"]);
                command.arg(folder.join("strace.out")).arg("--").arg(this);
                command
            }
            Meter::Instructions => {
                for file in fs::read_dir(&folder)? {
                    let file = file?;
                    if file.file_name().to_string_lossy().starts_with("callgrind.out") {
                        fs::remove_file(file.path())?;
                    }
                }
                let mut out = std::ffi::OsString::from("--callgrind-out-file=");
                out.push(folder.join("callgrind.out"));
                let mut command = Command::new("valgrind");
                command.args(["--tool=callgrind", "--quiet", "--dump-before=*quiet_point*"]);
                // Threads take turns in order, so that two runs are alike.
                command.arg("--fair-sched=yes");
                command.arg(out).arg(this);
                command
            }
        };
        let mut process = command
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let input = process.stdin.take();
        let output = process.stdout.take().context("its standard output is piped")?;
        let mut server = Server {
            meter,
            process,
            input,
            output: BufReader::new(output),
            port: 0,
            folder,
            log: None,
            main_thread: String::new(),
            dumps: 0,
            asked: [0.0; 3],
        };
        server.port = server.hear()?.parse()?;
        if meter == Meter::Calls {
            let mut log = BufReader::new(File::open(server.folder.join("strace.out"))?);
            let mut first = String::new();
            log.read_line(&mut first)?;
            first
                .split(' ')
                .next()
                .unwrap_or_default()
                .clone_into(&mut server.main_thread);
            server.log = Some(log);
        }
        server.counted()?;
        Ok(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the server rests: what has been counted since the last such point.
    pub(crate) fn counted(&mut self) -> Result<Counts> {
        sleep(self.meter.settle());
        self.order("count")?;
        self.take_counts()
    }

    /// Has the server remember who allocates; whether it does. Of the other meters enough is known already.
    pub(crate) fn watch(&mut self) -> Result<bool> {
        if self.meter == Meter::Allocations {
            self.order("watch")?;
        }
        Ok(self.meter == Meter::Allocations)
    }

    /// Tells what made the last counts.
    pub(crate) fn tell_watched(&mut self) -> Result<()> {
        match self.meter {
            Meter::Allocations => {
                self.order("watched")?;
                self.take_counts().map(drop)
            }
            Meter::Calls => {
                println!("every call: {}", self.folder.join("strace.out").display());
                Ok(())
            }
            Meter::Instructions => {
                let dump = self.folder.join(format!("callgrind.out.{}", self.dumps));
                let all = profile::read(&dump)?;
                for (function, instructions) in all.iter().take(40) {
                    println!("{instructions:>10} {function}");
                }
                println!("the whole profile: {}", dump.display());
                Ok(())
            }
        }
    }

    fn take_counts(&mut self) -> Result<Counts> {
        let line = self.hear()?;
        let asked: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [allocations, bytes, kept_bytes] = asked[..] else {
            bail!("three counts were expected: {line}");
        };
        let before = std::mem::replace(&mut self.asked, [allocations, bytes, kept_bytes]);
        let mut counts = Counts {
            allocations: allocations - before[0],
            bytes: bytes - before[1],
            kept_bytes: kept_bytes - before[2],
            ..Counts::default()
        };
        match self.meter {
            Meter::Allocations => {}
            Meter::Calls => counts.calls = self.read_calls()?,
            Meter::Instructions => counts.instructions = self.read_instructions()?,
        }
        Ok(counts)
    }

    /// strace writes every call as a line of its own when it begins, and those that took their time another one when
    /// they end.
    fn read_calls(&mut self) -> Result<BTreeMap<String, f64>> {
        let log = self.log.as_mut().context("strace has a log")?;
        let (mut calls, mut line) = (BTreeMap::new(), String::new());
        loop {
            line.clear();
            if log.read_line(&mut line)? == 0 {
                return Ok(calls);
            }
            if !line.ends_with('\n') {
                // Half a line: again from its beginning, the next time.
                log.seek(SeekFrom::Current(-(line.len() as i64)))?;
                return Ok(calls);
            }
            let Some((thread, call)) = line.split_once(' ') else {
                continue;
            };
            let Some((name, _)) = call.trim_start().split_once('(') else {
                continue;
            };
            let is_name = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if is_name && thread != self.main_thread {
                *calls.entry(name.to_owned()).or_default() += 1.0;
            }
        }
    }

    fn read_instructions(&mut self) -> Result<f64> {
        self.dumps += 1;
        let all = profile::read(&self.folder.join(format!("callgrind.out.{}", self.dumps)))?;
        Ok(all.iter().map(|(_, instructions)| *instructions as f64).sum())
    }

    fn order(&mut self, order: &str) -> Result<()> {
        let input = self.input.as_mut().context("it takes orders while it lives")?;
        Ok(writeln!(input, "{order}")?)
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the server ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server ends with its input, and strace and valgrind end with the server. Were they killed, it would stay.
        drop(self.input.take());
        let _ = self.process.wait();
    }
}
