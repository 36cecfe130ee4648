//! Whether a client may have a socket: the checks of the handshake, in the protocol's order. Pure.
//!
//! A refusal is given inside the socket: a browser cannot see the status of a failed upgrade, and pusher-js would take
//! it for a network fault.

use std::borrow::Cow;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use crate::app::{Admission, App, Apps};
use crate::protocol::PROTOCOL_VERSIONS;
use crate::protocol::code::CloseCode;

/// What a client says when it connects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The app's key as it stands in the path.
    pub(super) key: &'a str,
    /// The query, undecoded.
    pub(super) query: &'a str,
    /// The `Origin` header: browsers send it.
    pub(super) origin: Option<&'a str>,
    /// Whether the connection is encrypted up to this server.
    pub(super) is_tls: bool,
}

/// What the server says about itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// It is about to stop.
    pub(super) is_draining: bool,
    /// It has as many sockets as it bears.
    pub(super) is_full: bool,
    /// Nobody could say whether there is an app with this key: the store of apps does not answer.
    pub(super) is_unanswered: bool,
    /// Clients must say which protocol they speak.
    pub(super) strict: bool,
}

/// A client that may have its socket.
#[derive(Debug)]
pub(super) struct Granted {
    /// Its place in the app's quota.
    pub(super) admission: Admission,
    /// 4 to 7.
    pub(super) protocol: u8,
}

/// Decides. The first failing check gives the code.
pub(super) fn decide(
    request: &Request<'_>,
    apps: &Apps,
    circumstances: Circumstances,
) -> Result<Granted, CloseCode> {
    if circumstances.is_draining {
        return Err(CloseCode::Draining);
    }
    let protocol = protocol(request.query, circumstances.strict)?;
    let key = decoded(request.key);
    let Some(app) = apps.by_key(&key) else {
        // A client that is told that there is no such app never comes again.
        return Err(match circumstances.is_unanswered {
            true => CloseCode::OverCapacity,
            false => CloseCode::NoSuchApp,
        });
    };
    check_app(&app, &key, request)?;
    let Some(admission) = app.admit() else {
        return Err(CloseCode::OverQuota);
    };
    if circumstances.is_full {
        return Err(CloseCode::OverCapacity);
    }
    Ok(Granted { admission, protocol })
}

/// A key as it stands in the path, without its escapes.
pub(super) fn decoded(key: &str) -> Cow<'_, str> {
    percent_decode_str(key).decode_utf8().unwrap_or_default()
}

fn check_app(app: &App, key: &str, request: &Request<'_>) -> Result<(), CloseCode> {
    let settings = app.settings();
    if settings.key(key, Timestamp::now).is_none() {
        return Err(CloseCode::NoSuchApp);
    }
    if !settings.config.enabled {
        return Err(CloseCode::AppDisabled);
    }
    if settings.config.tls_only && !request.is_tls {
        return Err(CloseCode::TlsOnly);
    }
    if !settings.allows_origin(request.origin) {
        return Err(CloseCode::OriginNotAllowed);
    }
    Ok(())
}

fn protocol(query: &str, strict: bool) -> Result<u8, CloseCode> {
    let value = |name: &str| {
        let pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next()
    };
    let protocol = match value("protocol") {
        None if strict => return Err(CloseCode::NoProtocol),
        // What is not said is taken for what everybody speaks.
        None => *PROTOCOL_VERSIONS.end(),
        Some(text) => {
            let version = text
                .parse()
                .ok()
                .filter(|version| PROTOCOL_VERSIONS.contains(version));
            version.ok_or(CloseCode::UnsupportedProtocol)?
        }
    };
    let is_bad_version = |version: &str| {
        let numbers = version.split(['-', '+']).next().unwrap_or_default();
        !numbers
            .split('.')
            .all(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    if strict && value("version").is_some_and(is_bad_version) {
        return Err(CloseCode::BadVersion);
    }
    Ok(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppConfig;

    const CALM: Circumstances = Circumstances {
        is_draining: false,
        is_full: false,
        is_unanswered: false,
        strict: false,
    };

    fn app(id: &str, change: impl FnOnce(&mut AppConfig)) -> AppConfig {
        let mut config = AppConfig {
            id: id.into(),
            key: format!("key-{id}"),
            ..AppConfig::demo()
        };
        change(&mut config);
        config
    }

    fn apps() -> Apps {
        let all = [
            app("1", |_| {}),
            app("2", |app| app.enabled = false),
            app("3", |app| app.tls_only = true),
            app("4", |app| app.allowed_origins = vec!["https://a.example".into()]),
            app("5", |app| app.connections_max = 1),
        ];
        Apps::new(all).expect("sound apps")
    }

    fn decide_for(key: &str, query: &str, circumstances: Circumstances) -> Result<u8, CloseCode> {
        let request = Request {
            key,
            query,
            origin: Some("https://b.example"),
            is_tls: false,
        };
        decide(&request, &apps(), circumstances).map(|granted| granted.protocol)
    }

    #[test]
    fn protocols_4_to_7_are_spoken_and_none_is_taken_for_7() {
        for (query, decided) in [
            ("protocol=7&client=js&version=8.6.0&flash=false", Ok(7)),
            ("client=java&protocol=5", Ok(5)),
            ("protocol=4", Ok(4)),
            ("", Ok(7)),
            ("protocol=3", Err(CloseCode::UnsupportedProtocol)),
            ("protocol=8", Err(CloseCode::UnsupportedProtocol)),
            ("protocol=", Err(CloseCode::UnsupportedProtocol)),
            ("protocol=seven", Err(CloseCode::UnsupportedProtocol)),
            ("protocol=-7", Err(CloseCode::UnsupportedProtocol)),
            ("protocol=7&version=x", Ok(7)),
        ] {
            assert_eq!(decide_for("key-1", query, CALM), decided, "{query}");
        }
    }

    #[test]
    fn strict_clients_say_what_they_speak() {
        let strict = Circumstances { strict: true, ..CALM };
        for (query, decided) in [
            ("", Err(CloseCode::NoProtocol)),
            ("protocol=7", Ok(7)),
            ("protocol=7&version=8.6.0", Ok(7)),
            ("protocol=7&version=8.6.0-beta.1", Ok(7)),
            ("protocol=7&version=8..0", Err(CloseCode::BadVersion)),
            ("protocol=7&version=", Err(CloseCode::BadVersion)),
        ] {
            assert_eq!(decide_for("key-1", query, strict), decided, "{query}");
        }
    }

    #[test]
    fn the_first_failing_check_gives_the_code() {
        let draining = Circumstances {
            is_draining: true,
            is_full: true,
            ..CALM
        };
        let full = Circumstances {
            is_full: true,
            ..CALM
        };
        let unanswered = Circumstances {
            is_unanswered: true,
            ..CALM
        };
        for (key, query, circumstances, code) in [
            ("nobody", "protocol=1", unanswered, CloseCode::UnsupportedProtocol),
            ("nobody", "protocol=7", unanswered, CloseCode::OverCapacity),
            ("key-2", "protocol=7", unanswered, CloseCode::AppDisabled),
            ("nobody", "protocol=1", draining, CloseCode::Draining),
            ("nobody", "protocol=1", full, CloseCode::UnsupportedProtocol),
            ("nobody", "protocol=7", full, CloseCode::NoSuchApp),
            ("key-2", "protocol=7", full, CloseCode::AppDisabled),
            ("key-3", "protocol=7", full, CloseCode::TlsOnly),
            ("key-4", "protocol=7", full, CloseCode::OriginNotAllowed),
            ("key-1", "protocol=7", full, CloseCode::OverCapacity),
        ] {
            assert_eq!(decide_for(key, query, circumstances), Err(code));
        }
    }

    #[test]
    fn a_place_in_the_quota_is_held_as_long_as_the_grant() {
        let apps = apps();
        let request = Request {
            key: "key-5",
            query: "",
            origin: None,
            is_tls: false,
        };
        let first = decide(&request, &apps, CALM).expect("one place");
        assert_eq!(decide(&request, &apps, CALM).unwrap_err(), CloseCode::OverQuota);
        drop(first);
        assert!(decide(&request, &apps, CALM).is_ok());
        let full = Circumstances {
            is_full: true,
            ..CALM
        };
        assert!(decide(&request, &apps, full).is_err());
        assert!(
            decide(&request, &apps, CALM).is_ok(),
            "a refusal gives the place back"
        );
    }

    #[test]
    fn the_key_is_percent_decoded() {
        assert_eq!(decide_for("key%2D1", "", CALM), Ok(7));
    }
}
