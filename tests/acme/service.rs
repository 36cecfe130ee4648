//! The service of an authority, Pebble, with a DNS that says where names lead: child processes on free ports, gone with the
//! test. What it validates, it validates: it comes to the server for the answer to each challenge.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authority::Authority;
use crate::brokers::{Process, free_port};
use crate::support::http::Http;

const PEBBLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acme/.bin/pebble");
const DNS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acme/.bin/pebble-challtestsrv");

/// The service. It does not run until it is started, and forgets everything when it ends.
pub(crate) struct Service {
    pebble: Process,
    dns: Process,
    /// Who signs what the service shows itself, not what it issues.
    authority: Authority,
    /// Where it gives away what it signs with.
    roots_port: u16,
}

impl Service {
    /// One whose certificates are good for so long, and which looks for names on this port instead of 443.
    pub(crate) fn new(port: u16, validity_s: u64) -> Service {
        let authority = Authority::new();
        let (roots_port, dns_port) = (free_port(), free_port());
        let mut dns = Process::new(DNS, "golang (make acme)", free_port());
        dns.arguments([
            "-http01",
            "",
            "-https01",
            "",
            "-doh",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv6",
            "",
        ]);
        dns.arguments(["-dnsserver", &at(dns_port), "-management", &at(dns.port)]);

        let mut pebble = Process::new("env", "golang (make acme)", free_port());
        let shown = authority.vouch();
        fs::write(pebble.path("cert.pem"), shown.certificate).expect("a file can be written");
        fs::write(pebble.path("key.pem"), shown.key).expect("a file can be written");
        let config = json!({ "pebble": {
            "listenAddress": at(pebble.port),
            "managementListenAddress": at(roots_port),
            "certificate": "cert.pem",
            "privateKey": "key.pem",
            "tlsPort": port,
            "keyAlgorithm": "ecdsa",
            "profiles": { "default": { "description": "the only one", "validityPeriod": validity_s } },
        } });
        fs::write(pebble.path("config.json"), config.to_string()).expect("a file can be written");
        // It neither dawdles nor fails for the sake of testing, and believes nothing that it has seen before.
        pebble.arguments([
            "PEBBLE_VA_NOSLEEP=1",
            "PEBBLE_WFE_NONCEREJECT=0",
            "PEBBLE_AUTHZREUSE=0",
        ]);
        pebble.arguments([PEBBLE, "-config", "config.json", "-dnsserver", &at(dns_port)]);
        Service {
            pebble,
            dns,
            authority,
            roots_port,
        }
    }

    pub(crate) fn start(&mut self) {
        self.dns.start();
        self.pebble.start();
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.pebble.port)
    }

    /// The certificate of who signs what the service shows itself.
    pub(crate) fn ca(&self) -> &str {
        &self.authority.pem
    }

    /// From now on all names lead there.
    pub(crate) async fn lead_names_to(&self, address: Ipv4Addr) {
        let mut dns = Http::connect((Ipv4Addr::LOCALHOST, self.dns.port).into()).await;
        let body = json!({ "ip": address.to_string() }).to_string();
        assert_eq!(dns.ask("POST", "/set-default-ipv4", &body).await.status, 200);
    }

    /// How many certificates it has issued.
    pub(crate) fn issued(&self) -> usize {
        self.pebble.log().matches("Issued certificate serial").count()
    }

    /// What a client connects with that trusts what the service issues.
    pub(crate) async fn trust(&self) -> Arc<ClientConfig> {
        let to_service = Arc::new(self.authority.client(&[&TLS13], None));
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.roots_port)).await;
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = TlsConnector::from(to_service).connect(name, stream.expect("it listens"));
        let mut http = Http::over(Box::new(Box::pin(connecting).await.expect("a handshake")));
        let root = http.ask("GET", "/roots/0", "").await.body;
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM"))
            .expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("versions that the provider knows")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(client)
    }
}

fn at(port: u16) -> String {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()
}
