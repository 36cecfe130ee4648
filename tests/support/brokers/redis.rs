//! Private Redis servers: one alone, a master with sentinels, a cluster.

use std::process::{Command, Stdio};

use super::tls::{Certificates, certificates};
use super::{Process, eventually, free_port};

/// One server.
pub(crate) struct Redis {
    pub(crate) process: Process,
    pub(crate) certificates: Option<Certificates>,
    password: Option<&'static str>,
}

/// What a server asks of its clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) password: Option<&'static str>,
    /// A name and a password; such a user may do nothing but publish and subscribe behind the prefix `fanwire.`.
    pub(crate) user: Option<(&'static str, &'static str)>,
    /// With TLS, and a certificate to be shown.
    pub(crate) tls: bool,
    /// Further arguments, which hold against those that come from the rest.
    pub(crate) more: Vec<String>,
}

impl Redis {
    /// A server as it comes.
    pub(crate) fn start() -> Redis {
        Redis::start_with(&Options::default())
    }

    pub(crate) fn start_with(options: &Options) -> Redis {
        let port = free_port();
        let mut process = Process::new("redis-server", "redis-server", port);
        process.arguments(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        // A replica is served at once, and not after five seconds in which others might come.
        process.arguments(["--repl-diskless-sync-delay", "0"]);
        let certificates = options.tls.then(|| certificates(process.directory.path()));
        if certificates.is_some() {
            process.arguments(["--port", "0", "--tls-port"]);
            process.arguments([port]);
            process.arguments([
                "--tls-cert-file",
                "cert.pem",
                "--tls-key-file",
                "key.pem",
                "--tls-ca-cert-file",
                "ca.pem",
            ]);
        } else {
            process.arguments(["--port"]);
            process.arguments([port]);
        }
        if let Some(password) = options.password {
            process.arguments(["--requirepass", password, "--masterauth", password]);
        }
        if let Some((name, password)) = options.user {
            let acl = format!("--user {name} on >{password} resetchannels &fanwire.* -@all +@pubsub +hello");
            process.arguments(acl.split(' '));
        }
        process.arguments(&options.more);
        process.start();
        Redis {
            process,
            certificates,
            password: options.password,
        }
    }

    /// What clients connect to, without user and password.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificates.is_some() {
            "rediss"
        } else {
            "redis"
        };
        format!("{scheme}://127.0.0.1:{}", self.process.port)
    }

    /// What `redis-cli` answers.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        ask(self.process.port, self.password, command)
    }
}

fn ask(port: u16, password: Option<&str>, command: &[&str]) -> String {
    let mut cli = Command::new("redis-cli");
    cli.args(["-p", &port.to_string()]);
    if let Some(password) = password {
        cli.args(["--no-auth-warning", "-a", password]);
    }
    let output = cli.args(command).stdin(Stdio::null()).output();
    let output =
        output.expect("redis-cli runs; if it is missing: `make tools`, or apt-get install redis-tools");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A master, a replica, and three sentinels that replace the one by the other within some two seconds.
pub(crate) struct Sentinel {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    pub(crate) sentinels: Vec<Process>,
}

/// What the servers ask, of clients and of each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passwords {
    /// The master and its replica.
    pub(crate) servers: Option<&'static str>,
    pub(crate) sentinels: Option<&'static str>,
}

impl Sentinel {
    pub(crate) const MASTER: &str = "mymaster";

    pub(crate) fn start() -> Sentinel {
        Sentinel::start_with(Passwords::default())
    }

    pub(crate) fn start_with(passwords: Passwords) -> Sentinel {
        let mut options = Options {
            password: passwords.servers,
            ..Options::default()
        };
        let master = Redis::start_with(&options);
        options.more = vec!["--replicaof".into(), format!("127.0.0.1 {}", master.process.port)];
        let replica = Redis::start_with(&options);
        eventually("the replica follows", || {
            replica
                .ask(&["INFO", "replication"])
                .contains("master_link_status:up")
        });
        let sentinels: Vec<_> = (0..3).map(|_| watch(master.process.port, passwords)).collect();
        for sentinel in &sentinels {
            eventually("the sentinels know each other and the replica", || {
                let question = ["SENTINEL", "MASTER", Sentinel::MASTER];
                let said = ask(sentinel.port, passwords.sentinels, &question);
                let is = |name: &str, value: &str| said.contains(&format!("{name}\n{value}\n"));
                is("num-other-sentinels", "2") && is("num-slaves", "1")
            });
        }
        Sentinel {
            master,
            replica,
            sentinels,
        }
    }

    /// What clients connect to, without password.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis-sentinel://{}/{}", hosts.join(","), Sentinel::MASTER)
    }
}

fn watch(master_port: u16, passwords: Passwords) -> Process {
    let port = free_port();
    let mut sentinel = Process::new("redis-sentinel", "redis-sentinel", port);
    let name = Sentinel::MASTER;
    let mut config = format!(
        "bind 127.0.0.1\nport {port}\nsentinel monitor {name} 127.0.0.1 {master_port} 2\n\
         sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 5000\n"
    );
    if let Some(password) = passwords.servers {
        config += &format!("sentinel auth-pass {name} {password}\n");
    }
    if let Some(password) = passwords.sentinels {
        config += &format!("requirepass {password}\nsentinel sentinel-pass {password}\n");
    }
    std::fs::write(sentinel.path("sentinel.conf"), config).expect("a file can be written");
    sentinel.arguments(["sentinel.conf"]);
    sentinel.start();
    sentinel
}

/// Three masters, each with a replica that takes its place within some three seconds, or alone. The masters come first.
pub(crate) struct RedisCluster {
    pub(crate) servers: Vec<Redis>,
}

impl RedisCluster {
    pub(crate) const MASTERS: usize = 3;

    pub(crate) fn start() -> RedisCluster {
        RedisCluster::with_replicas(1, &[])
    }

    /// Masters whose place nobody takes.
    pub(crate) fn without_replicas() -> RedisCluster {
        RedisCluster::with_replicas(0, &[])
    }

    /// The same, of masters that still have after a restart what they had.
    pub(crate) fn on_disk() -> RedisCluster {
        RedisCluster::with_replicas(0, &["--appendonly", "yes"])
    }

    fn with_replicas(replicas_per_master: usize, more: &[&str]) -> RedisCluster {
        let server = |_| {
            let bus = free_port().to_string();
            let of_a_cluster = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "2000",
            ];
            let arguments = of_a_cluster.iter().chain(more).copied();
            Redis::start_with(&Options {
                more: arguments.map(str::to_owned).collect(),
                ..Options::default()
            })
        };
        let servers: Vec<_> = (0..(1 + replicas_per_master) * RedisCluster::MASTERS)
            .map(server)
            .collect();
        let addresses = servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.process.port));
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-yes", "--cluster-replicas"])
            .arg(replicas_per_master.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        assert!(created.expect("redis-cli runs").success());
        for server in &servers {
            eventually("the cluster is up", || {
                server.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            });
            // A replica that never followed its master cannot take its place.
            eventually("the replicas follow", || {
                let said = server.ask(&["INFO", "replication"]);
                said.contains("role:master") || said.contains("master_link_status:up")
            });
        }
        RedisCluster { servers }
    }

    /// What clients connect to.
    pub(crate) fn url(&self) -> String {
        let masters = &self.servers[..RedisCluster::MASTERS];
        let hosts: Vec<_> = masters
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.process.port))
            .collect();
        format!("redis-cluster://{}", hosts.join(","))
    }
}
