//! Where NATS is and how to get in: one section for every part of the server that uses it.

use std::path::{Path, PathBuf};

use async_nats::ServerAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adapter::tls::{self, TlsFiles};
use crate::secret::file::{SECRET_BYTES_MAX, read_text};
use crate::secret::url::shown_as_text;
use crate::secret::{REDACTED, Secret};

/// Where one NATS server is: `nats://host:4222`, with TLS `tls://`. Never shows a password, which does not belong
/// into it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct NatsUrl(String);

shown_as_text!(NatsUrl);

impl NatsUrl {
    /// Wraps an address, right or wrong.
    pub fn new(text: &str) -> NatsUrl {
        NatsUrl(text.to_owned())
    }

    /// What it says. The error is for a person, and holds nothing of what was written.
    pub(super) fn address(&self) -> Result<ServerAddr, String> {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        if !matches!(scheme, "nats" | "tls") {
            return Err("must begin with nats:// or tls://".into());
        }
        if rest.contains('@') {
            return Err("holds a user: name it in `nats.username` and `nats.password`".into());
        }
        if rest.contains(['/', '?', '#', ',']) {
            return Err("must end with the host, or with its port".into());
        }
        let address = self.0.parse::<ServerAddr>();
        let address = address.map_err(|_| "is no address, such as nats://host:4222")?;
        match address.host() {
            "" => Err("names no host".into()),
            _ => Ok(address),
        }
    }

    fn shown(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://{REDACTED}@{host}"),
            None => self.0.clone(),
        }
    }
}

/// NATS 2.9 or later, for whichever part of the server is told to use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// Where it is: `nats://host:4222`, with TLS `tls://host:4222`. Of a cluster name every server, or a name that
    /// resolves to all of them: each connection goes to any one that answers.
    pub urls: Vec<NatsUrl>,
    /// A `.creds` file, which holds a JWT and the key to sign with.
    pub credentials_file: Option<PathBuf>,
    /// A file that holds the seed of an nkey.
    pub nkey_file: Option<PathBuf>,
    /// The user to sign in as.
    pub username: Option<String>,
    /// The password of `username`. Never printed.
    pub password: Secret,
    /// A file that holds the password, in place of `password`. One line end after it is cut off.
    pub password_file: Option<PathBuf>,
    /// The certificates that the servers' are to be signed by, as a PEM file, in place of those that the system
    /// trusts.
    pub ca_file: Option<PathBuf>,
    /// The certificate that this server shows, where the servers ask for one, as a PEM file.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file`, as a PEM file.
    pub key_file: Option<PathBuf>,
}

impl Default for NatsConfig {
    fn default() -> NatsConfig {
        NatsConfig {
            urls: vec![NatsUrl::new("nats://127.0.0.1:4222")],
            credentials_file: None,
            nkey_file: None,
            username: None,
            password: Secret::default(),
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

/// Something wrong with a setting of the section: its key, and what to do about it, for a person.
pub type NatsFault = (&'static str, String);

/// How to sign in.
#[derive(Debug)]
pub(super) enum Login {
    Nobody,
    Credentials(Secret),
    Nkey(Secret),
    User(String, Secret),
}

/// All that a connection is made with.
#[derive(Debug)]
pub(crate) struct Access {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) login: Login,
    /// Set where TLS is sure to be asked for, or its files are named.
    pub(super) tls: Option<rustls::ClientConfig>,
}

impl NatsConfig {
    /// Everything that is wrong with the section, its files read too.
    ///
    /// A `password_file` is read by whoever loads the configuration.
    pub fn faults(&self) -> Vec<NatsFault> {
        let mut faults = self.contradictions();
        if faults.is_empty() {
            faults.extend(self.access().err());
        }
        faults
    }

    fn contradictions(&self) -> Vec<NatsFault> {
        let mut faults = Vec::new();
        let mut rule = |holds: bool, key, text: &str| {
            if !holds {
                faults.push((key, text.to_owned()));
            }
        };
        rule(
            !self.urls.is_empty(),
            "urls",
            "is empty: name at least one server",
        );
        let ways = [
            self.credentials_file.is_some(),
            self.nkey_file.is_some(),
            self.username.is_some(),
        ];
        let ways = ways.into_iter().filter(|given| *given).count();
        let one =
            "is one way too many to sign in: give one of `credentials_file`, `nkey_file` and `username`";
        let last = match (&self.nkey_file, &self.username) {
            (_, Some(_)) => "username",
            _ => "nkey_file",
        };
        rule(ways <= 1, last, one);
        rule(
            self.username.is_none() || !self.password.is_empty(),
            "password",
            "is missing: a user without a password cannot sign in",
        );
        rule(
            self.username.is_some() || self.password.is_empty(),
            "username",
            "is missing: whose password is it?",
        );
        rule(
            self.password.expose() != REDACTED,
            "password",
            "is what stands in place of a secret in printed configurations, not the secret",
        );
        rule(
            self.cert_file.is_none() || self.key_file.is_some(),
            "key_file",
            "is missing: `nats.cert_file` needs its key",
        );
        rule(
            self.key_file.is_none() || self.cert_file.is_some(),
            "cert_file",
            "is missing: `nats.key_file` needs its certificate",
        );
        faults
    }

    /// What connections are made with; its files are read here.
    pub(crate) fn access(&self) -> Result<Access, NatsFault> {
        let servers: Result<Vec<_>, _> = self.urls.iter().map(NatsUrl::address).collect();
        let servers = servers.map_err(|text| ("urls", text))?;
        let with_tls = self.ca_file.is_some() || self.cert_file.is_some();
        let tls = match with_tls || servers.iter().any(ServerAddr::tls_required) {
            true => {
                let files = TlsFiles {
                    section: "nats",
                    ca: self.ca_file.as_deref(),
                    certificate: self.cert_file.as_deref(),
                    key: self.key_file.as_deref(),
                };
                Some(rustls::ClientConfig::clone(&*tls::client(&files)?))
            }
            false => None,
        };
        let login = match (&self.credentials_file, &self.nkey_file, &self.username) {
            (Some(file), ..) => {
                let text = read(file).map_err(|text| ("credentials_file", text))?;
                let valid = async_nats::ConnectOptions::with_credentials(text.expose());
                valid.map_err(|_| {
                    (
                        "credentials_file",
                        format!("{} is no .creds file", file.display()),
                    )
                })?;
                Login::Credentials(text)
            }
            (_, Some(file), _) => {
                let text = read(file).map_err(|text| ("nkey_file", text))?;
                let seed = text.expose().trim();
                let is_seed = seed.starts_with("SU") && seed.len() == 58;
                if !is_seed {
                    let text = format!(
                        "{} holds no seed of a user's nkey: it begins with SU",
                        file.display()
                    );
                    return Err(("nkey_file", text));
                }
                Login::Nkey(Secret::new(seed))
            }
            (_, _, Some(name)) => Login::User(name.clone(), self.password.clone()),
            _ => Login::Nobody,
        };
        Ok(Access { servers, login, tls })
    }
}

fn read(file: &Path) -> Result<Secret, String> {
    Ok(Secret::new(&read_text(file, SECRET_BYTES_MAX)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_contradicts_or_cannot_be_used_is_told_by_its_key() {
        let table = [
            (json!({}), ""),
            (json!({"urls": ["nats://a", "nats://[::1]:7"]}), ""),
            (json!({"username": "u", "password": "p"}), ""),
            (json!({"urls": []}), "urls"),
            (json!({"urls": ["a:4222"]}), "urls"),
            (json!({"urls": ["redis://a"]}), "urls"),
            (json!({"urls": ["nats://"]}), "urls"),
            (json!({"urls": ["nats://u:p@a"]}), "urls"),
            (json!({"urls": ["nats://a,nats://b"]}), "urls"),
            (json!({"username": "u"}), "password"),
            (json!({"password": "p"}), "username"),
            (json!({"username": "u", "password": "[redacted]"}), "password"),
            (json!({"credentials_file": "c", "nkey_file": "n"}), "nkey_file"),
            (
                json!({"username": "u", "password": "p", "nkey_file": "n"}),
                "username",
            ),
            (json!({"credentials_file": "nowhere"}), "credentials_file"),
            (json!({"nkey_file": "nowhere"}), "nkey_file"),
            (json!({"ca_file": "nowhere.pem"}), "ca_file"),
            (json!({"cert_file": "c.pem"}), "key_file"),
            (json!({"key_file": "k.pem"}), "cert_file"),
        ];
        for (written, keys) in table {
            let config: NatsConfig = serde_json::from_value(written.clone()).expect("fits");
            let found: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
            assert_eq!(found.join(" "), keys, "{written}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        let url = NatsUrl::new("nats://fan:hunter2@localhost:4222");
        let shown = format!("{url:?} {}", serde_json::to_string(&url).expect("serialises"));
        assert_eq!(
            shown,
            "nats://[redacted]@localhost:4222 \"nats://[redacted]@localhost:4222\""
        );
        assert!(!url.address().expect_err("no user").contains("hunter2"));
    }
}
