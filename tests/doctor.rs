//! What `fanwire doctor` says of machines and brokers that are as they should be, and of those that are not.

#[path = "support/brokers/mod.rs"]
mod brokers;
#[path = "support/certificates.rs"]
#[allow(dead_code, reason = "nobody connects here")]
mod certificates;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use brokers::nats::{self, Nats};
use brokers::redis::{self, Redis, RedisCluster, Sentinel};
use brokers::{eventually, free_port};
use certificates::{Authority, Certified, Files};

/// The report, and whether it ended well.
struct Told {
    text: String,
    is_well: bool,
}

impl Told {
    /// The line that holds `part` has this verdict, and so has the exit code.
    fn says(&self, verdict: &str, part: &str) -> &Told {
        let mut lines = self
            .text
            .lines()
            .filter(|line| line.trim_start().starts_with(verdict));
        assert!(
            lines.any(|line| line.contains(part)),
            "no {verdict} of `{part}`:\n{}",
            self.text
        );
        assert!(
            verdict != "FAILURE" || !self.is_well,
            "failures fail:\n{}",
            self.text
        );
        self
    }

    fn advises(&self, part: &str) -> &Told {
        let mut advice = self
            .text
            .lines()
            .filter(|line| line.trim_start().starts_with("->"));
        assert!(
            advice.any(|line| line.contains(part)),
            "no advice of `{part}`:\n{}",
            self.text
        );
        self
    }

    fn is_well(&self) -> &Told {
        assert!(self.is_well && !self.text.contains("FAILURE"), "{}", self.text);
        self
    }
}

fn doctor(environment: &[(&str, &str)]) -> Told {
    examined(&mut Command::new(env!("CARGO_BIN_EXE_fanwire")), environment)
}

fn examined(command: &mut Command, environment: &[(&str, &str)]) -> Told {
    let output = command
        .arg("doctor")
        .env_clear()
        .envs([("FANWIRE_SERVER__PORT", "0"), ("FANWIRE_ADMIN__PORT", "0")])
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    Told {
        text: String::from_utf8(output.stdout).expect("a report is text"),
        is_well: output.status.success(),
    }
}

fn redis(url: &str, more: &[(&str, &str)]) -> Told {
    let mut environment = vec![("FANWIRE_ADAPTER__DRIVER", "redis"), ("FANWIRE_REDIS__URL", url)];
    environment.extend(more);
    doctor(&environment)
}

#[test]
fn a_node_that_is_alone_needs_little() {
    let told = doctor(&[]);
    told.is_well()
        .says("note", "adapter.driver is none")
        .says("note", "a service has its own")
        .says("ok", "open files")
        .says("ok", "of memory");
}

#[test]
fn a_certificate_is_judged_and_so_is_its_key() {
    let authority = Authority::new();
    let files = Files::of(&authority.vouch());
    let (certificate, key) = (files.certificate(), files.key());
    let path = |path: &Path| path.to_str().expect("a path in ASCII").to_owned();
    let (certificate, key) = (path(&certificate), path(&key));
    let settings = [
        ("FANWIRE_TLS__CERT_FILE", &*certificate),
        ("FANWIRE_TLS__KEY_FILE", &*key),
    ];
    doctor(&settings).is_well().says("ok", "goes with its key");

    let checked = |is_right: bool| {
        let output = Command::new(env!("CARGO_BIN_EXE_fanwire"))
            .arg("check-config")
            .env_clear()
            .envs(settings)
            .output()
            .expect("the binary starts");
        assert_eq!(output.status.success(), is_right);
        String::from_utf8(output.stderr).expect("text")
    };
    checked(true);
    files.replace(&authority.vouch_from_to(2020, 2025));
    doctor(&settings).says("FAILURE", "expired on 2025-01-01");
    let told = checked(false);
    assert!(
        told.contains("tls.cert_file: the certificate expired on 2025-01-01"),
        "{told}"
    );
    assert!(told.contains("serves with it all the same"), "{told}");
    files.replace(&Certified {
        key: authority.vouch().key,
        ..authority.vouch()
    });
    doctor(&settings).says("FAILURE", "is not that of the certificate");
    assert!(checked(false).contains("tls.key_file: the key in "));
    std::fs::remove_file(files.key()).expect("it was there");
    doctor(&settings).says("FAILURE", "cannot read");
}

#[test]
fn a_wrong_configuration_is_the_first_finding_and_the_only_one() {
    let told = doctor(&[("FANWIRE_SERVER__PRT", "1"), ("FANWIRE_LOG__LEVEL", "loud")]);
    told.says("FAILURE", "did you mean FANWIRE_SERVER__PORT?")
        .says("FAILURE", "log.level");
    assert!(!told.text.contains("ports"), "{}", told.text);
}

#[test]
fn a_port_is_free_or_it_is_told_who_has_it() {
    let port = free_port().to_string();
    doctor(&[("FANWIRE_SERVER__PORT", &port)])
        .is_well()
        .says("ok", &format!("127.0.0.1:{port} is free"));

    // Takes connections, and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = mute.local_addr().expect("an address").port().to_string();
    doctor(&[("FANWIRE_SERVER__PORT", &port)])
        .says("FAILURE", "taken by something that does not answer HTTP")
        .advises(&format!("sport = :{port}"));

    doctor(&[
        ("FANWIRE_SERVER__HOST", "192.0.2.1"),
        ("FANWIRE_APPS", APP),
        ("FANWIRE_SERVER__PORT", &port),
    ])
    .says("FAILURE", "no address of this machine");
}

const APP: &str = r#"[{"id": "1", "key": "k", "secret": "a long random text"}]"#;

/// Looks at a server that runs with the same settings.
fn beside_itself(settings: &[(&str, &str)], port: u16) -> Told {
    let mut serving = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .env_clear()
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    eventually("it serves", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let told = doctor(settings);
    serving.kill().expect("it runs");
    serving.wait().expect("it ends");
    told
}

#[test]
fn a_fanwire_that_serves_already_is_known_by_its_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fanwire.sock");
    let path = path.to_str().expect("a path in ASCII");
    let (main_port, admin) = (free_port(), free_port().to_string());
    let main = main_port.to_string();
    let mut settings = vec![
        ("FANWIRE_SERVER__PORT", &*main),
        ("FANWIRE_ADMIN__PORT", &*admin),
        ("FANWIRE_SERVER__UNIX_SOCKET", path),
    ];
    doctor(&settings)
        .is_well()
        .says("ok", &format!("{path} is free"))
        .says("note", "server.trusted_proxies is empty");
    let served = |told: &Told| {
        for what in [&format!("127.0.0.1:{main}"), &format!("127.0.0.1:{admin}"), path] {
            told.is_well()
                .says("note", &format!("{what} is served by a Fanwire already"));
        }
    };
    served(&beside_itself(&settings, main_port));

    // It was killed.
    settings.push(("FANWIRE_SERVER__PROXY_PROTOCOL", "true"));
    settings.push(("FANWIRE_SERVER__TRUSTED_PROXIES", r#"["127.0.0.0/8"]"#));
    doctor(&settings)
        .is_well()
        .says("ok", "and is taken over")
        .says("ok", "127.0.0.0/8")
        .says("note", "server.proxy_protocol is on");
    served(&beside_itself(&settings, main_port));
}

#[test]
fn a_fanwire_that_believes_only_its_proxies_cannot_be_asked_by_others() {
    let (port, admin) = (free_port(), free_port().to_string());
    let main = port.to_string();
    let settings = [
        ("FANWIRE_SERVER__PORT", &*main),
        ("FANWIRE_ADMIN__PORT", &*admin),
        ("FANWIRE_SERVER__PROXY_PROTOCOL", "true"),
        ("FANWIRE_SERVER__TRUSTED_PROXIES", r#"["192.0.2.0/24"]"#),
    ];
    beside_itself(&settings, port)
        .is_well()
        .says("warning", &format!("127.0.0.1:{main} is taken"))
        .says(
            "note",
            &format!("127.0.0.1:{admin} is served by a Fanwire already"),
        );
}

#[test]
fn limits_that_cannot_bear_what_is_asked_for_are_failures() {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -n 600 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_fanwire"),
    ]);
    examined(&mut shell, &[("FANWIRE_SERVER__SOCKETS_MAX", "1000")])
        .says("FAILURE", "the limit of open files (600) bears 225")
        .advises("raise the hard limit to 1512");
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -n 600 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_fanwire"),
    ]);
    examined(&mut shell, &[])
        .is_well()
        .says("warning", "bears 211 sockets");
}

#[test]
fn a_redis_that_gives_everything_is_well_and_nothing_is_left_there() {
    let server = Redis::start();
    redis(&server.url(), &[])
        .is_well()
        .says("ok", "lets in the user `default`")
        .says("ok", "is redis")
        .says("ok", "the clocks")
        .says("ok", "PUBLISH and SUBSCRIBE under `fanwire.` work")
        .says("ok", "lets a node fall behind far enough")
        .says("note", "under the prefix `fanwire`: 0");
    assert_eq!(server.ask(&["DBSIZE"]).trim(), "0");
    eventually("it hangs up", || {
        server.ask(&["PUBSUB", "CHANNELS"]).trim().is_empty()
    });
}

#[test]
fn a_redis_that_is_not_there_is_told_apart_from_one_that_does_not_let_us_in() {
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    redis(&nowhere, &[])
        .says("FAILURE", "cannot be reached")
        .advises("does it run");

    let server = Redis::start_with(&redis::Options {
        password: Some("hunter2"),
        ..redis::Options::default()
    });
    redis(&server.url(), &[])
        .says("FAILURE", "does not let us in")
        .advises("tried without a password");
    let told = redis(&server.url(), &[("FANWIRE_REDIS__PASSWORD", "hunter3")]);
    told.says("FAILURE", "WRONGPASS")
        .advises("tried with the password given");
    assert!(!told.text.contains("hunter"), "no secret is told: {}", told.text);
    redis(&server.url(), &[("FANWIRE_REDIS__PASSWORD", "hunter2")]).is_well();
}

#[test]
fn rights_that_are_missing_are_named_and_granting_them_helps() {
    let server = Redis::start();
    server.ask(&["ACL", "SETUSER", "node", "on", ">p", "-@all", "&other.*"]);
    let url = server.url().replace("://", "://node:p@");
    redis(&url, &[])
        .says("FAILURE", "refuses SUBSCRIBE")
        .advises("ACL SETUSER node +publish +subscribe +unsubscribe &fanwire.*");
    for right in ["+publish", "+subscribe", "+unsubscribe"] {
        server.ask(&["ACL", "SETUSER", "node", right]);
    }
    redis(&url, &[])
        .says("FAILURE", "access one of the channels")
        .advises("&fanwire.*");
    server.ask(&["ACL", "SETUSER", "node", "&fanwire.*"]);
    redis(&url, &[])
        .is_well()
        .says("note", "may not ask for TIME")
        .says("note", "may not ask for CONFIG GET client-output-buffer-limit");
    redis(&url, &[("FANWIRE_ADAPTER__PREFIX", "blue")]).says("FAILURE", "under `blue.`");
}

#[test]
fn a_redis_that_cuts_nodes_off_early_is_a_warning() {
    let server = Redis::start_with(&redis::Options {
        more: ["--client-output-buffer-limit", "pubsub 1mb 512kb 10"]
            .map(str::to_owned)
            .into(),
        ..redis::Options::default()
    });
    redis(&server.url(), &[])
        .is_well()
        .says("warning", "cuts a node off that is 1048576 bytes behind")
        .advises("CONFIG SET client-output-buffer-limit");
}

#[test]
fn a_replica_is_no_master_and_a_sentinel_is_no_server() {
    let watched = Sentinel::start();
    let port = watched.master.process.port;
    redis(&watched.replica.url(), &[])
        .says("FAILURE", "is a replica")
        .advises("name the master");

    redis(&format!("redis://127.0.0.1:{}", watched.sentinels[0].port), &[])
        .says("FAILURE", "is a sentinel")
        .advises("redis-sentinel://");
    let url = watched.url();
    redis(&url, &[])
        .is_well()
        .says(
            "ok",
            &format!("3 of 3 sentinels name 127.0.0.1:{port} as the master; the quorum"),
        )
        .says("ok", "PUBLISH and SUBSCRIBE");
    redis(&url.replace("mymaster", "other"), &[]).says("FAILURE", "knows no master named `other`");
    redis(&format!("redis-sentinel://127.0.0.1:{port}/mymaster"), &[]).says("FAILURE", "is no sentinel");
}

#[test]
fn every_master_of_a_cluster_is_probed() {
    let mut servers = RedisCluster::without_replicas().servers;
    let url = format!(
        "redis-cluster://127.0.0.1:{},127.0.0.1:{}",
        servers[0].process.port, servers[2].process.port
    );
    let told = redis(&url, &[]);
    told.is_well()
        .says("ok", "3 masters cover all 16384 slots")
        .says("warning", "a master without a replica");
    for server in &servers {
        told.says(
            "ok",
            &format!(
                "127.0.0.1:{}: SPUBLISH and SSUBSCRIBE under `fanwire.` work",
                server.process.port
            ),
        );
    }
    redis(&servers[1].url(), &[])
        .is_well()
        .says("warning", "belongs to a redis cluster");

    // No more than the README says.
    let user = [
        "ACL",
        "SETUSER",
        "node",
        "on",
        ">p",
        "resetchannels",
        "&fanwire.*",
        "-@all",
        "+cluster|slots",
    ];
    for server in &servers {
        server.ask(&user);
    }
    let weak = url.replace("://", "://node:p@");
    redis(&weak, &[])
        .says("FAILURE", "refuses SSUBSCRIBE")
        .advises("+spublish +ssubscribe +sunsubscribe +cluster|slots &fanwire.*");
    for right in ["+spublish", "+ssubscribe", "+sunsubscribe"] {
        for server in &servers {
            server.ask(&["ACL", "SETUSER", "node", right]);
        }
    }
    redis(&weak, &[])
        .is_well()
        .says("note", "may not ask for CLUSTER INFO");

    // The others notice after a while, the one that is asked for it cannot be reached at once.
    servers[1].process.stop();
    redis(&url, &[]).says(
        "FAILURE",
        &format!("127.0.0.1:{} cannot be reached", servers[1].process.port),
    );

    let alone = Redis::start();
    redis(&alone.url().replace("redis", "redis-cluster"), &[])
        .says("FAILURE", "cluster support disabled")
        .advises("redis.url is redis://");
}

#[test]
fn a_certificate_that_ends_soon_is_told_before_it_does() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "5",
            "-subj",
            "/CN=redis",
        ])
        .args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .current_dir(&folder)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl runs").success());
    let path = |name: &str| Path::join(folder.path(), name).display().to_string();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let server = Redis::start_with(&redis::Options {
        tls: true,
        more: [
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
        ]
        .map(str::to_owned)
        .into(),
        ..redis::Options::default()
    });
    let url = server.url();
    redis(&url, &[("FANWIRE_REDIS__CA_FILE", &certificate)])
        .is_well()
        .says("warning", "redis.ca_file: the certificate in")
        .says("warning", "in 4 days")
        .says("ok", "with TLS");
    redis(&url, &[])
        .says("FAILURE", "TLS fails")
        .advises("redis.ca_file");
    redis(&url.replace("rediss", "redis"), &[])
        .says("FAILURE", "does not let us in")
        .advises("rediss");
}

fn nats(servers: &[&Nats], more: &[(&str, &str)]) -> Told {
    let urls: Vec<_> = servers.iter().map(|server| server.url()).collect();
    let urls = serde_json::to_string(&urls).expect("JSON");
    let mut environment = vec![
        ("FANWIRE_ADAPTER__DRIVER", "nats"),
        ("FANWIRE_NATS__URLS", &*urls),
    ];
    environment.extend(more);
    doctor(&environment)
}

#[test]
fn a_nats_that_gives_everything_is_well_and_one_that_is_not_there_is_told() {
    let mut server = Nats::start();
    nats(&[&server], &[])
        .is_well()
        .says("ok", "lets us in, and echoes what is published under `fanwire.`")
        .says("ok", "is nats-server 2.")
        .says("ok", "(max_payload)")
        .says("ok", "there and back in")
        .says("note", "JetStream is not needed");
    server.process.stop();
    nats(&[&server], &[])
        .says("FAILURE", "cannot be reached")
        .advises("does it run");
}

#[test]
fn a_nats_that_refuses_is_told_with_what_it_wants() {
    let guarded = Nats::start_with(&nats::Options {
        user: Some(("fan", "hunter2")),
        ..nats::Options::default()
    });
    let user = |password| {
        [
            ("FANWIRE_NATS__USERNAME", "fan"),
            ("FANWIRE_NATS__PASSWORD", password),
        ]
    };
    nats(&[&guarded], &[])
        .says("FAILURE", "uthorization")
        .advises("nats.username");
    let told = nats(&[&guarded], &user("hunter3"));
    told.says("FAILURE", "uthorization");
    assert!(!told.text.contains("hunter"), "no secret is told: {}", told.text);
    nats(&[&guarded], &user("hunter2")).is_well();
    // Its rights end with the prefix.
    let mut elsewhere = user("hunter2").to_vec();
    elsewhere.push(("FANWIRE_ADAPTER__PREFIX", "blue"));
    nats(&[&guarded], &elsewhere)
        .says("FAILURE", "nats://")
        .advises("for `blue.>` among its permissions");

    let narrow = Nats::start_with(&nats::Options {
        max_payload: Some(10_000),
        ..nats::Options::default()
    });
    nats(&[&narrow], &[])
        .says("FAILURE", "takes messages of 10000 bytes")
        .advises("max_payload");
    let encrypted = Nats::start_with(&nats::Options {
        tls: true,
        ..nats::Options::default()
    });
    nats(&[&encrypted], &[])
        .says("FAILURE", "")
        .advises("nats.ca_file");
}

#[test]
fn servers_of_nats_have_to_belong_together() {
    let cluster = Nats::cluster(3);
    nats(&cluster.iter().collect::<Vec<_>>(), &[])
        .is_well()
        .says("ok", "of the cluster `fan`")
        .says("ok", "takes is heard at");
    nats(&[&cluster[0]], &[])
        .is_well()
        .says("warning", "one server of a NATS cluster is named");
    let stranger = Nats::start();
    nats(&[&cluster[0], &stranger], &[])
        .says("FAILURE", "is not heard at")
        .advises("do not belong to one NATS cluster");
}

#[test]
fn webhooks_in_redis_need_rights_and_a_server_that_keeps_what_it_has() {
    let server = Redis::start();
    server.ask(&["ACL", "SETUSER", "node", "on", ">p", "-@all"]);
    let url = server.url().replace("://", "://node:p@");
    let webhooks = |url: &str| doctor(&[("FANWIRE_WEBHOOKS__QUEUE", "redis"), ("FANWIRE_REDIS__URL", url)]);
    let rights = [
        "+multi",
        "+exec",
        "+xadd",
        "+xlen",
        "+xreadgroup",
        "+xack",
        "+xdel",
        "+xpending",
        "+xgroup|create",
    ];
    let advice = format!("ACL SETUSER node {} ~{{fanwire.webhooks}}.*", rights.join(" "));
    webhooks(&url).says("FAILURE", "refuses XADD").advises(&advice);
    for right in rights {
        server.ask(&["ACL", "SETUSER", "node", right]);
    }
    webhooks(&url).says("FAILURE", "refuses XADD").advises(&advice);
    server.ask(&["ACL", "SETUSER", "node", "~{fanwire.webhooks}.*"]);
    webhooks(&url)
        .is_well()
        .says("ok", "lets streams be kept under `{fanwire.webhooks}.`")
        .says("note", "may not ask for CONFIG GET maxmemory-policy");
    assert_eq!(server.ask(&["DBSIZE"]).trim(), "0", "nothing is stored");

    webhooks(&server.url())
        .is_well()
        .says("ok", "maxmemory-policy noeviction")
        .says("warning", "forgets at a restart");
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    server.ask(&["CONFIG", "SET", "appendonly", "yes"]);
    webhooks(&server.url())
        .says("FAILURE", "evicts whatever it likes")
        .says("ok", "appendonly");
}

#[test]
fn webhooks_in_nats_need_jetstream() {
    let webhooks = |server: &Nats| {
        let urls = serde_json::to_string(&[server.url()]).expect("JSON");
        doctor(&[("FANWIRE_WEBHOOKS__QUEUE", "nats"), ("FANWIRE_NATS__URLS", &urls)])
    };
    webhooks(&Nats::start()).says("FAILURE", "does not have JetStream");
    let server = Nats::start_with(&nats::Options {
        jetstream: true,
        ..nats::Options::default()
    });
    webhooks(&server)
        .is_well()
        .says("ok", "JetStream is there for webhooks")
        .says("note", "there is no stream `fanwire=webhooks` yet");
}
