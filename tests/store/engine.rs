//! Private database servers: child processes on free ports of the loopback, in directories of their own. They end with
//! this process, however it ends, and their directories go with them. They have nothing to do with databases that this
//! machine may run as a service.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::certificates::{Certificates, certificates};
use crate::port::free_port;

/// Servers of databases refuse to be root; this user may do nothing, and is everywhere.
const NOBODY: u32 = 65_534;
/// Nothing that a server is waited for takes so long, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(60);
/// Of the user `fanwire` that every server has.
pub(crate) const PASSWORD: &str = "p@ss:w/rd";

/// Runs a program until standard input ends, that of whoever started it and holds the other end; tells its id.
const UNTIL_END: &str = r#"
directory=$1; shift
"$@" </dev/null >"$directory/log" 2>&1 &
echo $!
cat >/dev/null
kill -CONT $! 2>/dev/null; kill -QUIT $! 2>/dev/null
wait
[ -e "$directory/keep" ] || rm -rf "$directory"
"#;

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MariaDb,
    Sqlite,
}

/// A server at work.
pub(crate) struct Engine {
    kind: Kind,
    port: u16,
    directory: PathBuf,
    /// What it shows to who asks for TLS.
    certificates: Option<Certificates>,
    held: Option<Child>,
    id: u32,
}

/// The server that all cases share.
pub(crate) fn shared(kind: Kind) -> &'static Engine {
    static POSTGRES: LazyLock<Engine> = LazyLock::new(|| Engine::start(Kind::Postgres));
    static MARIADB: LazyLock<Engine> = LazyLock::new(|| Engine::start(Kind::MariaDb));
    match kind {
        Kind::Postgres => &POSTGRES,
        Kind::MariaDb => &MARIADB,
        Kind::Sqlite => panic!("SQLite has no server"),
    }
}

impl Engine {
    /// A new server with nothing in it.
    pub(crate) fn start(kind: Kind) -> Engine {
        Engine::new(kind, false)
    }

    /// The same, and it speaks TLS.
    pub(crate) fn sealed(kind: Kind) -> Engine {
        Engine::new(kind, true)
    }

    fn new(kind: Kind, is_sealed: bool) -> Engine {
        let directory = tempfile::Builder::new().prefix("fanwire-store-").tempdir();
        let directory = directory.expect("a temporary directory").keep();
        if is_root() {
            chown(&directory, Some(NOBODY), Some(NOBODY)).expect("root may give away its directory");
        }
        let mut engine = Engine {
            kind,
            port: free_port(),
            certificates: is_sealed.then(|| certificates(&directory)),
            directory,
            held: None,
            id: 0,
        };
        if let Some(Certificates { key, .. }) = &engine.certificates {
            // PostgreSQL takes no key that others may read, or that is not its own.
            fs::set_permissions(key, Permissions::from_mode(0o600)).expect("it is ours");
            if is_root() {
                chown(key, Some(NOBODY), Some(NOBODY)).expect("root may give away its file");
            }
        }
        engine.prepare();
        engine.go_on();
        engine
    }

    fn prepare(&self) {
        let data = self.directory.join("data");
        let data = data.to_str().expect("a path in UTF-8");
        match self.kind {
            Kind::Postgres => {
                let password = self.directory.join("password");
                fs::write(&password, PASSWORD).expect("a file can be made");
                let pwfile = format!("--pwfile={}", password.display());
                self.run(&[
                    &postgres("initdb"),
                    "-D",
                    data,
                    "-U",
                    "fanwire",
                    &pwfile,
                    "--auth=scram-sha-256",
                    "-E",
                    "UTF8",
                    "--locale=C",
                    "--no-sync",
                ]);
            }
            Kind::MariaDb => {
                let datadir = format!("--datadir={data}");
                self.run(&[
                    "mariadb-install-db",
                    "--no-defaults",
                    &datadir,
                    "--skip-test-db",
                    "--auth-root-authentication-method=normal",
                ]);
                let init = format!(
                    "CREATE USER IF NOT EXISTS 'fanwire'@'%' IDENTIFIED BY '{PASSWORD}';\n\
                     GRANT ALL PRIVILEGES ON *.* TO 'fanwire'@'%' WITH GRANT OPTION;\n"
                );
                fs::write(self.directory.join("init.sql"), init).expect("a file can be made");
            }
            Kind::Sqlite => panic!("SQLite has no server"),
        }
    }

    /// Starts it, again on the same port and with the same data if it ran before, and waits until it listens.
    pub(crate) fn go_on(&mut self) {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let port = self.port.to_string();
        let mut command: Vec<String> = match self.kind {
            Kind::Postgres => [
                &postgres("postgres"),
                "-D",
                &at("data"),
                "-p",
                &port,
                "-k",
                &at(""),
                "-c",
                "listen_addresses=127.0.0.1,127.0.0.2",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=200",
                "-c",
                "shared_buffers=16MB",
            ]
            .map(str::to_owned)
            .to_vec(),
            Kind::MariaDb => vec![
                "mariadbd".to_owned(),
                "--no-defaults".to_owned(),
                format!("--datadir={}", at("data")),
                format!("--socket={}", at("socket")),
                format!("--pid-file={}", at("pid")),
                format!("--init-file={}", at("init.sql")),
                format!("--port={port}"),
                "--bind-address=127.0.0.1,127.0.0.2".to_owned(),
                "--innodb-flush-log-at-trx-commit=2".to_owned(),
                "--innodb-buffer-pool-size=32M".to_owned(),
                "--max-connections=200".to_owned(),
            ],
            Kind::Sqlite => panic!("SQLite has no server"),
        };
        if let Some(Certificates { cert, key, .. }) = &self.certificates {
            let (cert, key) = (cert.display(), key.display());
            command.extend(match self.kind {
                Kind::Postgres => vec![
                    "-c".to_owned(),
                    "ssl=on".to_owned(),
                    "-c".to_owned(),
                    format!("ssl_cert_file={cert}"),
                    "-c".to_owned(),
                    format!("ssl_key_file={key}"),
                ],
                _ => vec![format!("--ssl-cert={cert}"), format!("--ssl-key={key}")],
            });
        }
        fs::write(self.directory.join("keep"), "").expect("a file can be made");
        self.end();
        fs::remove_file(self.directory.join("keep")).expect("the file is there");
        let mut held = Command::new("sh")
            .args(["-c", UNTIL_END, "sh"])
            .arg(&self.directory)
            .args(unprivileged())
            .args(&command)
            .env("PATH", path())
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        let mut id = String::new();
        let told = held.stdout.take().expect("it is piped");
        BufReader::new(told)
            .read_line(&mut id)
            .expect("the shell tells the id");
        self.id = id.trim().parse().expect("an id");
        self.held = Some(held);
        let ready = match self.kind {
            Kind::Postgres => "ready to accept connections",
            _ => "ready for connections",
        };
        let begun = Instant::now();
        while !self.log().contains(ready) {
            assert!(
                begun.elapsed() < DEADLINE,
                "{:?} does not get ready: {}",
                self.kind,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        // PostgreSQL calls this an immediate shutdown: no goodbye, and its memory is given back.
        let signal = if self.kind == Kind::Postgres {
            "-QUIT"
        } else {
            "-KILL"
        };
        self.signal(signal, &[self.id]);
        let begun = Instant::now();
        while Path::new(&format!("/proc/{}", self.id)).exists() && !is_zombie(self.id) {
            assert!(begun.elapsed() < DEADLINE, "{:?} does not die", self.kind);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it in its tracks, with all that it started: its connections stay, and nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP", &self.family());
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT", &self.family());
    }

    /// The URL of a database of it.
    pub(crate) fn url(&self, database: &str) -> String {
        let scheme = if self.kind == Kind::Postgres {
            "postgres"
        } else {
            "mysql"
        };
        format!("{scheme}://fanwire:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// A URL without a password, and the password.
    pub(crate) fn url_without_password(&self, database: &str) -> String {
        self.url(database).replace(&format!(":{PASSWORD}"), "")
    }

    /// Has PostgreSQL let in only who comes under TLS, from the next connection on.
    pub(crate) fn only_sealed(&self) {
        let rules = self.directory.join("data/pg_hba.conf");
        fs::write(&rules, "hostssl all all all scram-sha-256\n").expect("it is ours");
        self.signal("-HUP", &[self.id]);
    }

    /// Who signed its certificate.
    pub(crate) fn authority(&self) -> &Path {
        let certificates = self.certificates.as_ref();
        &certificates.expect("a server that speaks TLS").ca
    }

    fn family(&self) -> Vec<u32> {
        let processes = fs::read_dir("/proc").expect("Linux has /proc");
        let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let mut family: Vec<u32> = ids.filter(|id| parent(*id) == Some(self.id)).collect();
        family.push(self.id);
        family
    }

    fn signal(&self, signal: &str, ids: &[u32]) {
        let ids = ids.iter().map(u32::to_string);
        // One of the family may have gone meanwhile.
        let _ = Command::new("kill")
            .arg(signal)
            .args(ids)
            .stderr(Stdio::null())
            .status();
    }

    fn run(&self, command: &[&str]) {
        let done = Command::new("sh")
            .args(["-c", r#""$@" >"log" 2>&1"#, "sh"])
            .args(unprivileged())
            .args(command)
            .env("PATH", path())
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .status()
            .expect("a shell starts");
        assert!(
            done.success(),
            "{} fails; is it installed (`make tools`)? {}",
            command[0],
            self.log()
        );
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn end(&mut self) {
        if let Some(mut held) = self.held.take() {
            self.signal("-CONT", &self.family());
            drop(held.stdin.take());
            let _ = held.wait();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What stands before a command that root may not be.
fn unprivileged() -> Vec<String> {
    match is_root() {
        true => [
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ]
        .map(str::to_owned)
        .to_vec(),
        false => Vec::new(),
    }
}

/// Debian has servers where only root looks.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/usr/bin"
}

/// A program of PostgreSQL: Debian has each version in a directory of its own.
fn postgres(program: &str) -> String {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(program)));
    let found = programs.filter(|program| program.exists()).max();
    found.map_or(program.to_owned(), |program| program.display().to_string())
}

/// What stands in `/proc/ID/stat` behind the name: the state, the parent.
fn stat(id: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn parent(id: u32) -> Option<u32> {
    stat(id).map(|(_, parent)| parent)
}

fn is_zombie(id: u32) -> bool {
    stat(id).is_none_or(|(state, _)| state == "Z")
}
