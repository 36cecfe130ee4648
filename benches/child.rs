//! A child process and the few words exchanged with it: lines on its standard input and output, the first of which is
//! the port it listens on.

use std::io::{BufRead, BufReader, Write, stdout};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::usage::{Cpu, Memory};

/// This program again, in another part. Ended with its handle.
pub(crate) struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Child {
    /// A fresh server.
    pub(crate) fn server() -> Result<Child> {
        Child::start(&["--serve"])
    }

    /// A fresh bare loop of `send`.
    pub(crate) fn floor(threads: usize) -> Result<Child> {
        Child::start(&["--floor", &threads.to_string()])
    }

    fn start(arguments: &[&str]) -> Result<Child> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().context("its standard input is piped")?;
        let output = process.stdout.take().context("its standard output is piped")?;
        let mut child = Child {
            process,
            input,
            output: BufReader::new(output),
            port: 0,
        };
        child.port = child.hear()?.parse()?;
        Ok(child)
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Gives an order.
    pub(crate) fn tell(&mut self, order: &str) -> Result<()> {
        writeln!(self.input, "{order}")?;
        Ok(())
    }

    /// Waits for an answer.
    pub(crate) fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a child process ended");
        Ok(line.trim_end().to_owned())
    }

    /// The CPU time it has spent.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        Cpu::of(self.process.id())
    }

    /// The memory it has.
    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.process.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In the child: says where it listens.
pub(crate) fn announce(port: u16) -> Result<()> {
    answer(&port.to_string())
}

/// In the child: answers an order.
pub(crate) fn answer(line: &str) -> Result<()> {
    let mut output = stdout();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
