//! Private NATS servers.

use std::fs;

use super::tls::{Certificates, certificates};
use super::{Process, free_port};

/// One server.
pub(crate) struct Nats {
    pub(crate) process: Process,
    pub(crate) certificates: Option<Certificates>,
}

/// What a server asks of its clients, and offers them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// A name and a password.
    pub(crate) user: Option<(&'static str, &'static str)>,
    /// The public key of an nkey.
    pub(crate) nkey: Option<String>,
    /// With TLS, and a certificate to be shown.
    pub(crate) tls: bool,
    pub(crate) max_payload: Option<usize>,
    /// With JetStream, which keeps what it is given in files.
    pub(crate) jetstream: bool,
}

impl Nats {
    /// A server as it comes.
    pub(crate) fn start() -> Nats {
        Nats::start_with(&Options::default())
    }

    pub(crate) fn start_with(options: &Options) -> Nats {
        Nats::prepared(options, "").started()
    }

    /// Servers that pass everything on to each other, ready.
    pub(crate) fn cluster(servers: usize) -> Vec<Nats> {
        Nats::cluster_with(servers, &Options::default())
    }

    pub(crate) fn cluster_with(servers: usize, options: &Options) -> Vec<Nats> {
        let ports: Vec<_> = (0..servers).map(|_| free_port()).collect();
        let routes: Vec<_> = ports
            .iter()
            .map(|port| format!("nats-route://127.0.0.1:{port}"))
            .collect();
        let routes = routes.join(", ");
        let start = |port: &u16| {
            let cluster =
                format!("cluster {{ name: fan, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}\n");
            Nats::prepared(options, &cluster).started()
        };
        let servers: Vec<_> = ports.iter().map(start).collect();
        for server in &servers {
            // Which side of a route opened it does not matter: each server tells of each other.
            super::eventually("the servers know each other", || {
                server.process.log().matches("Route connection created").count() >= ports.len() - 1
            });
        }
        servers
    }

    fn prepared(options: &Options, more: &str) -> Nats {
        let port = free_port();
        let mut process = Process::new("nats-server", "nats-server", port);
        let mut config = format!("listen: \"127.0.0.1:{port}\"\n{more}");
        let mut users = String::new();
        let publish = match options.jetstream {
            true => r#"[ "fanwire.>", "$JS.API.>", "$JS.ACK.>" ]"#,
            false => r#""fanwire.>""#,
        };
        let rights = format!("permissions: {{ publish: {publish}, subscribe: \"fanwire.>\" }}");
        if let Some((name, password)) = options.user {
            users += &format!("{{ user: \"{name}\", password: \"{password}\", {rights} }}\n");
        }
        if let Some(nkey) = &options.nkey {
            users += &format!("{{ nkey: \"{nkey}\", {rights} }}\n");
        }
        if !users.is_empty() {
            config += &format!("authorization {{ users: [ {users} ] }}\n");
        }
        if let Some(max) = options.max_payload {
            config += &format!("max_payload: {max}\n");
        }
        if options.jetstream {
            let directory = process.path("jetstream");
            config += &format!("server_name: \"fan-{port}\"\n");
            config += &format!("jetstream {{ store_dir: \"{}\" }}\n", directory.display());
        }
        let certificates = options.tls.then(|| certificates(process.directory.path()));
        if certificates.is_some() {
            config +=
                "tls { cert_file: \"cert.pem\", key_file: \"key.pem\", ca_file: \"ca.pem\", verify: true }\n";
        }
        fs::write(process.path("nats.conf"), config).expect("a file can be written");
        process.arguments(["-c", "nats.conf"]);
        Nats {
            process,
            certificates,
        }
    }

    fn started(mut self) -> Nats {
        self.process.start();
        self
    }

    /// What clients connect to.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificates.is_some() {
            "tls"
        } else {
            "nats"
        };
        format!("{scheme}://127.0.0.1:{}", self.process.port)
    }
}
