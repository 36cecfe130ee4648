//! The server to be loaded: where it is, the app on it, and what is said to it: handshakes, subscriptions, and HTTP
//! requests with the signatures of the Pusher protocol.
//!
//! It opens no connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, anyhow};
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

use crate::tls::{Tls, Trust};

/// The name of every event that is published.
const EVENT: &str = "load";

/// What kind of channels a run uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ChannelKind {
    /// No signature is needed.
    Public,
    /// Each subscription is signed.
    Private,
    /// Signed, and each subscriber is a member of its own.
    Presence,
}

/// A server and an app on it.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Addresses to connect from; none leaves the choice to the system.
    pub(crate) sources: Vec<IpAddr>,
    /// The number of this run: in stamps and in the names of channels.
    pub(crate) run: u32,
    kind: ChannelKind,
    /// Whether and how connections are encrypted.
    pub(crate) tls: Option<Tls>,
    host: String,
    path: String,
    app_id: String,
    key: String,
    /// Keyed once: an HMAC's key takes half of its work.
    secret: Hmac<Sha256>,
}

/// What [`Target::new`] needs to know, as the operator gave it.
#[derive(Debug)]
pub(crate) struct Whereabouts<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// In front of `/app` and `/apps`.
    pub(crate) path: &'a str,
    pub(crate) app_id: &'a str,
    pub(crate) key: &'a str,
    pub(crate) secret: &'a str,
    /// How many local addresses to connect from.
    pub(crate) sources: u32,
    /// Whom to trust, if the server speaks TLS.
    pub(crate) trust: Option<Trust<'a>>,
}

impl Target {
    /// Looks the host up.
    ///
    /// # Errors
    /// A host that has no address, several sources to a server elsewhere, and nobody to trust.
    pub(crate) fn new(run: u32, kind: ChannelKind, whereabouts: &Whereabouts<'_>) -> Result<Target> {
        let Whereabouts {
            host,
            port,
            path,
            app_id,
            key,
            secret,
            sources,
            trust,
        } = *whereabouts;
        let mut addresses: Vec<SocketAddr> = (host, port)
            .to_socket_addrs()
            .with_context(|| format!("cannot look up {host} (--host)"))?
            .collect();
        // What listens on "localhost" listens on IPv4 more often than not.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses
            .first()
            .with_context(|| format!("{host} has no address (--host)"))?;
        // Of each run others: the ports of the run before may still rest, and the system looks for free ones ever longer.
        let first_source = 0x7f00_0000 + ((run & 0x7fff) << 8);
        let sources = match sources {
            ..=1 => Vec::new(),
            _ if !address.ip().is_loopback() || address.is_ipv6() => {
                return Err(anyhow!(
                    "--sources takes addresses from 127.0.0.0/8, which do not reach {address}"
                ));
            }
            many => (1..=many)
                .map(|number| IpAddr::V4(Ipv4Addr::from(first_source + number)))
                .collect(),
        };
        Ok(Target {
            address,
            sources,
            run,
            kind,
            tls: trust.map(|trust| Tls::new(host, trust)).transpose()?,
            host: format!("{host}:{port}"),
            path: path.trim_end_matches('/').to_owned(),
            app_id: app_id.to_owned(),
            key: key.to_owned(),
            secret: Hmac::new_from_slice(secret.as_bytes()).context("the secret is no key for an HMAC")?,
        })
    }

    /// The name of a channel. All names of a run are equally long, so that stamps stand in the same place.
    pub(crate) fn channel(&self, number: u32) -> String {
        let prefix = match self.kind {
            ChannelKind::Public => "",
            ChannelKind::Private => "private-",
            ChannelKind::Presence => "presence-",
        };
        format!("{prefix}{}{number:06}", self.stem())
    }

    /// How the names of channels begin to which nothing is published.
    pub(crate) fn turnover_stem(&self) -> String {
        format!("turn-{:08x}-", self.run)
    }

    fn stem(&self) -> String {
        format!("load-{:08x}-", self.run)
    }

    /// The number of the channel that a message speaks of.
    pub(crate) fn channel_in(&self, text: &str) -> Option<u32> {
        let stem = self.stem();
        let at = text.find(&stem)? + stem.len();
        text.get(at..at + 6)?.parse().ok()
    }

    /// The request that asks for a WebSocket.
    pub(crate) fn handshake(&self) -> Vec<u8> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!(
            "GET {}/app/{}?protocol=7&client=js&version=8.4.0&flash=false HTTP/1.1\r\n\
             Host: {}\r\n\
             Connection: Upgrade\r\n\
             Upgrade: websocket\r\n\
             Origin: {scheme}://{}\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.path, self.key, self.host, self.host
        )
        .into_bytes()
    }

    /// The message that subscribes a socket to a channel, as the member of that number where there are members.
    pub(crate) fn subscription(&self, number: u32, socket_id: &str, member: u32) -> String {
        let channel = self.channel(number);
        let key = &self.key;
        match self.kind {
            ChannelKind::Public => {
                format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#)
            }
            ChannelKind::Private => {
                let auth = self.sign(&format!("{socket_id}:{channel}"));
                format!(
                    r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"{key}:{auth}"}}}}"#
                )
            }
            ChannelKind::Presence => {
                let plain = format!(r#"{{"user_id":"{member}"}}"#);
                let auth = self.sign(&format!("{socket_id}:{channel}:{plain}"));
                let escaped = plain.replace('"', "\\\"");
                format!(
                    r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"{key}:{auth}","channel_data":"{escaped}"}}}}"#
                )
            }
        }
    }

    /// Whether subscribers are members.
    pub(crate) fn has_members(&self) -> bool {
        self.kind == ChannelKind::Presence
    }

    /// The message by which a client publishes to a channel that it has subscribed to. The data must need no escapes.
    pub(crate) fn client_event(&self, number: u32, data: &str) -> String {
        let channel = self.channel(number);
        format!(r#"{{"event":"client-{EVENT}","channel":"{channel}","data":"{data}"}}"#)
    }

    /// Puts a signed request that publishes one event behind what is there. The data must need no escapes.
    pub(crate) fn put_publication(&self, out: &mut Vec<u8>, number: u32, data: &str, unix_s: u64) {
        let body = format!(
            r#"{{"name":"{EVENT}","channels":["{}"],"data":"{data}"}}"#,
            self.channel(number)
        );
        let path = format!("{}/apps/{}/events", self.path, self.app_id);
        let query = format!(
            "auth_key={}&auth_timestamp={unix_s}&auth_version=1.0&body_md5={}",
            self.key,
            hex::encode(Md5::digest(&body))
        );
        let signature = self.sign(&format!("POST\n{path}\n{query}"));
        let request = format!(
            "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\n\
             Host: {}\r\n\
             Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        out.extend_from_slice(request.as_bytes());
    }

    fn sign(&self, text: &str) -> String {
        let mut signature = self.secret.clone();
        signature.update(text.as_bytes());
        hex::encode(signature.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: ChannelKind) -> Target {
        let whereabouts = Whereabouts {
            host: "127.0.0.1",
            port: 6001,
            path: "/",
            app_id: "3",
            key: "278d425bdf160c739803",
            secret: "7ad3773142a6692b25b8",
            sources: 3,
            trust: None,
        };
        Target::new(0xab, kind, &whereabouts).expect("an address needs no look-up")
    }

    /// The examples of the Pusher documentation.
    #[test]
    fn signatures_are_those_of_the_protocol() {
        let target = target(ChannelKind::Public);
        for (text, signature) in [
            (
                "1234.1234:private-foobar",
                "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
            ),
            (
                "POST\n/apps/3/events\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
                 &body_md5=ec365a775a4cd0599faeb73354201b6f",
                "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
            ),
        ] {
            assert_eq!(target.sign(text), signature);
        }
    }

    #[test]
    fn a_channel_is_known_by_its_name_again() {
        for kind in [ChannelKind::Public, ChannelKind::Private, ChannelKind::Presence] {
            let target = target(kind);
            let text = format!(r#"{{"channel" : "{}"}}"#, target.channel(4_711));
            assert_eq!(target.channel_in(&text), Some(4_711));
        }
        assert_eq!(
            target(ChannelKind::Public).channel_in("load-000000ac-000001"),
            None
        );
    }

    #[test]
    fn a_member_is_signed_as_it_is_sent() {
        let text = target(ChannelKind::Presence).subscription(1, "1.2", 9);
        let channel = "presence-load-000000ab-000001";
        let auth = target(ChannelKind::Public).sign(&format!(r#"1.2:{channel}:{{"user_id":"9"}}"#));
        assert_eq!(
            text,
            format!(
                r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"278d425bdf160c739803:{auth}","channel_data":"{{\"user_id\":\"9\"}}"}}}}"#
            )
        );
    }

    #[test]
    fn sources_are_loopback_addresses() {
        let sources = target(ChannelKind::Public).sources;
        assert_eq!(
            sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.171.1", "127.0.171.2", "127.0.171.3"]
        );
    }
}
